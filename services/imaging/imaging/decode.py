"""Turns the bytes of a picture into the pixels of a model's contract, in this process.

Rules:
- Only the decoder of the format that the first bytes show is tried, and the size in the header
  is judged before a pixel is decoded.
- What a person sees is what the model gets: upright as the EXIF tag says, the first frame of an
  animation, transparency laid on white. Colour profiles are ignored; so they were in training.
- Every change made to the picture is told in `Prepared.warnings`.
- Work is done on as few pixels as possible: a JPEG is decoded at a fraction of its size where
  the model needs no more, and turning and compositing wait until the picture is small.
- The bytes are hostile. Whatever Pillow raises leaves here as an `ImageError`; what a file can
  cost is bounded by `DecoderPool`, which runs this in limited processes.
"""

import warnings
from collections.abc import Callable
from io import BytesIO
from math import ceil, floor
from typing import Final

import msgspec
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageMath,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from imaging import rows
from imaging.errors import SAVE_AGAIN, Damaged, ImageError, TooLarge, TooSmall, too_expensive
from imaging.formats import admit
from wire import Contract

MAX_PIXELS: Final = 51_000_000
"""Just above the 8160 x 6120 of today's 50-megapixel phones; more is a scan, or an attack."""
MIN_SIDE: Final = 8
"""In pixels. Less shows nothing; tracking pixels and failed downloads have 1."""

# The limit that Pillow applies itself where a decoder allocates while it reads the header (WebP
# does). Pillow raises at twice this number.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

_OPENERS: Final[dict[str, Callable[[BytesIO], ImageFile.ImageFile]]] = {
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
"""The decoders themselves rather than Image.open, which loads and may try others."""

_resizer: Final = Resizer()
"""Pillow's convolution in the vector instructions that the CPU has, in a quarter of the time."""
_FILTERS: Final = {
    "bilinear": ResizeAlg.convolution(FilterType.bilinear),
    "bicubic": ResizeAlg.convolution(FilterType.catmull_rom),
    "lanczos": ResizeAlg.convolution(FilterType.lanczos3),
}
"""Catmull-Rom is what Pillow calls bicubic (a = -0.5)."""
_WIDEST_FILTER: Final = 3
"""Lanczos; in pixels of the result each way."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to get a picture upright, by the EXIF orientation (EXIF 2.32, tag 0x0112)."""
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})

_GREY_STEPS: Final[dict[object, int]] = {"L;2": 85, "L;4": 17}
"""What one step of a grey in 2 or 4 bits is in 8, by Pillow's name for it."""

_GAP: Final = 2.0
"""A JPEG is decoded at a fraction of its size down to this multiple of the final one; the
contract's filter does the rest.

As in Pillow's thumbnails. Measured with EfficientNet-Lite0 on photos of 12 megapixels: the top
class is the same in 49 of 50, and right as often, as with the filter alone.
"""
_BLURRED: Final = 0.5
"""Fewer source pixels than this for one of the model's, each way, and answers get poor."""
_PREVIEW_QUALITY: Final = 85


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture is before anything is done to it."""

    mode: str
    """How its pixels are stored, as Pillow calls it: L is grey, P a palette, I;16 grey in 16 bits,
    an A at the end is transparency; 1, RGB and CMYK speak for themselves."""
    has_alpha: bool
    """Some of its pixels may be transparent."""
    has_profile: bool
    """It says what its colours mean on a screen, which is ignored."""
    orientation: int
    """1 to 8, by its EXIF tag; 1 is upright, or nothing said."""
    frames: int
    """Of an animation; 1 for a still."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A picture as a model wants it, and what had to be done to get there."""

    pixels: bytes
    """``height x width x 3`` of the contract, RGB, uint8, rows first."""
    format: str
    """As `sniff` spells it."""
    width: int
    """Of the upright original, in pixels."""
    height: int
    """Of the upright original, in pixels."""
    warnings: tuple[str, ...]
    """What was done to the picture, and doubts about it, in plain words."""
    preview: bytes
    """A JPEG of exactly ``pixels``, or nothing where none was asked for."""
    facts: Facts | None
    """None where they were not asked for."""


