"""A replica against a broker's socket held by the test, over real TCP."""

import io
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq
from msgspec.structs import replace
from PIL import Image

import wire
from modelserver.bundle import Bundle, find_bundle, load_bundle
from modelserver.config import ReplicaConfig
from modelserver.engines import LatencyCurve, load_engine
from modelserver.replica import Replica
from modelserver.tally import Tally
from wire import FailureCode
from wire.messages import CREDIT_MAX

TIME_LIMIT_MS = 5000


class Backend:
    """The broker's side of one replica."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.rcvtimeo = TIME_LIMIT_MS
        self.endpoint = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._replica: Replica | None = None
        self._thread: threading.Thread | None = None
        self.identity = b""

    def start(
        self, batch_ms: float = 0, tally: Tally | None = None, max_batch: int = 4, credit: int = 8
    ) -> Replica:
        """Run a replica in a thread; returns when it has said READY, with ``credit``."""
        latency = LatencyCurve(base_ms=batch_ms, per_image_ms=0)
        engine = load_engine(
            "simulated", self.bundle, threads=1, max_batch=max_batch, latency=latency
        )
        config = ReplicaConfig(broker=self.endpoint)
        self._replica = Replica(config, self.bundle, engine, tally=tally)
        self._thread = threading.Thread(target=self._replica.run)
        self._thread.start()
        ready = self.hear(wire.Ready)
        assert isinstance(ready, wire.Ready)
        assert (ready.contract, ready.credit) == (self.bundle.contract, credit)
        return self._replica

    def hear(self, *kinds: type[wire.Message]) -> wire.Message:
        """The next message of one of these kinds; others are passed over."""
        while True:
            self.identity, *frames = self._socket.recv_multipart()
            message = wire.from_replica.decode(frames)
            if isinstance(message, kinds):
                return message

    def say(self, message: wire.Message, payload: bytes | None = None) -> None:
        frames = [self.identity, wire.encode(message)]
        self._socket.send_multipart(frames if payload is None else [*frames, payload])

    def work(self, job: int, *, colour: int = 0, deadline_ms: int = 5000, top_k: int = 3) -> None:
        message = wire.Work(job=job, deadline_ms=deadline_ms, top_k=top_k, encoding="pixels")
        self.say(message, bytes([colour]) * self.bundle.contract.nbytes)

    def dones(self, count: int) -> list[wire.Done]:
        found = [self.hear(wire.Done) for _ in range(count)]
        return [message for message in found if isinstance(message, wire.Done)]

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join(5)
        assert not self._thread.is_alive(), "the replica did not end"

    def close(self) -> None:
        if self._replica is not None and self._thread is not None and self._thread.is_alive():
            self._replica.stop()
            self.say(wire.Release())
            self.join()
        self._socket.close()
        self._context.term()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(find_bundle("efficientnet-lite0"))


@pytest.fixture
def backend(bundle: Bundle) -> Iterator[Backend]:
    side = Backend(bundle)
    yield side
    side.close()


def test_every_picture_gets_its_own_answer(backend: Backend) -> None:
    backend.start()
    for job in range(8):
        backend.work(job, colour=job)
    classes = {done.job: done.predictions[0].class_index for done in backend.dones(8)}
    for job in range(8):
        backend.work(100 + job, colour=job)
        [done] = backend.dones(1)
        assert done.predictions[0].class_index == classes[job]
    assert len(set(classes.values())) == 8


def test_credit_is_no_more_than_a_broker_takes(backend: Backend) -> None:
    backend.start(max_batch=CREDIT_MAX, credit=CREDIT_MAX)


def test_one_alone_does_not_wait_and_a_crowd_is_batched_by_itself(backend: Backend) -> None:
    backend.start(batch_ms=100)
    backend.work(0)
    while backend_idle(backend):
        pass
    for job in range(1, 7):
        backend.work(job)
    assert [done.batch_size for done in backend.dones(7)] == [1, 4, 4, 4, 4, 2, 2]


def test_what_was_done_is_in_the_books(backend: Backend) -> None:
    tally = Tally()
    backend.start(batch_ms=50, tally=tally)
    backend.work(0)
    while backend_idle(backend):
        pass
    for job in range(1, 4):
        backend.work(job)
    backend.dones(4)
    backend.say(wire.Work(job=9, deadline_ms=500, top_k=1, encoding="pixels"), b"too short")
    backend.hear(wire.Failed)
    [page] = tally.pages.values()
    assert tally.serving == ("efficientnet-lite0", "1", "simulated", "simulated", 1)
    assert page.batch_sizes.distribution.counts[:3] == (1, 0, 1)
    assert page.batch_sizes.distribution.total == 4
    assert sum(page.wait_ms.distribution.counts) == 4
    assert sum(page.inference_ms.distribution.counts) == 2
    assert 100 <= page.busy_ms == pytest.approx(page.inference_ms.distribution.total, abs=0.01)
    assert page.computed_ms >= 50 + 3 * 50
    assert page.failures == {"bad_payload": 1, "deadline": 0, "engine": 0}


def test_the_best_classes_come_first_and_as_many_as_asked(backend: Backend) -> None:
    backend.start()
    backend.work(1, top_k=5)
    [done] = backend.dones(1)
    probabilities = [p.probability for p in done.predictions]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert done.predictions[0].wnid.startswith("n")


def test_a_ping_is_answered_while_the_engine_works(backend: Backend) -> None:
    backend.start(batch_ms=1500)
    backend.work(1)
    busy_ms: float | None = None
    asked = time.monotonic()
    while busy_ms is None:
        backend.say(wire.Ping())
        alive = backend.hear(wire.Alive)
        assert isinstance(alive, wire.Alive)
        busy_ms = alive.busy_ms
    assert time.monotonic() - asked < 1.0
    assert busy_ms < 1000


def test_work_past_its_deadline_is_not_computed(backend: Backend) -> None:
    backend.start(batch_ms=300)
    backend.work(1)
    while backend_idle(backend):
        pass
    backend.work(2, deadline_ms=1)
    failed = backend.hear(wire.Failed)
    assert isinstance(failed, wire.Failed)
    assert (failed.job, failed.code) == (2, FailureCode.DEADLINE)


def test_a_failure_is_logged_under_the_names_of_its_request(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "Replica")
    backend.start()
    work = wire.Work(job=9, deadline_ms=5000, top_k=1, encoding="pixels", trace="t-1")
    backend.say(replace(work, traceparent="00-a-b-01"), b"too short")
    backend.hear(wire.Failed)
    assert "job 9 (trace 't-1', traceparent '00-a-b-01') failed as bad_payload" in caplog.text


def backend_idle(backend: Backend) -> bool:
    backend.say(wire.Ping())
    alive = backend.hear(wire.Alive)
    assert isinstance(alive, wire.Alive)
    return alive.busy_ms is None


def test_pixels_of_a_wrong_size_cost_only_their_own_request(backend: Backend) -> None:
    backend.start()
    work = wire.Work(job=1, deadline_ms=1000, top_k=1, encoding="pixels")
    backend.say(work, b"too few")
    failed = backend.hear(wire.Failed)
    assert isinstance(failed, wire.Failed)
    assert failed.code == FailureCode.BAD_PAYLOAD
    backend.work(2)
    assert [done.job for done in backend.dones(1)] == [2]


def test_an_image_file_is_decoded_here(backend: Backend) -> None:
    backend.start()
    contract = backend.bundle.contract
    file = io.BytesIO()
    Image.new("RGB", (contract.width, contract.height), (9, 9, 9)).save(file, "PNG")
    work = wire.Work(job=1, deadline_ms=5000, top_k=1, encoding="image")
    backend.say(work, file.getvalue())
    backend.work(2, colour=9, top_k=1)
    by_job = {done.job: done for done in backend.dones(2)}
    assert by_job[1].predictions == by_job[2].predictions
    assert by_job[1].timing.decode > 0


def test_a_file_that_is_no_image_is_the_senders_fault(backend: Backend) -> None:
    backend.start()
    backend.say(wire.Work(job=1, deadline_ms=5000, top_k=1, encoding="image"), b"no image")
    failed = backend.hear(wire.Failed)
    assert isinstance(failed, wire.Failed)
    assert failed.code == FailureCode.BAD_PAYLOAD


def test_a_broker_that_does_not_know_it_gets_ready_again_and_no_old_answers(
    backend: Backend,
) -> None:
    backend.start(batch_ms=300)
    backend.work(0)
    while backend_idle(backend):
        pass
    for job in range(1, 4):
        backend.work(job)
    backend.say(wire.Introduce())
    old = []
    while isinstance(message := backend.hear(wire.Done, wire.Ready), wire.Done):
        old.append(message.job)
    assert isinstance(message, wire.Ready)
    assert old == [0], "only what was in the engine already"


def test_silence_is_answered_with_ready(backend: Backend) -> None:
    backend.start()
    assert isinstance(backend.hear(wire.Ready), wire.Ready)


def test_garbage_from_the_broker_stops_nothing(backend: Backend) -> None:
    backend.start()
    for frames in ([b""], [b"\xff" * 9], [wire.encode(wire.Describe(id="d"))]):
        backend._socket.send_multipart([backend.identity, *frames])
    backend.work(1)
    assert len(backend.dones(1)) == 1


def test_leaving_answers_what_it_holds_and_waits_for_release(backend: Backend) -> None:
    replica = backend.start(batch_ms=100)
    for job in range(3):
        backend.work(job)
    replica.stop()
    kinds = [type(backend.hear(wire.Leave, wire.Done)) for _ in range(4)]
    assert kinds.count(wire.Done) == 3
    assert kinds.count(wire.Leave) == 1
    backend.say(wire.Release())
    backend.join()


def test_leaving_without_a_broker_does_not_last(backend: Backend) -> None:
    replica = backend.start()
    backend._socket.close()
    replica.stop()
    backend.join()


def test_starts_and_stops_leave_no_thread_and_no_descriptor(bundle: Bundle) -> None:
    def cycle() -> None:
        side = Backend(bundle)
        side.start()
        side.close()

    cycle()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(10):
        cycle()
    eventually(lambda: threading.active_count() == threads)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "it did not come true within 5 s"
        time.sleep(0.01)
