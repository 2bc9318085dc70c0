"""What every test of the tree may start from, and what may not be missing in CI.

Something that a test needs and a machine lacks skips the test with a reason. With
SIGHTLINE_STRICT=1, as .ci/run sets it, such a skip is a failure: what CI does not run is no test.
"""

import os
import re
from collections.abc import Generator
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which SIGHTLINE_STRICT forbids: {report.longrepr}"
    return report
