"""The broker's process: two ROUTER sockets, and between them the Dispatcher that decides.

Clients connect to the frontend, replicas to the backend. One thread owns both sockets, nothing
in its loop waits for a peer, and nothing that a peer sends raises out of it.
"""

import contextlib
import logging
import math
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from typing import TYPE_CHECKING, Final

import zmq
from msgspec.structs import replace

from modelserver import inbox, journal
from modelserver.config import BrokerConfig
from modelserver.dispatcher import Dispatcher, Limits
from modelserver.doorman import CLIENTS, REPLICAS, Doorman
from modelserver.events import (
    Asked,
    ClientSaid,
    ClientUnreachable,
    Event,
    Note,
    ReplicaSaid,
    ReplicaUnreachable,
    Stay,
    TellClient,
    TellReplica,
    Tick,
)
from modelserver.mailbox import Mailbox
from modelserver.tutorial import TutorialDesk
from wire import (
    MAX_PAYLOAD_BYTES,
    Failure,
    Message,
    Request,
    Result,
    Status,
    WireError,
    Work,
    encode,
    from_client,
    from_replica,
    log_fields,
)
from wire.keys import BrokerKeys
from wire.messages import CREDIT_MAX

if TYPE_CHECKING:
    from telemetry.spans import Tracer

log = logging.getLogger("Broker")

Socket = zmq.Socket[bytes]
Recorder = Callable[[Event, float], None]

BURST: Final = 64
"""Messages read from one socket before the other has its turn."""
LAST_WORDS: Final = 1000
"""Messages read at once where a replica has gone: what it still had to say is among them."""
LAST: Final = int(zmq.DONTWAIT)
MORE: Final = int(zmq.DONTWAIT | zmq.SNDMORE)
"""Plain numbers, because pyzmq's flags are enums, whose arithmetic takes longer than sending."""
JOB_ID_START_BITS: Final = 62
"""Job ids begin at a random number, so that two brokers' ids do not meet."""
OBSERVED_S: Final = 5.0
"""So long somebody who observes from another thread waits; Prometheus does for ten seconds."""
FRONTEND_HWM: Final = 1000
BACKEND_HWM: Final = 2 * CREDIT_MAX
"""Messages queued towards one replica. Credit keeps this from filling; the rest is for pings."""
MAX_FRAME_BYTES: Final = MAX_PAYLOAD_BYTES * 4 // 3 + 4096
"""The tutorial's client puts a payload into base64."""


