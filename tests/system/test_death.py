"""Parts die, hang and leave under load, and no request is lost."""

import os
import signal

import pytest

from tests.conftest import Answer, Service, classify, eventually
from tests.system.load import Load
from tests.system.processes import alive, descendants

CLIENTS = 16


@pytest.fixture
def load(service: Service, picture: bytes) -> Load:
    def send() -> Answer:
        return classify(service.port, picture)

    return Load(send, clients=CLIENTS)


def test_a_killed_replica_costs_no_request(service: Service, load: Load) -> None:
    replicas = service.start(replicas=3)
    with load:
        load.flows(100)
        for _name, process in replicas[:2]:
            process.kill()
            load.flows(100)
    assert load.trouble == []
    # A third try is right for whatever the second kill met again.
    assert max(load.attempts) >= 2, "the kill hit nothing: no request was tried twice"


def test_a_leaving_replica_costs_no_request(service: Service, load: Load) -> None:
    replicas = service.start(replicas=3)
    with load:
        load.flows(100)
        for name, _process in replicas[:2]:
            assert service.processes.stop(name) == 0
            load.flows(100)
    assert load.trouble == []
    assert set(load.attempts) == {1}, "a replica left without answering what it held"


def test_a_killed_broker_costs_no_request(service: Service, load: Load) -> None:
    broker = service.start_broker()
    for _ in range(2):
        service.start_replica()
    service.start_web()
    service.await_replicas(2)
    with load:
        load.flows(100)
        broker.kill()
        broker.wait()
        service.start_broker()
        load.flows(200)
    assert load.trouble == []


def test_a_stopped_replica_costs_no_request(service: Service, load: Load) -> None:
    """SIGSTOP: the connection stands, and nobody is behind it."""
    service.start_broker()
    _name, frozen = service.start_replica()
    service.start_replica()
    service.start_web()
    service.await_replicas(2)
    with load:
        load.flows(100)
        frozen.send_signal(signal.SIGSTOP)
        load.flows(200)
        eventually(lambda: len(service.replicas()) == 1)
        frozen.send_signal(signal.SIGCONT)
        eventually(lambda: len(service.replicas()) == 2)
        load.flows(100)
    assert load.trouble == []


def test_web_that_is_told_to_stop_answers_what_it_has_begun(service: Service, load: Load) -> None:
    service.start(replicas=1)
    with load:
        load.flows(100)
        assert service.processes.stop("web") == 0
    refused = [trouble for trouble in load.trouble if "ConnectionRefused" not in trouble]
    reset = [t for t in refused if "ConnectionReset" not in t and "RemoteDisconnected" not in t]
    assert reset == []
    assert set(load.statuses) == {200}


def test_an_engine_that_hangs_ends_its_replica(service: Service, picture: bytes) -> None:
    service.start_broker()
    _name, hung = service.start_replica(
        MODEL_ENGINE="simulated", MODEL_SIMULATED_BASE_MS="60000", MODEL_EXECUTION_MS="500"
    )
    service.start_web(WEB_DEADLINE_MS="3000")
    service.await_replicas(1)
    assert classify(service.port, picture).status == 503
    assert hung.wait(5) == 70


def test_nothing_outlives_a_killed_web(service: Service, picture: bytes) -> None:
    service.start_broker()
    service.start_replica()
    web = service.start_web()
    service.await_replicas(1)
    assert classify(service.port, picture).status == 200
    below = descendants(web.pid)
    assert len(below) >= 2, "a worker and at least one decoder"
    for pid in (web.pid, *below[:1]):
        os.kill(pid, signal.SIGKILL)
    web.wait()
    eventually(lambda: not alive(below))
