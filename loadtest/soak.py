"""The soak: steady work for a long time, and the proof that nothing grows meanwhile.

A service of its own is started, what it can do at most is found in a short calibration, and a
share of that is offered at a constant rate while every process of the service is measured.

Rules:
- What happens before the end of the warm-up is not judged: allocators, caches and pools of
  threads and sockets find their size then.
- The calibration is the largest crowd of the run, with as many clients as web has threads, so
  whatever grows with the crowd has grown before.
- Every answer is checked, as in the chaos drill. What grows is told by `growth`.
"""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from loadtest.chaos.clients import Connection, Crowd, at_once
from loadtest.chaos.drill import ROOT, START_S
from loadtest.chaos.ledger import Ledger
from loadtest.chaos.pictures import Picture, learn
from loadtest.chaos.processes import OwnService, judged
from loadtest.growth import HEADING, Sample, judge, measure

SAMPLES: Final = 300
"""So many over the whole time, unless that is more than two a second."""
FASTEST_S: Final = 0.5
PROGRESS: Final = 10
"""Lines of progress over the whole time."""


class Pace:
    """A constant rate, whatever comes back: gives many threads their turns."""

    def __init__(self, rate: float) -> None:
        """``rate`` is turns a second, and the first of them is now."""
        self._lock = threading.Lock()
        self._interval_s = 1 / rate
        self._next = time.monotonic()

    def await_turn(self) -> None:
        """Return when it is the caller's turn, at once if that is overdue."""
        with self._lock:
            due = self._next
            self._next += self._interval_s
        time.sleep(max(0.0, due - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how hard the soak is. Times are in seconds."""

    seconds: float
    warm_up: float
    calibration: float
    load: float
    clients: int
    tolerance: float


class Soak:
    """One soak of one service, which has been started already."""

    def __init__(self, service: OwnService, plan: Plan) -> None:
        self._service = service
        self._plan = plan
        self._ledger = Ledger()

    def run(self) -> bool:
        """Whether nothing grew and every request got its own right answer.

        Raises:
            TimeoutError: Not all replicas came.
            ValueError: The service does not classify, or the time is too short to tell.
        """
        plan = self._plan
        pictures = self._prepare()
        capacity = self._calibrate(pictures)
        rate = plan.load * capacity
        print(f"capacity {capacity:.1f}/s; offered from now on: {rate:.1f}/s", flush=True)
        pace = Pace(rate)
        with self._crowd(pictures, seed=2, turn=pace.await_turn):
            time.sleep(plan.warm_up)
            samples = self._watch()
        findings = judge(samples, tolerance=plan.tolerance)
        print(HEADING, *findings, *self._ledger.troubles, self._ledger, sep="\n", flush=True)
        return self._ledger.clean and not any(finding.troubles for finding in findings)

    def _prepare(self) -> list[Picture]:
        connection = Connection(self._service.port)
        deadline = time.monotonic() + START_S
        while (found := connection.replicas()) != self._service.replicas:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found} replicas were there after {START_S:.0f} s.")
            time.sleep(FASTEST_S)
        pictures = learn(lambda file: connection.classify(file, uuid4().hex), ROOT)
        connection.close()
        return pictures

    def _calibrate(self, pictures: Sequence[Picture]) -> float:
        """Answers a second with everybody asking all the time, over the second half."""
        with self._crowd(pictures, seed=1):
            time.sleep(self._plan.calibration / 2)
            before, began = self._ledger.counts["answered"], time.monotonic()
            time.sleep(self._plan.calibration / 2)
            answered = self._ledger.counts["answered"] - before
            return answered / (time.monotonic() - began)

    def _crowd(
        self, pictures: Sequence[Picture], *, seed: int, turn: Callable[[], None] = at_once
    ) -> Crowd:
        clients = self._plan.clients
        return Crowd(self._service.port, clients, pictures, self._ledger, seed, turn)

    def _watch(self) -> list[Sample]:
        seconds = self._plan.seconds
        interval_s = max(FASTEST_S, seconds / SAMPLES)
        began = time.monotonic()
        samples: list[Sample] = []
        next_report = 0.0
        while (elapsed := time.monotonic() - began) < seconds:
            samples.append(measure(self._service.pids()))
            if elapsed >= next_report:
                self._report(elapsed, samples[-1])
                next_report += seconds / PROGRESS
            time.sleep(interval_s)
        return samples

    def _report(self, elapsed: float, sample: Sample) -> None:
        memory = ", ".join(f"{p.name} {use.pss_kib / 1024:.1f}" for p, use in sample.items())
        print(f"{elapsed:5.0f} s  {self._ledger.counts['answered']} answered; {memory}", flush=True)


def main() -> int:
    """Run one soak. Returns its exit status: 0 if it passed, 1 if not, 2 if it could not run."""
    parser = argparse.ArgumentParser(prog="loadtest.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, metavar="N", help="that are judged")
    parser.add_argument("--warm-up", type=float, default=180, metavar="N", help="seconds before")
    parser.add_argument("--calibration", type=float, default=20, metavar="N", help="seconds")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity")
    parser.add_argument("--clients", type=int, default=64, metavar="N")
    parser.add_argument("--replicas", type=int, default=2, metavar="N")
    parser.add_argument("--tolerance", type=float, default=1, metavar="PERCENT")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    plan = Plan(
        seconds=arguments.seconds,
        warm_up=arguments.warm_up,
        calibration=arguments.calibration,
        load=arguments.load,
        clients=arguments.clients,
        tolerance=arguments.tolerance / 100,
    )
    try:
        return judged("soak", arguments.replicas, lambda own: Soak(own, plan).run())
    except (OSError, ValueError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
