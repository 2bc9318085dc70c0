"""The port that Prometheus reads: one path, one connection after the other, no name looked up."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from modelserver.config import ConfigError
from modelserver.scrape import TIMEOUT_S, served


class Told:
    """A collector that tells what it is given."""

    def __init__(self, value: Callable[[], float]) -> None:
        self._value = value

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("answer", "To everything.", value=self._value())


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_what_collectors_tell_and_the_process_is_read_at_one_path() -> None:
    with served("X", "127.0.0.1:0", Told(lambda: 42)) as port:
        status, body = get(port, "/metrics?name[]=ignored")
        assert status == 200
        assert "\nanswer 42.0\n" in f"\n{body}"
        assert "process_resident_memory_bytes" in body
        for path in ("/", "/metrics/", "/favicon.ico"):
            assert get(port, path)[0] == 404
        assert get(port, "/metrics", "POST")[0] == 501


def test_a_collector_that_cannot_tell_fails_the_scrape_and_not_the_next() -> None:
    moments = iter([False, True])

    def value() -> float:
        if not next(moments):
            raise TimeoutError("Nobody answers")
        return 1

    with served("X", "127.0.0.1:0", Told(value)) as port:
        assert get(port, "/metrics")[0] == 503
        assert get(port, "/metrics")[0] == 200


def test_who_connects_and_says_nothing_does_not_keep_the_others_out() -> None:
    with (
        served("X", "127.0.0.1:0", Told(lambda: 1)) as port,
        socket.create_connection(("127.0.0.1", port)) as silent,
    ):
        assert get(port, "/metrics")[0] == 200
        silent.settimeout(TIMEOUT_S)
        assert silent.recv(1) == b""


@pytest.mark.parametrize("taken", [True, False], ids=["a port that is taken", "no port"])
def test_an_address_that_cannot_be_used_is_one_sentence(taken: bool) -> None:
    with served("X", "127.0.0.1:0") as port:
        address = f"127.0.0.1:{port if taken else 99999}"
        with pytest.raises(ConfigError, match=f"^X cannot be '{address}': .*$"):
            served("X", address).__enter__()


def test_nothing_stays_behind() -> None:
    before = threading.active_count()
    with served("X", "[::1]:0" if socket.has_dualstack_ipv6() else "127.0.0.1:0"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with served("X", ""):
        assert threading.active_count() == before
