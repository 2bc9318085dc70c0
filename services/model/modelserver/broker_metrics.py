"""The broker's metrics: its Status, in the names that Prometheus reads.

Rules:
- Nothing is counted here. Each scrape asks the broker for one Status, and tells that.
- All of the broker's names are in this file, and in docs/metrics.md, which a test compares.
- Whoever asks for a model that nobody serves brings no name of his own into the labels.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from modelserver.scrape import add
from wire import FailureCode, ModelStatus, ReplicaStatus, ScaleAdvice, Status

SECONDS: Final = 0.001
"""A millisecond in them."""

COUNTS: Final = {
    "accepted": ("requests_accepted", "Requests that were let into the queue."),
    "answered": ("requests_answered", "Accepted requests that got a result or a failure."),
    "expired": ("requests_expired", "Accepted requests whose deadline came first."),
    "cancelled": ("requests_cancelled", "Accepted requests that their sender took back."),
    "abandoned": ("requests_abandoned", "Answers, and requests, of clients that had gone."),
    "repeated": ("requests_repeated", "Requests that came again while they were here."),
    "dispatched": ("requests_dispatched", "Requests that were handed to a replica, each time."),
    "redispatched": ("requests_redispatched", "Requests given back because their replica died."),
    "poisoned": ("requests_poisoned", "Requests that several replicas died of."),
    "late": ("requests_late", "Answers of replicas that came when nobody waited for them."),
    "written_off": ("requests_written_off", "Requests that an idle replica never answered."),
    "garbage": ("messages_garbage", "Messages that were none of the protocol's."),
    "refused_peers": ("peers_refused", "Connections without the right key."),
    "joined": ("replicas_joined", "Replicas that said READY for the first time."),
    "lost": ("replicas_lost", "Replicas that were given up for dead."),
}
"""The broker's own name for what it counts; a metric's; and what it says."""
Values = Mapping[tuple[str, ...], float]
"""The labels' values, and the number for them."""
REFUSED: Final = "refused_"
"""Begins the broker's name for refused requests, and the FailureCode ends it."""


class BrokerMetrics:
    """What a scrape of the broker gets."""

    def __init__(self, observe: Callable[[], Status]) -> None:
        """``observe`` may be called in any thread."""
        self._observe = observe

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        status = self._observe()
        yield _gauge(
            "uptime_seconds", "Since the broker's start.", (), {(): status.uptime_ms / 1e3}
        )
        yield from _counts(status.counts)
        yield from _models(status.models)
        yield from _replicas(status.replicas)


def _counts(counts: dict[str, int]) -> Iterator[Metric]:
    for own, (name, says) in COUNTS.items():
        yield _counter(name, says, (), {(): counts.get(own, 0)})
    yield _counter(
        "requests_refused",
        "Requests that were not accepted, by why.",
        ("reason",),
        {(code,): counts.get(f"{REFUSED}{code}", 0) for code in FailureCode},
    )


def _models(models: tuple[ModelStatus, ...]) -> Iterator[Metric]:
    seen = [model for model in models if model.version]
    unseen = [model for model in models if not model.version]
    waiting = {(model.name,): [model] for model in seen}
    if unseen:
        waiting[("",)] = unseen
    labels = ("model",)
    yield _gauge(
        "queue_requests",
        "Requests that wait for a replica.",
        labels,
        {key: sum(model.queued for model in some) for key, some in waiting.items()},
    )
    yield _gauge(
        "queue_bytes",
        "The payloads of those that wait.",
        labels,
        {key: sum(model.queued_bytes for model in some) for key, some in waiting.items()},
    )
    yield _gauge(
        "queue_oldest_seconds",
        "How long the first of them has waited; 0 while none does.",
        labels,
        {key: max(model.oldest_ms for model in some) / 1e3 for key, some in waiting.items()},
    )
    yield _gauge(
        "drain_rate",
        "Requests a second that it gets through when there are enough; absent until seen.",
        labels,
        {(model.name,): model.per_second for model in seen if model.per_second is not None},
    )
    advised = {(m.name,): m.scale.wanted for m in seen if isinstance(m.scale, ScaleAdvice)}
    yield _gauge(
        "replicas_wanted",
        "How many replicas the load of the moment takes; absent until measured.",
        labels,
        {key: wanted for key, wanted in advised.items() if wanted is not None},
    )
    waited = _histogram("queue_wait_seconds", "What a request with a result waited here.", labels)
    answered = _histogram("answer_seconds", "From a request's arrival to its result.", labels)
    sizes = _histogram("batch_size", "The batch that a request was in, for each one.", labels)
    for model in seen:
        add(waited, (model.name,), model.waited_ms, SECONDS)
        add(answered, (model.name,), model.answered_ms, SECONDS)
        add(sizes, (model.name,), model.batch_sizes)
    yield from (waited, answered, sizes)


def _replicas(replicas: tuple[ReplicaStatus, ...]) -> Iterator[Metric]:
    staying: Counter[tuple[str, ...]] = Counter(
        (r.model, r.version, r.device) for r in replicas if not r.leaving
    )
    yield _gauge(
        "replicas",
        "Replicas that are alive and not leaving.",
        ("model", "version", "device"),
        staying,
    )
    labels = ("replica", "model")
    yield _gauge(
        "replica_credit",
        "How many requests a replica may hold.",
        labels,
        {(r.name, r.model): r.credit for r in replicas},
    )
    yield _gauge(
        "replica_inflight",
        "How many it holds.",
        labels,
        {(r.name, r.model): r.held for r in replicas},
    )
    yield _counter(
        "replica_busy_seconds",
        "What its engine spent on them, all batches of the same time added up.",
        labels,
        {(r.name, r.model): r.worked_ms / 1e3 for r in replicas},
    )
    yield _gauge(
        "replica_parallel",
        "How many batches it computes at the same time.",
        labels,
        {(r.name, r.model): r.parallel for r in replicas},
    )


def _gauge(name: str, says: str, labels: tuple[str, ...], values: Values) -> Metric:
    family = GaugeMetricFamily(f"sightline_broker_{name}", says, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, says: str, labels: tuple[str, ...], values: Values) -> Metric:
    family = CounterMetricFamily(f"sightline_broker_{name}", says, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, says: str, labels: tuple[str, ...]) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"sightline_broker_{name}", says, labels=labels)
