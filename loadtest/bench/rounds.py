"""The order of a benchmark: rounds, in each of which every contender has its turn.

Rules:
- Interleaved: what changes on the machine in the course of a run falls on all alike, and every
  round begins with another contender. Single rounds are noise; a report takes their medians.
- Nothing else of the benchmark runs while something is measured.
- Before a contender is measured for the first time it is asked each photograph once. These
  answers are its own right ones from then on, and have to agree with those of the bare loop.
"""

import http.client
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Any, Final

from loadtest.bench.contenders import (
    ROOT,
    SIGHTLINE,
    Contender,
    Engine,
    NotReady,
    Running,
    environment,
    interpreter,
    running,
)
from loadtest.bench.generator import HOST, Load, post, top_class
from loadtest.bench.photographs import Photographs
from loadtest.bench.usage import cpu_seconds, part, pss_bytes, tree

LEVELS: Final = (1, 8, 32, 128)
SIMULATED_LEVELS: Final = (32, 128)
WARM_UP_S: Final = 1.0
AGREEMENT: Final = 0.9
"""Other decoders give other pixels, so a few answers may differ from the bare loop's."""


class Disagreement(Exception):
    """A contender's answers are not the model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement. What does not apply is None."""

    contender: str
    engine: Engine
    case: str
    """`1`, `8`, ... connections; `large`: one, with the photograph of twelve megapixels; `hold`:
    the highest level for long; `loop`: no connection."""
    round: int
    req_s: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_ms: float | None = None
    """CPU time of all the contender's processes for one request."""
    cpu_ms_by_part: dict[str, float] = field(default_factory=dict)
    pss_mb: float | None = None
    growth_mb: float | None = None
    """PSS at the end less PSS at the opening of the window."""
    ready_s: float | None = None
    wrong: int = 0
    failed: int = 0
    generator_cpu_ms: float | None = None
    """CPU time of the load generator for one request."""
    generator_share: float | None = None
    """Of one core, what the load generator used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    contenders: Sequence[Contender]
    engines: Sequence[Engine]
    monolith: bool
    rounds: int
    window_s: float
    hold_s: float
    """How long 128 connections are held and measured, after as long to settle."""


class Bench:
    """Carries a plan out; `samples` is what came of it."""

    def __init__(self, plan: Plan, photographs: Photographs, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._photographs = photographs
        self._say = say
        self._known: dict[tuple[str, Engine], list[int | None]] = {}
        self.samples: list[Sample] = []
        self.troubles: list[str] = []
        """Contenders that could not be measured, and why."""
        self.right: dict[str, tuple[int, int]] = {}
        """Of each contender: photographs classified rightly, and all whose class is known."""
        self.agree: dict[str, float] = {}
        """Of each contender: the share of answers that are the bare loop's too."""

    def run(self) -> None:
        """All rounds.

        Raises:
            NotReady: Sightline did not start when it was to be held under load.
        """
        plan = self._plan
        for number in range(1, plan.rounds + 1):
            for engine in plan.engines:
                self._loop(engine, number)
                turns = [c for c in plan.contenders if engine in c.engines]
                first = (number - 1) % len(turns)
                for contender in [*turns[first:], *turns[:first]]:
                    try:
                        self._visit(contender, engine, number)
                    except (NotReady, Disagreement, OSError) as error:
                        # What the others did in the same rounds is not thrown away for it.
                        self.troubles.append(f"{contender.name}: {error}")
                        self._say(self.troubles[-1])
            if plan.monolith:
                self._monolith(number)
        if plan.hold_s:
            self._hold()

    def _visit(self, contender: Contender, engine: Engine, number: int) -> None:
        files = self._photographs.files
        with running(contender, engine, files[0]) as served:
            known = self._learn(contender, engine, served)
            requests = [post(contender.path, file) for file in files]
            for level in LEVELS if engine == "model" else SIMULATED_LEVELS:
                load = Load(served.port, requests, known, level)
                sample = self._measure(
                    served,
                    load,
                    contender,
                    engine,
                    str(level),
                    seconds=self._plan.window_s * contender.longer,
                    warm_up_s=WARM_UP_S * contender.longer,
                )
                self._keep(replace(sample, round=number, ready_s=served.ready_s))
            if engine == "model":
                large = post(contender.path, self._photographs.large)
                answer = ask(served.port, contender.path, self._photographs.large)
                load = Load(served.port, [large], [answer], 1)
                sample = self._measure(
                    served, load, contender, engine, "large", seconds=self._plan.window_s
                )
                self._keep(replace(sample, round=number))

    def _learn(self, contender: Contender, engine: Engine, served: Running) -> list[int | None]:
        key = (contender.name, engine)
        if key not in self._known:
            files = self._photographs.files
            self._known[key] = [ask(served.port, contender.path, file) for file in files]
            if engine == "model":
                self._judge(contender.name, self._known[key])
        return self._known[key]

    def _judge(self, name: str, answers: list[int | None]) -> None:
        pairs = zip(answers, self._photographs.classes, strict=True)
        told = [answer == shown for answer, shown in pairs if shown is not None]
        self.right[name] = (sum(told), len(told))
        bare = self._known["bare", "model"]
        same = sum(a == b for a, b in zip(answers, bare, strict=True)) / len(bare)
        self.agree[name] = same
        if same < AGREEMENT:
            raise Disagreement(f"it agrees with the bare loop on {same:.0%} of the answers")

    def _measure(
        self,
        served: Running,
        load: Load,
        contender: Contender,
        engine: Engine,
        case: str,
        *,
        seconds: float,
        warm_up_s: float = WARM_UP_S,
    ) -> Sample:
        looks: list[tuple[dict[int, float], float]] = []

        def look() -> None:
            pids = tree(served.pid)
            memory = sum(map(pss_bytes, pids)) / 1e6
            looks.append((cpu_seconds(pids), memory))

        window = load.run(warm_up_s, seconds, look)
        (before, memory_before), (after, memory) = looks
        done = len(window.latencies_ms)
        ranked = sorted(window.latencies_ms)
        parts: dict[str, float] = {}
        for pid, used in after.items():
            name = part(pid)
            parts[name] = parts.get(name, 0.0) + used - before.get(pid, 0.0)
        return Sample(
            contender=contender.name,
            engine=engine,
            case=case,
            round=0,
            req_s=done / window.seconds,
            p50_ms=quantile(ranked, 0.5),
            p99_ms=quantile(ranked, 0.99),
            cpu_ms=sum(parts.values()) * 1000 / done if done else None,
            cpu_ms_by_part={name: s * 1000 / done for name, s in parts.items()} if done else {},
            pss_mb=memory,
            growth_mb=memory - memory_before,
            wrong=window.wrong,
            failed=window.failed,
            generator_cpu_ms=window.cpu_s * 1000 / done if done else None,
            generator_share=window.cpu_s / window.seconds,
        )

    def _loop(self, engine: Engine, number: int) -> None:
        """The bare limit."""
        with tempfile.NamedTemporaryFile() as device:
            told = self._run_module(
                [interpreter(".venv"), "-m", "loadtest.bench.servers.bare"],
                [str(self._photographs.folder), str(self._plan.window_s)],
                environment(engine, device.name),
            )
        self._known.setdefault(("bare", engine), told["classes"])
        if engine == "model":
            self._judge("bare", told["classes"])
        self._keep(
            Sample(
                contender="bare",
                engine=engine,
                case="loop",
                round=number,
                req_s=told["req_s"],
                cpu_ms=told["cpu_ms"],
                pss_mb=told["pss_bytes"] / 1e6,
                ready_s=told["ready_s"],
            )
        )

    def _monolith(self, number: int) -> None:
        """One picture after the other, each with all that it takes; another in each round."""
        paths = sorted(self._photographs.folder.iterdir())
        turn = number % len(paths)
        began = time.monotonic()
        told = self._run_module(
            [interpreter(".venv-bench-tutorial"), "-m", "loadtest.bench.servers.monolith"],
            [str(paths[turn])],
            environment("model", ""),
        )
        seconds = time.monotonic() - began
        right = told["predictions"][0]["class_index"] == self._known["bare", "model"][turn]
        self._keep(
            Sample(
                contender="monolith",
                engine="model",
                case="loop",
                round=number,
                req_s=1 / seconds,
                p50_ms=seconds * 1000,
                # Not failed: the model before it was quantised may see another class.
                wrong=0 if right else 1,
            )
        )

    def _hold(self) -> None:
        """Sightline at the highest level for long: no error, no growth."""
        files = self._photographs.files
        with running(SIGHTLINE, "model", files[0]) as served:
            known = self._learn(SIGHTLINE, "model", served)
            requests = [post(SIGHTLINE.path, file) for file in files]
            load = Load(served.port, requests, known, LEVELS[-1])
            sample = self._measure(
                served,
                load,
                SIGHTLINE,
                "model",
                "hold",
                seconds=self._plan.hold_s,
                # Buffers grow to what they need: with two cores 7 MB in the first minute, 2 in the
                # second and none in the third to fifth. What leaks would not stop.
                warm_up_s=self._plan.hold_s,
            )
            self._keep(replace(sample, round=1))

    @staticmethod
    def _run_module(program: list[str], arguments: list[str], env: dict[str, str]) -> Any:
        done = subprocess.run(
            [*program, *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        wait = f", p50 {sample.p50_ms:.1f} ms" if sample.p50_ms else ""
        trouble = f", {sample.failed} failed, {sample.wrong} wrong"
        self._say(
            f"round {sample.round}  {sample.engine:11} {sample.contender:10} {sample.case:>5}: "
            f"{sample.req_s:7.2f}/s{wait}{trouble if sample.failed or sample.wrong else ''}"
        )

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured, for a file."""
        return {
            "photographs": self._photographs.source,
            "contenders": {c.name: c.what for c in self._plan.contenders},
            "right": self.right,
            "agreement_with_bare": self.agree,
            "samples": [asdict(sample) for sample in self.samples],
        }


def ask(port: int, path: str, file: bytes) -> int | None:
    """The class that the answer to ``file`` names first. Raises Disagreement without a 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("POST", path, file)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise Disagreement(f"{path} answered {response.status}: {body[:300]!r}")
    return top_class(body)


def quantile(ranked: list[float], share: float) -> float | None:
    """The least of the sorted values that ``share`` of them do not exceed; None without any."""
    return ranked[max(0, ceil(len(ranked) * share) - 1)] if ranked else None
