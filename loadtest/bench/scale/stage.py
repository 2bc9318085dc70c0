"""Starts a broker (or the forwarder) and its replicas as processes, and ends them.

Rules:
- Where there are two cores the middle has one for itself and everybody else the others, so that
  "on one core" is true and neither side's time is taken for the other's.
- The end of the context is the end of every process.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import zmq

from loadtest.bench.contenders import ROOT, environment, free_port
from loadtest.bench.generator import HOST
from loadtest.bench.scale.clients import Clients, Tally
from loadtest.bench.scale.peers import Curve
from loadtest.bench.usage import cpu_seconds
from wire import Catalogue, Describe, encode, to_client

READY_S: Final = 20.0
CORES: Final = sorted(os.sched_getaffinity(0))

Middle = Literal["broker", "forwarder"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A middle that is running, with replicas behind it."""

    middle: Middle
    frontend: str
    pid: int
    peers_pid: int

    def measure(
        self, payload_bytes: int, run: Callable[[Clients, Callable[[], None]], Tally]
    ) -> tuple[Tally, float, float]:
        """What ``run`` saw; the CPU seconds of the middle in its window; those of all others."""
        looks: list[tuple[float, float]] = []

        def look() -> None:
            used = cpu_seconds([self.pid, self.peers_pid])
            looks.append((used[self.pid], used[self.peers_pid] + time.process_time()))

        with Clients(self.frontend, payload_bytes, plain=self.middle == "forwarder") as clients:
            tally = run(clients, look)
        (before, others_before), (after, others_after) = looks
        return tally, after - before, others_after - others_before


@contextlib.contextmanager
def stage(middle: Middle, replicas: int, curve: Curve) -> Iterator[Stage]:
    """A ``middle`` with so many simulated replicas, all of them ready."""
    frontend, backend = (f"tcp://{HOST}:{free_port()}" for _ in range(2))
    # When it ends replicas go one by one, which is no news.
    env = environment("nothing", "") | {"LOG_LEVEL": "ERROR"}
    if middle == "broker":
        env |= {"BROKER_FRONTEND": frontend, "BROKER_BACKEND": backend}
        program = ["modelserver", "broker"]
        peers = ["loadtest.bench.scale.peers", backend, str(replicas)]
        peers.append(msgspec.json.encode(curve).decode())
    else:
        program = ["loadtest.bench.scale.forwarder", frontend, backend]
        peers = ["loadtest.bench.scale.forwarder", "echo", backend, str(replicas)]
    with contextlib.ExitStack() as ends:
        process = ends.enter_context(_process(program, env))
        replicas_process = ends.enter_context(_process(peers, env))
        if len(CORES) > 1:
            _keep_to(process.pid, CORES[:1])
        if middle == "broker":
            _await(frontend, replicas)
        yield Stage(middle, frontend, process.pid, replicas_process.pid)


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """This process leaves the first core to the middle; what it starts does, too."""
    if len(CORES) > 1:
        os.sched_setaffinity(0, CORES[1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@contextlib.contextmanager
def _process(program: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *program], cwd=ROOT, env=env, stdin=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _keep_to(pid: int, cores: list[int]) -> None:
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task), cores)


def _await(frontend: str, replicas: int) -> None:
    """Return when the broker knows them all. Raises TimeoutError."""
    context = zmq.Context()
    end = time.monotonic() + READY_S
    try:
        with context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.connect(frontend)
            while time.monotonic() < end:
                client.send(encode(Describe(id="d")))
                if not client.poll(1000):
                    continue
                answer = to_client.decode(client.recv_multipart())
                if isinstance(answer, Catalogue) and any(
                    len(served.replicas) == replicas for served in answer.models
                ):
                    return
                time.sleep(0.05)
    finally:
        context.term()
    raise TimeoutError(f"the broker does not know {replicas} replicas after {READY_S:.0f} s")
