"""Ten times more than can be done: as much is done as ever, and the rest is told so at once."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.conftest import Answer, Service, classify, free_port, request

BATCH_MS = 100
CAPACITY = 1000 / BATCH_MS  # a second, with batches of one
TIMES = 10
SECONDS = 12.0
WARM_UP_S = 3.0
DEADLINE_S = 2.0


@dataclass(frozen=True)
class Sample:
    sent: float
    took: float
    answer: Answer


def flood(
    port: int, picture: bytes, scrape: Callable[[], Sample]
) -> tuple[list[Sample], list[Sample]]:
    """Send at a steady rate, whatever comes back, as a crowd of strangers does; and, in the midst
    of it, scrape once a second."""
    samples: list[Sample] = []
    scrapes: list[Sample] = []
    threads = []

    def one() -> None:
        began = time.monotonic()
        answer = classify(port, picture)
        samples.append(Sample(began, time.monotonic() - began, answer))

    start = time.monotonic()
    tick = threading.Event()
    for n in range(int(SECONDS * CAPACITY * TIMES)):
        tick.wait(max(0.0, start + n / (CAPACITY * TIMES) - time.monotonic()))
        threads.append(threading.Thread(target=one))
        threads[-1].start()
        if n % (CAPACITY * TIMES) == 0:
            threads.append(threading.Thread(target=lambda: scrapes.append(scrape())))
            threads[-1].start()
    for thread in threads:
        thread.join(30)
    return samples, scrapes


@pytest.mark.drill
def test_at_ten_times_the_capacity_the_work_done_stays_the_same(
    service: Service, picture: bytes
) -> None:
    metrics = free_port()
    service.start_broker(BROKER_METRICS=f"127.0.0.1:{metrics}")
    service.start_replica(
        MODEL_ENGINE="simulated", MODEL_SIMULATED_BASE_MS=str(BATCH_MS), MODEL_MAX_BATCH="1"
    )
    service.start_web(WEB_DEADLINE_MS=str(int(DEADLINE_S * 1000)))
    service.await_replicas(1)

    def scrape() -> Sample:
        began = time.monotonic()
        assert request(metrics, "GET", "/metrics").status == 200
        answer = request(service.port, "GET", "/metrics")
        return Sample(began, time.monotonic() - began, answer)

    samples, scrapes = flood(service.port, picture, scrape)

    assert {s.answer.status for s in samples} <= {200, 503, 504}
    begun = min(s.sent for s in samples)
    finished = [s.sent + s.took for s in samples if s.answer.status == 200]
    steady = [t for t in finished if WARM_UP_S <= t - begun <= SECONDS]
    goodput = len(steady) / (SECONDS - WARM_UP_S) / CAPACITY
    settled = [s for s in samples if s.sent - begun > WARM_UP_S]
    accepted = [s for s in settled if s.answer.status != 503]
    in_time = [s for s in accepted if s.answer.status == 200]
    waits = sorted(s.took for s in in_time)
    refused = [s for s in settled if s.answer.status == 503]
    print(
        f"{len(samples)} sent, {len(in_time)} answered, {len(refused)} refused; goodput "
        f"{goodput:.2f} of the capacity, p99 {waits[int(0.99 * len(waits))]:.2f} s, refusals "
        f"after {statistics.median(s.took for s in refused) * 1000:.0f} ms"
    )
    assert goodput >= 0.95
    assert len(in_time) >= 0.99 * len(accepted)
    assert waits[int(0.99 * len(waits))] <= DEADLINE_S
    assert statistics.median(s.took for s in refused) < 0.25
    assert len(scrapes) == SECONDS
    assert all(s.answer.status == 200 for s in scrapes)
    assert max(s.took for s in scrapes) < DEADLINE_S
    route = 'requests_total{method="POST",route="/api/v1/classify",status="503"}'
    assert (
        f"{route} {sum(s.answer.status == 503 for s in samples):.1f}"
        in scrape().answer.body.decode()
    )
    assert all("Retry-After" in s.answer.headers for s in refused)
