"""The order of it all: begin with the defaults, vary one thing at a time, keep what is better.

Rules:
- Interleaved: every round of a step starts each candidate anew, alone, and begins with another
  one. What changes on the machine in the course of a run falls on all alike.
- The last step measures what was found beside the defaults once more. Whoever picks the best of
  many picks some luck, too; what does not show again here is not kept.
- Every answer is held against the one that the calm service gives to the same photograph.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from loadtest.bench.contenders import SIGHTLINE, Contender, Engine, Running, running
from loadtest.bench.generator import Load, Window, post
from loadtest.bench.photographs import Photographs
from loadtest.bench.rounds import WARM_UP_S, ask, quantile
from loadtest.bench.usage import busy_seconds, cpu_seconds, tree
from loadtest.tune.choose import Knee, Sample, Verdict, choose
from loadtest.tune.settings import WAYS, Settings, Way, defaults

LONE: Final = 20
"""The bound on p95 where none is given, in times of what one request alone takes (p50)."""
START_S: Final = 4.0
"""What starting and stopping the service takes beside the measurements; for the estimate."""
PROOF: Final = "proof"
DISTURBED: Final = 0.1
"""Of the machine's CPU time, what others may use before a measurement is doubtful."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    cpus: int
    levels: Sequence[int]
    """Connections, each asking on and on."""
    rounds: int
    window_s: float
    bound_ms: float | None
    """What p95 may be; None: LONE times what one request alone takes."""
    engine: Engine
    model: str
    ways: Sequence[Way] = WAYS

    @property
    def minutes(self) -> float:
        """How long it takes at most."""
        first = defaults(self.cpus)
        visits = 2 + sum(len(way.candidates(first, self.cpus)) for way in self.ways)
        each = START_S + len(self.levels) * (WARM_UP_S + self.window_s + 1)
        return visits * self.rounds * each / 60


class NoAnswers(Exception):
    """The service gives no right answers, so there is nothing to compare."""


class Search:
    """Carries a plan out; `samples` and `verdicts` are what came of it."""

    def __init__(self, plan: Plan, photographs: Photographs, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._files = photographs.files
        self._say = say
        self._known: list[int | None] = []
        self.bound_ms = plan.bound_ms or 0.0
        self.lone_ms = 0.0
        """p50 of one request at a time with the defaults."""
        self.samples: list[Sample] = []
        self.verdicts: list[Verdict] = []
        self.first = defaults(plan.cpus)
        self.best = self.first

    def run(self) -> None:
        """All steps.

        Raises:
            NotReady, Disagreement: The service does not start, or refuses a photograph.
            NoAnswers: It gives no right answer to one request at a time.
        """
        self._calm()
        for way in self.plan.ways:
            candidates = way.candidates(self.best, self.plan.cpus)
            if len(candidates) > 1:
                self.best = self._step(way.name, candidates)
        if self.best != self.first:
            self.best = self._step(PROOF, [self.first, self.best])

    def _calm(self) -> None:
        """The right answers and the bound, from the defaults without a load."""
        contender = self._contender(self.first)
        with running(contender, self.plan.engine, self._files[0]) as served:
            self._known = [ask(served.port, contender.path, file) for file in self._files]
            window, _ = self._load(served, contender, 1)
        lone = quantile(sorted(window.latencies_ms), 0.5)
        if lone is None:
            raise NoAnswers("one request at a time gets no right answer")
        self.lone_ms = lone
        if self.plan.bound_ms is None:
            self.bound_ms = 10.0 * ceil(LONE * lone / 10)
        self._say(f"one request alone takes {lone:.1f} ms; p95 may be {self.bound_ms:.0f} ms")

    def _step(self, name: str, candidates: Sequence[Settings]) -> Settings:
        for number in range(1, self.plan.rounds + 1):
            first = (number - 1) % len(candidates)
            for settings in [*candidates[first:], *candidates[:first]]:
                self._visit(name, settings, number)
        verdict = choose(name, candidates, self.samples, self.bound_ms)
        self.verdicts.append(verdict)
        self._say(f"{name}: {verdict.chosen}{_gain(verdict)}")
        return verdict.chosen

    def _visit(self, step: str, settings: Settings, number: int) -> None:
        contender = self._contender(settings)
        with running(contender, self.plan.engine, self._files[0]) as served:
            for level in self.plan.levels:
                window, others = self._load(served, contender, level)
                ranked = sorted(window.latencies_ms)
                sample = Sample(
                    step=step,
                    settings=settings,
                    round=number,
                    level=level,
                    req_s=len(ranked) / window.seconds,
                    p50_ms=quantile(ranked, 0.5),
                    p95_ms=quantile(ranked, 0.95),
                    failed=window.failed + window.wrong,
                    others=others,
                )
                self.samples.append(sample)
                self._say(_line(sample))

    def _load(self, served: Running, contender: Contender, level: int) -> tuple[Window, float]:
        """What was seen, and the share of the machine that others used meanwhile."""
        looks: list[tuple[float, float]] = []

        def look() -> None:
            own = sum(cpu_seconds([os.getpid(), *tree(served.pid)]).values())
            looks.append((time.perf_counter(), busy_seconds() - own))

        requests = [post(contender.path, file) for file in self._files]
        load = Load(served.port, requests, self._known, level)
        window = load.run(WARM_UP_S, self.plan.window_s, look)
        (opened, before), (closed, after) = looks
        share = (after - before) / (closed - opened) / (os.cpu_count() or 1)
        # The counters are read one after the other, and in hundredths of a second.
        return window, min(1.0, max(0.0, share))

    @property
    def disturbed(self) -> float:
        """The share of all measurements in which others used more than DISTURBED."""
        return sum(s.others > DISTURBED for s in self.samples) / max(1, len(self.samples))

    def _contender(self, settings: Settings) -> Contender:
        arguments = ["--replicas", str(settings.replicas), "--model", self.plan.model]
        own = settings.model_environment() | settings.web_environment()
        return replace(
            SIGHTLINE,
            what=str(settings),
            command=lambda port: [*SIGHTLINE.command(port), *arguments],
            settings=lambda engine: SIGHTLINE.settings(engine) | own,
        )


def _line(sample: Sample) -> str:
    wait = f"p95 {sample.p95_ms:7.1f} ms" if sample.p95_ms is not None else "no answer"
    trouble = f", {sample.failed} failed" if sample.failed else ""
    if sample.others > DISTURBED:
        trouble += f"; others took {sample.others:.0%} of the machine"
    return (
        f"{sample.step}, round {sample.round}  {sample.settings}  {sample.level:>3}: "
        f"{sample.req_s:7.2f}/s, {wait}{trouble}"
    )


def _gain(verdict: Verdict) -> str:
    point: Knee | None = verdict.knees[verdict.chosen]
    if point is None:
        return "; nothing kept the bound"
    at = f", {point.req_s:.1f}/s at {point.level}"
    if verdict.chosen == verdict.candidates[0]:
        return f"{at}; nothing is better by more than {verdict.noise:.0%}"
    gain = verdict.gains.get(verdict.chosen)
    return at if gain is None else f"{at}; {gain:+.0%}, noise {verdict.noise:.0%}"
