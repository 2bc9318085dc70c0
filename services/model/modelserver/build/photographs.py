"""Photographs that ship inside the wheels of scikit-image and scikit-learn.

They are for whoever has no pictures of his model's own classes; `Pictures` is either.

Rules:
- They only show the quantiser what photographs look like; none comes into a bundle but the
  golden ones, whose photographers gave up their rights (CC0).
- Every choice of a crop comes out of a fixed seed: the same wheels give the same pixels.
"""

from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from modelserver.build.recipe import BuildError
from modelserver.bundle import Terms

_SCIKIT_IMAGE: Final = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
_SCIKIT_LEARN: Final = ("china.jpg", "flower.jpg")

SOURCE: Final = (
    f"120 random crops of {', '.join(_SCIKIT_IMAGE)} (scikit-image) "
    f"and {', '.join(_SCIKIT_LEARN)} (scikit-learn)"
)

_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

_FILTERS: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class GoldenPhotograph(NamedTuple):
    """A part of a photograph that a good model is sure of.

    A network rebuilt wrongly would not name one of its `classes` (of ImageNet's thousand).
    """

    file: str
    box: tuple[int, int, int, int]
    """Left, upper, right, lower."""
    classes: tuple[int, ...]
    source: str
    licence: str = "CC0-1.0"


_TRIPOD: Final = (872,)
_CATS: Final = (281, 282, 285)
_ESPRESSO: Final = (967,)

GOLDEN: Final = (
    GoldenPhotograph("camera.png", (36, 36, 476, 476), _TRIPOD, "Lav Varshney"),
    GoldenPhotograph("chelsea.png", (33, 21, 300, 288), _CATS, "Stefan van der Walt"),
    GoldenPhotograph("coffee.png", (125, 25, 475, 375), _ESPRESSO, "Rachel Michetti"),
)
"""Sources and licences as scikit-image's documentation of its pictures gives them."""


class Candidate(NamedTuple):
    """A picture that may become a golden one, in the contract's size."""

    name: str
    pixels: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    classes: tuple[int, ...]
    """What it shows, by ImageNet's classes; empty where nobody has said."""
    source: str
    licence: str


def calibration_crops(terms: Terms, folder: Path | None = None) -> NDArray[np.uint8]:
    """120 crops, (120, height, width, 3) RGB: all photographs in turn, half of them mirrored.

    Of the pictures in `folder`, or of the wheels'. A crop's side is 0.4 to 1 of the photograph's
    short side. Raises BuildError when `folder` has none.
    """
    if folder is None:
        images = [_scikit_image(name) for name in _SCIKIT_IMAGE]
        images += [
            _open("scikit-learn", f"sklearn/datasets/images/{name}") for name in _SCIKIT_LEARN
        ]
    else:
        images = [image for _, image in _images(folder, at_most=120)]
    random = np.random.default_rng(seed=0)
    crops = []
    for number in range(120):
        image = images[number % len(images)]
        side = min(image.size) * random.uniform(0.4, 1.0)
        left, upper = (random.uniform(0, length - side) for length in image.size)
        crop = _resized(image, (left, upper, left + side, upper + side), terms)
        crops.append(crop[:, ::-1] if random.random() < 0.5 else crop)
    return np.stack(crops)


def golden_candidates(
    terms: Terms, folder: Path | None = None, *, licence: str = ""
) -> Iterator[Candidate]:
    """The golden photographs, or up to 24 of the pictures in `folder`, cropped by the contract."""
    if folder is None:
        for golden in GOLDEN:
            pixels = _resized(_scikit_image(golden.file), golden.box, terms)
            name = Path(golden.file).stem
            yield Candidate(name, pixels, golden.classes, golden.source, golden.licence)
        return
    for number, (path, image) in enumerate(_images(folder, at_most=24)):
        side = terms.crop * min(image.size)
        left, upper = ((length - side) / 2 for length in image.size)
        pixels = _resized(image, (left, upper, left + side, upper + side), terms)
        yield Candidate(f"{number:02}-{path.stem}", pixels, (), path.name, licence)


def _images(folder: Path, at_most: int) -> list[tuple[Path, Image.Image]]:
    """Pictures in `folder` and below it, evenly out of all of them in the order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise BuildError(f"{folder}: has no pictures ({', '.join(_SUFFIXES)})")
    count = min(at_most, len(paths))
    chosen = [paths[number * len(paths) // count] for number in range(count)]
    try:
        return [(path, ImageOps.exif_transpose(Image.open(path)).convert("RGB")) for path in chosen]
    except (OSError, UnidentifiedImageError) as error:
        raise BuildError(f"{folder}: a picture cannot be read ({error})") from None


def _scikit_image(name: str) -> Image.Image:
    return _open("scikit-image", f"skimage/data/{name}")


def _open(package: str, path: str) -> Image.Image:
    # Found by the package's list of files: importing the package would take seconds.
    return Image.open(str(distribution(package).locate_file(path))).convert("RGB")


def _resized(
    image: Image.Image, box: tuple[float, float, float, float], terms: Terms
) -> NDArray[np.uint8]:
    size = (terms.width, terms.height)
    return np.asarray(image.resize(size, _FILTERS[terms.filter], box=box))
