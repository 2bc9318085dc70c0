"""`make release` on a copy of this tree, with a version of its own, and the images that it makes.

The copy's documents are tested by one small test: the real ones are `make test`'s.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

VERSION = f"0.0.{os.getpid()}"
IMAGES = ("web", "broker", "model", "load")
LABEL = "org.opencontainers.image."
# No other run's, so that nothing of it is still in the builder's cache.
EPOCH_S = 1_769_860_800 + os.getpid()
DATE = datetime.fromtimestamp(EPOCH_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
DOCUMENT = """
from pathlib import Path

def test_the_readme_says_something():
    assert Path(__file__).parents[2].joinpath("README.md").read_text()
"""
LISTS = """
set -e
export PIP_DISABLE_PIP_VERSION_CHECK=1
/usr/local/bin/python -m pip list --format=json
/usr/local/bin/python -m pip --python /venv/bin/python list --format=json
dpkg-query --show --showformat='${Package} ${Version}\\n'
"""
TWO_BUILDS = """
import sys
from pathlib import Path
from deploy.release.checks import Commit
from deploy.release.images import IMAGES, build, sources

for _ in range(2):
    commit = Commit(Path.cwd(), "HEAD", int(sys.argv[1]))
    with sources(commit) as tree:
        print(build(IMAGES["broker"], commit, "0.0.0", tree, cache=False))
"""


def run(*command: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )


def output(*command: str, cwd: Path = ROOT) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def inspect(image: str) -> Any:
    [facts] = json.loads(output("docker", "image", "inspect", image))
    return facts


class Tree:
    """A copy of this tree, committed on main, that may be released as `VERSION`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("tests/"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / name)
        for file in root.glob("services/*/pyproject.toml"):
            lines = file.read_text().splitlines(keepends=True)
            said = [f'version = "{VERSION}"\n' if x.startswith("version =") else x for x in lines]
            file.write_text("".join(said))
        (root / "CHANGELOG.md").write_text(f"## {VERSION} (2026-01-31)\n\n- All of it.\n")
        (root / "tests/docs").mkdir(parents=True)
        (root / "tests/docs/test_documents.py").write_text(DOCUMENT)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Nobody")
        self.git("config", "user.email", "nobody@localhost")
        self.commit()

    def git(self, *arguments: str) -> str:
        return output("git", *arguments, cwd=self.root).strip()

    def commit(self) -> None:
        self.git("add", "--all")
        dated = {"GIT_AUTHOR_DATE": DATE, "GIT_COMMITTER_DATE": DATE}
        done = run("git", "commit", "--quiet", "--message=All", cwd=self.root, **dated)
        assert done.returncode == 0, done.stderr

    def release(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`make release`, as on a machine that reaches no database, and installing nothing."""
        used = {name: ROOT / f".venv{suffix}" for name, suffix in PLACES.items()}
        done = [f"--old-file={used['VENV']}/.dev", f"--old-file={used['RELEASE']}/.done"]
        places = [f"{name}={place}" for name, place in used.items()]
        kept = {
            key: text
            for key, text in os.environ.items()
            if not key.startswith(("MAKE", "MFLAGS", "SIGHTLINE_STRICT", "NO_PROXY", "no_proxy"))
        }
        return subprocess.run(
            ["make", *done, *places, "release", f"IMAGES={' '.join(IMAGES)}", *words],
            cwd=self.root,
            env=kept | {"HTTPS_PROXY": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            check=False,
        )


PLACES = {"VENV": "", "RELEASE": "-release"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    if run("docker", "version").returncode if shutil.which("docker") else True:
        pytest.skip("no Docker engine answers")
    if not all((ROOT / f".venv{suffix}").is_dir() for suffix in PLACES.values()):
        pytest.skip("not installed: make audit")
    yield Tree(tmp_path_factory.mktemp("tree"))
    names = [f"sightline-{name}:{VERSION}" for name in IMAGES]
    run("docker", "image", "rm", "--force", *names)


@pytest.fixture(scope="module")
def released(tree: Tree) -> Path:
    """The folder with the lists of a release that was made."""
    done = tree.release(f"VERSION={VERSION}")
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return tree.root / "dist" / VERSION


def sbom(folder: Path, image: str) -> Any:
    return json.loads((folder / f"sightline-{image}.cdx.json").read_text())


def packages(folder: Path, image: str) -> dict[str, Any]:
    """Python's packages in a list, by their names."""
    return {
        part["name"]: part
        for part in sbom(folder, image)["components"]
        if part.get("purl", "").startswith("pkg:pypi/")
    }


@pytest.mark.parametrize("spoiled", ["untracked", "version", "changelog", "documents", "tag"])
def test_what_is_not_in_order_leaves_nothing_behind(tree: Tree, spoiled: str) -> None:
    """Runs before the release is made: what is asked for by fixtures comes after."""
    version, head = VERSION, tree.git("rev-parse", "HEAD")
    if spoiled == "untracked":
        (tree.root / "stray.py").touch()
        said = "not everything is committed: stray.py"
    elif spoiled == "version":
        version, said = "9.9.9", f"that this is version {VERSION}, not 9.9.9"
    elif spoiled == "tag":
        tree.git("config", "tag.gpgSign", "true")
        tree.git("config", "gpg.program", "false")
        said = "git tag says: "
    else:
        name = {"changelog": "CHANGELOG.md", "documents": "README.md"}[spoiled]
        (tree.root / name).write_text("")
        tree.commit()
        said = f"CHANGELOG.md needs a section '## {VERSION}"
        if spoiled == "documents":
            said = "test_documents.py::test_the_readme_says_something"
    done = tree.release(f"VERSION={version}")
    tree.git("config", "tag.gpgSign", "false")
    tree.git("reset", "--quiet", "--hard", head)
    tree.git("clean", "--quiet", "--force", "-d")
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if "make: ***" not in line]
    assert line.startswith("release: ")
    assert said in line
    assert not tree.git("tag")
    assert not list((tree.root / "dist").glob("*"))
    assert not output("docker", "image", "ls", "--quiet", f"*:{VERSION}")


