"""What the replica asks of whatever runs a model."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class EngineError(Exception):
    """The engine cannot start, or gave an answer that is none."""


class GoldenError(EngineError):
    """The engine works, and its answers are not those that its bundle was made with."""


class Engine(Protocol):
    """A model ready to answer: loaded and warm, whatever the size of the first batch.

    It is used by `parallel` threads at once and no more. It lets others run while it computes.
    """

    @property
    def kind(self) -> str:
        """What it is called among engines, as in `load_engine`."""

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, or `simulated` where nothing is."""

    @property
    def max_batch(self) -> int:
        """The most pictures it takes at once."""

    @property
    def parallel(self) -> int:
        """How many batches it computes at the same time, each in the thread that brings it."""

    def padding(self, n: int) -> int:
        """How many pictures that are none it computes along with `n`."""

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classifies `pixels`, (n, height, width, 3) uint8 RGB with 1 <= n <= max_batch.

        Returns (n, classes) float32 probabilities, finite, each row summing to 1. A picture's
        answer does not depend on its company. Raises EngineError for a batch of another size
        and when the model's output is not finite.
        """


def check_batch(n: int, max_batch: int) -> None:
    """Raises EngineError unless a batch of `n` is one that the engine promised to take."""
    if not 1 <= n <= max_batch:
        raise EngineError(f"a batch of {n} pictures, where the engine takes 1 to {max_batch}")


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probabilities, (n, classes), of logits of that shape.

    Raises EngineError when a logit is not finite: the pictures were not classified.
    """
    if not np.isfinite(logits).all():
        raise EngineError("the model's output is not finite")
    # Without the largest logit taken off first, exp() could leave float32's range.
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
