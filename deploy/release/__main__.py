"""`make release` and `make audit`.

    python -m deploy.release release [VERSION]
    python -m deploy.release audit

What can be looked at comes first, then the images, then the lists of what is in them. Only when
all of that is there, lists, images and the commit get the version's name, the commit last. Whatever
goes wrong ends it with one sentence, and leaves images without a name behind and nothing else.
Nothing is pushed.
"""

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.release import Refused
from deploy.release.audit import Audit, audit
from deploy.release.checks import check, check_documents, git, version_of
from deploy.release.images import IMAGES, Image, build, docker, inventory, sources
from deploy.release.licences import is_allowed, licences
from deploy.release.sbom import sbom

ROOT = Path(__file__).parents[2]


def release(version: str, names: list[str], python: Path) -> None:
    """Make a release of what is checked out. Raises `Refused`."""
    version = version or version_of(ROOT)
    commit = check(ROOT, version)
    images = [IMAGES[name] for name in names]
    folder = ROOT / "dist" / version
    if folder.exists():
        raise Refused(f"dist/{version} is there already; remove it to make it anew")
    docker("version")
    found = audited(images)
    _say("checking what the documents say")
    check_documents(ROOT, python)
    ids = {}
    (ROOT / "dist").mkdir(exist_ok=True)
    with sources(commit) as tree, TemporaryDirectory(dir=ROOT / "dist") as unfinished:
        for image in images:
            _say(f"building {image.name}:{version}")
            image_id = ids[image.name] = build(image, commit, version, tree)
            inside = inventory(image_id)
            check_licences(image, inside)
            document = sbom(image.name, version, image_id, commit, inside)
            Path(unfinished, f"{image.name}.cdx.json").write_text(document)
        Path(unfinished, "audit.txt").write_text(f"{found}\n")
        shutil.copytree(unfinished, folder)
    try:
        for name, image_id in ids.items():
            docker("tag", image_id, f"{name}:{version}")
        git(ROOT, "tag", "--annotate", f"v{version}", "--message", f"Sightline {version}")
    except Refused:
        docker("image", "rm", "--no-prune", "--force", *(f"{name}:{version}" for name in ids))
        shutil.rmtree(folder)
        raise
    _say(f"v{version} is made, with its lists in dist/{version}")
    _say(f"to publish it: git push origin v{version}, and docker push of the images")


def check_licences(image: Image, inside: dict[str, list[dict[str, object]]]) -> None:
    """Raises `Refused` if an image holds a package that may not be passed on, or nobody knows."""
    for package in inside["packages"]:
        names = licences(package)
        if not names or not all(is_allowed(name, image.licences) for name in names):
            said = " and ".join(names) or "no licence"
            raise Refused(
                f"{image.name} holds {package['name']} under {said}, "
                "which deploy/release/licences.py does not allow"
            )


def audited(images: list[Image]) -> Audit:
    """Look up what images install, and say it. Raises `Refused` where something is vulnerable."""
    found = audit([ROOT / image.requirements for image in images])
    if found.vulnerable:
        raise Refused(str(found))
    _say(str(found))
    return found


def _say(line: str) -> None:
    print(f"release: {line}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.release")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("audit", help="ask whether pinned packages have known vulnerabilities")
    making = verbs.add_parser("release", help="make a release of what is checked out")
    making.add_argument("version", nargs="?", default="", help="three numbers")
    making.add_argument("--images", nargs="+", choices=IMAGES, default=list(IMAGES))
    making.add_argument("--python", type=Path, required=True, help="has what tests need")
    chosen = parser.parse_args()
    try:
        if chosen.verb == "audit":
            audited(list(IMAGES.values()))
        else:
            release(chosen.version, chosen.images, chosen.python)
    except Refused as reason:
        print(f"release: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
