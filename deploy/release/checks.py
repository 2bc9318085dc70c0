"""Looks whether this tree may be released as some version. Each refusal says what to do about it.

Rules:
- What is released is a commit: nothing may lie about that is not in it.
- Every part has the same version, and the changelog says what is in it, and when that was.
- What the documents say has to be so.
"""

import re
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from deploy.release import Refused

BRANCH = "main"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Commit:
    """What is released."""

    root: Path
    revision: str
    epoch_s: int
    """When it was committed, in seconds since 1970."""


def git(root: Path, *arguments: str) -> str:
    """What git prints. Raises `Refused` with the end of what it says if it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise Refused(f"git {arguments[0]} says: {said[-1]}")
    return done.stdout.strip()


def version_of(root: Path) -> str:
    """The one version of all parts, from their pyproject files."""
    versions = {
        str(file.relative_to(root)): tomllib.loads(file.read_text())["project"]["version"]
        for file in sorted(root.glob("services/*/pyproject.toml"))
    }
    if len(set(versions.values())) != 1:
        said = ", ".join(f"{version} in {file}" for file, version in versions.items())
        raise Refused(f"the parts have different versions: {said}")
    return str(versions.popitem()[1])


def check(root: Path, version: str) -> Commit:
    """Raises `Refused` unless what is checked out in `root` can become this version."""
    if not _VERSION.fullmatch(version):
        raise Refused(f"a version is three numbers such as 1.2.3, not {version!r}")
    branch = git(root, "branch", "--show-current")
    if branch != BRANCH:
        raise Refused(f"releases are made of the branch {BRANCH}, and this is {branch or 'none'}")
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refused(f"not everything is committed: {changed[0].split()[-1]}{others}")
    if git(root, "tag", "--list", f"v{version}"):
        raise Refused(
            f"there is a v{version} already; raise the version in services/*/pyproject.toml"
        )
    has = version_of(root)
    if has != version:
        raise Refused(f"services/*/pyproject.toml say that this is version {has}, not {version}")
    _check_changelog((root / "CHANGELOG.md").read_text(), version)
    epoch_s = git(root, "log", "-1", "--format=%ct")
    return Commit(root, git(root, "rev-parse", "HEAD"), int(epoch_s))


def _check_changelog(text: str, version: str) -> None:
    """A section `## 1.2.3 (2026-01-31)` with something in it."""
    wanted = f"CHANGELOG.md needs a section '## {version} (YYYY-MM-DD)'"
    section = re.search(rf"^## {re.escape(version)}\b(.*)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE)
    if section is None:
        raise Refused(wanted)
    when = re.fullmatch(r" \((\d{4}-\d{2}-\d{2})\)", section[1])
    try:
        date.fromisoformat(when[1] if when else "")
    except ValueError:
        raise Refused(f"{wanted}, and has '## {version}{section[1]}'") from None
    if not section[2].strip():
        raise Refused(f"the section {version} of CHANGELOG.md is empty")


def check_documents(root: Path, python: Path) -> None:
    """Raises `Refused` with the first failure if a document says what is not so."""
    command = [str(python), "-m", "pytest", "-q", "-m", "not drill", "tests/docs"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
        what = failed[0] if failed else (done.stdout + done.stderr).strip().splitlines()[-1]
        raise Refused(f"the tests of the documents fail: {what}")
