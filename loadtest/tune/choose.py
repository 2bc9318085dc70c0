"""What is better: the knee of each candidate, and whether it lies higher by more than the noise.

Rules:
- A candidate's knee is the level with its highest throughput at which p95 keeps the bound and
  nothing fails, all in the median of the rounds.
- Two candidates are compared at their knees, inside each round: what befell the machine in one
  round befell both. The median of these ratios is the gain.
- The noise is what such a median still moves by chance: twice its standard error, out of how the
  ratios of all candidates differ from round to round. One round alone tells nothing of it, and
  small differences are worth no setting, so there is a least noise for either case.
- What is not better by more than the noise leaves things as they were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from statistics import mean, median
from typing import Final

from loadtest.tune.settings import Settings

LEAST: Final = 0.03
ALONE: Final = 0.15
"""Between two runs of the same on a shared machine, where there is but one round."""
OF_A_MEDIAN: Final = sqrt(pi / 2)
"""The standard error of a median over that of a mean, for normal errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement: one candidate in one round with so many connections."""

    step: str
    settings: Settings
    round: int
    level: int
    req_s: float
    """Right answers a second."""
    p50_ms: float | None
    p95_ms: float | None
    """None where there was no right answer."""
    failed: int
    """Requests that had another answer than the right one, or none."""
    others: float = 0.0
    """The share of the machine's CPU time that went to programs that were not measured."""


@dataclass(frozen=True, slots=True)
class Knee:
    """Where a candidate does most within the bound; medians of the rounds."""

    level: int
    req_s: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a step has shown."""

    step: str
    candidates: Sequence[Settings]
    """The first is what was best before."""
    knees: Mapping[Settings, Knee | None]
    """None where no level keeps the bound."""
    gains: Mapping[Settings, float]
    """Of 0.1: a tenth more requests a second than the first. Only where both have a knee."""
    noise: float
    chosen: Settings


def typical(samples: Sequence[Sample]) -> Knee | None:
    """The medians of samples of one candidate at one level; None where answers are missing."""
    waits = [s.p95_ms for s in samples if s.p95_ms is not None]
    if not waits or len(waits) < len(samples):
        return None
    return Knee(samples[0].level, median(s.req_s for s in samples), median(waits))


def knee(samples: Sequence[Sample], bound_ms: float) -> Knee | None:
    """The knee of the one candidate that ``samples`` are of."""
    found: list[Knee] = []
    for level in {s.level for s in samples}:
        there = [s for s in samples if s.level == level]
        point = typical(there)
        if point and point.p95_ms <= bound_ms and not median(s.failed for s in there):
            found.append(point)
    return max(found, key=lambda point: point.req_s, default=None)


def choose(
    step: str, candidates: Sequence[Settings], samples: Sequence[Sample], bound_ms: float
) -> Verdict:
    """The best of ``candidates``; the first, unless another is better by more than the noise.

    A candidate that has a knee is better than one that has none.
    """
    knees = {
        c: knee([s for s in samples if s.settings == c and s.step == step], bound_ms)
        for c in candidates
    }
    rates = {
        c: {
            s.round: s.req_s
            for s in samples
            if (s.step, s.settings) == (step, c) and point and s.level == point.level
        }
        for c, point in knees.items()
    }
    first, *others = candidates
    ratios = {
        c: [rate / rates[first][n] for n, rate in rates[c].items()]
        for c in others
        if knees[c] and knees[first]
    }
    gains = {c: median(found) - 1 for c, found in ratios.items()}
    least = noise(list(ratios.values()))
    able = [c for c in others if knees[c] and (c not in gains or gains[c] > least)]
    chosen = max(able, key=lambda c: (gains.get(c, 0.0), _rate(knees[c])), default=first)
    return Verdict(step, candidates, knees, gains, least, chosen)


def noise(ratios: Sequence[Sequence[float]]) -> float:
    """By how much a candidate's median has to be off 1; each of ``ratios`` is one candidate's."""
    if not ratios:
        return LEAST
    rounds = min(map(len, ratios))
    if rounds < 2:
        return ALONE
    squares = [(ratio - mean(found)) ** 2 for found in ratios for ratio in found]
    spread = sqrt(sum(squares) / sum(len(found) - 1 for found in ratios))
    return max(LEAST, 2 * OF_A_MEDIAN * spread / sqrt(rounds))


def _rate(point: Knee | None) -> float:
    return point.req_s if point else 0.0
