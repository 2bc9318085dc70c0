"""Whether a PNG brings all the rows that its header promises.

Pillow leaves the rest of a picture black where the packed rows end early in good order, as a
program writes them that gives up half-way, and says nothing of it. Whoever reads the picture
would take black for what it shows.

Rules:
- Counting costs as much as a third of decoding, so it is done only for pictures whose last row
  is as empty as a missing one. Few are.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from PIL import Image

_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the colour type (PNG 3rd edition, table 8)."""
_ADAM7: Final = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""Left, top and the steps to the right and down of its passes (PNG 3rd edition, 8.1)."""
_AT_ONCE: Final = 256 * 1024


def are_missing(data: bytes, image: Image.Image) -> bool:
    """Whether rows of ``image`` are made up, which was loaded from the PNG in ``data``."""
    height = image.height
    # The last pass over an interlaced picture fills its odd rows.
    last = height - 1 - height % 2 if data[28] else height - 1
    if image.crop((0, last, image.width, last + 1)).tobytes().strip(b"\0"):
        return False
    return not _reaches(data, _promised(data))


def _promised(data: bytes) -> int:
    """How many bytes the rows have unpacked, each with its filter's byte."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from("!IIBBBBB", data, 16)
    bits = depth * _CHANNELS[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, right, down in passes:
        columns, rows = -((left - width) // right), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _reaches(data: bytes, promised: int) -> bool:
    unpacker = zlib.decompressobj()
    for packed in _packed(data):
        while packed and not unpacker.eof:
            try:
                promised -= len(unpacker.decompress(packed, _AT_ONCE))
            except zlib.error:
                return False
            if promised <= 0:
                return True
            packed = unpacker.unconsumed_tail
    return promised <= len(unpacker.flush(_AT_ONCE))


def _packed(data: bytes) -> Iterator[bytes]:
    """The bodies of the chunks that hold the rows."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("!I4s", data, at)
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length
