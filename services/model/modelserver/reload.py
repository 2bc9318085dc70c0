"""Loads a replica's bundle again, beside the model that serves meanwhile.

Rules:
- A bundle that cannot be used changes nothing: it is logged, and the old model goes on.
- A failure that nobody thought of is a refusal too: what is asked for later is still loaded.
- One loading after the other. Who asks during one gets another, because the files may have
  changed since they were read.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from modelserver.config import ConfigError
from modelserver.tally import Refusal

log = logging.getLogger("Reload")

Loaded = TypeVar("Loaded")


class BundleRefused(ConfigError):
    """A bundle cannot be used, in one sentence."""

    def __init__(self, text: str, refusal: Refusal) -> None:
        super().__init__(text)
        self.refusal = refusal


class Reload(Generic[Loaded]):
    """The next model of a replica, when there is one."""

    def __init__(self, load: Callable[[], Loaded], refused: Callable[[Refusal], None]) -> None:
        """``load`` takes its time, and raises BundleRefused for what cannot be used: then
        ``refused`` is told why, in another thread."""
        self._load: Final = load
        self._refused: Final = refused
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._loaded: Loaded | None = None
        self._ready: Callable[[], None] = lambda: None

    def serve(self, ready: Callable[[], None]) -> None:
        """``ready`` is called, from another thread, when there is a next model to `take`."""
        self._ready = ready
        threading.Thread(target=self._run, name="reload", daemon=True).start()

    def ask(self) -> None:
        """Load again. Safe in a signal handler."""
        self._asked.put(None)

    def take(self) -> Loaded | None:
        """The next model, once; None if there is none."""
        loaded, self._loaded = self._loaded, None
        return loaded

    def _run(self) -> None:
        while self._loaded is None:
            self._asked.get()
            try:
                self._loaded = self._load()
            except BundleRefused as error:
                self._refused(error.refusal)
                log.error("the bundle is not taken, the present one goes on: %s", error)
            except Exception:
                self._refused("load")
                log.exception("the bundle is not taken, the present one goes on")
        self._ready()
