"""What a benchmark has to show: each promise with what was measured, and whether it is kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from loadtest.bench.report import Results

RIGHT: Final = 0.90
"""Of the test photographs, at the first guess: as many as before anything was made faster."""
GROWTH_MB: Final = 5.0
"""Less than this between two looks at memory is no growth."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the list."""

    text: str
    bound: float
    measured: float | None
    """None where this run could not tell."""
    unit: str = ""
    at_least: bool = True

    @property
    def kept(self) -> bool | None:
        """None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        said = "not measured" if self.measured is None else f"{self.measured:.2f}{self.unit}"
        verdict = {True: "kept", False: "BROKEN", None: "-"}[self.kept]
        return f"{verdict:6}  {self.text}: {said} ({sign} {self.bound:g}{self.unit})"


def promises(results: Results, right: tuple[int, int] | None) -> list[Promise]:
    """All of them; ``right`` is how many photographs of how many Sightline classified rightly."""
    return [*_ratios(results), *_limits(results, right)]


def _ratios(results: Results) -> Iterator[Promise]:
    for case in ("32", "128"):
        ours = ("sightline", case)
        for name, bound in (("mosec", 1.10), ("plain", 1.2)):
            ratio = results.ratio(ours, (name, case), "req_s")
            yield Promise(f"requests/s at {case}, of {name}'s", bound, ratio, "x")
        ratio = results.ratio(ours, ("bare", "loop"), "req_s")
        yield Promise(f"requests/s at {case}, of the bare limit", 0.82, ratio, "x")
        ratio = results.ratio(ours, ("mosec", case), "req_s", "accelerator")
        yield Promise(f"requests/s at {case} on an accelerator, of mosec's", 1.05, ratio, "x")
    for name, case, bound in (("monolith", "loop", 300), ("tutorial", "32", 15)):
        ratio = results.ratio(("sightline", "32"), (name, case), "req_s")
        yield Promise(f"requests/s at 32, of the {name}'s", bound, ratio, "x")
    ratio = results.ratio(("sightline", "1"), ("plain", "1"), "p50_ms")
    yield Promise("p50 at 1, of plain's", 1.0, ratio, "x", at_least=False)
    ratio = results.ratio(("sightline", "32"), ("mosec", "32"), "p99_ms")
    yield Promise("p99 at 32, of mosec's", 1.0, ratio, "x", at_least=False)


def _limits(results: Results, right: tuple[int, int] | None) -> Iterator[Promise]:
    def most(text: str, bound: float, measured: float | None, unit: str = "") -> Promise:
        return Promise(text, bound, measured, unit, at_least=False)

    above = results.difference(("sightline", "32"), ("bare", "loop"), "cpu_ms")
    yield most("CPU time above decoding and inference", 1.8, above, " ms")
    large = results.of("sightline", "large", "p50_ms")
    yield most("p50 of a photograph of 12 megapixels", 45, large, " ms")
    ready = results.of("sightline", "32", "ready_s")
    yield most("ready after", 3, ready, " s")
    held = results.of("sightline", "hold", "req_s") is not None
    trouble = [results.of("sightline", "hold", kind) or 0 for kind in ("failed", "wrong")]
    yield most("errors while 128 connections were held", 0, sum(trouble) if held else None)
    yield most("memory grew by", GROWTH_MB, results.of("sightline", "hold", "growth_mb"), " MB")
    yield most("memory then", 350, results.of("sightline", "hold", "pss_mb"), " MB")
    yield most("wrong answers of Sightline", 0, results.total("wrong", "sightline"))
    share = right[0] / right[1] if right and right[1] else None
    yield Promise("photographs classified rightly", RIGHT, share)
