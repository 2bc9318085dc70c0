"""Those who ask the broker: a crowd that always has so much under way, or a stream of strangers.

Rules:
- One thread and a few connections; a payload is prepared once and moved without a copy.
- Each answer is held against its request: a Result under an id that is under way, once.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil

import zmq

from loadtest.bench.scale.peers import CONTRACT
from wire import Request, Result, WireError, encode, to_client
from wire.messages import Encoding

CONNECTIONS = 8
DEADLINE_MS = 20_000
WARM_UP_S = 0.5
PATIENCE_S = 5.0


@dataclass(slots=True)
class Tally:
    """What was seen in the window."""

    seconds: float = 0.0
    done: int = 0
    failed: int = 0
    """Failures, and answers to nothing that was asked."""
    queued_ms: list[float] = field(default_factory=list)
    """Of each answer: its wait in the broker and in the replica, as those tell it."""
    ways_ms: list[float] = field(default_factory=list)
    """Of each answer: all the rest of its time but that in the engine."""


class Clients:
    """Connections to a frontend. A context."""

    def __init__(self, address: str, payload_bytes: int, *, plain: bool = False) -> None:
        """``plain``: who answers only gives the header back."""
        self._plain = plain
        self._payload = bytes(payload_bytes)
        # A payload of another size than the contract's passes for an image file: replicas here
        # look into neither.
        self._encoding: Encoding = "pixels" if payload_bytes == CONTRACT.nbytes else "image"
        self._context = zmq.Context()
        self._sockets = [self._context.socket(zmq.DEALER) for _ in range(CONNECTIONS)]
        self._turns = itertools.cycle(self._sockets)
        self._poller = zmq.Poller()
        for socket in self._sockets:
            socket.linger = 0
            socket.connect(address)
            self._poller.register(socket, zmq.POLLIN)
        self._numbers = itertools.count()
        self._sent: dict[str, float] = {}

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def crowd(self, under_way: int, seconds: float, look: Callable[[], None]) -> Tally:
        """Always ``under_way`` requests; ``look`` is called at both ends of the window."""
        for _ in range(under_way):
            self._send()

        def again(now: float, end: float, tally: Tally) -> None:
            for _ in self._answers(end - now, tally):
                self._send()

        return self._run(again, seconds, look)

    def strangers(self, per_second: float, seconds: float, look: Callable[[], None]) -> Tally:
        """Requests that know nothing of each other: a Poisson process."""
        chance = random.Random(per_second)
        due = time.monotonic()

        def some(now: float, end: float, tally: Tally) -> None:
            nonlocal due
            while due <= now:
                # Its wait begins when it was due, not when there was time for it.
                self._send(due)
                due += chance.expovariate(per_second)
            for _ in self._answers(min(due, end) - now, tally):
                pass

        return self._run(some, seconds, look)

    def _run(
        self,
        step: Callable[[float, float, Tally], None],
        seconds: float,
        look: Callable[[], None],
    ) -> Tally:
        self._until(time.monotonic() + WARM_UP_S, step, Tally())
        look()
        tally, began = Tally(), time.monotonic()
        self._until(began + seconds, step, tally)
        tally.seconds = time.monotonic() - began
        look()
        end = time.monotonic() + PATIENCE_S
        while self._sent and time.monotonic() < end:
            for _ in self._answers(end - time.monotonic(), Tally()):
                pass
        tally.failed += len(self._sent)
        self._sent.clear()
        return tally

    @staticmethod
    def _until(end: float, step: Callable[[float, float, Tally], None], tally: Tally) -> None:
        while (now := time.monotonic()) < end:
            step(now, end, tally)

    def _send(self, began: float | None = None) -> None:
        name = f"{next(self._numbers):x}"
        request = Request(
            id=name,
            model=CONTRACT.model,
            digest=CONTRACT.digest if self._encoding == "pixels" else "",
            deadline_ms=DEADLINE_MS,
            encoding=self._encoding,
        )
        self._sent[name] = time.monotonic() if began is None else began
        next(self._turns).send_multipart([encode(request), self._payload], copy=False)

    def _answers(self, timeout_s: float, tally: Tally) -> Iterator[None]:
        """Once for each request that is no longer under way."""
        for socket, _ in self._poller.poll(max(0, ceil(timeout_s * 1000))):
            while True:
                try:
                    frames = socket.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                if self._settle(frames, tally):
                    yield

    def _settle(self, frames: list[bytes], tally: Tally) -> bool:
        if self._plain:
            self._sent.popitem()
            tally.done += 1
            return True
        try:
            answer = to_client.decode(frames)
        except WireError:
            tally.failed += 1
            return False
        began = self._sent.pop(answer.id, None)
        if began is None or not isinstance(answer, Result):
            tally.failed += 1
            return began is not None
        tally.done += 1
        timing = answer.timing
        queued_ms = timing.queue + timing.batch
        took_ms = (time.monotonic() - began) * 1000
        tally.queued_ms.append(queued_ms)
        tally.ways_ms.append(took_ms - queued_ms - timing.inference)
        return True
