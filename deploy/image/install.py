"""Installs pinned requirements into /venv of an image, so that two builds make the same of it.

    python -m deploy.image.install requirements.txt

Rules:
- Nothing is installed but archives whose SHA-256 the requirement file names.
- Which archive it was is told in /venv/archives.json, {name: SHA-256}: a requirement file names the
  archives for every machine, and an installed package does not know what it came out of.
- All files have the same date, whatever commit this is, so that they stay in the builder's cache.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.image.settle import IMAGE, settle

VENV = Path("/venv")
EPOCH_S = 315532800
"""1980-01-01, the first day that fits into a zip file."""


def install(requirements: Path) -> None:
    """Make /image/venv with what a requirement file pins, to be used as /venv."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", VENV], check=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pip = [sys.executable, "-m", "pip", "--python", str(VENV / "bin" / "python"), "install"]
        pip += ["--no-cache-dir", "--disable-pip-version-check", "--no-compile"]
        pip += ["--require-hashes", "--report", str(report), "-r", str(requirements)]
        subprocess.run(pip, check=True)
        installed = json.loads(report.read_bytes())["install"]
    archives = {
        package["metadata"]["name"]: package["download_info"]["archive_info"]["hashes"]["sha256"]
        for package in installed
    }
    (VENV / "archives.json").write_text(json.dumps(archives, indent=2, sort_keys=True) + "\n")
    settle(VENV, EPOCH_S)
    IMAGE.mkdir()
    VENV.rename(IMAGE / VENV.name)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
