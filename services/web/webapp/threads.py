"""The threads that answer requests.

A ThreadPoolExecutor would do, but for each request it makes a Future with a lock, a condition and
callbacks, which costs as much as parsing the request does. Nobody here waits for one result.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")

log = logging.getLogger("Threads")


class Threads(Generic[Item]):
    """Calls ``work`` with one item after the other, each in a thread; as many threads as there
    were items at once."""

    def __init__(self, work: Callable[[Item], None]) -> None:
        """What ``work`` raises is logged, and its thread goes on."""
        self._work = work
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        self._started = 0

    def give(self, item: Item, *, busy: int) -> None:
        """Work on ``item``, the last of ``busy`` items that are not through. For one caller."""
        if self._started < busy:
            self._started += 1
            # A thread that is stuck must not keep the process from ending.
            threading.Thread(target=self._run, name="answering", daemon=True).start()
        self._items.put(item)

    def shutdown(self, *, wait: bool) -> None:  # noqa: ARG002 - gunicorn says that it will not
        """Ends threads as they become free; nobody is waited for."""
        for _ in range(self._started):
            self._items.put(None)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                self._work(item)
            except BaseException:
                log.exception("a thread met an unforeseen error")
