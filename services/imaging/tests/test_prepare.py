"""Pixels of ordinary pictures: colours, crops, turns, transparency, modes."""

import struct
from io import BytesIO
from random import Random

import msgspec
import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from imaging import prepare

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 40), (40, 50, 210), (230, 220, 40)


def shown(prepared, contract):
    """The pixels as a picture, in whose length every byte is accounted for."""
    return Image.frombytes("RGB", (contract.width, contract.height), prepared.pixels)


def corners(image):
    """The colours in the middle of the four quarters."""
    x, y = image.width // 4, image.height // 4
    return [image.getpixel(at) for at in [(x, y), (3 * x, y), (x, 3 * y), (3 * x, 3 * y)]]


def alike(colours, expected, tolerance):
    return all(
        abs(value - wanted) <= tolerance
        for colour, target in zip(colours, expected, strict=True)
        for value, wanted in zip(colour, target, strict=True)
    )


def difference(image, reference):
    """The mean of the absolute differences of all values, of 255."""
    return sum(ImageStat.Stat(ImageChops.difference(image, reference)).mean) / 3


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {}, 12),
        ("JPEG", {"progressive": True}, 12),
        ("PNG", {}, 0),
        ("WEBP", {}, 12),
        ("WEBP", {"lossless": True}, 0),
        ("GIF", {}, 0),
        ("BMP", {}, 0),
        ("AVIF", {}, 12),
    ],
)
def test_every_format_shows_its_colours(encode, flag, contract, kind, options, tolerance):
    prepared = prepare(encode(flag, kind, **options), contract)
    assert alike(corners(shown(prepared, contract)), [RED, GREEN, BLUE, YELLOW], tolerance)
    assert (prepared.format, prepared.width, prepared.height) == (kind, 96, 64)
    assert prepared.warnings == ()
    assert prepared.preview == b""


def test_the_crop_is_the_middle_of_the_short_side(encode, contract):
    image = Image.new("RGB", (200, 100), RED)
    image.paste(GREEN, (75, 25, 125, 75))
    contract = msgspec.structs.replace(contract, width=50, height=50, crop=0.5)
    assert shown(prepare(encode(image, "PNG"), contract), contract).getcolors() == [(2500, GREEN)]


def test_the_crop_has_the_shape_of_the_contract(encode, contract):
    image = Image.new("RGB", (100, 100), RED)
    image.paste(GREEN, (10, 30, 90, 70))
    contract = msgspec.structs.replace(contract, width=80, height=40, crop=0.8)
    assert shown(prepare(encode(image, "PNG"), contract), contract).getcolors() == [(3200, GREEN)]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_the_filter_is_the_contract_s(encode, contract, name, mode):
    """Pillow's, as models are trained with it. On noise, which shows every difference."""
    contract = msgspec.structs.replace(contract, width=72, height=48, filter=name)
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = Image.frombytes(mode, (96, 64), Random(0).randbytes(96 * 64 * bands))
    file = encode(noise, "JPEG" if mode == "CMYK" else "PNG", quality=100)
    with Image.open(BytesIO(file)) as opened:
        by_filter = {
            kind: difference(
                shown(prepare(file, contract), contract),
                opened.resize((72, 48), Image.Resampling[kind.upper()]).convert("RGB"),
            )
            for kind in ("bilinear", "bicubic", "lanczos")
        }
    own = by_filter.pop(name)
    assert own < 1
    assert own < min(by_filter.values()) / 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(32, 32), (48, 24), (24, 48)])
