"""A contract refuses what no picture could be made for."""

import msgspec
import pytest

from wire import Contract

SOUND = {
    "model": "m",
    "version": "1",
    "digest": "0123456789abcdef",
    "width": 300,
    "height": 200,
    "crop": 0.875,
    "filter": "bicubic",
    "classes": 2,
}


def test_the_size_of_a_picture_follows() -> None:
    assert msgspec.convert(SOUND, Contract).nbytes == 300 * 200 * 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("height", 5000),
        ("crop", 0.0),
        ("crop", 1.1),
        ("filter", "nearest"),
        ("classes", 1),
        ("digest", "short"),
        ("colour", "rgb"),
    ],
)
def test_nonsense_is_refused(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**SOUND, field: value}, Contract)
