"""A replica's metrics: its tally, in the names that Prometheus reads, and in Triton's.

Rules:
- Nothing is counted here; a scrape tells what `tally` holds.
- All of a replica's names are in this file, and in docs/metrics.md, which a test compares.
- Triton's names are for dashboards that know them: https://github.com/triton-inference-server
  (docs/user_guide/metrics.md). What is not measured here has no such name.
- Triton's counters do not end in ``_total``, which the format asks of a counter, so they are of no
  declared type; rate() does not mind.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UnknownMetricFamily,
)

from modelserver.histogram import Histogram
from modelserver.scrape import add
from modelserver.tally import Page, Serving, Tally
from wire import FailureCode

OF_MODEL: Final = ("model", "version")
SECONDS: Final = 0.001
"""A millisecond in them."""

COUNTERS: Final[dict[str, tuple[str, Callable[[Page], float]]]] = {
    "batches": ("Batches that were answered.", lambda page: _count(page.batch_sizes)),
    "pictures": ("Pictures that were answered.", lambda page: _sum(page.batch_sizes)),
    "padding": (
        "Black pictures that the engine computed to fill a batch up.",
        lambda page: page.padding,
    ),
    "engine_busy_seconds": (
        "What the engine spent, all batches of the same time added up.",
        lambda page: page.busy_ms * SECONDS,
    ),
}
HISTOGRAMS: Final[dict[str, tuple[str, Callable[[Page], Histogram], float]]] = {
    "batch_size": ("Pictures in a batch, for each batch.", lambda page: page.batch_sizes, 1.0),
    "decode_seconds": (
        "From an image file to pixels, for who sends no pixels.",
        lambda page: page.decode_ms,
        SECONDS,
    ),
    "batch_wait_seconds": (
        "From a picture's arrival until its batch began.",
        lambda page: page.wait_ms,
        SECONDS,
    ),
    "inference_seconds": ("A batch in the engine.", lambda page: page.inference_ms, SECONDS),
}
TRITON: Final[dict[str, tuple[str, Callable[[Page], float]]]] = {
    "request_success": (
        "sightline_replica_pictures_total: each is a request here.",
        lambda page: _sum(page.batch_sizes),
    ),
    "count": ("sightline_replica_pictures_total.", lambda page: _sum(page.batch_sizes)),
    "exec_count": ("sightline_replica_batches_total.", lambda page: _count(page.batch_sizes)),
    "request_duration_us": (
        "Decoding, waiting and computing, of all pictures together.",
        lambda page: (_sum(page.decode_ms) + _sum(page.wait_ms) + page.computed_ms) * 1000,
    ),
    "queue_duration_us": (
        "sightline_replica_batch_wait_seconds_sum.",
        lambda page: _sum(page.wait_ms) * 1000,
    ),
    "compute_infer_duration_us": (
        "Computing, of all pictures together: each was there for all of its batch.",
        lambda page: page.computed_ms * 1000,
    ),
}
TRITON_REASONS: Final = {FailureCode.DEADLINE: "REJECTED", FailureCode.ENGINE: "BACKEND"}
"""Any other failure is OTHER."""


class ReplicaMetrics:
    """What a scrape of a replica gets."""

    def __init__(self, tally: Tally, gpus: Callable[[], dict[str, int]] | None = None) -> None:
        """``gpus``: the memory that is used of each GPU of this replica's, in bytes by UUID."""
        self._tally = tally
        self._gpus = gpus

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        yield from _serving(self._tally.serving)
        pages = dict(self._tally.pages)
        for name, (says, value) in COUNTERS.items():
            counter = CounterMetricFamily(f"sightline_replica_{name}", says, labels=OF_MODEL)
            for model, page in pages.items():
                counter.add_metric(model, value(page))
            yield counter
        for name, (says, measured, unit) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"sightline_replica_{name}", says, labels=OF_MODEL)
            for model, page in pages.items():
                add(histogram, model, measured(page).distribution, unit)
            yield histogram
        yield from _failures(pages)
        refused = CounterMetricFamily(
            "sightline_replica_bundles_refused",
            "Bundles that were to be loaded and are no good: the one before serves on.",
            labels=("reason",),
        )
        for refusal, times in self._tally.refused.items():
            refused.add_metric((refusal,), times)
        yield refused
        for name, (says, value) in TRITON.items():
            alias = UnknownMetricFamily(f"nv_inference_{name}", says, labels=OF_MODEL)
            for model, page in pages.items():
                alias.add_metric(model, value(page))
            yield alias
        if self._gpus is not None:
            used = GaugeMetricFamily(
                "sightline_replica_gpu_memory_used_bytes",
                "Of the whole GPU, whoever uses it.",
                labels=("gpu",),
            )
            for gpu, nbytes in self._gpus().items():
                used.add_metric((gpu,), nbytes)
            yield used


def _serving(serving: Serving | None) -> Iterator[Metric]:
    info = InfoMetricFamily("sightline_replica", "What it serves, with what.")
    parallel = GaugeMetricFamily(
        "sightline_replica_engine_parallel",
        "How many batches it computes at the same time.",
        labels=OF_MODEL,
    )
    if serving is not None:
        told = serving._asdict()
        del told["parallel"]
        info.add_metric((), told)
        parallel.add_metric(serving[:2], serving.parallel)
    yield info
    yield parallel


def _failures(pages: dict[tuple[str, str], Page]) -> Iterator[Metric]:
    labels = (*OF_MODEL, "reason")
    failures = CounterMetricFamily(
        "sightline_replica_failures", "Pictures that got no classes, by why.", labels=labels
    )
    alias = UnknownMetricFamily(
        "nv_inference_request_failure", "sightline_replica_failures_total.", labels=labels
    )
    for model, page in pages.items():
        reasons = dict.fromkeys((*TRITON_REASONS.values(), "OTHER"), 0)
        for code, times in page.failures.items():
            failures.add_metric((*model, code), times)
            reasons[TRITON_REASONS.get(code, "OTHER")] += times
        for reason, times in reasons.items():
            alias.add_metric((*model, reason), times)
    yield failures
    yield alias


def _count(measured: Histogram) -> int:
    return sum(measured.distribution.counts)


def _sum(measured: Histogram) -> float:
    return measured.distribution.total
