"""Answers as slowly as a model would, without one: for scale tests, and work on the rest.

Rules:
- Nothing is classified. The class is a checksum of the pixels, so a test can tell that every
  answer came back to its own picture; the device's name says `simulated`.
- The time is slept, not computed: a hundred simulated replicas fit on two cores.
"""

import time
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelserver.engines.engine import check_batch
from wire.contract import Contract

CERTAINTY: Final = 0.9
"""The probability of the made-up class; the others share the rest."""


@dataclass(frozen=True, slots=True)
class LatencyCurve:
    """What a batch costs: `base_ms`, and `per_image_ms` for each picture in it."""

    base_ms: float
    per_image_ms: float

    def seconds(self, n: int) -> float:
        """How long a batch of `n` takes."""
        return (self.base_ms + self.per_image_ms * n) / 1000


INSTANT: Final = LatencyCurve(base_ms=0, per_image_ms=0)


class SimulatedEngine:
    """The Engine that only takes its time."""

    kind = "simulated"
    device = "simulated"
    parallel = 1

    def __init__(self, contract: Contract, latency: LatencyCurve, *, max_batch: int) -> None:
        self.max_batch = max_batch
        self._classes = contract.classes
        self._latency = latency

    def padding(self, n: int) -> int:  # noqa: ARG002 - it takes any batch as it is
        """See Engine.padding."""
        return 0

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.predict; the likeliest class of each picture is its `simulated_class`."""
        n = len(pixels)
        check_batch(n, self.max_batch)
        time.sleep(self._latency.seconds(n))
        rest = (1 - CERTAINTY) / (self._classes - 1)
        probabilities = np.full((n, self._classes), rest, np.float32)
        for row, picture in zip(probabilities, pixels, strict=True):
            row[simulated_class(picture, self._classes)] = CERTAINTY
        return probabilities


def simulated_class(picture: NDArray[np.uint8], classes: int) -> int:
    """The class, 0 to classes - 1, that SimulatedEngine gives one picture."""
    return zlib.crc32(picture.tobytes()) % classes
