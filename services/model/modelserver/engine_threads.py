"""Runs an engine in threads of its own, so that the I/O thread answers however long a batch takes.

As many batches at once as the engine computes in parallel: `start_batch` hands one over, and its
Outcome comes back through the mailbox.
"""

import logging
import math
import os
import queue
import threading
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelserver.batcher import Item
from modelserver.engines import Engine, EngineError
from modelserver.mailbox import Mailbox

log = logging.getLogger("EngineThreads")

NO_MEMORY_STATUS: Final = 71
"""Exit status of a replica that is refused memory (EX_OSERR)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one batch. Times are seconds on the monotonic clock."""

    items: list[Item]
    started: float
    """When it was handed over."""
    began: float
    ended: float
    probabilities: NDArray[np.float32] | None
    """len(items) x classes; None when the engine failed."""
    error: str = ""


class EngineThreads:
    """One engine, and a thread for each batch that it takes at a time."""

    def __init__(self, engine: Engine, outcomes: Mailbox[Outcome]) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._inbox: queue.SimpleQueue[tuple[list[Item], float] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"engine {n}", daemon=True)
            for n in range(engine.parallel)
        ]
        self._started: list[float] = []
        """When the batches were handed over that are on their way, the oldest first."""
        self._returned = -math.inf

    def start(self) -> None:
        """Begin to take batches."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads once the batches at hand are through."""
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads:
            thread.join()

    def start_batch(self, items: list[Item], now: float) -> None:
        """Hand over a batch at ``now``. Only while somebody is `free`."""
        self._started.append(now)
        self._inbox.put((items, now))

    def finished(self, outcome: Outcome) -> None:
        """The outcome has been taken from the mailbox, so another batch may come."""
        self._started.remove(outcome.started)

    @property
    def free(self) -> int:
        """How many more batches can be handed over."""
        return len(self._threads) - len(self._started)

    @property
    def busy(self) -> bool:
        """A batch is on its way."""
        return bool(self._started)

    def busy_seconds(self, now: float) -> float | None:
        """For how long the oldest batch has been on its way; None when there is none."""
        return now - max(self._started[0], self._returned) if self._started else None

    def returned(self, now: float) -> None:
        """This process was away until ``now``, and the engine with it: no batch took so long."""
        self._returned = now

    def _run(self) -> None:
        while (given := self._inbox.get()) is not None:
            self._outcomes.put(self._compute(*given))

    def _compute(self, items: list[Item], started: float) -> Outcome:
        began = time.monotonic()
        try:
            pixels = (
                items[0].pixels[None] if len(items) == 1 else np.stack([i.pixels for i in items])
            )
            probabilities = self._engine.predict(pixels)
        except EngineError as error:
            return Outcome(items, started, began, time.monotonic(), None, str(error))
        except MemoryError:
            # Whoever has this batch next may have more; here the next one would fail alike.
            log.critical("no memory for a batch; this replica ends to be started anew")
            os._exit(NO_MEMORY_STATUS)
        except Exception:
            log.exception("the engine raised what an engine must not raise")
            return Outcome(items, started, began, time.monotonic(), None, "The engine failed.")
        return Outcome(items, started, began, time.monotonic(), probabilities)
