"""Builds the images of a commit, and says what is in them.

Rules:
- An image is made of the commit as git stores it: nothing that lies about in the tree gets in, and
  dates and permissions are the commit's and not those of whoever checked it out.
- It has no name until all else of the release is done.
"""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.release import Refused
from deploy.release.checks import Commit
from deploy.release.licences import NVIDIA, PERMISSIVE

INVENTORY = Path(__file__).with_name("inventory.py")


@dataclass(frozen=True)
class Image:
    """What a release has an image of."""

    name: str
    dockerfile: str
    requirements: str
    target: str = ""
    licences: frozenset[str] = PERMISSIVE


IMAGES = {
    "web": Image("sightline-web", "services/web/Dockerfile", "services/web/requirements.txt"),
    "broker": Image(
        "sightline-broker",
        "services/model/Dockerfile",
        "services/model/requirements-broker.txt",
        "broker",
    ),
    "model": Image(
        "sightline-model",
        "services/model/Dockerfile",
        "services/model/requirements-cpu.txt",
        "cpu",
    ),
    "model-gpu": Image(
        "sightline-model-gpu",
        "services/model/Dockerfile",
        "services/model/requirements-gpu.txt",
        "gpu",
        PERMISSIVE | NVIDIA,
    ),
    "load": Image("sightline-load", "loadtest/Dockerfile", "loadtest/requirements.txt"),
}
"""By what a person calls them."""


def docker(*arguments: str, stdin: str = "") -> str:
    """What docker prints. Raises `Refused` with the end of what it says if it fails."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise Refused("docker is not installed") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise Refused(f"docker {arguments[0]} says: {said[-1]}")
    return done.stdout.strip()


@contextmanager
def sources(commit: Commit) -> Iterator[Path]:
    """A folder with the files of a commit, which is gone afterwards."""
    with TemporaryDirectory(prefix="sightline-release-") as folder:
        archive = subprocess.Popen(
            ["git", "-c", "tar.umask=0022", "archive", commit.revision],
            cwd=commit.root,
            stdout=subprocess.PIPE,
        )
        with tarfile.open(fileobj=archive.stdout, mode="r|") as files:
            files.extractall(folder, filter="data")
        if archive.wait():
            raise Refused(f"git archive {commit.revision} failed")
        yield Path(folder)


def build(image: Image, commit: Commit, version: str, folder: Path, *, cache: bool = True) -> str:
    """Build an image of the sources in `folder`. Returns its id."""
    created = datetime.fromtimestamp(commit.epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {"version": version, "revision": commit.revision, "created": created}
    return docker(
        *("build", "--quiet", "--file", str(folder / image.dockerfile)),
        *(("--target", image.target) if image.target else ()),
        *(() if cache else ("--no-cache",)),
        *("--build-arg", f"SOURCE_DATE_EPOCH={commit.epoch_s}"),
        *(f"--label=org.opencontainers.image.{key}={value}" for key, value in labels.items()),
        str(folder),
    )


def inventory(image_id: str) -> dict[str, Any]:
    """What is installed in an image, as `deploy.release.inventory` tells it from inside."""
    locked = ("--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL")
    program = INVENTORY.read_text()
    told: dict[str, Any] = json.loads(
        docker("run", *locked, "--entrypoint=python", image_id, "-", stdin=program)
    )
    return told