def test_a_picture_is_turned_upright(encode, flag, contract, kind, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(flag, kind, exif=exif)
    contract = msgspec.structs.replace(contract, width=size[0], height=size[1], crop=0.9)

    with Image.open(BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    ratio = 0.9 * min(upright.width / size[0], upright.height / size[1])
    left, top = (upright.width - ratio * size[0]) / 2, (upright.height - ratio * size[1]) / 2
    box = (left, top, upright.width - left, upright.height - top)
    expected = upright.resize(size, Image.Resampling.BICUBIC, box)

    prepared = prepare(data, contract)
    # Turned before or after the resize: rounding differs by one step at most.
    assert difference(shown(prepared, contract), expected) < 0.5
    assert (prepared.width, prepared.height) == upright.size
    assert prepared.warnings == (("rotated by its EXIF tag",) if orientation > 1 else ())


@pytest.mark.parametrize(
    ("type_", "count", "value"),
    [
        (3, 1, b"\0\0\0\0"),
        (3, 1, b"\x09\0\0\0"),
        (2, 2, b"6\0\0\0"),
        (5, 1, b"\x08\0\0\0"),
        (3, 9, b"\xff\xff\xff\xff"),
        (99, 1, b"\6\0\0\0"),
    ],
    ids=["0", "9", "text", "fraction", "outside the file", "unknown type"],
)
def test_a_senseless_orientation_is_ignored(encode, flag, contract, type_, count, value):
    entry = struct.pack("<HHI4s", 0x0112, type_, count, value)
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry + bytes(4)
    prepared = prepare(encode(flag, "PNG", exif=exif), contract)
    assert alike(corners(shown(prepared, contract)), [RED, GREEN, BLUE, YELLOW], 0)
    assert prepared.warnings == ()


WHITE = (255, 255, 255)
LAID = ("transparent areas laid on white",)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    ("pixel", "expected", "warnings"),
    [
        ((0, 0, 0, 0), WHITE, LAID),
        ((255, 0, 0, 128), (255, 127, 127), LAID),
        ((255, 0, 0, 255), (255, 0, 0), ()),
    ],
)
def test_transparency_is_laid_on_white(encode, contract, kind, pixel, expected, warnings):
    prepared = prepare(encode(Image.new("RGBA", (40, 40), pixel), kind), contract)
    assert alike([shown(prepared, contract).getpixel((16, 16))], [expected], 2)
    assert prepared.warnings == warnings


def test_hidden_colours_do_not_bleed_into_the_visible(encode, contract):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 33, 64))
    pixels = shown(prepare(encode(image, "PNG"), contract), contract)
    # On the edge there is some white, and no red, in the blue: red is never above green.
    assert all(red <= green for _, (red, green, _) in pixels.getcolors())


def test_transparency_of_a_grey_picture(encode, contract):
    prepared = prepare(encode(Image.new("LA", (40, 40), (0, 128)), "PNG"), contract)
    assert alike([shown(prepared, contract).getpixel((16, 16))], [(127, 127, 127)], 1)
    assert prepared.warnings == LAID


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize(("transparent", "expected"), [(1, WHITE), (0, (10, 20, 200))])
def test_transparency_of_a_palette(encode, contract, kind, transparent, expected):
    image = Image.new("P", (40, 40), 1)
    image.putpalette([200, 20, 10, 10, 20, 200])
    image.putpixel((0, 0), 0)
    prepared = prepare(encode(image, kind, transparency=transparent), contract)
    assert shown(prepared, contract).getpixel((16, 16)) == expected
    assert prepared.warnings == LAID


def test_half_transparent_palette_colours(encode, contract):
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    prepared = prepare(encode(image, "PNG", transparency=bytes([255, 128])), contract)
    assert shown(prepared, contract).getpixel((16, 16)) == (255, 127, 127)


@pytest.mark.parametrize(("mode", "key"), [("RGB", (255, 0, 255)), ("L", 77)])
def test_one_colour_declared_transparent(encode, contract, mode, key):
    image = Image.new(mode, (40, 40), key)
    prepared = prepare(encode(image, "PNG", transparency=key), contract)
    assert shown(prepared, contract).getcolors() == [(1024, WHITE)]


