"""What a model brings to its build."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelserver.bundle import Preprocessing, Terms

if TYPE_CHECKING:
    import keras


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
    """SPDX identifier of the weights' licence."""
    notice: str
    """What the licence wants said beside the bundle: whose work it is and what was changed."""
    provenance: Mapping[str, str]
    logits: "Callable[[], keras.Model]"
    """Makes the network: (n, height, width, 3) float32, preprocessed -> (n, classes) float32."""
