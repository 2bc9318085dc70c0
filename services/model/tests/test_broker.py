"""The broker over real TCP: what its sockets do that the Dispatcher cannot know of."""

import base64
import contextlib
import logging
import os
import socket as tcp
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

import wire
from modelserver import health, journal
from modelserver.broker import Broker
from modelserver.config import BrokerConfig
from modelserver.events import TellClient
from tests.system.processes import connections

CONTRACT = wire.Contract(
    model="m",
    version="1",
    digest="0123456789abcdef",
    width=2,
    height=2,
    crop=1.0,
    filter="bicubic",
    classes=3,
)
PIXELS = bytes(CONTRACT.nbytes)
TIME_LIMIT_MS = 5000


class Running:
    """A broker in a thread, and sockets to talk to it with."""

    def __init__(self, broker: Broker, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.broker = broker
        self._context = context
        self._sockets: list[zmq.Socket[bytes]] = []
        self._bound = threading.Event()
        self._thread = threading.Thread(target=broker.run, args=(self._listening,))
        self._thread.start()
        assert self._bound.wait(5)

    def _listening(self, frontend: str, backend: str) -> None:
        self.frontend, self.backend = frontend, backend
        self._bound.set()

    def stop(self) -> None:
        for socket in self._sockets:
            socket.close()
        self.broker.stop()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def socket(self, endpoint: str, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.rcvtimeo = TIME_LIMIT_MS
        socket.connect(endpoint)
        self._sockets.append(socket)
        return socket

    def client(self) -> zmq.Socket[bytes]:
        return self.socket(self.frontend)

    def replica(self, credit: int = 4) -> zmq.Socket[bytes]:
        socket = self.socket(self.backend)
        ready = wire.Ready(replica="host:1:ab", contract=CONTRACT, credit=credit, device="cpu")
        socket.send(wire.encode(ready))
        return socket


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Running]:
    config = BrokerConfig(
        frontend="tcp://127.0.0.1:*",
        backend="tcp://127.0.0.1:*",
        journal_file=str(folder / "journal"),
    )
    context = zmq.Context()
    service = Running(Broker(config), context)
    try:
        yield service
    finally:
        service.stop()
        context.term()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path) as service:
        yield service


def ask(client: zmq.Socket[bytes], request_id: str, *, deadline_ms: int = 5000) -> None:
    request = wire.Request(
        id=request_id, model="m", digest=CONTRACT.digest, deadline_ms=deadline_ms
    )
    client.send_multipart([wire.encode(request), PIXELS])


def next_work(replica: zmq.Socket[bytes]) -> tuple[wire.Work, bytes]:
    """The next piece of work; pings are answered on the way, as a replica does."""
    while True:
        frames = replica.recv_multipart()
        message = wire.to_replica.decode(frames)
        if isinstance(message, wire.Work):
            return message, frames[1]
        if isinstance(message, wire.Ping):
            replica.send(wire.encode(wire.Alive(busy_ms=None)))


def finish(replica: zmq.Socket[bytes], work: wire.Work) -> None:
    prediction = wire.Prediction("tench", "n01440764", 0, 0.75)
    done = wire.Done(
        job=work.job, predictions=(prediction,) * 3, batch_size=1, timing=wire.Timing()
    )
    replica.send(wire.encode(done))


def answer(client: zmq.Socket[bytes]) -> wire.Message:
    return wire.to_client.decode(client.recv_multipart())


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "it did not come true within 5 s"
        time.sleep(0.01)


def catalogue(frontend: str) -> wire.Catalogue:
    found = health.catalogue(frontend)
    assert found is not None
    return found


def one_request_works(running: Running) -> None:
    client, replica = running.client(), running.replica()
    ask(client, "sound")
    work, pixels = next_work(replica)
    assert pixels == PIXELS
    finish(replica, work)
    result = answer(client)
    assert isinstance(result, wire.Result)
    assert result.id == "sound"


def test_a_request_travels_both_ways(running: Running) -> None:
    one_request_works(running)


