"""Files made to do harm, or broken on their way: pixels or an ImageError, and cheaply."""

import struct
import zlib
from contextlib import nullcontext, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from services.imaging.tests import hostile

from imaging import (
    Damaged,
    DecoderPool,
    ImageError,
    NotAnImage,
    TooLarge,
    TooSmall,
    prepare,
)
from wire import Contract

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"]
MAGIC = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "PNG header": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x40\0\0\0\x40\x08\2\0\0\0",
    "WEBP": b"RIFF\xff\0\0\0WEBP",
    "WEBP lossless": b"RIFF\xff\0\0\0WEBPVP8L\xf0\0\0\0\x2f",
    "GIF": b"GIF89a",
    "GIF header": b"GIF89a\x40\0\x40\0\xf0\0\0",
    "BMP": b"BM\xff\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf",
}


@pytest.mark.parametrize("group", hostile.GROUPS, ids=lambda group: group.__name__)
def test_every_file_of_the_collection_meets_its_fate(contract, group):
    fates = {}
    with DecoderPool(1, memory_bytes=384 * 2**20) as pool:
        for file in group():
            assert file.name not in fates
            try:
                prepared = pool.prepare(file.data, contract)
                assert len(prepared.pixels) == contract.nbytes
                fates[file.name] = hostile.TAKEN
            except ImageError as error:
                fates[file.name] = type(error).__name__
            if fates[file.name] in file.fates:
                fates[file.name] = "as expected"
    assert set(fates.values()) == {"as expected"}, fates


@pytest.mark.parametrize("data", [bytes(1), b"\0" * 1000, b"\xff" * 1000, b"GIF89", b"text"])
def test_garbage_is_not_an_image(contract, data):
    with pytest.raises(NotAnImage):
        prepare(data, contract)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(magic=st.sampled_from(sorted(MAGIC)), rest=st.binary(max_size=300))
def test_garbage_behind_the_right_magic_raises_image_errors_only(magic, rest):
    with_image_errors_only(MAGIC[magic] + rest)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_raise_image_errors_only(data):
    with_image_errors_only(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_with_flipped_bytes_raises_image_errors_only(encode, flag, kind):
    data = encode(flag, kind)
    for at in range(min(len(data), 400)):
        for value in (0x00, 0x7F, 0xFF):
            with_image_errors_only(data[:at] + bytes([value]) + data[at + 1 :])


def with_image_errors_only(data):
    contract = Contract(
        model="test",
        version="1",
        digest="0123456789",
        width=16,
        height=8,
        crop=0.9,
        filter="bilinear",
        classes=2,
    )
    with suppress(ImageError):
        assert len(prepare(data, contract, preview=True).pixels) == contract.nbytes


def test_a_bomb_is_refused_by_its_header(contract):
    # Memory for a hundredth of its pixels, and no more: none of them is decoded.
    with DecoderPool(1, memory_bytes=12 * 2**20) as pool:
        for bomb in hostile.bombs():
            assert len(bomb.data) < 3_000_000
            with pytest.raises(TooLarge, match="too large") as refusal:
                pool.prepare(bomb.data, contract)
            assert "51 million" in refusal.value.remedy


@pytest.mark.parametrize(
    "extra",
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 * 2**20))),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(200 * 2**20))),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(200 * 2**20))),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_metadata_that_unpack_to_200_mib_cost_little(build_png, contract, extra):
    data = build_png(40, 40, bytes(121 * 40), extra=(extra,))
    with DecoderPool(1, memory_bytes=48 * 2**20) as pool, suppress(Damaged):
        pool.prepare(data, contract)


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (500, 7)])
def test_a_picture_that_shows_nothing_is_refused(encode, contract, size):
    with pytest.raises(TooSmall, match=f"{size[0]} x {size[1]} pixels"):
        prepare(encode(Image.new("RGB", size), "PNG"), contract)


def test_the_smallest_picture_taken(encode, contract):
    assert prepare(encode(Image.new("RGB", (8, 8)), "PNG"), contract).width == 8


@pytest.mark.parametrize("rows", [b"", b"\x09" * 121 * 40])
def test_pixels_that_do_not_fit_the_header_are_damaged(build_png, contract, rows):
    with pytest.raises(Damaged):
        prepare(build_png(40, 40, rows), contract)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_what_hides_behind_a_picture_is_not_looked_at(encode, flag, contract, kind):
    data = encode(flag, kind)
    polyglot = data + b"<html><script>alert(1)</script>" + encode(flag.rotate(180), "PNG")
    assert prepare(polyglot, contract) == prepare(data, contract)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("missing", [0, 9, 36])
def test_a_black_png_is_none_that_lacks_rows(contract, interlaced, missing):
    """Eight pixels a side in grey; interlaced, by the passes of PNG 3rd edition, 8.1."""
    size = 1 * 2 + 1 * 2 + 1 * 3 + 2 * 3 + 2 * 5 + 4 * 5 + 4 * 9 if interlaced else 8 * 9
    data = hostile.png_of(8, 8, hostile.zeros(size - missing), 8, 0, interlaced=interlaced)
    if missing:
        with pytest.raises(Damaged, match="before its last row"):
            prepare(data, contract)
    else:
        assert prepare(data, contract).pixels == bytes(contract.nbytes)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "colour", "bits"), [(1, 0, 1), (16, 2, 48), (2, 3, 2), (8, 6, 32)]
)
def test_rows_are_counted_in_every_kind_of_png(contract, depth, colour, bits, interlaced):
    size = 13 * (1 + (11 * bits + 7) // 8)
    if interlaced:
        passes = ((2, 2), (1, 2), (3, 2), (3, 4), (6, 3), (5, 7), (11, 6))
        size = sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in passes)
    extra = ((b"PLTE", bytes(12)),)
    for missing in (0, 1):
        data = hostile.png_of(
            11, 13, hostile.zeros(size - missing), depth, colour, interlaced=interlaced, extra=extra
        )
        with pytest.raises(Damaged) if missing else nullcontext():
            prepare(data, contract)


def jpeg_with(segments, encode, flag):
    """A JPEG with APP1 segments behind its start."""
    data = encode(flag, "JPEG")
    added = b"".join(b"\xff\xe1" + struct.pack("!H", len(body) + 2) + body for body in segments)
    return data[:2] + added + data[2:]


def test_broken_metadata_spoil_no_picture(encode, flag, contract):
    endless = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + b"\x08\0\0\0"
    crowded = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\2\xff\xff\xff\xff\0\0\0\0" * 5000
    expected = prepare(encode(flag, "JPEG"), contract)
    for segments in ([endless], [crowded], [b"Exif\0\0"], [b"Exif\0\0" + b"\xff" * 60_000] * 200):
        assert prepare(jpeg_with(segments, encode, flag), contract) == expected


@pytest.mark.parametrize(
    "extra",
    [(b"eXIf", b"no such thing"), (b"tEXt", b"Raw profile type exif\0\nexif\n4\nhexagon")],
    ids=["no EXIF", "no numbers"],
)
def test_metadata_that_cannot_be_read_spoil_no_picture(build_png, contract, extra):
    data = build_png(40, 40, bytes(121 * 40), extra=(extra,))
    assert prepare(data, contract).warnings == ()


def test_a_broken_animation_still_has_its_first_frame(build_png, contract, recwarn):
    data = build_png(40, 40, bytes(121 * 40), extra=((b"acTL", bytes(8)),))
    assert prepare(data, contract).pixels == bytes(contract.nbytes)
    # Pillow does warn of this one, which is none of the caller's business.
    assert not recwarn
