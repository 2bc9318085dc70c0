"""What may be released, and what is found out about it: without images, on small repositories."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.release import Refused
from deploy.release.audit import audit, judge
from deploy.release.checks import check
from tests.conftest import ROOT

EPOCH_S = 1_700_000_000
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-01-31)\n\n- A service.\n\n## 1.2.2\n"


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=Nobody", "-c", "user.email=nobody@localhost")
    date = f"{EPOCH_S} +0000"
    subprocess.run(
        ["git", *who, *arguments],
        cwd=root,
        env={**os.environ, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date},
        capture_output=True,
        check=True,
    )


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A committed tree that may be released as 1.2.3."""
    write(tmp_path, "CHANGELOG.md", CHANGELOG)
    for part in ("web", "model"):
        write(tmp_path, f"services/{part}/pyproject.toml", '[project]\nversion = "1.2.3"\n')
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message=All")
    return tmp_path


def test_a_tree_in_order_may_be_released(tree: Path) -> None:
    commit = check(tree, "1.2.3")
    assert commit.epoch_s == EPOCH_S
    assert len(commit.revision) == 40


def committed(path: str, text: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        write(tree, path, text)
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "--message=Change")

    return change


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda tree: write(tree, "CHANGELOG.md", "x"),
            "not everything is committed: CHANGELOG.md",
        ),
        (lambda tree: write(tree, "stray.py", ""), "not everything is committed: stray.py"),
        (lambda tree: git(tree, "switch", "--create", "work"), "branch main, and this is work"),
        (lambda tree: git(tree, "switch", "--detach"), "branch main, and this is none"),
        (lambda tree: git(tree, "tag", "v1.2.3"), "there is a v1.2.3 already"),
        (
            committed("services/web/pyproject.toml", '[project]\nversion = "1.2.4"\n'),
            "different versions: 1.2.3 in services/model/pyproject.toml, 1.2.4 in services/web/",
        ),
        (
            committed("CHANGELOG.md", "## Unreleased\n\n- All.\n"),
            "a section '## 1.2.3 (YYYY-MM-DD)'",
        ),
        (committed("CHANGELOG.md", "## 1.2.3\n\n- All.\n"), "and has '## 1.2.3'"),
        (committed("CHANGELOG.md", "## 1.2.3 (2026-02-30)\n\n- A\n"), "and has '## 1.2.3 (2026-02"),
        (committed("CHANGELOG.md", "## 1.2.3 (2026-01-31)\n\n## 1.2.2\n\n- All.\n"), "is empty"),
    ],
)
def test_a_tree_that_is_not_in_order_is_refused(
    tree: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(tree)
    with pytest.raises(Refused) as refused:
        check(tree, "1.2.3")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("version", "said"), [("1.2.4", "version 1.2.3, not 1.2.4"), ("v1.2", "three numbers")]
)
def test_a_version_that_is_not_this_one_is_refused(tree: Path, version: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        check(tree, version)


def test_no_way_to_the_database_is_not_no_vulnerability(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the program is there."""
    monkeypatch.setattr("sys.executable", "false")
    found = audit([tree / "requirements.txt"])
    assert not found.vulnerable
    assert str(found).startswith("not audited: the database of vulnerabilities cannot be reached")


def test_what_the_database_does_not_know_is_counted() -> None:
    known = {"name": "one", "version": "1", "vulns": []}
    unknown = {"name": "two", "skip_reason": "Dependency not found"}
    bad = {"name": "three", "version": "3", "vulns": [{"id": "PYSEC-1"}, {"id": "CVE-2"}]}
    assert str(judge({"dependencies": [known]})) == "none of 1 packages has a known vulnerability"
    assert "says nothing of 1 of 2 packages" in str(judge({"dependencies": [known, unknown]}))
    found = judge({"dependencies": [known, unknown, bad]})
    assert str(found) == "known vulnerabilities: three 3 (PYSEC-1, CVE-2)"


def test_every_image_installs_only_what_its_requirement_file_pins() -> None:
    """All Dockerfiles install with one program, which asks pip for hashes."""
    for file in sorted([*ROOT.glob("services/*/Dockerfile"), *ROOT.glob("*/Dockerfile")]):
        runs = [line for line in file.read_text().splitlines() if line.startswith("RUN ")]
        assert not [line for line in runs if "pip" in line], file
        assert [line for line in runs if "deploy.image.install requirements" in line], file
    assert '"--require-hashes"' in (ROOT / "deploy/image/install.py").read_text()


def test_every_requirement_is_pinned_with_hashes() -> None:
    """As `make lock` writes them; what pip would refuse is found before an image is built."""
    files = [file for file in ROOT.glob("**/requirements*.txt") if ".venv" not in str(file)]
    assert len(files) >= 10
    for file in files:
        text = file.read_text().replace("\\\n", " ")
        pinned = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
        assert pinned, file
        for line in pinned:
            assert "==" in line, line
            assert "--hash=sha256:" in line, line
