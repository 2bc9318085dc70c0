"""Any number of simulated replicas in one process and one thread.

``python -m loadtest.bench.scale.peers ADDRESS REPLICAS CURVE``, where CURVE is the JSON of a
Curve. Rules:
- To the broker each is a replica like any other: a connection, READY, credit for two batches,
  an answer to every ping. Of the pixels nothing is read.
- The engines are a calendar and not threads: a batch begins when the engine is free and something
  has come, and ends when the curve says so, to the microsecond. Only the telling may be late, by
  less than the millisecond that a poll is rounded to. Sixty-four real replicas would want more
  of two cores than the broker leaves, and the measurement would be of them.
"""

import heapq
import itertools
import random
import sys
import time
from collections import deque
from dataclasses import dataclass
from math import ceil

import msgspec
import zmq

from wire import (
    Alive,
    Contract,
    Done,
    Introduce,
    Message,
    Ping,
    Prediction,
    Ready,
    Timing,
    Work,
    encode,
    to_replica,
)

CONTRACT = Contract(
    model="scale",
    version="1",
    digest="0123456789abcdef",
    width=224,
    height=224,
    crop=0.875,
    filter="bicubic",
    classes=1000,
)
PREDICTIONS = tuple(Prediction("a class of pictures", "n00000000", n, 0.2) for n in range(5))
IDLE_S = 0.1


class Curve(msgspec.Struct, frozen=True):
    """What a batch costs."""

    base_ms: float
    image_ms: float
    max_batch: int
    exponential: bool = False
    """Drawn with that mean, as queueing theory has it; else exactly that."""

    def seconds(self, n: int, chance: random.Random) -> float:
        """How long a batch of ``n`` takes."""
        mean = (self.base_ms + self.image_ms * n) / 1000
        return chance.expovariate(1 / mean) if self.exponential and mean else mean


@dataclass(frozen=True, slots=True)
class _Item:
    job: int
    arrived: float


class Peer:
    """One replica: its connection and its calendar."""

    def __init__(self, name: str, socket: zmq.Socket[bytes], curve: Curve) -> None:
        self._name = name
        self._socket = socket
        self._curve = curve
        self._chance = random.Random(name)
        self._waiting: deque[_Item] = deque()
        self._batch: list[_Item] = []
        self._began = self._free_at = 0.0
        self.ends: float | None = None
        """When the present batch does, in seconds on the monotonic clock."""

    def introduce(self) -> None:
        """Say READY, with empty hands."""
        self._waiting.clear()
        self._batch, self.ends = [], None
        credit = 2 * self._curve.max_batch
        self._say(Ready(replica=self._name, contract=CONTRACT, credit=credit, device="simulated"))

    def hear(self, now: float) -> None:
        """Read everything that the broker has said by ``now``."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            match to_replica.decode([frame.buffer for frame in frames]):
                case Work(job=job):
                    self._waiting.append(_Item(job, now))
                case Ping():
                    self._say(Alive(busy_ms=None))
                case Introduce():
                    self.introduce()

    def work(self, now: float) -> None:
        """Do everything that is over or begins by ``now``."""
        while True:
            if self.ends is not None:
                if self.ends > now:
                    return
                self._tell()
                self._free_at, self.ends = self.ends, None
            elif self._waiting:
                self._begin()
            else:
                return

    def _begin(self) -> None:
        self._began = max(self._free_at, self._waiting[0].arrived)
        self._batch = []
        while (
            self._waiting
            and len(self._batch) < self._curve.max_batch
            and self._waiting[0].arrived <= self._began
        ):
            self._batch.append(self._waiting.popleft())
        self.ends = self._began + self._curve.seconds(len(self._batch), self._chance)

    def _tell(self) -> None:
        inference_ms = ((self.ends or 0.0) - self._began) * 1000
        for item in self._batch:
            timing = Timing(batch=(self._began - item.arrived) * 1000, inference=inference_ms)
            self._say(
                Done(
                    job=item.job,
                    predictions=PREDICTIONS,
                    batch_size=len(self._batch),
                    timing=timing,
                )
            )

    def _say(self, message: Message) -> None:
        self._socket.send(encode(message))


def main(address: str, replicas: int, curve: Curve) -> None:
    """Serve until killed."""
    context = zmq.Context()
    poller = zmq.Poller()
    peers: dict[zmq.Socket[bytes], Peer] = {}
    for number in range(replicas):
        socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(address)
        poller.register(socket, zmq.POLLIN)
        peers[socket] = Peer(f"simulated:{number}", socket, curve)
        peers[socket].introduce()
    calendar: list[tuple[float, int, Peer]] = []
    turns = itertools.count()
    while True:
        wait = calendar[0][0] - time.monotonic() if calendar else IDLE_S
        readable = poller.poll(max(0, ceil(wait * 1000)))
        due = [peers[socket] for socket, _ in readable]
        for peer in due:
            peer.hear(time.monotonic())
        now = time.monotonic()
        while calendar and calendar[0][0] <= now:
            due.append(heapq.heappop(calendar)[2])
        for peer in due:
            ended = peer.ends
            peer.work(now)
            if peer.ends is not None and peer.ends != ended:
                heapq.heappush(calendar, (peer.ends, next(turns), peer))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), msgspec.json.decode(sys.argv[3], type=Curve))
