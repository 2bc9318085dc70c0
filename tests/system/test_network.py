"""Broker, replicas and web on machines of their own, and a network between them that fails."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.conftest import START_S, Answer, Service, classify, eventually, request
from tests.system.load import Load
from tests.system.network import Network

pytestmark = [pytest.mark.drill, pytest.mark.timeout(180)]

CLIENTS = 8
REPLICAS = ("first", "second")
DEADLINE_S = 3.0
PROBES = 5
"""Each takes a second to find out that there is no broker."""


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    with Network("web", "broker", *REPLICAS) as made:
        yield made


class Spread:
    """The service, a part a machine. Its clients are at web's."""

    def __init__(self, service: Service, network: Network, **web: str) -> None:
        self._service = service
        self._network = network
        broker = network.address("broker")
        service.frontend, service.backend = f"tcp://{broker}:5576", f"tcp://{broker}:5577"
        self._started: list[subprocess.Popen[bytes]] = []
        with network.at("broker"):
            self._started.append(service.start_broker())
        for name in REPLICAS:
            with network.at(name):
                self._started.append(service.start_replica()[1])
        with network.at("web"):
            self._started.append(service.start_web(**web))
        self.await_replicas(len(REPLICAS))

    def ask(self, method: str, path: str) -> Answer:
        with self._network.at("web"):
            return request(self._service.port, method, path)

    def load(self, picture: bytes) -> Load:
        def send() -> Answer:
            with self._network.at("web"):
                return classify(self._service.port, picture)

        return Load(send, clients=CLIENTS)

    def await_replicas(self, count: int) -> None:
        with self._network.at("web"):
            eventually(lambda: len(self._service.replicas()) == count, within_s=START_S)

    def nobody_ended(self) -> bool:
        return all(process.poll() is None for process in self._started)


def test_a_lossy_and_slow_network_costs_no_request(
    service: Service, network: Network, picture: bytes
) -> None:
    """Of every message between web, broker and replicas one packet in twenty is lost."""
    spread = Spread(service, network)
    load = spread.load(picture)
    with load:
        load.flows(20)
        network.loss, network.delay_s = 0.05, 0.05
        carried, lost = network.carried, network.lost
        load.flows(100, within_s=90)
        carried, lost = network.carried - carried, network.lost - lost
        network.loss = network.delay_s = 0.0
        load.flows(50)
    print(f"{lost} of {lost + carried} packets were lost; attempts: {dict(load.attempts)}")
    assert lost > 0.03 * carried > 100
    assert load.trouble == []
    assert spread.nobody_ended()


def test_a_replica_that_silently_lost_its_network_costs_no_request(
    service: Service, network: Network, picture: bytes
) -> None:
    spread = Spread(service, network)
    load = spread.load(picture)
    with load:
        load.flows(50)
        with network.cut(REPLICAS[0]):
            spread.await_replicas(1)
            load.flows(50)
        began = time.monotonic()
        spread.await_replicas(2)
        print(f"back {time.monotonic() - began:.1f} s after the cable was mended")
        load.flows(50)
    assert load.trouble == []
    assert spread.nobody_ended()


@pytest.mark.parametrize("machine", ["web", "broker"])
def test_a_network_that_fails_for_a_moment_costs_no_request(
    service: Service, network: Network, picture: bytes, machine: str
) -> None:
    """For longer than the patience of all heartbeats, and shorter than the client's."""
    spread = Spread(service, network)
    load = spread.load(picture)
    with load:
        load.flows(50)
        with network.cut(machine):
            served = load.answered
            assert [spread.ask("GET", "/readyz").status for _ in range(PROBES)] == [503] * PROBES
        began = time.monotonic()
        load.flows(served + 100 - load.answered)
        print(f"100 answers {time.monotonic() - began:.1f} s after the cable was mended")
        spread.await_replicas(2)
    assert load.trouble == []
    assert spread.nobody_ended()


def test_while_web_has_no_broker_requests_fail_at_their_deadline_and_not_after(
    service: Service, network: Network, picture: bytes
) -> None:
    spread = Spread(service, network, WEB_DEADLINE_MS=str(int(DEADLINE_S * 1000)))
    unlucky = spread.load(picture)
    with unlucky:
        unlucky.flows(50)
        with network.cut("broker"):
            began = time.monotonic()
            eventually(lambda: unlucky.trouble)
            assert DEADLINE_S * 0.9 < time.monotonic() - began < DEADLINE_S + 2
            assert spread.ask("GET", "/readyz").status == 503
            assert spread.ask("GET", "/healthz").status == 200
    assert set(unlucky.statuses) == {200, 503}
    spread.await_replicas(2)
    lucky = spread.load(picture)
    with lucky:
        lucky.flows(50)
    assert lucky.trouble == []
    assert spread.nobody_ended()
