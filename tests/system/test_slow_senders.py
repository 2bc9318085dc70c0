"""Slow-loris: hundreds of uploads that never end must not be felt by anybody else."""

import socket
import statistics
import threading
import time
from contextlib import suppress

import pytest

from tests.conftest import Service, classify, eventually

SENDERS = 500
WINDOWS = 3
WINDOW_S = 4.0
CLIENTS = 4
HEAD = b"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


class SlowSenders:
    """So many uploads of a byte a second; whatever is refused is begun again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sockets: list[socket.socket] = []
        self.answers: list[bytes] = []

    def __enter__(self) -> "SlowSenders":
        self._thread.start()
        eventually(lambda: len(self.sockets) == SENDERS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for sender in self.sockets:
            sender.close()

    def await_an_answer(self) -> None:
        eventually(lambda: self.answers, within_s=30)

    def _connected(self) -> socket.socket:
        sender = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        sender.sendall(HEAD)
        sender.setblocking(False)
        return sender

    def _run(self) -> None:
        while not self._stop.is_set():
            while len(self.sockets) < SENDERS and not self._stop.is_set():
                self.sockets.append(self._connected())
            for sender in list(self.sockets):
                if self._is_refused(sender):
                    self.sockets.remove(sender)
                    sender.close()
            self._stop.wait(1.0)

    def _is_refused(self, sender: socket.socket) -> bool:
        with suppress(BlockingIOError):
            if answer := sender.recv(4096):
                self.answers.append(answer)
            return True
        try:
            sender.send(b"x")
        except OSError:
            return True
        return False


def p99_s(port: int, picture: bytes) -> float:
    """Of what ordinary clients wait, for one window."""
    waits: list[float] = []
    until = time.monotonic() + WINDOW_S

    def ordinary() -> None:
        while (began := time.monotonic()) < until:
            assert classify(port, picture).status == 200
            waits.append(time.monotonic() - began)

    threads = [threading.Thread(target=ordinary) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(waits)[int(0.99 * len(waits))]


@pytest.mark.drill
def test_five_hundred_slow_senders_are_not_felt(service: Service, picture: bytes) -> None:
    service.start_broker()
    service.start_replica(MODEL_ENGINE="simulated", MODEL_SIMULATED_BASE_MS="20")
    service.start_web()
    service.await_replicas(1)
    p99_s(service.port, picture)
    quiet, attacked, answers = [], [], []
    for _ in range(WINDOWS):
        quiet.append(p99_s(service.port, picture))
        with SlowSenders(service.port) as senders:
            attacked.append(p99_s(service.port, picture))
            senders.await_an_answer()
            answers += senders.answers
    ratio = statistics.median(attacked) / statistics.median(quiet)
    print(
        f"p99 {statistics.median(quiet) * 1000:.0f} ms, with {SENDERS} slow senders x {ratio:.2f}"
    )
    assert ratio <= 2
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
