"""Who is there: the models that the broker has seen, and the replicas that serve them.

State without decisions; the Dispatcher decides.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from modelserver.advice import Adviser
from modelserver.drain_rate import DrainRate
from modelserver.histogram import BATCH_SIZES, TIMES_MS, Histogram
from modelserver.job import Job, JobQueue
from wire import Contract

PACE_SHARE: Final = 0.05
"""How much the last request counts in a replica's pace. Little, so that replicas of one kind are
seen to be equal though their batches never are."""
MEASURED_AFTER: Final = 16
"""A few requests say little of a replica's pace."""
MUCH_SLOWER: Final = 3.0
"""Replicas of one kind differ by less, even where times are as uneven as times get."""
COMPARED_EVERY: Final = 16
"""So many requests between two comparisons of the paces: they change slowly."""


@dataclass(slots=True, eq=False)
class Replica:
    """One live replica, as the broker sees it. Times are seconds on the dispatcher's clock."""

    identity: bytes
    name: str
    contract: Contract
    credit: int
    device: str
    parallel: int
    heard: float
    """When it last said anything."""
    busy_ms: float | None = None
    """What it last said about its engine."""
    used: float = 0.0
    """When it was last given work."""
    leaving: bool = False
    held: dict[int, Job] = field(default_factory=dict)
    done: int = 0
    """Requests that it was seen to finish."""
    batches: float = 0.0
    """How many these were in, each request for its share of one."""
    worked_ms: float = 0.0
    """What its engine spent on them."""
    pace: float = 0.0
    """Seconds a request, in batches as they came lately."""
    slowness: float = 1.0
    """What a request costs it, if it costs the fastest of its model 1; 1 too where that is no
    clear difference."""

    def observe(self, inference_ms: float, batch_size: int) -> float:
        """A request is through, in a batch of so many. Returns its seconds of this replica."""
        self.done += 1
        self.batches += 1 / batch_size
        self.worked_ms += inference_ms / batch_size
        share = max(PACE_SHARE, 1 / self.done)
        seconds = inference_ms / 1000 / batch_size / self.parallel
        self.pace += share * (seconds - self.pace)
        return seconds

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
    adviser: Adviser = field(default_factory=Adviser)
    replicas: dict[bytes, Replica] = field(default_factory=dict)
    mixed: bool = False
    """Some of its replicas are much slower than others."""
    free: dict[bytes, Replica] = field(default_factory=dict)
    """Those of the staff that can take one more ordinary job. Kept, because it is asked for with
    every event, and hardly any event changes more than one of many replicas."""
    waited_ms: Histogram = field(default_factory=lambda: Histogram(TIMES_MS))
    answered_ms: Histogram = field(default_factory=lambda: Histogram(TIMES_MS))
    batch_sizes: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    _staff: list[Replica] | None = None
    _done: int = 0

    def changed(self) -> None:
        """Call it when a replica has come, gone or begun to leave, or the contract is another."""
        self._staff = None
        self.free = {replica.identity: replica for replica in self.staff if replica.free}
        self._compare()

    def moved(self, replica: Replica) -> None:
        """Call it when what ``replica`` holds, or may hold, has changed."""
        if replica.free and not replica.leaving and self._serves(replica):
            self.free[replica.identity] = replica
        else:
            self.free.pop(replica.identity, None)

    def _serves(self, replica: Replica) -> bool:
        return self.contract is not None and replica.contract.digest == self.contract.digest

    def observe(self, replica: Replica, inference_ms: float, batch_size: int) -> None:
        """A request is through, in a batch of so many."""
        self.adviser.served(replica.observe(inference_ms, batch_size), batch_size)
        self.batch_sizes.add(batch_size)
        self._done += 1
        if self._done % COMPARED_EVERY == 0:
            self._compare()

    def _compare(self) -> None:
        measured = [replica for replica in self.staff if replica.done >= MEASURED_AFTER]
        fastest = min((replica.pace for replica in measured if replica.pace), default=0.0)
        for replica in self.staff:
            replica.slowness = 1.0
        slow = [replica for replica in measured if replica.pace > MUCH_SLOWER * fastest > 0]
        for replica in slow:
            replica.slowness = replica.pace / fastest
        self.mixed = bool(slow)

    def adopts(self, contract: Contract) -> bool:
        """Whether a replica of this contract brings it into use: not while a newer version is in
        use, or an old replica that was only started again would undo an upgrade."""
        present = self.contract
        return present is None or not self.staff or not is_older(contract, present)

    @property
    def staff(self) -> list[Replica]:
        """The replicas that take work. Those of another contract would take these pixels for
        something else, so they only finish what they have."""
        if self._staff is None:
            self._staff = [
                replica
                for replica in self.replicas.values()
                if not replica.leaving and self._serves(replica)
            ]
        return self._staff

    def versions(self) -> list[tuple[Contract, list[Replica]]]:
        """Every contract that is served, and by whom; the one in use first, served or not."""
        if self.contract is None:
            return []
        served = {self.contract.digest: (self.contract, self.staff)}
        for replica in self.replicas.values():
            if not replica.leaving and replica.contract.digest != self.contract.digest:
                _, others = served.setdefault(replica.contract.digest, (replica.contract, []))
                others.append(replica)
        return list(served.values())

    @property
    def ahead(self) -> int:
        """How many requests a new one would have to wait for."""
        return len(self.queue) + sum(len(replica.held) for replica in self.replicas.values())


def is_older(contract: Contract, than: Contract) -> bool:
    """Whether its version comes before the other's: numbers by value, the rest by letters."""
    return _in_order(contract.version) < _in_order(than.version)


def newest(replicas: list[Replica]) -> Contract:
    """The contract with the highest version, of equal ones the one that joined last."""
    contract = replicas[0].contract
    for replica in replicas[1:]:
        if not is_older(replica.contract, contract):
            contract = replica.contract
    return contract


def _in_order(version: str) -> list[tuple[int, str]]:
    pieces = re.findall(r"[0-9]+|[^0-9]+", version)
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in pieces]