def prepare(
    data: bytes, contract: Contract, *, preview: bool = False, facts: bool = False
) -> Prepared:
    """The picture in ``data`` as ``contract`` wants it: cropped to the middle and resized.

    For one thread at a time, since Pillow's warnings are silenced in the whole process
    meanwhile; threads share a `DecoderPool`, which bounds time and memory as well.

    Raises:
        ImageError: The bytes cannot be turned into pixels. Nothing else is raised.
    """
    found = admit(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _prepare(data, found, contract, preview, facts)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_many_pixels("This picture") from error
        except MemoryError as error:
            raise too_expensive("memory") from error
        except Exception as error:
            # Pillow's decoders raise whatever comes to hand: OSError, SyntaxError, struct.error,
            # IndexError, RecursionError, ZeroDivisionError and more have been seen.
            raise Damaged(f"This {found} file is damaged or incomplete.", SAVE_AGAIN) from error


def _prepare(
    data: bytes, found: str, contract: Contract, preview: bool, wants_facts: bool
) -> Prepared:
    notes: list[str] = []
    with _OPENERS[found](BytesIO(data)) as image:
        _check_size(*image.size)
        # Asked before the pixels are loaded: a GIF looks ahead for it and rewinds.
        if getattr(image, "is_animated", False):
            notes.append("first frame of an animation")
        # To count the frames of a GIF takes a way through all of it.
        frames = int(getattr(image, "n_frames", 1)) if wants_facts else 1
        if found == "PNG":
            _settle_key(image)
        if found != "JPEG":
            # The EXIF data of a PNG may follow the pixels.
            image.load()
        if found == "PNG" and rows.are_missing(data, image):
            raise Damaged("This PNG file ends before its last row.", SAVE_AGAIN)
        orientation = _orientation(image)
        facts = _facts(image, orientation, frames) if wants_facts else None
        width, height = image.size
        size = (contract.width, contract.height)
        if orientation in _SIDEWAYS:
            size = (contract.height, contract.width)

        ratio = contract.crop * min(width / size[0], height / size[1])
        left = max(0.0, (width - ratio * size[0]) / 2)
        top = max(0.0, (height - ratio * size[1]) / 2)
        box = (left, top, width - left, height - top)
        if found == "JPEG":
            box = _draft(image, box, ratio)
        small = _resized(_resizable(image), size, contract, box)

    if orientation in _TURNS:
        small = small.transpose(_TURNS[orientation])
        notes.append("rotated by its EXIF tag")
    if orientation in _SIDEWAYS:
        width, height = height, width
    if small.mode == "RGBA" and small.getchannel("A").getextrema() != (255, 255):
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
        notes.append("transparent areas laid on white")
    if ratio < _BLURRED:
        notes.append(_too_few_pixels(width, height, contract))
    if small.mode != "RGB":
        small = small.convert("RGB")
    return Prepared(
        pixels=small.tobytes(),
        format=found,
        width=width,
        height=height,
        warnings=tuple(notes),
        preview=_jpeg(small) if preview else b"",
        facts=facts,
    )


def _settle_key(image: ImageFile.ImageFile) -> None:
    """Before the pixels are loaded: the one transparent colour that a PNG may name is of the file's
    depth, and Pillow looks for it among pixels of 8 bits."""
    key = image.info.get("transparency")
    depth = image.tile[0].args if image.tile else None
    if isinstance(key, int) and (step := _GREY_STEPS.get(depth)):
        image.info["transparency"] = key % (255 // step + 1) * step
    elif isinstance(key, tuple) and depth == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _facts(image: Image.Image, orientation: int, frames: int) -> Facts:
    return Facts(
        mode=image.mode,
        has_alpha=image.has_transparency_data,
        has_profile=bool(image.info.get("icc_profile")),
        orientation=orientation,
        frames=frames,
    )


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(f"A picture of {width} x {height} pixels")
    if min(width, height) < MIN_SIDE:
        raise TooSmall(
            f"The picture is {width} x {height} pixels.",
            f"Both sides need at least {MIN_SIDE} pixels; 200 and more give good answers.",
        )


def _too_few_pixels(width: int, height: int, contract: Contract) -> str:
    """The doubt about a small picture, by the side that there is too little of."""
    if width * contract.height <= height * contract.width:
        return f"only {width} px wide, answers may be poor"
    return f"only {height} px high, answers may be poor"


def _too_many_pixels(what: str) -> TooLarge:
    return TooLarge(
        f"{what} is too large.",
        f"At most {MAX_PIXELS // 1_000_000} million pixels are taken: scale it down.",
    )


def _orientation(image: Image.Image) -> int:
    """How the camera was held, 1 where nothing sensible is said.

    Broken metadata spoil no picture: browsers show such files too.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - see above, and anything may be raised
        return 1
    return orientation if orientation in _TURNS else 1


def _draft(
    image: ImageFile.ImageFile, box: tuple[float, float, float, float], ratio: float
) -> tuple[float, float, float, float]:
    """Makes a JPEG decode at 1/2, 1/4 or 1/8 where enough is left; ``box`` on that scale.

    This is what makes a photo of 12 megapixels cheap: most of its pixels are never computed.
    """
    wanted = (ceil(image.width * _GAP / ratio), ceil(image.height * _GAP / ratio))
    width = image.width
    drafted = image.draft(None, wanted)
    if drafted is None:
        return box
    scale = drafted[1][2] / width
    left, top, right, bottom = box
    return (left * scale, top * scale, right * scale, bottom * scale)


def _resized(
    image: Image.Image,
    size: tuple[int, int],
    contract: Contract,
    box: tuple[float, float, float, float],
) -> Image.Image:
    """What ``box`` (left, top, right, bottom) cuts out of ``image``, in its own mode.

    Columns first, then rows, as Pillow does: the values between are rounded, and rounding them
    in the same order leaves 97 of 100 values as Pillow's are; the other way round it is 82.
    """
    left, top, right, bottom = box
    # Rounding may have put a side a hair beyond the edge, which is not forgiven here.
    right, bottom = min(right, image.width), min(bottom, image.height)
    # A filter looks so far beyond the pixel that it makes.
    reach = _WIDEST_FILTER * max(1.0, (bottom - top) / size[1])
    first, last = max(0, floor(top - reach)), min(image.height, ceil(bottom + reach))
    # Without a colour: every pixel is about to be written.
    columns = Image.new(image.mode, (size[0], last - first), None)
    _resample(image, columns, contract, CropBox(left, first, right - left, last - first))
    small = Image.new(image.mode, size, None)
    _resample(columns, small, contract, CropBox(0, top - first, size[0], bottom - top))
    return small


def _resample(image: Image.Image, into: Image.Image, contract: Contract, cut: CropBox) -> None:
    _resizer.resize_pil(image, into, ResizeOptions(_FILTERS[contract.filter], crop_box=cut))


def _resizable(image: Image.Image) -> Image.Image:
    """``image`` in a mode whose values may be averaged: L, RGB, CMYK, or RGBA for transparency,
    whose colours are weighed with their alpha then."""
    if image.mode == "I;16":
        # Pillow's own conversion clips instead.
        grey = image.point(lambda value: value / 256).convert("L")
        key = image.info.get("transparency")
        return _without(key, image, grey) if isinstance(key, int) else grey
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("RGB")


def _without(key: int, image: Image.Image, grey: Image.Image) -> Image.Image:
    """``grey``, transparent where ``image``, in 16 bits, is ``key``."""
    alpha = ImageMath.lambda_eval(
        lambda math: math["convert"]((math["image"] != key) * 255, "L"), image=image.convert("I")
    )
    return Image.merge("RGBA", (grey, grey, grey, alpha))


def _jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=_PREVIEW_QUALITY)
    return file.getvalue()
