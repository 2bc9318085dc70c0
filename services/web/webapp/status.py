"""What goes on at the broker and its replicas, for everybody who watches.

Rules:
- However many watch, a process asks the broker at most once in `FRESH_S`: to the broker many who
  watch cost what one does.
- It is the broker's own books, passed on as they are. They count upwards from its start, so what
  happened lately is the difference of two looks, and whoever looks takes it.
"""

import threading
import time
from typing import Final

import msgspec

from webapp.client import ModelClient
from webapp.errors import Unavailable
from wire import ModelStatus, ReplicaStatus

FRESH_S: Final = 0.5
"""Half of the pause between two looks of the status page."""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the service. All that counts upwards does so from the broker's start."""

    uptime_ms: float
    """Of the broker."""
    counts: dict[str, int]
    """How often what happened, by the broker's own names for it."""
    models: tuple[ModelStatus, ...]
    replicas: tuple[ReplicaStatus, ...]


class Watch:
    """The last look at the broker, for all threads of a process."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client
        self._asking = threading.Lock()
        self._seen: ServiceStatus | None = None
        self._stale_at = 0.0

    def look(self, *, deadline: float) -> ServiceStatus:
        """The state of `FRESH_S` ago at the earliest, by ``deadline`` of ``time.monotonic()``.

        Raises:
            Unavailable: The broker did not answer.
        """
        # Whoever comes while somebody asks waits for the same answer.
        if not self._asking.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Unavailable("The broker did not answer.")
        try:
            if self._seen is None or time.monotonic() >= self._stale_at:
                self._seen = self._ask(deadline)
                self._stale_at = time.monotonic() + FRESH_S
            return self._seen
        finally:
            self._asking.release()

    def _ask(self, deadline: float) -> ServiceStatus:
        told = self._client.status(deadline=deadline)
        return ServiceStatus(
            uptime_ms=told.uptime_ms,
            counts=told.counts,
            models=told.models,
            replicas=told.replicas,
        )