class Broker:
    """Serves clients and replicas until it is told to stop."""

    def __init__(
        self,
        config: BrokerConfig,
        keys: BrokerKeys | None = None,
        tracer: "Tracer | None" = None,
    ) -> None:
        """With ``keys`` only peers on its lists are let in. ``tracer`` is told how long requests
        wait that are part of a trace."""
        self._config = config
        self._tracer = tracer
        limits = Limits(
            queue_requests=config.max_queue_requests,
            queue_bytes=config.max_queue_bytes,
            liveness_s=config.liveness_ms / 1000,
            execution_s=config.execution_ms / 1000,
            poison_s=config.poison_ms / 1000,
            objective_s=config.objective_ms / 1000,
        )
        now, first_job = time.monotonic(), secrets.randbits(JOB_ID_START_BITS)
        self._dispatcher = Dispatcher(limits, now=now, first_job=first_job)
        self._opening = journal.opening(limits, now=now, first_job=first_job)
        self._tutorial = TutorialDesk()
        self._events: deque[Event] = deque()
        self._stopping = False
        self._observers: Mailbox[queue.SimpleQueue[Status]] = Mailbox()
        self.counts = self._dispatcher.counts
        """How often what happened. What gets no further than the door the Doorman adds."""
        self._doorman = Doorman(keys, self.counts)

    def stop(self) -> None:
        """End `run` within a quarter of a second. Safe in a signal handler."""
        self._stopping = True

    def observe(self) -> Status:
        """What goes on, as a client is told who observes. For any other thread than `run`'s.

        Raises:
            TimeoutError: `run` did not come to it within OBSERVED_S.
        """
        answer: queue.SimpleQueue[Status] = queue.SimpleQueue()
        self._observers.put(answer)
        try:
            return answer.get(timeout=OBSERVED_S)
        except queue.Empty:
            raise TimeoutError(f"The broker did not answer within {OBSERVED_S} s") from None

    def run(self, listening: Callable[[str, str], None] | None = None) -> None:
        """Serve until `stop`. ``listening`` is told both endpoints once they are bound.

        Raises:
            zmq.ZMQError: An endpoint cannot be bound.
        """
        with (
            contextlib.closing(self._observers),
            self._sockets() as (frontend, backend, monitors),
            self._recorder() as record,
        ):
            endpoints = (_endpoint(frontend), _endpoint(backend))
            log.info("listening: clients at %s, replicas at %s", *endpoints)
            if listening is not None:
                listening(*endpoints)
            poller = zmq.Poller()
            poller.register(backend, zmq.POLLIN)
            poller.register(frontend, zmq.POLLIN)
            for source in (*monitors, self._observers.fileno()):
                poller.register(source, zmq.POLLIN)
            while not self._stopping:
                wait = self._dispatcher.seconds_to_next(time.monotonic())
                readable = dict(poller.poll(math.ceil(wait * 1000)))
                if backend in readable:
                    self._read(backend, REPLICAS)
                if frontend in readable:
                    self._read(frontend, CLIENTS)
                for monitor, door in monitors.items():
                    if monitor in readable:
                        self._doorman.hear(monitor, door)
                if self._observers.fileno() in readable:
                    status = self._dispatcher.status("", time.monotonic())
                    for answer in self._observers.take():
                        answer.put(status)
                if self._dispatcher.seconds_to_next(time.monotonic()) <= 0:
                    self._events.append(Tick())
                self._carry_out(frontend, backend, record)
        log.info("stopped: %s", dict(self.counts))

    @contextlib.contextmanager
    def _sockets(self) -> Iterator[tuple[Socket, Socket, dict[Socket, str]]]:
        context = zmq.Context()
        try:
            with context.socket(zmq.ROUTER) as frontend, context.socket(zmq.ROUTER) as backend:
                for socket, hwm in ((frontend, FRONTEND_HWM), (backend, BACKEND_HWM)):
                    socket.router_mandatory = True
                    # A peer that comes back before its old connection is missed takes over.
                    socket.router_handover = True
                    socket.sndhwm = socket.rcvhwm = hwm
                    socket.maxmsgsize = MAX_FRAME_BYTES
                    socket.linger = 250
                    socket.heartbeat_ivl = 1000
                    socket.heartbeat_timeout = 3000
                doors = {CLIENTS: frontend, REPLICAS: backend}
                with self._doorman.on_duty(context, doors) as monitors:
                    frontend.bind(self._config.frontend)
                    backend.bind(self._config.backend)
                    yield frontend, backend, monitors
        finally:
            context.term()

    @contextlib.contextmanager
    def _recorder(self) -> Iterator[Recorder]:
        if not self._config.journal_file:
            yield lambda _event, _now: None
            return
        # Unbuffered: the end is what one wants to read of a broker that was killed. And appended,
        # since by then the next one may have begun.
        with open(self._config.journal_file, "ab", buffering=0) as file:
            _write_line(file, self._opening)
            yield lambda event, now: _write_line(file, journal.entry(event, now))

    # --- in -----------------------------------------------------------------------------------

    def _read(self, socket: Socket, door: str, most: int = BURST) -> None:
        understand = self._client_frames if door == CLIENTS else self._replica_frames
        for identity, *frames in inbox.arrived(socket, most):
            try:
                self._events.append(understand(identity.bytes, frames))
            except WireError as error:
                self._doorman.garbage(door, error)
                if self._tutorial.speaks(_buffers(frames)):
                    refusal = self._tutorial.refusal(_buffers(frames), str(error))
                    _send(socket, [identity.bytes, *refusal])

    def _replica_frames(self, identity: bytes, frames: list[zmq.Frame]) -> Event:
        return ReplicaSaid(identity, from_replica.decode(_buffers(frames)))

    def _client_frames(self, identity: bytes, frames: list[zmq.Frame]) -> Event:
        buffers = _buffers(frames)
        if self._tutorial.speaks(buffers):
            return self._tutorial_frames(identity, buffers)
        message = from_client.decode(buffers)
        if isinstance(message, Request):
            return Asked(identity, message, frames[1])
        return ClientSaid(identity, message)

    def _tutorial_frames(self, identity: bytes, buffers: list[memoryview]) -> Event:
        model = self._dispatcher.default_model
        request, image = self._tutorial.request(identity, buffers, model)
        return Asked(identity, request, zmq.Frame(image))

    # --- out ----------------------------------------------------------------------------------

    def _carry_out(self, frontend: Socket, backend: Socket, record: Recorder) -> None:
        while self._events:
            event, now = self._events.popleft(), time.monotonic()
            record(event, now)
            for action in self._dispatcher.handle(event, now):
                match action:
                    case TellClient(client, message, stay):
                        if stay is not None and self._tracer is not None:
                            _trace(self._tracer, stay, now, message)
                        if not _send(frontend, [client, *self._client_words(client, message)]):
                            self._tutorial.forget(client)
                            self._events.append(ClientUnreachable(client))
                    case TellReplica(replica, message, payload, stay):
                        if stay is not None and self._tracer is not None:
                            traceparent = _trace(self._tracer, stay, now, message)
                            message = replace(message, traceparent=traceparent)
                        pixels = None if payload is None else payload.buffer
                        if not _send(backend, [replica, encode(message)], pixels):
                            undelivered = message.job if isinstance(message, Work) else None
                            # It may have answered before it went; nobody need do that again.
                            self._read(backend, REPLICAS, LAST_WORDS)
                            self._events.append(ReplicaUnreachable(replica, undelivered))
                    case Note(text, alarming, about):
                        fields = log_fields(about.trace, about.traceparent) if about else {}
                        level = logging.WARNING if alarming else logging.INFO
                        log.log(level, "%s", text, extra=fields)

    def _client_words(self, client: bytes, message: Message) -> list[bytes]:
        if isinstance(message, Result | Failure):
            words = self._tutorial.answer(client, message)
            if words is not None:
                return words
        return [encode(message)]


