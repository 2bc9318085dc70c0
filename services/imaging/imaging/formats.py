"""Tells from its first bytes what a file is, and refuses what no decoder should ever see.

Rules:
- Cheap enough for the serving process: nothing is parsed, a few bytes are compared.
- The content decides. Names and declared types are not looked at.
- One format is recognised at most, and only that format's decoder is tried later, so the
  decoders of other formats are out of reach for whatever is behind the first bytes.
"""

from typing import Final

from imaging.errors import Empty, NotAnImage, TooLarge

MAX_BYTES: Final = 20 * 1024 * 1024
"""A 50-megapixel photo as the best phones save it takes about 15 MB."""

ACCEPTED: Final = "Send a JPEG, PNG, WebP, AVIF, GIF or BMP picture."

_BMP_HEADER_SIZES: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"})

_REFUSED: Final = (
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "an icon"),
    (b"%PDF", "a PDF document"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG document"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)
"""What people send by mistake, so that the answer can call it by its name."""


def sniff(data: bytes) -> str | None:
    """The format of ``data`` by its magic bytes, in Pillow's spelling, or None.

    One of "JPEG", "PNG", "WEBP", "GIF", "BMP" and "AVIF". It promises nothing about the rest.
    """
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    # Two letters are too little to go by: many a text begins with "BM".
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if not _AVIF_BRANDS.isdisjoint(_brands(data)):
        return "AVIF"
    return None


def admit(data: bytes) -> str:
    """The format of ``data``, for a decoder to be tried on it.

    Raises:
        Empty: There are no bytes.
        TooLarge: There are more than MAX_BYTES.
        NotAnImage: It is of no format that is taken.
    """
    if not data:
        raise Empty("The file is empty.", ACCEPTED)
    if len(data) > MAX_BYTES:
        raise TooLarge(
            f"The file has {len(data) / 2**20:.1f} MiB.",
            f"At most {MAX_BYTES // 2**20} MiB are taken: save it smaller or compress it more.",
        )
    found = sniff(data)
    if found is None:
        raise NotAnImage(f"This is {_name(data)}.", ACCEPTED)
    return found


def _brands(data: bytes) -> set[bytes]:
    """The brands in the file type box that an AVIF or HEIC file begins with."""
    if data[4:8] != b"ftyp":
        return set()
    # 16 brands are plenty; the length is the sender's claim.
    end = min(int.from_bytes(data[:4]), 16 + 16 * 4)
    return {data[8:12]} | {data[at : at + 4] for at in range(16, end, 4)}


def _name(data: bytes) -> str:
    for magic, name in _REFUSED:
        if data.startswith(magic):
            return name
    if brands := _brands(data):
        return "a video" if _HEIC_BRANDS.isdisjoint(brands) else "a HEIC picture"
    return "not a picture of a known format"
