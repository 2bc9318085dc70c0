"""Files made to do harm or broken on their way, with what becomes of each.

`GROUPS` go through a decoder in imaging's own tests and over HTTP in the system's; `costly` are
those that take seconds or hundreds of megabytes.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
TAKEN = "taken"
DAMAGED = ("Damaged",)
TOO_LARGE = ("TooLarge",)
NOTHING_TO_SEE = ("Damaged", "TooSmall")
ANY = (TAKEN, "Damaged")
AT_A_PRICE = (TAKEN, "TooExpensive")


class Hostile(NamedTuple):
    """A file, and what may become of it: `TAKEN`, or the names of errors in `imaging.errors`."""

    name: str
    data: bytes
    fates: tuple[str, ...]


def truncated() -> Iterator[Hostile]:
    noise = Image.merge("RGB", [Image.effect_noise((64, 64), 80) for _ in range(3)])
    for kind in FORMATS:
        data = encoded(noise, kind)
        for percent in range(5, 100, 5):
            yield Hostile(f"{kind} cut at {percent} %", data[: len(data) * percent // 100], DAMAGED)
    progressive = encoded(noise, "JPEG", progressive=True)
    for percent in range(5, 100, 5):
        yield Hostile(
            f"progressive JPEG cut at {percent} %",
            progressive[: len(progressive) * percent // 100],
            DAMAGED,
        )


def bombs() -> Iterator[Hostile]:
    """Small files of far too many pixels; those of PNG and the BMP in runs tell the truth."""
    data = png_of(13_000, 13_000, zeros(39_001 * 13_000))
    yield Hostile("PNG of 13000 x 13000", data, TOO_LARGE)
    data = png_of(20_000, 20_000, zeros(2_501 * 20_000), 1, 0)
    yield Hostile("PNG of 20000 x 20000", data, TOO_LARGE)
    runs = (b"\xff\0" * 40 + b"\0\0") * 10_000 + b"\0\1"
    yield Hostile("BMP in runs of 10200 x 10000", bmp(10_200, 10_000, 8, runs, packed=1), TOO_LARGE)
    sizes = {
        "JPEG": (">HH", (900, 1000), (20_000, 20_000)),
        "GIF": ("<HH", (1000, 900), (20_000, 20_000)),
        "BMP": ("<ii", (1000, 900), (20_000, -20_000)),
        "WEBP": ("<I", (0xE0C3E7,), (0xFFFFFFF,)),
        "AVIF": (">II", (1000, 900), (9_000, 9_000)),
    }
    for kind, (layout, true, claimed) in sizes.items():
        yield Hostile(
            f"{kind} that claims to be huge", claims(kind, layout, true, claimed), TOO_LARGE
        )


def claims(kind: str, layout: str, true: tuple[int, ...], claimed: tuple[int, ...]) -> bytes:
    """A picture of 1000 x 900 with another size in its header, in a GIF of its canvas alone."""
    data = encoded(Image.new("RGB", (1000, 900)), kind, lossless=True)
    size = struct.pack(layout, *true)
    assert size in data
    return data.replace(size, struct.pack(layout, *claimed), 1)


def lying() -> Iterator[Hostile]:
    """Headers that say something else than the rest."""
    row = b"\0" + bytes(range(120))
    yield Hostile("PNG with too many rows", png(40, 40, row * 90), ANY)
    yield Hostile("PNG with no rows", png(40, 40, b""), DAMAGED)
    yield Hostile("PNG with too few rows", png(40, 40, row * 20), DAMAGED)
    yield Hostile("PNG of an unknown filter", png(40, 40, b"\x09" * 121 * 40), DAMAGED)
    for depth, colour in ((3, 2), (16, 3), (8, 5), (0, 0), (255, 255)):
        yield Hostile(
            f"PNG of depth {depth} in colour {colour}",
            png(40, 40, row * 40, depth, colour),
            DAMAGED,
        )
    yield Hostile("PNG whose palette is missing", png(40, 40, row * 40, 8, 3), ANY)
    for kind, (layout, true, claimed) in {
        "JPEG": (">HH", (900, 1000), (7000, 7000)),
        "BMP": ("<ii", (1000, 900), (7000, 7000)),
        "WEBP": ("<I", (0xE0C3E7,), (0xE0C3E8,)),
        "AVIF": (">II", (1000, 900), (10, 10)),
    }.items():
        yield Hostile(f"{kind} that lies a little", claims(kind, layout, true, claimed), ANY)
    frame = bytearray(encoded(Image.new("L", (100, 90)), "GIF"))
    at = frame.rindex(struct.pack("<HH", 100, 90))
    frame[at : at + 4] = b"\xff\xff\xff\xff"
    yield Hostile("GIF with a frame larger than itself", bytes(frame), TOO_LARGE)
    jpeg = bytearray(encoded(flag(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    for offset, value, what in ((9, 0, "no"), (9, 200, "200"), (4, 1, "1-bit")):
        broken = bytearray(jpeg)
        broken[at + offset] = value
        yield Hostile(f"JPEG with {what} components", bytes(broken), DAMAGED)
    for bits in (0, 3, 7, 255):
        yield Hostile(f"BMP of {bits} bits", bmp(40, 40, bits, bytes(4800)), DAMAGED)
    beyond = bmp(40, 40, 8, b"\0\2\xff\xff" * 4000 + b"\0\1", packed=1)
    yield Hostile("BMP whose runs leave the picture", beyond, ANY)
    webp = bytearray(encoded(flag(), "WEBP"))
    webp[4:8] = b"\xff\xff\xff\x7f"
    yield Hostile("WebP of 2 GiB", bytes(webp), DAMAGED)
    avif = encoded(flag(), "AVIF").replace(b"\0\0\0\x14ispe", b"\x7f\0\0\0ispe")
    yield Hostile("AVIF with a box of 2 GiB", avif, DAMAGED)


def empty() -> Iterator[Hostile]:
    """Pictures of no size, and files of nothing."""
    yield Hostile("nothing", b"", ("Empty",))
    yield Hostile("a zero", b"\0", ("NotAnImage",))
    yield Hostile("text", b"Hello, I am no picture. " * 10, ("NotAnImage",))
    yield Hostile("PNG of 0 x 0", png(0, 0, b""), NOTHING_TO_SEE)
    yield Hostile("PNG of 40 x 0", png(40, 0, b""), NOTHING_TO_SEE)
    yield Hostile("BMP of 0 x 0", bmp(0, 0, 24, b""), NOTHING_TO_SEE)
    yield Hostile("GIF of 0 x 0", b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\2\0;", NOTHING_TO_SEE)
    for kind, (layout, true) in {
        "JPEG": (">HH", (900, 1000)),
        "AVIF": (">II", (1000, 900)),
    }.items():
        data = claims(kind, layout, true, (0, 0))
        yield Hostile(f"{kind} of 0 x 0", data, NOTHING_TO_SEE)
    for kind in FORMATS:
        yield Hostile(
            f"{kind} of one pixel", encoded(Image.new("RGB", (1, 1)), kind), ("TooSmall",)
        )
        magic = encoded(flag(), kind)[:20]
        yield Hostile(f"{kind} that ends after its magic", magic, DAMAGED)


def polyglots() -> Iterator[Hostile]:
    """Two formats in one file: what the first bytes say counts, and nothing runs anything."""
    behind = b"<html><script>alert(1)</script>PK\3\4%PDF-1.7" + encoded(flag(), "PNG")
    for kind in FORMATS:
        yield Hostile(f"{kind} with a page and a PNG behind", encoded(flag(), kind) + behind, ANY)
    yield Hostile(
        "JPEG with PHP in it", encoded(flag(), "JPEG", comment=b"<?php exit; ?>"), (TAKEN,)
    )
    yield Hostile(
        "PDF with a JPEG behind", b"%PDF-1.7\n" + encoded(flag(), "JPEG"), ("NotAnImage",)
    )
    script = b"GIF89a/*" + bytes(20) + b"*/=1;alert(document.cookie);"
    yield Hostile("GIF that is a script", script, DAMAGED)
    yield Hostile(
        "PNG that is a JPEG", encoded(flag(), "PNG")[:8] + encoded(flag(), "JPEG"), DAMAGED
    )
    yield Hostile("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", ("NotAnImage",))


def unusual() -> Iterator[Hostile]:
    """Sound pictures of rare kinds."""
    grey = Image.radial_gradient("L").resize((40, 40))
    yield Hostile("grey PNG in 16 bits", encoded(grey.convert("I;16"), "PNG"), (TAKEN,))
    yield Hostile("PNG in 16 bits", png(40, 40, (b"\0" + bytes(range(240))) * 40, 16), (TAKEN,))
    yield Hostile(
        "PNG in 16 bits with alpha", png(40, 40, (b"\0" + bytes(320)) * 40, 16, 6), (TAKEN,)
    )
    palette = grey.convert("P")
    alpha = encoded(palette, "PNG", transparency=bytes(range(256)))
    yield Hostile("PNG palette with alpha", alpha, (TAKEN,))
    yield Hostile("GIF palette with alpha", encoded(palette, "GIF", transparency=3), (TAKEN,))
    yield Hostile("JPEG in CMYK", encoded(flag().convert("CMYK"), "JPEG"), (TAKEN,))
    yield Hostile("JPEG in grey", encoded(grey, "JPEG"), (TAKEN,))
    yield Hostile("WebP with alpha", encoded(flag().convert("RGBA"), "WEBP"), (TAKEN,))
    yield Hostile("black PNG", png_of(13, 9, zeros(40 * 9)), (TAKEN,))
    interlaced = png_of(8, 8, zeros(79), 8, 0, interlaced=True)
    yield Hostile("black PNG, interlaced", interlaced, (TAKEN,))
    yield Hostile("PNG in one bit", encoded(grey.convert("1"), "PNG"), (TAKEN,))
    yield Hostile("a line of 6000 x 40", encoded(Image.new("RGB", (6000, 40)), "PNG"), (TAKEN,))
    yield Hostile("JPEG of 20 scans", many_scans(320, 240, 20), (TAKEN,))


def metadata() -> Iterator[Hostile]:
    """More of it than of the picture, or none that can be read."""
    unpacked = zeros(200 * 2**20)
    for kind, head in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        extra = ((kind, head + unpacked),)
        yield Hostile(
            f"PNG with 200 MiB in {kind.decode()}", png(40, 40, bytes(4840), extra=extra), ANY
        )
    huge = b"II*\0\x08\0\0\0" + b"\xff" * (4 * 2**20)
    yield Hostile(
        "PNG with 4 MiB of EXIF", png(40, 40, bytes(4840), extra=((b"eXIf", huge),)), (TAKEN,)
    )
    yield Hostile("WebP with 4 MiB of EXIF", encoded(flag(), "WEBP", exif=huge), (TAKEN,))
    jpeg = encoded(flag(), "JPEG")
    segment = b"\xff\xe1\xff\xffExif\0\0" + b"\xff" * (0xFFFF - 8)
    yield Hostile("JPEG with 4 MiB of EXIF", jpeg[:2] + segment * 64 + jpeg[2:], (TAKEN,))
    endless = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + b"\x08\0\0\0"
    segment = b"\xff\xe1" + struct.pack("!H", len(endless) + 2) + endless
    yield Hostile("JPEG with EXIF in a circle", jpeg[:2] + segment + jpeg[2:], (TAKEN,))


def animations() -> Iterator[Hostile]:
    """Only the first frame counts, however many there are or are said to be."""
    frames = [Image.new("L", (64, 64), shade) for shade in range(200)]
    for kind in ("GIF", "PNG", "WEBP", "AVIF"):
        shown = frames if kind == "GIF" else frames[:20]
        data = encoded(shown[0], kind, save_all=True, append_images=shown[1:])
        yield Hostile(f"{kind} of {len(shown)} frames", data, (TAKEN,))
    extra = ((b"acTL", b"\xff" * 8),)
    yield Hostile(
        "PNG that claims 4 billion frames", png(40, 40, bytes(4840), extra=extra), (TAKEN,)
    )


def costly() -> Iterator[Hostile]:
    """As much work as the limits allow, which a slow machine cannot do in time, and more."""
    light = Image.radial_gradient("L").resize((7100, 7100))
    colour = Image.merge("RGB", [light, light, light])
    runs = (b"\xff\0" * 28 + b"\0\0") * 7100 + b"\0\1"
    data = png_of(7100, 7100, zeros((4 * 7100 + 1) * 7100), 16, 4)
    yield Hostile("PNG of 50 million pixels", data, AT_A_PRICE)
    data = bmp(7140, 7100, 8, runs, packed=1)
    yield Hostile("BMP of 50 million pixels", data, AT_A_PRICE)
    yield Hostile("GIF of 50 million pixels", encoded(light, "GIF"), AT_A_PRICE)
    yield Hostile("AVIF of 50 million pixels", encoded(colour, "AVIF", speed=10), AT_A_PRICE)
    yield Hostile("WebP of 50 million pixels", encoded(colour, "WEBP", method=0), AT_A_PRICE)
    data = encoded(light, "JPEG", progressive=True)
    yield Hostile("progressive JPEG of 50 million pixels", data, AT_A_PRICE)
    yield Hostile("JPEG of 20000 scans", many_scans(7000, 7000, 20_000), ("TooExpensive",))


Group = Callable[[], Iterator[Hostile]]
GROUPS: tuple[Group, ...] = (
    truncated,
    bombs,
    lying,
    empty,
    polyglots,
    unusual,
    metadata,
    animations,
)


def flag() -> Image.Image:
    """A picture like any other."""
    image = Image.new("RGB", (96, 64), "red")
    image.paste((40, 50, 210), (48, 0, 96, 64))
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(
    width: int,
    height: int,
    rows: bytes,
    depth: int = 8,
    colour: int = 2,
    *,
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A PNG from its header and its pixels, whether or not they belong together."""
    return png_of(width, height, zlib.compress(rows), depth, colour, extra=extra)