def _trace(tracer: "Tracer", stay: Stay, now: float, ended_by: Message) -> str:
    """The span of a request's stay in the queue. What comes of it is part of that, so its
    traceparent, which is returned, goes along."""
    request = stay.request
    attributes: dict[str, str | int] = {
        "sightline.request_id": request.trace,
        "sightline.model": request.model,
        "sightline.priority": request.priority,
        "sightline.attempt": stay.attempt,
    }
    if stay.replica:
        attributes["sightline.replica"] = stay.replica
    failure = (ended_by.code.value, ended_by.message) if isinstance(ended_by, Failure) else None
    return tracer.record(
        "queue",
        str(request.traceparent),
        since=stay.since,
        until=now,
        kind="server",
        attributes=attributes,
        failure=failure,
    )


def _buffers(frames: list[zmq.Frame]) -> list[memoryview]:
    return [frame.buffer for frame in frames]


def _write_line(file: FileIO, line: bytes) -> None:
    file.write(line + b"\n")


def _send(socket: Socket, frames: Sequence[bytes], payload: memoryview | None = None) -> bool:
    """Hand a message to a peer's connection; False if it has none, or no room."""
    *first, last = frames
    try:
        for frame in first:
            socket.send(frame, MORE)
        if payload is None:
            socket.send(last, LAST)
        else:
            socket.send(last, MORE)
            socket.send(payload, LAST, copy=False)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return False
        raise
    return True


def _endpoint(socket: Socket) -> str:
    """Where it is really bound, also when the port was left to the system."""
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return bound.rstrip(b"\0").decode()
