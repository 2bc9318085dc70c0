"""Fuzz target: any bytes are pixels of the contract's size, or raise ImageError.

Pictures of more than a quarter of a million pixels are refused, or else most of the time would go
into large ones, which show nothing that small ones do not.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from unittest import mock

from PIL import Image
from services.imaging.tests import hostile

from imaging import ImageError, decode, prepare
from wire import Contract

CONTRACT = Contract(
    model="fuzz",
    version="1",
    digest="0123456789",
    width=24,
    height=16,
    crop=0.9,
    filter="bilinear",
    classes=2,
)
MAX_PIXELS = 250_000
PNG = b"\x89PNG\r\n\x1a\n"
PNG_MODES = ("1", "L", "LA", "P", "RGBA", "I;16")


def seeds() -> Iterator[bytes]:
    picture = Image.radial_gradient("L").resize((24, 20)).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"):
        yield _encoded(picture, kind, exif=turned)
        if kind not in ("JPEG", "BMP"):
            yield _encoded(picture, kind, save_all=True, append_images=[picture.rotate(90)])
    for mode in PNG_MODES:
        yield _encoded(picture.convert("L").convert(mode), "PNG")
    yield _encoded(picture.convert("CMYK"), "JPEG")
    yield _encoded(picture, "JPEG", progressive=True, comment=b"hello")
    yield _encoded(picture, "WEBP", lossless=True)
    yield _encoded(picture.convert("P"), "GIF", transparency=0)
    for group in (hostile.lying, hostile.polyglots, hostile.unusual):
        for file in group():
            if len(file.data) < 4096:
                yield file.data
    for mode in ("1", "L", "P", "RGBA"):
        yield _encoded(picture.convert(mode), "BMP")


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def check(data: bytes) -> None:
    try:
        with (
            mock.patch.object(decode, "MAX_PIXELS", MAX_PIXELS),
            mock.patch.object(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS // 2),
        ):
            prepared = prepare(data, CONTRACT, preview=True, facts=True)
    except ImageError:
        return
    assert len(prepared.pixels) == CONTRACT.nbytes
    assert prepared.facts is not None
    assert prepared.facts.frames >= 1
    assert prepared.preview.startswith(b"\xff\xd8")
    assert min(prepared.width, prepared.height) >= decode.MIN_SIDE
    assert prepared.width * prepared.height <= MAX_PIXELS


def refine(data: bytes, _seed: int) -> bytes:
    """Makes the checksums of a PNG's chunks right: Pillow looks at nothing behind a wrong one."""
    if not data.startswith(PNG):
        return data
    parts, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        [length] = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        parts.append(struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(parts) + data[at:]
