"""What a model brings to its build."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelserver.bundle import FP32, INT8, SAVED_MODEL, Label, Preprocessing, Terms

ARTIFACTS: Final = {"int8": INT8, "fp32": FP32, "saved_model": SAVED_MODEL}
"""What the command line calls an artifact, and its name in the bundle."""

PREPROCESSINGS: Final = {
    "none": Preprocessing(mean=0, scale=1),
    "unit": Preprocessing(mean=0, scale=255),
    "tf": Preprocessing(mean=127.5, scale=127.5),
    "torch": Preprocessing(mean=(123.675, 116.28, 103.53), scale=(58.395, 57.12, 57.375)),
    "caffe": Preprocessing(mean=(103.939, 116.779, 123.68), scale=1, order="bgr"),
}
"""What pixels may become before a network sees them: 0..255 as they are, 0..1, -1..1, less
ImageNet's mean and over its deviation, or as Caffe had it. The last three under the names and
with the numbers of keras.applications.imagenet_utils.preprocess_input."""


class BuildError(Exception):
    """The bundle was not built; the message says at which step and why."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model: everything about it that `assemble` cannot work out."""

    name: str
    version: str
    contract: Terms
    preprocessing: Preprocessing
    licence: str
    """SPDX identifier of the weights' licence, or what is known of it."""
    notice: str
    """What the licence wants said beside the bundle: whose work it is and what was changed."""
    provenance: Mapping[str, str]
    network: Callable[[], Callable[[Any], Any]]
    """Makes the network, a function of a tensor: (n, height, width, 3) float32, preprocessed ->
    (n, classes) float32, logits or the softmax of them."""
    labels: tuple[Label, ...] | None = None
    """One a class; None: the thousand classes of ImageNet."""
