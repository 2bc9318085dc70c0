"""What is tried: a set of settings, and the ways to vary one of them.

Rules:
- The defaults are those of the code, for as many CPUs as it counts itself.
- A way differs from the settings it begins with in one thing only: how the engine's threads are
  spread over replicas, how many decoders there are, or how large a batch may be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from modelserver.config import ReplicaConfig
from webapp.config import decoders_for

MOST_REPLICAS: Final = 8
"""Of one machine that are tried: each has a model of its own in memory."""
BATCHES: Final = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service is started."""

    replicas: int
    threads: int
    """Of the engine of each replica."""
    decoders: int
    max_batch: int

    def model_environment(self) -> dict[str, str]:
        """What a replica is told."""
        return {"MODEL_THREADS": str(self.threads), "MODEL_MAX_BATCH": str(self.max_batch)}

    def web_environment(self) -> dict[str, str]:
        """What the web tier is told."""
        return {"WEB_DECODERS": str(self.decoders)}

    def __str__(self) -> str:
        return (
            f"{_many(self.replicas, 'replica')} of {_many(self.threads, 'thread')}, "
            f"{_many(self.decoders, 'decoder')}, batches of {self.max_batch}"
        )


def _many(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def defaults(cpus: int) -> Settings:
    """What `make run` starts where there are so many CPUs."""
    return Settings(
        replicas=1,
        threads=cpus,
        decoders=decoders_for(cpus),
        max_batch=ReplicaConfig().largest_batch,
    )


class Way(NamedTuple):
    """One thing to vary."""

    name: str
    label: Callable[[Settings], str]
    """What tells the settings of this way apart."""
    others: Callable[[Settings, int], Sequence[Settings]]
    """All that may be tried for so many CPUs, whether or not it is what there is already."""

    def candidates(self, best: Settings, cpus: int) -> list[Settings]:
        """``best``, and then what differs from it in this way."""
        return list(dict.fromkeys([best, *self.others(best, cpus)]))


def _fleets(best: Settings, cpus: int) -> list[Settings]:
    many = min(cpus, MOST_REPLICAS)
    half = max(1, cpus // 2)
    fleets = [(1, cpus), (1, half), (2, half), (many, max(1, cpus // many))]
    return [replace(best, replicas=replicas, threads=threads) for replicas, threads in fleets]


def _decoders(best: Settings, cpus: int) -> list[Settings]:
    return [replace(best, decoders=n) for n in (max(1, cpus // 2), cpus, 2 * cpus)]


def _batches(best: Settings, _: int) -> list[Settings]:
    return [replace(best, max_batch=n) for n in BATCHES]


WAYS: Final = (
    Way("replicas", lambda s: f"{s.replicas} x {s.threads}", _fleets),
    Way("decoders", lambda s: f"{s.decoders} dec.", _decoders),
    Way("batch", lambda s: f"batch {s.max_batch}", _batches),
)
