"""Who is there: the models that the broker has seen, and the replicas that serve them.

State without decisions; the Dispatcher decides.
"""

from dataclasses import dataclass, field

from modelserver.drain_rate import DrainRate
from modelserver.job import Job, JobQueue
from wire import Contract


@dataclass(slots=True, eq=False)
class Replica:
    """One live replica, as the broker sees it. Times are seconds on the dispatcher's clock."""

    identity: bytes
    name: str
    contract: Contract
    credit: int
    heard: float
    """When it last said anything."""
    used: float = 0.0
    """When it was last given work."""
    leaving: bool = False
    held: dict[int, Job] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """It can take one more ordinary job."""
        held = len(self.held)
        return held < self.credit and not (held == 1 and self.isolating)

    @property
    def isolating(self) -> bool:
        """It works on a suspect, which gets no company."""
        return len(self.held) == 1 and next(iter(self.held.values())).suspect


@dataclass(slots=True, eq=False)
class Model:
    """One model: what waits for it and who serves it."""

    name: str
    contract: Contract | None = None
    """None while no replica of it has been seen: a name that somebody asked for."""
    queue: JobQueue = field(default_factory=JobQueue)
    rate: DrainRate = field(default_factory=DrainRate)
    replicas: dict[bytes, Replica] = field(default_factory=dict)

    @property
    def staff(self) -> list[Replica]:
        """The replicas that take work. Those of another contract would take these pixels for
        something else, so they only finish what they have."""
        if self.contract is None:
            return []
        digest = self.contract.digest
        return [r for r in self.replicas.values() if not r.leaving and r.contract.digest == digest]

    @property
    def ahead(self) -> int:
        """How many requests a new one would have to wait for."""
        return len(self.queue) + sum(len(replica.held) for replica in self.replicas.values())
