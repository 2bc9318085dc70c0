"""Runs an engine in a thread of its own, so that the I/O thread answers however long a batch takes.

One batch at a time: `start_batch` hands it over, and its Outcome comes back through the mailbox.
"""

import logging
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

log = logging.getLogger("EngineThread")

NO_MEMORY_STATUS: Final = 71
"""Exit status of a replica that is refused memory (EX_OSERR)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one batch. Times are seconds on the monotonic clock."""

    items: list[Item]
    began: float
    ended: float
    probabilities: NDArray[np.float32] | None
    """len(items) x classes; None when the engine failed."""
    error: str = ""


class EngineThread:
    """One engine, one thread, one batch at a time."""

    def __init__(self, engine: Engine, outcomes: Mailbox[Outcome]) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._inbox: queue.SimpleQueue[list[Item] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._busy_since: float | None = None

    def start(self) -> None:
        """Begin to take batches."""
        self._thread.start()

    def close(self) -> None:
        """End the thread once the batch at hand is through."""
        self._inbox.put(None)
        self._thread.join()

    def start_batch(self, items: list[Item], now: float) -> None:
        """Hand over a batch at ``now``. Only when not `busy`."""
        self._busy_since = now
        self._inbox.put(items)

    def finished(self) -> None:
        """The outcome has been taken from the mailbox, so the next batch may come."""
        self._busy_since = None

    @property
    def busy(self) -> bool:
        """A batch is on its way."""
        return self._busy_since is not None

    def busy_seconds(self, now: float) -> float | None:
        """For how long the present batch has been on its way; None when there is none."""
        return None if self._busy_since is None else now - self._busy_since

    def _run(self) -> None:
        while (items := self._inbox.get()) is not None:
            self._outcomes.put(self._compute(items))

    def _compute(self, items: list[Item]) -> Outcome:
        began = time.monotonic()
        try:
            pixels = (
                items[0].pixels[None] if len(items) == 1 else np.stack([i.pixels for i in items])
            )
            probabilities = self._engine.predict(pixels)
        except EngineError as error:
            return Outcome(items, began, time.monotonic(), None, str(error))
        except MemoryError:
            # Whoever has this batch next may have more; here the next one would fail alike.
            log.critical("no memory for a batch; this replica ends to be started anew")
            os._exit(NO_MEMORY_STATUS)
        except Exception:
            log.exception("the engine raised what an engine must not raise")
            return Outcome(items, began, time.monotonic(), None, "The engine failed.")
        return Outcome(items, began, time.monotonic(), probabilities)