def test_the_commit_is_tagged_and_the_audit_is_honest(tree: Tree, released: Path) -> None:
    assert tree.git("cat-file", "-t", f"v{VERSION}") == "tag"
    assert tree.git("rev-parse", f"v{VERSION}^{{commit}}") == tree.git("rev-parse", "HEAD")
    assert not tree.git("status", "--porcelain")
    assert "cannot be reached" in (released / "audit.txt").read_text()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_what_it_is(tree: Tree, released: Path, image: str) -> None:
    assert released
    facts = inspect(f"sightline-{image}:{VERSION}")
    labels = {key: text for key, text in facts["Config"]["Labels"].items() if key.startswith(LABEL)}
    assert labels.pop(f"{LABEL}description").startswith(("Sightline's ", "A replica of Sightline"))
    assert labels == {
        f"{LABEL}title": f"sightline-{image}",
        f"{LABEL}licenses": "Apache-2.0",
        f"{LABEL}version": VERSION,
        f"{LABEL}revision": tree.git("rev-parse", "HEAD"),
        f"{LABEL}created": DATE,
    }
    assert sbom(released, image)["metadata"]["timestamp"].startswith(DATE.rstrip("Z"))
    said = sbom(released, image)["metadata"]["component"]["properties"]
    assert {"name": "sightline:image-id", "value": facts["Id"]} in said


@pytest.mark.parametrize("image", IMAGES)
def test_the_list_is_what_pip_and_dpkg_list_in_the_image(released: Path, image: str) -> None:
    listed = {part["purl"]: part for part in sbom(released, image)["components"] if "purl" in part}
    inside = ("docker", "run", "--rm", "--network=none", "--entrypoint=sh")
    told = output(*inside, f"sightline-{image}:{VERSION}", "-c", LISTS)
    base, environment, *debian = told.splitlines()
    there = {(one["name"], one["version"]) for one in json.loads(base) + json.loads(environment)}
    here = {(part["name"], part["version"]) for part in packages(released, image).values()}
    assert here == there
    assert {tuple(line.split()) for line in debian} == {
        (part["name"], part["version"]) for url, part in listed.items() if "pkg:deb/" in url
    }


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_has_a_licence_and_a_hash_that_is_pinned(released: Path, image: str) -> None:
    folder = {"web": "services/web", "load": "loadtest"}.get(image, "services/model")
    file = {"broker": "requirements-broker.txt", "model": "requirements-cpu.txt"}.get(image)
    pinned = (ROOT / folder / (file or "requirements.txt")).read_text()
    found = packages(released, image)
    assert all(part["licenses"] for part in found.values())
    # The base image brings pip.
    for part in [part for name, part in found.items() if name != "pip"]:
        [digest] = part["hashes"]
        assert f"sha256:{digest['content']}" in pinned


def test_the_model_is_in_the_list_of_its_image(released: Path) -> None:
    [model] = [
        part
        for part in sbom(released, "model")["components"]
        if part["type"] == "machine-learning-model"
    ]
    assert model["name"] == "efficientnet-lite0"
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]


@pytest.mark.parametrize("image", IMAGES)
def test_licences_lie_beside_what_they_are_of(released: Path, image: str) -> None:
    assert released
    files = ["/app/LICENSE"]
    if image == "model":
        files += [f"/app/modelserver/bundles/efficientnet-lite0/{n}" for n in ("LICENSE", "NOTICE")]
    name = f"sightline-{image}:{VERSION}"
    output("docker", "run", "--rm", "--network=none", "--entrypoint=cat", name, *files)


@pytest.mark.parametrize("image", IMAGES)
def test_our_files_have_the_date_of_the_commit(released: Path, image: str) -> None:
    """Also where the builder has seen the same files with other dates."""
    assert released
    dates = ("find", f"sightline-{image}:{VERSION}", "/app", "-printf", "%Ts\n")
    told = output("docker", "run", "--rm", "--network=none", f"--entrypoint={dates[0]}", *dates[1:])
    assert set(told.split()) == {str(EPOCH_S)}


def test_two_builds_of_a_commit_have_the_same_files(tree: Tree) -> None:
    """Byte for byte, with their dates. When an image was made its configuration says, too, and an
    engine before BuildKit 0.11 writes the time of day there: then the ids differ."""
    python = str(ROOT / ".venv-release/bin/python")
    first, second = output(python, "-c", TWO_BUILDS, str(EPOCH_S), cwd=tree.root).split()
    try:
        assert inspect(first)["RootFS"]["Layers"] == inspect(second)["RootFS"]["Layers"]
    finally:
        run("docker", "image", "rm", first, second)
