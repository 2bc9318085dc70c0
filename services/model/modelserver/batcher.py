"""Which work goes into the engine's next batch. Pure: no engine, no clock, no socket.

Rules:
- When the engine is free it takes what is there, up to ``max_batch``: one alone never waits
  for company, and a crowd is a batch by itself.
- An engine that is free for several batches gets the crowd in equal parts.
- First come, first served. What is past its deadline is not computed.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from wire import Work


@dataclass(frozen=True, slots=True)
class Item:
    """One picture ready for the engine. Times are seconds on the caller's clock."""

    work: Work
    pixels: NDArray[np.uint8]
    """height x width x 3"""
    arrived: float
    deadline: float
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What `Batcher.take` gives: items for the engine, and those that came to nothing."""

    items: list[Item]
    expired: list[Item]


class Batcher:
    """A queue that is emptied a batch at a time."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._items: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """Put an item behind the others."""
        self._items.append(item)

    def take(self, now: float, parts: int = 1) -> Batch:
        """The next of ``parts`` batches at ``now``, at most ``max_batch`` items; both lists may be
        empty."""
        batch = Batch([], [])
        most = min(self._max_batch, ceil(len(self._items) / parts))
        while self._items and len(batch.items) < most:
            item = self._items.popleft()
            (batch.items if now < item.deadline else batch.expired).append(item)
        return batch

    def clear(self) -> None:
        """Forget everything: whoever sent it does not expect it any more."""
        self._items.clear()
