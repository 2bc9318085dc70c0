"""A gunicorn worker whose threads see complete requests only.

gunicorn's own threaded worker gives a connection to a thread as soon as its first byte is there,
and the thread then waits for the rest: as many slow senders as there are threads stop the
service. Here the main loop collects requests, for next to nothing each, and a thread begins when
the last byte has come.

The life of a connection: it *arrives*, until `Framing` says that a request is complete; it waits
in line, as `Turns` decides; a thread answers it; what its reader was too slow for is *delivered*
by the main loop; then it *idles* until the next request, or *departs*: what its sender still sends
is read and thrown away for a moment, since a server that closes a connection with unread bytes
resets it, and the sender never sees the answer.

Rules:
- Only the main loop touches what is not in a thread's hands; `Turns` and all states are its.
- A thread waits for no reader either: what cannot be sent at once stays in the `Outlet`.
- Whoever sends too slowly, too much, or too many at a time is told so, without a thread.
- gunicorn parses, calls the application and answers; it reads from memory instead of a socket.
"""

import socket
import time
from contextlib import suppress
from functools import cache, partial
from http import HTTPStatus
from io import BytesIO
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, ClassVar, Final

from gunicorn.http import get_parser
from gunicorn.http.errors import ExpectationFailed, ParseException, UnsupportedTransferCoding
from gunicorn.util import close
from gunicorn.workers.gthread import TConn, ThreadWorker

from webapp.app import METRICS
from webapp.config import Config
from webapp.envelope import HEADERS, problem
from webapp.errors import HeadTooLong, NoRoom, TooManyAtOnce, TooSlow, WebError
from webapp.framing import Framing
from webapp.ids import new_id
from webapp.metrics import NO_METHOD, NO_ROUTE, Metrics
from webapp.outlet import Outlet
from webapp.presence import ARRIVED, STOPPING
from webapp.threads import Threads
from webapp.turns import Turns, client_of
from webapp.uploads import Limits

RECEIVE_BYTES: Final = 256 * 1024
PATIENCE_S: Final = 10.0
"""A sender has so long to begin, and each further such while has to bring some progress; so has a
reader of what was left of an answer."""
SLOWEST_BYTES_S: Final = 1024
"""The slowest mobile networks still in use carry several times as much."""
DEPARTURE_S: Final = 5.0
DEPARTURE_BYTES: Final = 64 * 1024 * 1024
STOP_LINGER_S: Final = 2.0
"""A stopping worker waits so long for a request of which not a byte has arrived."""
SWEEP_S: Final = 0.5
NOTICE_S: Final = 1.0
"""gunicorn ends a worker that has given no sign of life for half a minute."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
UNPARSED: Final = (
    (ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (UnsupportedTransferCoding, HTTPStatus.NOT_IMPLEMENTED),
    (ParseException, HTTPStatus.BAD_REQUEST),
    (Exception, HTTPStatus.INTERNAL_SERVER_ERROR),
)
"""What gunicorn says to each, the first that fits."""


class Connection(TConn):  # type: ignore[misc]
    """A connection, and as much of a request as has arrived on it."""

    sock: Outlet

    def __init__(self, cfg: Any, sock: Outlet, address: Any, server: Any) -> None:
        super().__init__(cfg, sock, address, server)
        self.initialized = True  # There is no TLS here, and the parser is made anew every time.
        self.who: Final = client_of(address)
        self.held = 0
        """The bytes that `Turns` counts for it."""
        self.answered = False
        """It has been of use once."""
        self.stays = False
        """Another request may follow when the answer is delivered."""
        self.discarded = 0
        self.leave_by = 0.0

    def begin(self, framing: Framing, now: float) -> None:
        """A new request, of which ``framing`` may have bytes already, is awaited from ``now``."""
        self.framing = framing
        self.arrived = self._judged = now
        self._judged_bytes = self._read = 0

    def begins_to_send(self, now: float) -> None:
        """Its first bytes are here. What it has idled before, as browsers do with connections that
        they open ahead of use, is no slowness."""
        self._judged, self._judged_bytes = now, 0

    def is_too_slow(self, now: float) -> bool:
        """Whether its sender has used up our patience."""
        if not self.framing.data:
            return now - self._judged >= (self.cfg.keepalive if self.answered else PATIENCE_S)
        if now - self._judged < PATIENCE_S:
            return False
        progress = len(self.framing.data) - self._judged_bytes
        self._judged, self._judged_bytes = now, len(self.framing.data)
        return progress < SLOWEST_BYTES_S * PATIENCE_S

    def begin_delivery(self, now: float) -> None:
        """Its answer is written, and not all of it is sent."""
        self._judged, self._judged_bytes = now, len(self.sock.unsent)

    def reads_too_slowly(self, now: float) -> bool:
        """Whether the reader of what is being delivered has used up our patience."""
        if now - self._judged < PATIENCE_S:
            return False
        progress = self._judged_bytes - len(self.sock.unsent)
        self.begin_delivery(now)
        return progress < SLOWEST_BYTES_S * PATIENCE_S

    def recv(self, size: int) -> bytes:
        """For gunicorn's parser: the next bytes of this request, none when it is over."""
        piece = bytes(memoryview(self.framing.data)[self._read : self.framing.end][:size])
        self._read += len(piece)
        return piece


