"""How large something was, counted in parts.

What a metrics library offers for this takes a lock for each observation, and the broker makes
three of them for each request.
"""

from bisect import bisect_left
from typing import Final

from wire import Distribution

TIMES_MS: Final = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts observations by the first bound that is not below them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """``bounds`` are ascending."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """One more observation, in the unit of the bounds."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def distribution(self) -> Distribution:
        """All of them so far."""
        return Distribution(
            bounds=self._bounds, counts=tuple(self._counts), total=round(self._total, 3)
        )
