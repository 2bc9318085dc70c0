"""Parts die, hang and leave under load, and no request is lost."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Answer, Service, classify, eventually
from tests.system.load import Load
from tests.system.processes import alive, descendants, unread_bytes

CLIENTS = 16
CONFIG_STATUS = 78
SHORTEST_ANSWER = 2000
"""Bytes of a hundred classes and their labels; what a replica says in seconds of work, while the
broker does not listen, is less in all."""
SHORTEST_WORK = 10_000
"""Bytes; what the broker says besides is shorter, and pixels are more."""


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


class Moment:
    """A service of one replica that is to die at a certain moment, told by the broker's journal."""

    def __init__(self, service: Service, journal: Path, **engine: str) -> None:
        self._service = service
        self._journal = journal
        self.broker = service.start_broker(BROKER_JOURNAL_FILE=str(journal))
        _name, self.doomed = service.start_replica(**engine)
        service.start_web()
        service.await_replicas(1)

    def await_inference(self, requests: int) -> None:
        """Until the broker has so many requests and the replica says that its engine works."""
        eventually(lambda: self._heard("top_k") == requests and self._heard("busy_ms"))

    @property
    def unread(self) -> int:
        """Bytes on their way between broker and replica that have arrived."""
        return unread_bytes(int(self._service.backend.rpartition(":")[2]))

    def _heard(self, field: str) -> int:
        lines = [json.loads(line) for line in self._journal.read_bytes().split(b"\n")[1:-1]]
        return sum(line.get("message", {}).get(field) is not None for line in lines)


@pytest.mark.drill
def test_a_replica_killed_before_inference_costs_no_request(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    moment = Moment(service, tmp_path / "journal")
    # So what it is given stays in its socket.
    moment.doomed.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        future = threads.submit(classify, service.port, picture)
        eventually(lambda: moment.unread >= SHORTEST_WORK)
        moment.doomed.kill()
        service.start_replica()
        answer = future.result()
    assert (answer.status, answer.json["attempt"]) == (200, 2)


@pytest.mark.drill
def test_a_replica_killed_during_inference_costs_no_request(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    """Of three requests one is in its engine, one at hand, and one still with the broker."""
    slow = {"MODEL_SIMULATED_BASE_MS": "60000", "MODEL_MAX_BATCH": "1"}
    moment = Moment(service, tmp_path / "journal", MODEL_ENGINE="simulated", **slow)
    with ThreadPoolExecutor() as threads:
        futures = [threads.submit(classify, service.port, picture) for _ in range(3)]
        moment.await_inference(requests=3)
        moment.doomed.kill()
        service.start_replica()
        done = [future.result() for future in futures]
    assert [answer.status for answer in done] == [200] * 3
    assert sorted(answer.json["attempt"] for answer in done) == [1, 2, 2]


@pytest.mark.drill
def test_a_replica_killed_after_inference_costs_no_request(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    """Its answer lies unread in the broker's socket, and nobody is there to make another."""
    slow = {"MODEL_SIMULATED_BASE_MS": "1500", "MODEL_MAX_BATCH": "1"}
    moment = Moment(service, tmp_path / "journal", MODEL_ENGINE="simulated", **slow)
    with ThreadPoolExecutor() as threads:
        future = threads.submit(classify, service.port, picture, "?top_k=100")
        moment.await_inference(requests=1)
        moment.broker.send_signal(signal.SIGSTOP)
        eventually(lambda: moment.unread >= SHORTEST_ANSWER)
        moment.doomed.kill()
        moment.doomed.wait()
        moment.broker.send_signal(signal.SIGCONT)
        answer = future.result()
    assert (answer.status, answer.json["attempt"]) == (200, 1)


def test_a_leaving_replica_costs_no_request(service: Service, load: Load) -> None:
    replicas = service.start(replicas=3)
    with load:
        load.flows(100)
        for name, _process in replicas[:2]:
            assert service.processes.stop(name) == 0
            load.flows(100)
    assert load.trouble == []
    assert set(load.attempts) == {1}, "a replica left without answering what it held"


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.drill)]
)
def test_a_killed_broker_costs_no_request(
    service: Service, load: Load, how: signal.Signals
) -> None:
    broker = service.start_broker()
    for _ in range(2):
        service.start_replica()
    service.start_web()
    service.await_replicas(2)
    with load:
        load.flows(100)
        broker.send_signal(how)
        assert broker.wait() == (0 if how == signal.SIGTERM else -how)
        service.start_broker()
        load.flows(200)
    assert load.trouble == []


@pytest.mark.drill
def test_a_second_broker_on_the_same_ports_stops_and_disturbs_nobody(
    service: Service, load: Load
) -> None:
    service.start(replicas=2)
    with load:
        load.flows(50)
        second = service.processes.start(
            "second",
            "modelserver",
            "broker",
            BROKER_FRONTEND=service.frontend,
            BROKER_BACKEND=service.backend,
        )
        assert second.wait(15) == CONFIG_STATUS
        load.flows(50)
    [sentence] = service.processes.log("second").splitlines()
    assert f"cannot listen at {service.frontend} and {service.backend}: Address already" in sentence
    assert load.trouble == []
    assert set(load.attempts) == {1}


def test_a_stopped_replica_costs_no_request(service: Service, load: Load) -> None:
    """SIGSTOP: the connection stands, and nobody is behind it. That its batch then takes longer
    than an engine may is no hang."""
    service.start_broker()
    _name, frozen = service.start_replica(MODEL_EXECUTION_MS="1500")
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
