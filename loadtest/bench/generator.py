"""The load generator: so many connections to this machine, each asking on and on.

Rules:
- One thread and epoll, requests laid out as bytes beforehand: it costs about a tenth of a
  millisecond a request, which it reports, so that a report can say it was not the bottleneck.
- Each answer is held against the one that its own photograph is known to get.
- A measurement is a window in a load that goes on: it opens after the warm-up, and requests that
  are under way when it closes are waited for and not counted.
- A connection that the server closes is opened again; a request that it takes along has failed.
"""

import gc
import re
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

HOST: Final = "127.0.0.1"
PATIENCE_S: Final = 60.0
"""How long requests under way are waited for after the window."""
SEND_BUFFER: Final = 1 << 20
"""Bytes asked of the system, so that most photographs leave in one call."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLASS: Final = re.compile(rb'"class_index": *(\d+)')


@dataclass(slots=True)
class Window:
    """What was seen between the opening of the window and its end."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    """Of each right answer, from the first byte sent to the last received."""
    wrong: int = 0
    """Answers that name another class than the calm service did."""
    failed: int = 0
    """Other statuses than 200, and connections that broke."""
    cpu_s: float = 0.0
    """What the generator itself used."""


def post(path: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def top_class(answer: bytes) -> int | None:
    """The first class that an answer's JSON names."""
    found = _CLASS.search(answer)
    return int(found[1]) if found else None


class _Connection:
    """One request at a time, and the answer to it."""

    __slots__ = ("answer", "began", "expected", "left", "socket")

    def __init__(self, port: int) -> None:
        """Raises OSError when nobody listens at ``port``."""
        self.socket = socket.socket()
        self.left = memoryview(b"")
        self.answer = b""
        self.began = 0.0
        self.expected: int | None = None
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect((HOST, port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)

    def send(self) -> bool:
        """Send what the system takes now. Returns whether something is left."""
        try:
            while self.left:
                self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            return True
        return False

    def receive(self) -> bool:
        """Take what is there. Returns whether the answer is whole. Raises OSError at its end."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        self.answer += data
        head = self.answer.find(b"\r\n\r\n")
        if head < 0:
            return False
        length = _LENGTH.search(self.answer, 0, head)
        if length is None:
            raise ConnectionResetError
        return len(self.answer) >= head + 4 + int(length[1])


class Load:
    """Connections to one port, sending the same photographs in turn."""

    def __init__(
        self, port: int, requests: Sequence[bytes], expected: Sequence[int | None], connections: int
    ) -> None:
        """``expected`` has the class that the answer to each of ``requests`` must name first."""
        self._port = port
        self._requests = [memoryview(request) for request in requests]
        self._expected = expected
        self._connections = connections
        self._epoll = select.epoll()
        self._active: dict[int, _Connection] = {}
        self._next = 0
        self._window: Window | None = None

    def run(self, warm_up_s: float, seconds: float, look: Callable[[], None]) -> Window:
        """Load for both times; the window is the second. ``look`` is called at both its ends.

        Raises:
            OSError: The server takes no connection.
        """
        gc.collect()
        gc.disable()
        try:
            for _ in range(self._connections):
                self._ask(self._opened())
            self._until(time.perf_counter() + warm_up_s)
            window = Window()
            look()
            began, cpu = time.perf_counter(), time.process_time()
            self._window = window
            self._until(began + seconds)
            self._window = None
            window.seconds, window.cpu_s = time.perf_counter() - began, time.process_time() - cpu
            look()
            self._drain()
        finally:
            gc.enable()
            for connection in self._active.values():
                connection.socket.close()
            self._epoll.close()
        return window

    def _opened(self) -> _Connection:
        connection = _Connection(self._port)
        self._epoll.register(connection.socket, select.EPOLLIN)
        self._active[connection.socket.fileno()] = connection
        return connection

    def _ask(self, connection: _Connection) -> None:
        turn = self._next % len(self._requests)
        self._next += 1
        connection.left, connection.answer = self._requests[turn], b""
        connection.expected = self._expected[turn]
        connection.began = time.perf_counter()
        try:
            if connection.send():
                self._epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._broke(connection)

    def _until(self, end: float) -> None:
        while (now := time.perf_counter()) < end:
            for connection in self._answered(end - now):
                self._ask(connection)

    def _drain(self) -> None:
        waiting = set(self._active.values())
        end = time.perf_counter() + PATIENCE_S
        while waiting and (now := time.perf_counter()) < end:
            waiting -= set(self._answered(end - now))
            waiting &= set(self._active.values())

    def _answered(self, timeout_s: float) -> list[_Connection]:
        """Serve all connections once. Returns those that are free for another request."""
        free: list[_Connection] = []
        for number, _ in self._epoll.poll(timeout_s):
            connection = self._active[number]
            try:
                if connection.left:
                    if connection.send():
                        continue
                    self._epoll.modify(connection.socket, select.EPOLLIN)
                elif connection.receive():
                    self._settle(connection)
                    free.append(connection)
            except BlockingIOError:
                continue
            except OSError:
                self._broke(connection)
        return free

    def _settle(self, connection: _Connection) -> None:
        if self._window is None:
            return
        if not connection.answer.startswith(b"HTTP/1.1 200"):
            self._window.failed += 1
        elif top_class(connection.answer) != connection.expected:
            self._window.wrong += 1
        else:
            took = time.perf_counter() - connection.began
            self._window.latencies_ms.append(took * 1000)

    def _broke(self, connection: _Connection) -> None:
        """A request is lost with its connection, and another connection begins."""
        if self._window is not None:
            self._window.failed += 1
        del self._active[connection.socket.fileno()]
        connection.socket.close()
        self._ask(self._opened())
