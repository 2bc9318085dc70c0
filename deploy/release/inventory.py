"""Tells what is installed in an image, from inside it: `docker run IMAGE python - < inventory.py`.

It runs under the image's own Python and sees nothing but what is there, so it needs no other
module of this package. What it prints is JSON:
    python       the interpreter's version
    packages     distributions on this interpreter's path and in its base: name, version, what
                 their METADATA says of their licence, and the SHA-256 of the archive that each came
                 out of, where `deploy.image.install` wrote it down
    debian       packages of the base image: name, version, architecture
    bundles      the bundle.json of each model
"""

import json
import platform
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def packages() -> list[dict[str, Any]]:
    """What pip would list: of the environment, and of the interpreter that it was made with."""
    archives = Path(sys.prefix, "archives.json")
    hashes = json.loads(archives.read_bytes()) if archives.exists() else {}
    base = sysconfig.get_path("purelib", vars={"base": sys.base_prefix})
    found = {}
    for distribution in distributions(path=[*sys.path, base]):
        told = distribution.metadata.json
        name = str(told["name"])
        found[name] = {
            "name": name,
            "version": distribution.version,
            "summary": told.get("summary"),
            "expression": told.get("license_expression"),
            "license": told.get("license"),
            "classifiers": [c for c in told.get("classifier", []) if c.startswith("License")],
            "sha256": hashes.get(name),
        }
    return [found[name] for name in sorted(found)]


def debian() -> list[list[str]]:
    """What dpkg lists."""
    show = ["dpkg-query", "--show", "--showformat=${Package}\t${Version}\t${Architecture}\n"]
    listed = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in listed.splitlines()]


def bundles() -> list[Any]:
    """What the models that come with the image say of themselves."""
    return [json.loads(path.read_bytes()) for path in sorted(Path("/app").rglob("bundle.json"))]


print(
    json.dumps(
        {
            "python": platform.python_version(),
            "packages": packages(),
            "debian": debian(),
            "bundles": bundles(),
        }
    )
)