@pytest.mark.parametrize(
    ("depth", "colour", "key", "other"),
    [
        (1, 0, (0,), (1,)),
        (2, 0, (1,), (0,)),
        (4, 0, (5,), (0,)),
        (8, 0, (77,), (0,)),
        (16, 0, (0x1234,), (0x1235,)),
        (8, 2, (1, 2, 3), (1, 2, 4)),
        (16, 2, (0x1234, 0x5678, 0x9ABC), (0, 0, 0)),
    ],
)
def test_the_transparent_colour_is_of_the_files_depth(
    build_png, contract, depth, colour, key, other
):
    def row(values):
        bits = "".join(f"{value:0{depth}b}" for value in values) * 40
        return b"\0" + int(bits, 2).to_bytes(len(bits) // 8)

    named = b"".join(value.to_bytes(2) for value in key)
    build = {"depth": depth, "colour": colour, "extra": ((b"tRNS", named),)}
    through = prepare(build_png(40, 40, row(key) * 40, **build), contract)
    assert shown(through, contract).getcolors() == [(1024, WHITE)]
    assert through.warnings == LAID
    opaque = prepare(build_png(40, 40, row(other) * 40, **build), contract)
    assert opaque.warnings == ()


@pytest.mark.parametrize(
    ("ink", "expected"),
    [
        ((0, 0, 0, 0), WHITE),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 255, 0), (0, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_cmyk(encode, contract, ink, expected):
    # Pillow writes CMYK inverted and says so in an Adobe segment, as Photoshop does.
    data = encode(Image.new("CMYK", (40, 40), ink), "JPEG", quality=95)
    assert b"Adobe" in data
    assert alike([shown(prepare(data, contract), contract).getpixel((16, 16))], [expected], 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_grey(encode, contract, kind):
    data = encode(Image.new("L", (40, 40), 99), kind)
    assert shown(prepare(data, contract), contract).getcolors() == [(1024, (99, 99, 99))]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_black_and_white_is_smoothed_when_it_shrinks(encode, contract, kind):
    image = Image.new("1", (256, 256))
    image.putdata([(x + y) % 2 for y in range(256) for x in range(256)])
    middle = shown(prepare(encode(image, kind), contract), contract).getpixel((16, 16))
    assert alike([middle], [(127, 127, 127)], 4)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (255, 0), (0x8000, 0x80), (0xFFFF, 0xFF)])
def test_grey_of_16_bits_keeps_its_upper_byte(encode, contract, value, expected):
    data = encode(Image.new("I;16", (100, 100), value), "PNG")
    assert shown(prepare(data, contract), contract).getcolors() == [(1024, (expected,) * 3)]


@pytest.mark.parametrize(
    ("colour", "channels"), [(2, "RGB"), (4, "LA"), (6, "RGBA")], ids=["RGB", "LA", "RGBA"]
)
def test_colours_of_16_bits_keep_their_upper_byte(build_png, contract, colour, channels):
    values = {"R": 0x80FF, "G": 0x2001, "B": 0xF000, "L": 0x4080, "A": 0xFFFF}
    pixel = b"".join(values[channel].to_bytes(2) for channel in channels)
    data = build_png(40, 40, (b"\0" + pixel * 40) * 40, depth=16, colour=colour)
    expected = (0x40,) * 3 if channels == "LA" else (0x80, 0x20, 0xF0)
    assert shown(prepare(data, contract), contract).getcolors() == [(1024, expected)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_the_first_frame_of_an_animation_counts(encode, contract, kind):
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    prepared = prepare(data, contract)
    assert alike([shown(prepared, contract).getpixel((16, 16))], [RED], 8)
    assert prepared.warnings == ("first frame of an animation",)


def test_a_small_picture_is_enlarged_with_a_warning(encode, flag, contract):
    prepared = prepare(encode(flag.resize((15, 10)), "PNG"), contract)
    assert alike(corners(shown(prepared, contract)), [RED, GREEN, BLUE, YELLOW], 20)
    assert prepared.warnings == ("only 10 px high, answers may be poor",)


@pytest.mark.parametrize(
    ("size", "said"),
    [((6000, 10), "10 px high"), ((10, 6000), "10 px wide"), ((9, 9), "9 px wide")],
)
def test_the_warning_names_the_side_that_is_too_short(encode, contract, size, said):
    prepared = prepare(encode(Image.new("RGB", size), "PNG"), contract)
    assert prepared.warnings == (f"only {said}, answers may be poor",)


def test_the_side_is_named_as_the_picture_is_seen(encode, contract):
    turned = Image.Exif()
    turned[0x0112] = 6
    prepared = prepare(encode(Image.new("RGB", (6000, 10)), "JPEG", exif=turned), contract)
    assert prepared.warnings[-1] == "only 10 px wide, answers may be poor"


def test_the_preview_shows_what_the_model_gets(encode, flag, contract):
    prepared = prepare(encode(flag, "PNG"), contract, preview=True)
    with Image.open(BytesIO(prepared.preview)) as preview:
        assert preview.format == "JPEG"
        assert difference(preview, shown(prepared, contract)) < 8


def test_a_large_photo_decoded_at_a_fraction_is_the_same_picture(encode, contract):
    image = Image.merge("RGB", [Image.effect_noise((640, 480), 60) for _ in range(3)])
    image = image.resize((3000, 2250), Image.Resampling.BICUBIC)
    contract = msgspec.structs.replace(contract, width=224, height=224)
    expected = ImageOps.fit(image, (224, 224), Image.Resampling.BICUBIC)
    prepared = prepare(encode(image, "JPEG", quality=90), contract)
    assert difference(shown(prepared, contract), expected) < 2.5
