"""What the web tier counts and measures, as Prometheus reads it at GET /metrics.

Rules:
- All of its names are in this file, and in docs/metrics.md, which a test compares.
- No label holds a client's own words: a route is its rule, a method one of those that there are.
- A process counts in its memory. Several (WEB_CONCURRENCY) count in files of one folder, so that
  whichever of them is asked tells what all have done; see `share`.
"""

import os
from http import HTTPMethod
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.process_collector import ProcessCollector

from webapp.errors import (
    IMAGE_REFUSALS,
    ArchiveRefused,
    BadRequest,
    ModelError,
    SenderLeft,
    UploadTooLarge,
    WebError,
    from_exception,
)
from webapp.sharing import Cache

PATH: Final = "/metrics"
FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library's own name for where several processes count."""

NO_ROUTE: Final = "none"
"""Of a request for a path or with a method that there is not, or whose head was never read."""
NO_METHOD: Final = "none"
OTHER_METHOD: Final = "other"
METHODS: Final = frozenset((*map(str, HTTPMethod), NO_METHOD))
CLASSIFIED: Final = "classified"

SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BYTES: Final = (10e3, 30e3, 100e3, 300e3, 1e6, 3e6, 10e6, 30e6)

disable_created_metrics()  # A further series for each, which says when it began.


def share(place: int) -> None:
    """What `Metrics` of this process will count, it counts in files in the environment's FOLDER.

    ``place`` is this process' alone while it lives. A file belongs to a place, and its next holder
    goes on with the numbers that are in it: what is counted for all never falls, and no file of a
    dead process stays behind.
    """
    values.ValueClass = values.MultiProcessValue(lambda: place)


def vacate(place: int) -> None:
    """The process at ``place`` is gone, and with it what was only so while it lived."""
    mark_process_dead(place)


class Metrics:
    """Counts for all threads of a process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._answers = Counter(
            "sightline_web_requests",
            "Requests that were answered; from a refused connection on.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "sightline_web_request_seconds",
            "From a request's last byte to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._in_progress = Gauge(
            "sightline_web_requests_in_progress",
            "Requests that have a thread.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._upload_bytes = Histogram(
            "sightline_web_upload_bytes",
            "The bodies of requests that have one.",
            buckets=BYTES,
            registry=registry,
        )
        self._decode_seconds = Histogram(
            "sightline_web_decode_seconds",
            "From an image file to pixels, waiting for a decoder included.",
            buckets=SECONDS,
            registry=registry,
        )
        self._pictures = Counter(
            "sightline_web_pictures",
            "Pictures by what became of them: classified, or the kind of the error.",
            ("outcome",),
            registry=registry,
        )
        self._shared = Counter(
            "sightline_web_answers",
            "Answers by how they were come by.",
            ("cache",),
            registry=registry,
        )
        self._cache_bytes = Gauge(
            "sightline_web_cache_bytes",
            "What remembered answers take.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        # A series that begins with its first event hides that event from whoever asks for a rate.
        for kind in _kinds():
            self._pictures.labels(kind)
        self._classified = self._pictures.labels(CLASSIFIED)
        self._by_cache = {cache: self._shared.labels(cache) for cache in get_args(Cache)}
        # The library looks a child up under a lock.
        self._answered: dict[tuple[str, str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}
        if folder := os.environ.get(FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)
        else:
            ProcessCollector(registry=registry)
        self._registry = registry

    def text(self) -> bytes:
        """All of it, as the text format 0.0.4 has it."""
        return generate_latest(self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float | None = None) -> None:
        """A request was answered, ``seconds`` after its last byte if all of it had come."""
        if method not in METHODS:
            method = OTHER_METHOD
        key = (method, route, status)
        if (counter := self._answered.get(key)) is None:
            counter = self._answered[key] = self._answers.labels(method, route, status)
        counter.inc()
        if seconds is not None:
            if (histogram := self._timed.get(route)) is None:
                histogram = self._timed[route] = self._seconds.labels(route)
            histogram.observe(seconds)

    def in_progress(self, requests: int) -> None:
        """So many have a thread now."""
        self._in_progress.set(requests)

    def uploaded(self, nbytes: int) -> None:
        """A body has come."""
        self._upload_bytes.observe(nbytes)

    def decoded(self, seconds: float) -> None:
        """A picture has become pixels."""
        self._decode_seconds.observe(seconds)

    def classified(self) -> None:
        """A picture got its classes."""
        self._classified.inc()

    def failed(self, error: Exception) -> None:
        """A picture did not, because of ``error``."""
        self._pictures.labels(from_exception(error).kind).inc()

    def shared(self, cache: Cache, held_bytes: int) -> None:
        """An answer was come by, and remembered ones take so much now."""
        self._by_cache[cache].inc()
        self._cache_bytes.set(held_bytes)


def _kinds() -> set[str]:
    """Why a picture gets no classes, as far as that is known: see `errors`."""
    causes: list[type[WebError]] = [
        WebError,
        BadRequest,
        UploadTooLarge,
        ArchiveRefused,
        SenderLeft,
    ]
    causes += ModelError.__subclasses__()
    return {kind for _, kind, _ in IMAGE_REFUSALS.values()} | {cause.kind for cause in causes}
