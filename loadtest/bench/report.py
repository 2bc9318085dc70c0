"""Samples to a table: medians of the rounds, and ratios.

Rules:
- A ratio is taken inside each round and the median of these is told: what befell the machine in
  one round befell both sides of its ratio.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final

from loadtest.bench.rounds import LEVELS, SIMULATED_LEVELS, Sample

ORDER: Final = ("bare", "sightline", "plain", "mosec", "tutorial", "monolith")
HEADINGS: Final = {
    "model": "The embedded model, int8 on the CPU",
    "accelerator": "A simulated accelerator: 8 ms and 0.15 ms a picture for a batch, no CPU",
    "nothing": "An engine that does nothing: decoding and serving only",
}


class Results:
    """Medians of what was measured."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def contenders(self, engine: str) -> list[str]:
        """Who was measured with ``engine``, in the order of a table."""
        there = {s.contender for s in self.samples if s.engine == engine}
        return [name for name in ORDER if name in there]

    def of(self, contender: str, case: str, what: str, engine: str = "model") -> float | None:
        """The median of the field ``what`` over the rounds; None where it was not measured."""
        values = self._by_round(contender, case, what, engine).values()
        return median(values) if values else None

    def ratio(
        self, over: tuple[str, str], under: tuple[str, str], what: str, engine: str = "model"
    ) -> float | None:
        """The median over the rounds of one (contender, case) over another."""
        above = self._by_round(*over, what, engine)
        below = self._by_round(*under, what, engine)
        rounds = above.keys() & below.keys()
        return median(above[n] / below[n] for n in rounds) if rounds else None

    def difference(
        self, one: tuple[str, str], other: tuple[str, str], what: str, engine: str = "model"
    ) -> float | None:
        """The median over the rounds of one (contender, case) less another."""
        more = self._by_round(*one, what, engine)
        less = self._by_round(*other, what, engine)
        rounds = more.keys() & less.keys()
        return median(more[n] - less[n] for n in rounds) if rounds else None

    def total(self, what: str, contender: str | None = None) -> int:
        """The sum of a count over all samples, or those of one contender."""
        return sum(getattr(s, what) for s in self.samples if contender in (None, s.contender))

    def _by_round(self, contender: str, case: str, what: str, engine: str) -> dict[int, float]:
        return {
            s.round: getattr(s, what)
            for s in self.samples
            if (s.contender, s.case, s.engine) == (contender, case, engine)
            and getattr(s, what) is not None
        }


def tables(results: Results) -> str:
    """All tables, in Markdown."""
    engines = dict.fromkeys(s.engine for s in results.samples)
    return "\n\n".join(_table(results, engine) for engine in engines)


def _table(results: Results, engine: str) -> str:
    levels = [str(level) for level in (LEVELS if engine == "model" else SIMULATED_LEVELS)]
    first, last = levels[0], "32"
    lines = [
        f"### {HEADINGS[engine]}",
        "",
        f"| | req/s at {' / '.join(levels)} | Sightline has | p50 at {first} | p99 at {last} "
        f"| CPU-ms at {last} | PSS at {last} | ready after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in results.contenders(engine):
        cases = ["loop"] if name in ("bare", "monolith") else levels
        rates = [results.of(name, case, "req_s", engine) for case in cases]
        ratios = [
            results.ratio(("sightline", level), (name, case), "req_s", engine)
            for level, case in zip(levels, cases * len(levels), strict=False)
        ]
        busy = cases[0] if len(cases) == 1 else last
        cells = [
            name,
            " / ".join(_number(rate, 1 if (rate or 0) < 20 else 0) for rate in rates),
            "" if name == "sightline" else " / ".join(f"{_number(r, 2)}x" for r in ratios),
            f"{_number(results.of(name, first, 'p50_ms', engine), 1)} ms",
            f"{_number(results.of(name, last, 'p99_ms', engine), 0)} ms",
            _number(results.of(name, busy, "cpu_ms", engine), 2),
            f"{_number(results.of(name, busy, 'pss_mb', engine), 0)} MB",
            f"{_number(results.of(name, busy, 'ready_s', engine), 1)} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def parts(results: Results, case: str = "32") -> str:
    """Where Sightline's CPU time goes, by part."""
    lines = []
    for engine in dict.fromkeys(s.engine for s in results.samples):
        samples = [
            s
            for s in results.samples
            if (s.contender, s.case, s.engine) == ("sightline", case, engine)
        ]
        names = dict.fromkeys(name for s in samples for name in s.cpu_ms_by_part)
        used = {n: median(s.cpu_ms_by_part.get(n, 0.0) for s in samples) for n in names}
        told = ", ".join(f"{name} {ms:.2f}" for name, ms in used.items() if ms >= 0.01)
        lines.append(f"{engine}: {told}")
    return "\n".join(lines)
