"""Photographs that ship inside the wheels of scikit-image and scikit-learn.

Rules:
- They only show the quantiser what photographs look like; none comes into a bundle but the
  golden ones, whose photographers gave up their rights (CC0).
- Every choice of a crop comes out of a fixed seed: the same wheels give the same pixels.
"""

from importlib.metadata import distribution
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


def calibration_crops(terms: Terms) -> NDArray[np.uint8]:
    """120 crops, (120, height, width, 3) RGB: all photographs in turn, half of them mirrored.

    A crop's side is 0.4 to 1 of the photograph's short side.
    """
    images = [_scikit_image(name) for name in _SCIKIT_IMAGE]
    images += [_open("scikit-learn", f"sklearn/datasets/images/{name}") for name in _SCIKIT_LEARN]
    random = np.random.default_rng(seed=0)
    crops = []
    for number in range(120):
        image = images[number % len(images)]
        side = min(image.size) * random.uniform(0.4, 1.0)
        left, upper = (random.uniform(0, length - side) for length in image.size)
        crop = _resized(image, (left, upper, left + side, upper + side), terms)
        crops.append(crop[:, ::-1] if random.random() < 0.5 else crop)
    return np.stack(crops)


def golden_pixels(golden: GoldenPhotograph, terms: Terms) -> NDArray[np.uint8]:
    """The golden part in the contract's size, (height, width, 3) RGB."""
    return _resized(_scikit_image(golden.file), golden.box, terms)


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
