"""What a file is taken for, by its first bytes alone."""

import pytest
from PIL import Image

from imaging import MAX_BYTES, Empty, NotAnImage, TooLarge, admit, sniff


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_every_format_is_recognised_by_its_first_bytes(encode, flag, kind):
    data = encode(flag, kind)
    assert sniff(data) == admit(data) == kind
    assert sniff(data[:40]) == kind


def test_an_animated_avif_is_recognised(encode, flag):
    assert sniff(encode(flag, "AVIF", save_all=True, append_images=[flag.rotate(180)])) == "AVIF"


def test_an_avif_whose_first_brand_is_another_is_recognised():
    assert sniff(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(99)) == "AVIF"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"hello", "not a picture of a known format"),
        (b"\xff\xd8", "not a picture of a known format"),
        (b"BMW is a maker of cars, and this is a text about it.", "not a picture"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a picture of a known format"),
        (b"%PDF-1.7", "a PDF document"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "an SVG drawing"),
        (b"<!DOCTYPE html><p>GIF89a", "a web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video"),
        (b"\xff\xff\xff\xffftypmp42", "a video"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name(data, name):
    assert sniff(data) is None
    with pytest.raises(NotAnImage, match=name) as refusal:
        admit(data)
    assert "JPEG" in refusal.value.remedy


def test_an_empty_file_is_refused():
    assert sniff(b"") is None
    with pytest.raises(Empty):
        admit(b"")


def test_the_limit_in_bytes_is_exact(encode):
    data = encode(Image.new("RGB", (8, 8)), "JPEG")
    assert admit(data.ljust(MAX_BYTES)) == "JPEG"
    with pytest.raises(TooLarge, match=r"20\.0 MiB"):
        admit(data.ljust(MAX_BYTES + 1))
