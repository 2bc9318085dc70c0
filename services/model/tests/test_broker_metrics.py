"""A Status in the names of a scrape."""

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelserver.broker_metrics import COUNTS, BrokerMetrics
from modelserver.histogram import BATCH_SIZES, TIMES_MS, Histogram
from wire import ModelStatus, ReplicaStatus, ScaleAdvice, Status


def model(name: str, version: str = "1", **fields: object) -> ModelStatus:
    times, sizes = Histogram(TIMES_MS), Histogram(BATCH_SIZES)
    for spent_ms in (3, 40, 40, 20_000):
        times.add(spent_ms)
    sizes.add(2)
    told = {
        "queued": 2,
        "queued_bytes": 300,
        "oldest_ms": 1500.0,
        "per_second": 12.5,
        "waited_ms": times.distribution,
        "answered_ms": times.distribution,
        "batch_sizes": sizes.distribution,
    }
    return ModelStatus(name=name, version=version, **{**told, **fields})  # type: ignore[arg-type]


def replica(name: str, *, leaving: bool = False) -> ReplicaStatus:
    return ReplicaStatus(
        name=name,
        model="m",
        version="1",
        device="cpu",
        parallel=2,
        credit=24,
        held=3,
        leaving=leaving,
        busy_ms=None,
        done=9,
        batches=4.5,
        worked_ms=2500.0,
    )


def scraped(
    counts: dict[str, int] | None = None,
    models: tuple[ModelStatus, ...] = (),
    replicas: tuple[ReplicaStatus, ...] = (),
) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and its labels' values in their names' order."""
    status = Status(id="", uptime_ms=9000, counts=counts or {}, models=models, replicas=replicas)
    registry = CollectorRegistry()
    registry.register(BrokerMetrics(lambda: status))
    return {
        (
            sample.name.removeprefix("sightline_broker_"),
            *dict(sorted(sample.labels.items())).values(),
        ): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_every_count_is_told_and_those_that_never_happened_are_0() -> None:
    told = scraped({own: number for number, own in enumerate(COUNTS, 1)})
    for number, (name, _) in enumerate(COUNTS.values(), 1):
        assert told[f"{name}_total",] == number
    assert scraped({"refused_overloaded": 7})["requests_refused_total", "overloaded"] == 7
    assert scraped()["requests_refused_total", "poisoned"] == 0
    assert scraped()["uptime_seconds",] == 9


def test_times_are_seconds_and_buckets_hold_all_that_is_below() -> None:
    told = scraped(models=(model("m"),))
    buckets = {key[1]: value for key, value in told.items() if key[0] == "answer_seconds_bucket"}
    assert (buckets["0.0025"], buckets["0.005"], buckets["0.05"]) == (0, 1, 3)
    assert (buckets["10"], buckets["+Inf"]) == (3, 4)
    assert told["answer_seconds_count", "m"] == 4
    assert told["answer_seconds_sum", "m"] == pytest.approx(20.083)
    assert told["batch_size_sum", "m"] == 2
    assert told["queue_oldest_seconds", "m"] == 1.5
    assert told["drain_rate", "m"] == 12.5
    assert ("drain_rate", "m") not in scraped(models=(model("m", per_second=None),))


def test_the_scale_advice_is_told_when_there_is_one() -> None:
    advice = ScaleAdvice(
        wanted=None,
        present=2,
        offered_per_second=16.0,
        replica_per_second=8.0,
        objective_ms=250.0,
        why="Because.",
    )
    assert ("replicas_wanted", "m") not in scraped(models=(model("m", scale=advice),))
    advice = msgspec.structs.replace(advice, wanted=3)
    assert scraped(models=(model("m", scale=advice),))["replicas_wanted", "m"] == 3
    assert ("replicas_wanted", "m") not in scraped(models=(model("m"),))


def test_names_that_strangers_made_up_are_no_labels() -> None:
    told = scraped(models=(model("m"), model("x1", "", oldest_ms=9000.0), model("x2", "")))
    assert told["queue_requests", "m"] == 2
    assert told["queue_requests", ""] == 4
    assert told["queue_oldest_seconds", ""] == 9
    assert not [key for key in told if "x1" in key or "x2" in key]


def test_replicas_that_leave_are_seen_but_not_counted() -> None:
    told = scraped(replicas=(replica("a"), replica("b"), replica("c", leaving=True)))
    assert told["replicas", "cpu", "m", "1"] == 2
    assert told["replica_inflight", "m", "c"] == 3
    assert told["replica_busy_seconds_total", "m", "a"] == 2.5


def test_one_who_takes_anothers_name_does_not_break_the_scrape() -> None:
    told = scraped(replicas=(replica("a"), replica("a")))
    assert told["replica_credit", "m", "a"] == 24
