"""What several tests of the model service start from."""

import os
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def photographs() -> dict[Path, int]:
    """A hundred photographs and the ImageNet class of each, which begins its file's name.

    They are no part of the repository: the folder is $SIGHTLINE_SHARED, or `shared` beside it.
    """
    beside = Path(__file__).parents[4] / "shared"
    folder = Path(os.environ.get("SIGHTLINE_SHARED", beside)) / "photos"
    found = {
        path: int(match[1])
        for path in sorted(folder.glob("*.JPEG"))
        if (match := re.match(r"(\d{3})_n\d{8}_", path.name))
    }
    if not found:
        pytest.skip(f"no photographs in {folder}")
    return found
