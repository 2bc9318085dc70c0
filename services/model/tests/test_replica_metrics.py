"""A replica's books in the names of a scrape, its own and Triton's."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelserver.batcher import Item
from modelserver.replica_metrics import ReplicaMetrics
from modelserver.tally import Page, Serving, Tally
from wire import FailureCode, Work

WORK = Work(job=1, deadline_ms=100, top_k=1, encoding="pixels")


def items(*arrived: float) -> list[Item]:
    return [Item(WORK, np.zeros((1, 1, 3), np.uint8), moment, 9.0) for moment in arrived]


def scraped(metrics: ReplicaMetrics) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and its labels' values in their names' order."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        (
            sample.name.removeprefix("sightline_replica_"),
            *dict(sorted(sample.labels.items())).values(),
        ): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


@pytest.fixture
def tally() -> Tally:
    """Of version 1 a batch of one and one of three were answered, and one picture failed."""
    books = Tally()
    books.serving = Serving("m", "1", "cpu", "litert", 2)
    page = books.pages["m", "1"] = Page()
    page.answered(items(0.9), began=1.0, inference_ms=20, pad=0)
    page.answered(items(1.0, 1.5, 2.0), began=2.0, inference_ms=30, pad=1)
    page.failures[FailureCode.ENGINE] += 1
    return books


def test_batches_pictures_and_times_are_told(tally: Tally) -> None:
    told = scraped(ReplicaMetrics(tally))
    assert told["info", "cpu", "litert", "m", "1"] == 1
    assert told["engine_parallel", "m", "1"] == 2
    assert told["batches_total", "m", "1"] == told["batch_size_count", "m", "1"] == 2
    assert told["pictures_total", "m", "1"] == told["batch_size_sum", "m", "1"] == 4
    assert told["padding_total", "m", "1"] == 1
    assert told["engine_busy_seconds_total", "m", "1"] == pytest.approx(0.05)
    assert told["batch_wait_seconds_sum", "m", "1"] == pytest.approx(1.6)
    assert told["inference_seconds_count", "m", "1"] == 2
    assert told["failures_total", "m", "engine", "1"] == 1
    assert told["failures_total", "m", "deadline", "1"] == 0
    assert told["bundles_refused_total", "golden"] == 0


def test_triton_has_its_own_names_for_the_same(tally: Tally) -> None:
    told = scraped(ReplicaMetrics(tally))
    assert told["nv_inference_request_success", "m", "1"] == 4
    assert told["nv_inference_request_failure", "m", "BACKEND", "1"] == 1
    assert told["nv_inference_request_failure", "m", "OTHER", "1"] == 0
    assert told["nv_inference_count", "m", "1"] == 4
    assert told["nv_inference_exec_count", "m", "1"] == 2
    assert told["nv_inference_queue_duration_us", "m", "1"] == pytest.approx(1_600_000)
    # Three pictures were there for 30 ms each.
    assert told["nv_inference_compute_infer_duration_us", "m", "1"] == pytest.approx(110_000)
    assert told["nv_inference_request_duration_us", "m", "1"] == pytest.approx(1_710_000)


def test_the_next_version_has_numbers_of_its_own(tally: Tally) -> None:
    tally.serving = Serving("m", "2", "cpu", "litert", 1)
    tally.pages["m", "2"] = Page()
    told = scraped(ReplicaMetrics(tally))
    assert told["batches_total", "m", "1"] == 2
    assert told["batches_total", "m", "2"] == 0
    assert ("info", "cpu", "litert", "m", "1") not in told
    assert ("engine_parallel", "m", "1") not in told


def test_before_a_model_is_loaded_there_is_little_to_tell() -> None:
    assert scraped(ReplicaMetrics(Tally())) == {
        ("bundles_refused_total", "golden"): 0,
        ("bundles_refused_total", "load"): 0,
    }


def test_the_memory_of_gpus_is_told_where_there_are_some(tally: Tally) -> None:
    told = scraped(ReplicaMetrics(tally, lambda: {"GPU-1": 5 << 30}))
    assert told["gpu_memory_used_bytes", "GPU-1"] == 5 << 30
