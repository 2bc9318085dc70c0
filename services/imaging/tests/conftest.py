"""Pictures whose every pixel is known, and files that no encoder would write."""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
from PIL import Image

from imaging import DecoderPool
from wire import Contract

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 40), (40, 50, 210), (230, 220, 40)

Encode = Callable[..., bytes]
BuildPng = Callable[..., bytes]


@pytest.fixture
def contract() -> Contract:
    """A square model that looks at the whole short side."""
    return Contract(
        model="test",
        version="1",
        digest="0123456789",
        width=32,
        height=32,
        crop=1.0,
        filter="bicubic",
        classes=2,
    )


@pytest.fixture
def flag() -> Image.Image:
    """Red and green above blue and yellow, 96 x 64: it shows how it is turned and mirrored."""
    image = Image.new("RGB", (96, 64))
    for at, colour in zip(
        [(0, 0), (48, 0), (0, 32), (48, 32)], [RED, GREEN, BLUE, YELLOW], strict=True
    ):
        image.paste(colour, (*at, at[0] + 48, at[1] + 32))
    return image


@pytest.fixture
def encode() -> Encode:
    def encode(image: Image.Image, kind: str, **options: object) -> bytes:
        file = BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def build_png() -> BuildPng:
    """Builds a PNG from its header and its pixels, whether or not they belong together."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body))
        )

    def build(
        width: int,
        height: int,
        rows: bytes,
        *,
        depth: int = 8,
        colour: int = 2,
        extra: tuple[tuple[bytes, bytes], ...] = (),
    ) -> bytes:
        header = struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, 0)
        return b"".join(
            [
                b"\x89PNG\r\n\x1a\n",
                chunk(b"IHDR", header),
                *(chunk(kind, body) for kind, body in extra),
                chunk(b"IDAT", zlib.compress(rows)),
                chunk(b"IEND", b""),
            ]
        )

    return build


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1) as pool:
        yield pool
