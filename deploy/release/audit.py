"""Asks a public database whether pinned packages have vulnerabilities that are known.

Rules:
- "Could not be asked" is not "has none": what was not looked up is counted and said.
- A machine without a way to the database makes no check fail: it is told in one line.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Audit:
    """What was found out."""

    packages: int
    unknown: int
    """Of how many packages the database said nothing."""
    vulnerable: tuple[str, ...]
    """Package, version and the names of its vulnerabilities."""
    trouble: str = ""
    """Why nothing could be asked."""

    def __str__(self) -> str:
        if self.vulnerable:
            return f"known vulnerabilities: {'; '.join(self.vulnerable)}"
        if self.trouble:
            return (
                f"not audited: the database of vulnerabilities cannot be reached ({self.trouble})"
            )
        if self.unknown:
            return (
                f"not audited: the database of vulnerabilities says nothing of {self.unknown} "
                f"of {self.packages} packages"
            )
        return f"none of {self.packages} packages has a known vulnerability"


def audit(requirements: list[Path]) -> Audit:
    """Look up what requirement files pin, with pip-audit: takes a request a package."""
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off"]
    command += ["--require-hashes", "--disable-pip"]
    command += [word for file in requirements for word in ("-r", str(file))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return judge(json.loads(done.stdout))
    except json.JSONDecodeError:
        said = done.stderr.strip().splitlines() or ["no answer"]
        return Audit(0, 0, (), said[-1].split(":")[0])


def _is_vulnerable(package: dict[str, Any]) -> bool:
    return bool(package.get("vulns"))


def _described(package: dict[str, Any]) -> str:
    names = ", ".join(found["id"] for found in package["vulns"])
    return f"{package['name']} {package['version']} ({names})"


def judge(report: dict[str, Any]) -> Audit:
    """Read pip-audit's report. What it skipped was not looked up, whatever its exit status."""
    packages = report["dependencies"]
    return Audit(
        packages=len(packages),
        unknown=sum("skip_reason" in package for package in packages),
        vulnerable=tuple(map(_described, filter(_is_vulnerable, packages))),
    )
