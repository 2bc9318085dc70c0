"""What breaks when: drawn from a seed, so that a drill can be had again.

Rules:
- Every KILL_EVERY_S some replica is killed. Every STOP_EVERY_S one is stopped, for less or for
  more than the broker's patience; and in the pause after that one is starved, which means that
  it gets a little time now and then. The broker is killed twice, after each third of the time.
- Replicas are numbered from 0. The table has no end; whoever reads it stops.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from random import Random
from typing import Final

KILL_EVERY_S: Final = 2.0
STOP_EVERY_S: Final = 7.0
STOPPED_S: Final = (0.5, 3.5)
"""The broker calls a replica dead that it has not heard of for 2 s."""
STARVES_AFTER_S: Final = 4.0
STARVES_S: Final = 2.0
HUNGER_S: Final = 0.45
MORSEL_S: Final = 0.05


class Deed(StrEnum):
    """What is done to a part of the service."""

    KILL = "kill"
    SUSPEND = "suspend"
    RESUME = "resume"
    KILL_BROKER = "kill broker"


@dataclass(frozen=True, slots=True)
class Step:
    """One deed, ``at_s`` seconds after the beginning."""

    at_s: float
    deed: Deed
    replica: int = 0
    count_as: str = ""
    """What it is called in the account; the steps within something larger have no name."""

    def __str__(self) -> str:
        return self.count_as if self.deed is Deed.KILL_BROKER else f"{self.count_as} {self.replica}"


def timetable(seed: int, *, replicas: int, seconds: float) -> Iterator[Step]:
    """All steps in the order of their time; ``seconds`` is how long the drill is meant to take."""
    broker = [Step(seconds * third / 3, Deed.KILL_BROKER, 0, "broker kill") for third in (1, 2)]
    kills = _kills(Random(f"kills {seed}"), replicas)
    stops = _stops(Random(f"stops {seed}"), replicas)
    return heapq.merge(kills, stops, broker, key=lambda step: step.at_s)


def _kills(random: Random, replicas: int) -> Iterator[Step]:
    for n in count(1):
        yield Step(n * KILL_EVERY_S, Deed.KILL, random.randrange(replicas), "kill")


def _stops(random: Random, replicas: int) -> Iterator[Step]:
    for n in count(1):
        at_s, replica = n * STOP_EVERY_S, random.randrange(replicas)
        yield Step(at_s, Deed.SUSPEND, replica, "stop")
        yield Step(at_s + random.uniform(*STOPPED_S), Deed.RESUME, replica)

        at_s, replica = at_s + STARVES_AFTER_S, random.randrange(replicas)
        for morsel in range(round(STARVES_S / (HUNGER_S + MORSEL_S))):
            hungry_s = at_s + morsel * (HUNGER_S + MORSEL_S)
            yield Step(hungry_s, Deed.SUSPEND, replica, "" if morsel else "starving")
            yield Step(hungry_s + HUNGER_S, Deed.RESUME, replica)