class Worker(ThreadWorker):  # type: ignore[misc]
    """Collects requests in its main loop and answers them in its threads."""

    config: ClassVar[Config]
    """Set by whoever configures gunicorn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns: Turns[Connection] = Turns(
            connections_each=self.config.client_connections,
            bytes_each=self.config.buffer_bytes // 2,
            bytes_all=self.config.buffer_bytes,
        )
        self._limits = Limits.of(self.config).by_target()
        self._arriving: set[Connection] = set()
        self._delivering: set[Connection] = set()
        self._departing: set[Connection] = set()
        self._busy_threads = 0
        self._next_sweep = 0.0
        self._next_notice = 0.0
        self._stop_at: float | None = None

    def load_wsgi(self) -> None:
        """Called by gunicorn, in its process, before `run`."""
        super().load_wsgi()
        self._metrics: Metrics = self.wsgi.extensions[METRICS]

    # --- in the main loop ---------------------------------------------------------------------

    def accept(self, listener: socket.socket) -> None:
        """A connection may be taken from ``listener``."""
        try:
            sock, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock = Outlet(sock)
        connection = Connection(self.cfg, sock, address, listener.getsockname())
        if not self._turns.enter(connection.who):
            # Without a farewell: whoever opens too many connections does not care for one.
            self._tell(connection, TooManyAtOnce(self.config.client_connections))
            close(sock)
            return
        self.nr_conns += 1
        self._await_request(connection, b"")

    def _await_request(self, connection: Connection, early: bytes) -> None:
        framing = Framing(self.config.max_upload_bytes, self._limits)
        connection.begin(framing, time.monotonic())
        if early:
            framing.feed(early)
        if framing.end is None or framing.head_is_too_long:
            self._arriving.add(connection)
            self._watch(connection, self._receive)
            if framing.head_is_too_long:
                self._refuse(connection, HeadTooLong())
            elif framing.expects_continue:
                _send(connection, CONTINUE)
        else:
            self._line_up(connection)

    def _receive(self, connection: Connection, sock: socket.socket) -> None:
        try:
            piece = sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        framing = connection.framing
        if not piece:
            self._arriving.remove(connection)
            self._close(connection)
        elif not self._turns.hold(connection.who, len(piece)):
            self._refuse(connection, NoRoom("More is being uploaded than there is room for."))
        else:
            connection.held += len(piece)
            if not framing.data:
                connection.begins_to_send(time.monotonic())
            expected = framing.expects_continue
            framing.feed(piece)
            if framing.head_is_too_long:
                self._refuse(connection, HeadTooLong())
            elif framing.end is not None:
                self._arriving.remove(connection)
                self.poller.unregister(sock)
                self._line_up(connection)
            elif framing.expects_continue and not expected:
                _send(connection, CONTINUE)

    def _line_up(self, connection: Connection) -> None:
        connection.arrived = time.monotonic()
        self._turns.line_up(connection.who, connection)
        self._hand_out()

    def get_thread_pool(self) -> Threads[Connection]:
        """Called by gunicorn, which ends what it gets."""
        self._threads = Threads(self._answer)
        return self._threads

    def notify(self) -> None:
        """Called by gunicorn whenever something has happened: it lives. Once a second will do."""
        now = time.monotonic()
        if now >= self._next_notice:
            self._next_notice = now + NOTICE_S
            super().notify()

    def _hand_out(self) -> None:
        while self._busy_threads < self.cfg.threads and (connection := self._turns.next()):
            self._busy_threads += 1
            self._threads.give(connection, busy=self._busy_threads)
        self._metrics.in_progress(self._busy_threads)

    def finish_request(self, connection: Connection, stays: bool) -> None:
        """A thread is through with a request."""
        self._busy_threads -= 1
        connection.stays = stays
        if connection.sock.unsent:
            self._deliver(connection)
        else:
            self._move_on(connection)
        self._hand_out()

    def _deliver(self, connection: Connection) -> None:
        framing = connection.framing
        del framing.data[: framing.end]
        framing.end = 0
        keep = len(framing.data)
        self._release(connection, keep=keep)
        if not self._turns.hold(connection.who, len(connection.sock.unsent)):
            self._close(connection)
            return
        connection.held += len(connection.sock.unsent)
        connection.begin_delivery(time.monotonic())
        self._delivering.add(connection)
        self.poller.register(connection.sock, EVENT_WRITE, partial(self._flush, connection))

    def _flush(self, connection: Connection, sock: Outlet) -> None:
        try:
            sock.flush()
        except OSError:
            self._delivering.remove(connection)
            self._close(connection)
            return
        if not sock.unsent:
            self._delivering.remove(connection)
            self.poller.unregister(sock)
            self._move_on(connection)

    def _move_on(self, connection: Connection) -> None:
        """Its answer is out."""
        if connection.stays:
            connection.answered = True
            framing = connection.framing
            early = bytes(framing.data[framing.end :])
            self._release(connection, keep=len(early))
            self._await_request(connection, early)
        else:
            self._depart(connection)

    def murder_pending(self) -> None:
        """Called by gunicorn whenever something has happened, and once a second."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_S
        if not self.alive and self._stop_at is None:
            self._stop_at = now + STOP_LINGER_S
            STOPPING.set()
        for connection in list(self._arriving):
            too_slow = connection.is_too_slow(now)
            if connection.framing.data:
                if too_slow:
                    self._refuse(connection, TooSlow())
            elif too_slow or (self._stop_at is not None and now >= self._stop_at):
                self._arriving.remove(connection)
                self._close(connection)
        for connection in [c for c in self._delivering if c.reads_too_slowly(now)]:
            self._delivering.remove(connection)
            self._close(connection)
        for connection in [c for c in self._departing if now >= c.leave_by]:
            self._departing.remove(connection)
            self._close(connection)

    def _refuse(self, connection: Connection, error: WebError) -> None:
        self._arriving.remove(connection)
        self.poller.unregister(connection.sock)
        self._tell(connection, error)
        self._depart(connection)

    def _depart(self, connection: Connection) -> None:
        self._release(connection)
        connection.framing.data.clear()
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        connection.leave_by = time.monotonic() + DEPARTURE_S
        self._departing.add(connection)
        self._watch(connection, self._discard)

    def _discard(self, connection: Connection, sock: socket.socket) -> None:
        try:
            piece = sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        connection.discarded += len(piece)
        if not piece or connection.discarded > DEPARTURE_BYTES:
            self._departing.remove(connection)
            self._close(connection)

    def _watch(self, connection: Connection, then: Any) -> None:
        self.poller.register(connection.sock, EVENT_READ, partial(then, connection))

    def _release(self, connection: Connection, *, keep: int = 0) -> None:
        self._turns.release(connection.who, connection.held - keep)
        connection.held = keep

    def _close(self, connection: Connection) -> None:
        with suppress(KeyError, ValueError):
            self.poller.unregister(connection.sock)
        self._release(connection)
        self._turns.leave(connection.who)
        self.nr_conns -= 1
        close(connection.sock)

    def _tell(self, connection: Connection, error: WebError) -> None:
        self._metrics.answered(NO_METHOD, NO_ROUTE, error.status)
        _tell(connection, error)

    # --- in a thread --------------------------------------------------------------------------

    def _answer(self, connection: Connection) -> None:
        stays = False
        try:
            stays = self.handle(connection)
        finally:
            self.method_queue.defer(self.finish_request, connection, stays)

    def handle(self, connection: Connection) -> bool:
        """Answers a request; whether another may follow it."""
        ARRIVED.set(connection.arrived)
        connection.parser = get_parser(self.cfg, connection, connection.client)
        answered: bool = super().handle(connection)
        return answered

    def handle_request(self, req: Any, connection: Connection) -> bool:
        """Calls the application."""
        req._expected_100_continue = False  # It was told to continue, if it had to be.
        if body := connection.framing.take_body():
            # gunicorn's own way to the body copies it several times, piece by piece.
            req.body = BytesIO(body)
            self._metrics.uploaded(len(body))
        # gunicorn decides whether the connection stays before the application works. An answer that
        # comes after the stop would promise it, and the next request go to somebody who leaves. So
        # the verdict falls with the head of the answer; once, for it is asked for again at the end.
        last_by_request = req.should_close()
        req.should_close = cache(lambda: last_by_request or not self.alive)
        connection.sock.begin()
        answered: bool = super().handle_request(req, connection)
        connection.sock.flush()
        return answered

    def handle_error(self, req: Any, client: Outlet, address: Any, error: Exception) -> None:
        """Called by gunicorn when its parser cannot make anything of a request."""
        status = next(said for kind, said in UNPARSED if isinstance(error, kind))
        self._metrics.answered(NO_METHOD, NO_ROUTE, status)
        super().handle_error(req, client, address, error)

    def _keepalive_after(self, connection: Connection, keepalive: bool) -> bool:
        return keepalive and connection.framing.whole


def _tell(connection: Connection, error: WebError) -> None:
    request_id = new_id()
    body = problem(error, request_id)
    head = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"X-Request-Id: {request_id}",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
    ]
    if error.retry_after_s is not None:
        head.append(f"Retry-After: {error.retry_after_s}")
    _send(connection, "\r\n".join([*head, "", ""]).encode() + body)


def _send(connection: Connection, answer: bytes) -> None:
    # From the main loop, which waits for nobody: who has no room for a few bytes misses them.
    with suppress(OSError):
        connection.sock.send(answer)
