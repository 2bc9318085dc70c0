"""Many clients with one photograph: the broker's own counts say how often it was looked at."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Answer, Service, classify, eventually
from webapp.client import ModelClient

pytestmark = pytest.mark.drill

CLIENTS = 50
SLOW_MS = "400"
"""An engine that takes so long has the first request until the last client has come."""


@pytest.fixture
def observer(service: Service) -> Iterator[ModelClient]:
    client = ModelClient(service.frontend)
    yield client
    client.close()


def serve(service: Service, base_ms: str, **web: str) -> None:
    service.start_broker()
    service.start_replica(MODEL_ENGINE="simulated", MODEL_SIMULATED_BASE_MS=base_ms)
    service.start_web(**web)
    service.await_replicas(1)


def counts(observer: ModelClient) -> dict[str, int]:
    return observer.status(deadline=time.monotonic() + 5).counts


def done(observer: ModelClient) -> int:
    """How many requests the replicas have finished."""
    return sum(r.done for r in observer.status(deadline=time.monotonic() + 5).replicas)


def all_at_once(service: Service, picture: bytes) -> list[Answer]:
    start = threading.Barrier(CLIENTS)

    def ask(_: int) -> Answer:
        start.wait(10)
        return classify(service.port, picture)

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(ask, range(CLIENTS)))


def test_fifty_clients_with_one_photograph_cost_one_inference(
    service: Service, observer: ModelClient, picture: bytes
) -> None:
    serve(service, SLOW_MS, WEB_CACHE_BYTES="1000000")
    answers = all_at_once(service, picture)
    assert {answer.status for answer in answers} == {200}
    ways = Counter(answer.json["cache"] for answer in answers)
    print(dict(ways))
    assert ways["miss"] == 1
    assert ways["joined"] + ways["hit"] == CLIENTS - 1
    assert len({str(answer.json["predictions"]) for answer in answers}) == 1
    assert len({answer.json["request_id"] for answer in answers}) == CLIENTS
    assert (counts(observer)["accepted"], done(observer)) == (1, 1)
    assert classify(service.port, picture).json["cache"] == "hit"
    assert counts(observer)["accepted"] == 1


def test_with_the_switch_off_they_cost_fifty(
    service: Service, observer: ModelClient, picture: bytes
) -> None:
    serve(service, "0", WEB_CACHE_BYTES="0")
    answers = all_at_once(service, picture)
    assert [answer.json["cache"] for answer in answers] == ["off"] * CLIENTS
    assert counts(observer)["accepted"] == CLIENTS
    eventually(lambda: done(observer) == CLIENTS)


def test_a_model_without_a_replica_has_no_answers_from_memory(
    service: Service, picture: bytes
) -> None:
    service.start_broker()
    name, _process = service.start_replica(MODEL_ENGINE="simulated")
    service.start_web(WEB_CACHE_BYTES="1000000", WEB_DEADLINE_MS="700")
    service.await_replicas(1)
    assert [classify(service.port, picture).json["cache"] for _ in range(2)] == ["miss", "hit"]
    service.processes.stop(name)
    assert classify(service.port, picture).status == 503
    service.start_replica(MODEL_ENGINE="simulated")
    service.await_replicas(1)
    assert classify(service.port, picture).json["cache"] == "hit"
