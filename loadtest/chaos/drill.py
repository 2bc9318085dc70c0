"""The story of a drill: calm, chaos, and the proof that the service is whole again."""

import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException
from itertools import takewhile
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

from loadtest.chaos.clients import Connection, Crowd
from loadtest.chaos.ledger import Ledger, Reply
from loadtest.chaos.pictures import Picture, Verdict, learn
from loadtest.chaos.timetable import Deed, Step, timetable

ROOT: Final = Path(__file__).parents[2]
DEADLINE_S: Final = 10.0
"""WEB_DEADLINE_MS, unless an operator sets it: the service's promise."""
START_S: Final = 60.0
LONGEST: Final = 3
"""A drill that has not sent enough requests goes on for so many times its planned time."""
PROGRESS_S: Final = 5.0
POLL_S: Final = 0.02


class Target(Protocol):
    """A service that can be broken. Replicas are numbered from 0."""

    port: int
    replicas: int

    def kill(self, replica: int) -> None: ...
    def suspend(self, replica: int) -> None: ...
    def resume(self, replica: int) -> None: ...
    def kill_broker(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How hard the drill is."""

    seconds: float
    requests: int
    """Fewer requests prove nothing, so the drill goes on until they are sent."""
    clients: int
    seed: int


class Drill:
    """One drill against one service, which has been started already."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self._target = target
        self._plan = plan
        self._connection = Connection(target.port)
        self._reported: list[Step] = []
        self.ledger = Ledger()
        self.deeds: Counter[str] = Counter()

    def run(self) -> bool:
        """Whether every request got its answer in time and the service is whole at the end.

        Raises:
            TimeoutError: Not all replicas came at the start.
            ValueError: The calm service does not classify.
        """
        wanted = self._target.replicas
        if (found := self._replicas_in_time()) != wanted:
            raise TimeoutError(f"{found} of {wanted} replicas were there after {START_S:.0f} s.")
        pictures = learn(self._ask, ROOT)
        print(f"calm: {wanted} replicas, {len(pictures)} pictures told apart", flush=True)
        with Crowd(self._target.port, self._plan.clients, pictures, self.ledger, self._plan.seed):
            self._wreak_havoc()
        found = self._replicas_in_time()
        # A service that is not whole may take its whole deadline for every answer.
        right = sum(takewhile(bool, map(self._is_right, pictures))) if found == wanted else 0
        print(f"calm again: {found} replicas, {right} of {len(pictures)} right")
        whole = found == wanted and right == len(pictures)
        enough = self.ledger.counts["sent"] >= self._plan.requests
        in_time = self.ledger.p99_s <= DEADLINE_S
        self._sum_up(enough=enough, in_time=in_time)
        return whole and enough and in_time and self.ledger.clean

    def _wreak_havoc(self) -> None:
        began = time.monotonic()
        next_progress = PROGRESS_S
        steps = timetable(
            self._plan.seed, replicas=self._target.replicas, seconds=self._plan.seconds
        )
        step = next(steps)
        while not self._is_over(elapsed := time.monotonic() - began):
            if elapsed >= next_progress:
                self._report(elapsed)
                next_progress += PROGRESS_S
            if elapsed >= step.at_s:
                self._do(step)
                step = next(steps)
            else:
                time.sleep(min(POLL_S, step.at_s - elapsed))
        self._report(elapsed)
        for replica in range(self._target.replicas):
            self._target.resume(replica)

    def _is_over(self, elapsed: float) -> bool:
        seconds = self._plan.seconds
        enough = self.ledger.counts["sent"] >= self._plan.requests
        return elapsed >= seconds and (enough or elapsed >= LONGEST * seconds)

    def _do(self, step: Step) -> None:
        match step.deed:
            case Deed.KILL:
                self._target.kill(step.replica)
            case Deed.SUSPEND:
                self._target.suspend(step.replica)
            case Deed.RESUME:
                self._target.resume(step.replica)
            case Deed.KILL_BROKER:
                self._target.kill_broker()
        if step.count_as:
            self.deeds[step.count_as] += 1
            self._reported.append(step)

    def _replicas_in_time(self) -> int:
        """How many replicas there are, once there are as many as there should be."""
        deadline = time.monotonic() + START_S
        while (found := self._connection.replicas()) != self._target.replicas:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        return found

    def _is_right(self, picture: Picture) -> bool:
        try:
            reply = self._ask(picture.file)
        except (OSError, HTTPException):
            return False
        return reply.status == 200 and picture.verdict.resembles(Verdict.of(reply.json))

    def _ask(self, file: bytes) -> Reply:
        return self._connection.classify(file, uuid4().hex)

    def _report(self, elapsed: float) -> None:
        done = ", ".join(map(str, self._reported)) or "nothing broken"
        answered, p99_s = self.ledger.counts["answered"], self.ledger.p99_s
        print(f"{elapsed:4.0f} s  answered {answered:5}, p99 {p99_s:.2f} s; {done}", flush=True)
        self._reported.clear()

    def _sum_up(self, *, enough: bool, in_time: bool) -> None:
        for trouble in self.ledger.troubles:
            print(trouble)
        if not enough:
            print(f"fewer than {self._plan.requests} requests prove nothing")
        if not in_time:
            print(f"p99 is beyond the deadline of {DEADLINE_S:.0f} s")
        deeds = ", ".join(f"{count} {deed}s" for deed, count in sorted(self.deeds.items()))
        print(f"{deeds}; {self.ledger.counts['retried']} answers took a second attempt")
        print(self.ledger, flush=True)