def png_of(
    width: int,
    height: int,
    packed: bytes,
    depth: int = 8,
    colour: int = 2,
    *,
    interlaced: bool = False,
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """The same from pixels that are packed already."""
    header = struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def zeros(count: int) -> bytes:
    """So many of them packed by zlib, without packing them: a piece that repeats itself."""
    packer = zlib.compressobj(wbits=-15)
    piece = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(count % 2**20)) + packer.flush()
    # Adler-32 of zeros: the first sum stays 1, the second counts them (RFC 1950).
    checksum = struct.pack("!I", count % 65521 << 16 | 1)
    return b"\x78\x9c" + piece * (count // 2**20) + rest + checksum


def bmp(width: int, height: int, bits: int, pixels: bytes, *, packed: int = 0) -> bytes:
    """A BMP with a grey palette, whatever ``bits`` a pixel are."""
    palette = b"".join(bytes([shade, shade, shade, 0]) for shade in range(256))
    offset = 14 + 40 + len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, packed, len(pixels), 0, 0, 256, 0
    )
    size = offset + len(pixels)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, offset) + header + palette + pixels


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG in grey whose every scan goes through all of its blocks and says nothing.

    A scan is a run of empty blocks, 32767 at a time (ITU T.81, G.1.2.2), so that it takes few
    bytes and as much work as any other.
    """
    blocks = -(-width // 8) * -(-height // 8)

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack("!BBH", 0xFF, marker, len(body) + 2) + body

    def packed(bits: str) -> bytes:
        bits += "1" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")

    def table(kind: int, symbol: int) -> bytes:
        return segment(0xC4, bytes([kind, 1, *bytes(15), symbol]))

    runs = -(-blocks // 32767)
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + packed(("0" + "1" * 14) * runs)
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, bytes([0, *[16] * 64])),
            segment(0xC2, struct.pack("!BHHB", 8, height, width, 1) + bytes([1, 0x11, 0])),
            table(0x00, 0x00) + table(0x10, 0xE0),
            segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + packed("0" * blocks),
            scan * scans,
            b"\xff\xd9",
        ]
    )