GARBAGE = [
    [b""],
    [b"", b""],
    [b"\x00" * 100],
    [b"hello"],
    [bytes([wire.VERSION])],
    [bytes([wire.VERSION]) + b"\xc1"],
    [bytes([wire.VERSION + 1]) + b"\x80"],
    [wire.encode(wire.Ping())],
    [wire.encode(wire.Describe(id="d")), b"payload"],
    [wire.encode(wire.Leave())[:-2]],
    [b"x"] * 40,
    [b"{" * 50_000, b""],
    [bytes([wire.VERSION]) + b"\x91" * 50_000],
]


def test_garbage_on_both_ports_stops_nothing(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    noise = [running.socket(running.frontend), running.socket(running.backend)]
    for socket in noise:
        for frames in GARBAGE:
            socket.send_multipart(frames)
    eventually(lambda: running.broker.counts["garbage"] == 2 * len(GARBAGE))
    one_request_works(running)
    lines = sorted(record.message for record in caplog.records if "garbage" in record.message)
    assert [line.partition(";")[0] for line in lines] == [
        "1 times garbage from clients",
        "1 times garbage from replicas",
    ]


def test_half_a_message_and_a_broken_handshake_stop_nothing(running: Running) -> None:
    for endpoint in (running.frontend, running.backend):
        host, port = endpoint.removeprefix("tcp://").split(":")
        for bytes_sent in (b"", b"\xff\x00\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000):
            with tcp.create_connection((host, int(port))) as stream, contextlib.suppress(OSError):
                stream.sendall(bytes_sent)
    one_request_works(running)


def test_a_request_without_its_payload_is_garbage(running: Running) -> None:
    client = running.client()
    request = wire.Request(id="r", model="m", digest=CONTRACT.digest, deadline_ms=100)
    client.send(wire.encode(request))
    eventually(lambda: running.broker.counts["garbage"] == 1)


def test_work_of_a_replica_whose_connection_breaks_goes_to_another(running: Running) -> None:
    client, doomed = running.client(), running.replica()
    ask(client, "r")
    first, _ = next_work(doomed)
    doomed.close()
    heir = running.replica()
    second, pixels = next_work(heir)
    assert (second.job, pixels) == (first.job, PIXELS)
    finish(heir, second)
    result = answer(client)
    assert isinstance(result, wire.Result)
    assert result.attempt == 2


class Pause(logging.Handler):
    """Keeps the broker where it writes a certain message into its log."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self.begun, self.over = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self.begun.set()
            self.over.wait(5)


@pytest.fixture
def pause() -> Iterator[Pause]:
    handler, log = Pause("is lost"), logging.getLogger("Broker")
    log.addHandler(handler)
    try:
        yield handler
    finally:
        handler.over.set()
        log.removeHandler(handler)


def test_what_a_replica_answered_before_it_went_counts(running: Running, pause: Pause) -> None:
    """The broker meets the broken connection before it has read the answer."""
    client, replica = running.client(), running.replica()
    ask(client, "r")
    work, _ = next_work(replica)
    running.replica()  # A silent one.
    while not pause.begun.is_set():
        if replica.poll(50):
            assert wire.to_replica.decode(replica.recv_multipart()) == wire.Ping()
            replica.send(wire.encode(wire.Alive(busy_ms=None)))
    # What the broker is about to do when it goes on is to ping the other replica.
    backend = int(running.backend.rpartition(":")[2])
    others = connections(backend) - 1
    finish(replica, work)
    replica.close(linger=TIME_LIMIT_MS)
    eventually(lambda: connections(backend) == others)
    pause.over.set()
    result = answer(client)
    assert isinstance(result, wire.Result)
    assert (result.attempt, running.broker.counts["late"]) == (1, 0)


def test_answers_to_a_client_that_left_are_counted_and_harm_nobody(running: Running) -> None:
    client, replica = running.client(), running.replica(credit=500)
    for n in range(500):
        ask(client, f"r{n}")
    held = [next_work(replica)[0] for _ in range(500)]
    client.close()

    def one_answer_found_nobody() -> bool:
        finish(replica, held.pop())
        return running.broker.counts["abandoned"] > 0

    eventually(one_answer_found_nobody)
    replica.close()
    one_request_works(running)


def test_an_unknown_replica_is_asked_to_introduce_itself(running: Running) -> None:
    stranger = running.socket(running.backend)
    stranger.send(wire.encode(wire.Alive(busy_ms=None)))
    assert wire.to_replica.decode(stranger.recv_multipart()) == wire.Introduce()


def test_the_catalogue_is_there_before_any_model(running: Running) -> None:
    client = running.client()
    client.send(wire.encode(wire.Describe(id="d")))
    assert answer(client) == wire.Catalogue(id="d", models=())


def test_what_a_broker_recorded_can_be_replayed(running: Running, tmp_path: Path) -> None:
    for _ in range(3):
        one_request_works(running)
    running.stop()
    actions = journal.replay((tmp_path / "journal").read_bytes().splitlines())
    told = [a.message for step in actions for a in step if isinstance(a, TellClient)]
    assert [m.id for m in told if isinstance(m, wire.Result)] == ["sound"] * 3


def test_a_broker_that_is_started_again_goes_on_in_the_same_journal(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path) as running:
            one_request_works(running)
    actions = journal.replay((tmp_path / "journal").read_bytes().splitlines())
    told = [a.message for step in actions for a in step if isinstance(a, TellClient)]
    assert [m.id for m in told if isinstance(m, wire.Result)] == ["sound"] * 2


# --- the tutorial's client --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ], ids=["DEALER", "REQ"])
def test_the_tutorials_client_gets_its_reply(running: Running, kind: int) -> None:
    replica = running.replica()
    eventually(lambda: bool(catalogue(running.frontend).models))
    client = running.socket(running.frontend, kind)
    picture = b"the bytes of an image file"
    client.send_json({"payload": base64.b64encode(picture).decode(), "_rid": "7"})
    work, payload = next_work(replica)
    assert (work.encoding, payload, work.top_k) == ("image", picture, 3)
    finish(replica, work)
    triple = "tench : 0.7500, tench : 0.7500, tench : 0.7500"
    assert client.recv_json() == {"preds": triple}


def test_the_tutorials_client_is_told_what_was_wrong(running: Running) -> None:
    client = running.socket(running.frontend)
    client.send_json({"payload": 3})
    reply = client.recv_json()
    assert isinstance(reply, dict)
    assert reply["preds"] == ""
    assert "payload" in reply["error"]


def test_pixels_that_look_like_json_are_pixels(running: Running) -> None:
    client, replica = running.client(), running.replica()
    request = wire.Request(id="r", model="m", digest=CONTRACT.digest, deadline_ms=5000)
    client.send_multipart([wire.encode(request), b"{" * CONTRACT.nbytes])
    assert next_work(replica)[1] == b"{" * CONTRACT.nbytes


def test_who_observes_from_another_thread_is_told_what_a_client_is(running: Running) -> None:
    replica = running.replica()
    replica.recv_multipart()  # A ping: the broker knows it.
    told = running.broker.observe()
    assert [one.name for one in told.replicas] == ["host:1:ab"]
    client = running.client()
    client.send(wire.encode(wire.Observe(id="o")))
    seen = wire.to_client.decode(client.recv_multipart())
    assert isinstance(seen, wire.Status)
    assert (seen.counts, seen.models) == (told.counts, told.models)


# --- life -------------------------------------------------------------------------------------


def test_fifty_starts_and_stops_leave_no_thread_and_no_descriptor() -> None:
    config = BrokerConfig(frontend="tcp://127.0.0.1:*", backend="tcp://127.0.0.1:*")
    context = zmq.Context()

    def cycle() -> None:
        Running(Broker(config), context).stop()

    cycle()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(50):
        cycle()
    # Fewer, where a test before this one had something that was about to end.
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert threading.active_count() <= threads
    context.term()


def test_a_taken_port_is_an_error_and_not_a_silent_second_broker(running: Running) -> None:
    config = BrokerConfig(frontend=running.frontend, backend="tcp://127.0.0.1:*")
    broker = Broker(config)
    with pytest.raises(zmq.ZMQError, match="in use"):
        broker.run()
