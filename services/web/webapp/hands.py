"""Spare threads for requests that have several parts.

Rules:
- There are so many for all requests of a process together; a request that finds none spare has
  one of its own and takes longer, and nobody waits for a thread.
- One part that fails ends all: those that wait are dropped, those under way are told to stop.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final, TypeVar

from webapp.errors import SenderLeft
from webapp.presence import Left

SPARE: Final = 32
"""Each has a socket to the broker while it works."""
AT_ONCE: Final = 16
"""Parts of one request under way: four batches, as a replica on a CPU makes them."""

Part = TypeVar("Part")


class PartFailed(Exception):
    """One part of a request failed, and with it the request; the cause is the part's own error."""

    def __init__(self, at: int, error: Exception) -> None:
        super().__init__(f"part {at}: {error}")
        self.at = at
        self.error = error


class Hands:
    """The spare threads of one process."""

    def __init__(self, spare: int = SPARE) -> None:
        """``spare``: how many there are, besides one for each request."""
        self._spare = threading.Semaphore(spare)

    def each(self, work: Callable[[int, Left], Part], count: int, left: Left) -> list[Part]:
        """What ``work`` makes of 0 to ``count`` - 1, in this order, several of them at a time.

        It is given the number and a ``left`` that is also true when there is no use in going on.

        Raises:
            PartFailed: ``work`` raised something for one of them: where it did so for several, the
                first in order of those that had failed by then.
        """
        failed = threading.Event()

        def useless() -> bool:
            return failed.is_set() or left()

        with (
            self._borrowed(min(count, AT_ONCE) - 1) as threads,
            ThreadPoolExecutor(threads) as crew,
        ):
            parts = [crew.submit(work, at, useless) for at in range(count)]
            done, _ = wait(parts, return_when=FIRST_EXCEPTION)
            errors = {at: part.exception() for at, part in enumerate(parts) if part in done}
            blamed = {at: error for at, error in errors.items() if isinstance(error, Exception)}
            if blamed:
                failed.set()
                crew.shutdown(wait=False, cancel_futures=True)
                # Others may have stopped already because this one failed.
                at = min(blamed, key=lambda at: (isinstance(blamed[at], SenderLeft), at))
                raise PartFailed(at, blamed[at]) from blamed[at]
            return [part.result() for part in parts]

    @contextmanager
    def _borrowed(self, wanted: int) -> Iterator[int]:
        """The number of threads that may be used, the one of the request's own among them."""
        spare = 0
        try:
            while spare < wanted and self._spare.acquire(blocking=False):
                spare += 1
            yield spare + 1
        finally:
            for _ in range(spare):
                self._spare.release()
