"""Real photographs, where they are at hand: shortcuts must not show."""

import os
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from PIL import Image, ImageChops, ImageStat

from imaging import prepare

SHARED = Path(os.environ.get("SIGHTLINE_SHARED", Path(__file__).parents[4] / "shared"))
PHOTOS = sorted((SHARED / "photos").glob("*.JPEG"))


@pytest.mark.skipif(not PHOTOS, reason="no photographs in $SIGHTLINE_SHARED/photos")
def test_photographs_look_as_if_no_shortcut_was_taken(contract):
    contract = msgspec.structs.replace(contract, width=56, height=56, crop=0.875)
    for path in PHOTOS:
        data = path.read_bytes()
        prepared = prepare(data, contract)
        with Image.open(BytesIO(data)) as photo:
            x, y, half = photo.width / 2, photo.height / 2, min(photo.size) * 0.875 / 2
            box = (x - half, y - half, x + half, y + half)
            expected = photo.convert("RGB").resize((56, 56), Image.Resampling.BICUBIC, box)
        got = Image.frombytes("RGB", (56, 56), prepared.pixels)
        # 0.4 on average, of 255; the worst is a picture of fine stripes.
        assert sum(ImageStat.Stat(ImageChops.difference(got, expected)).mean) / 3 < 2, path.name
