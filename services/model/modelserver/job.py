"""One request inside the broker, and the queue in which it waits.

Rules:
- A queue is first come, first served within a priority; what a dead replica gave back goes
  before everything else, oldest first.
- `bulk` work waits for `interactive` work, but never for ever: every BULK_TURN-th job taken
  while both wait is a bulk one.
- Any job can be taken out of the middle at once, so nothing dead is kept for its place in line.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Protocol

from wire import Request

BULK_TURN: Final = 4


class Payload(Protocol):
    """The bytes of a picture. The broker only counts, hashes and passes them on."""

    @property
    def buffer(self) -> memoryview: ...


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way to an answer. Times are seconds on the dispatcher's clock."""

    id: int
    client: bytes
    request: Request
    payload: Payload
    nbytes: int
    arrived: float
    deadline: float
    queued: float
    """When it last came into the queue."""
    deaths: int = 0
    """How many replicas died while they held it."""
    replica: bytes | None = None
    """Who holds it now; None while it waits."""
    dispatched: float = 0.0
    answered: bool = False
    """Its client has its answer, or no longer wants one; only a replica still holds it."""

    @property
    def suspect(self) -> bool:
        """It may be what killed a replica, so it must not take company with it again."""
        return self.deaths > 0


@dataclass(slots=True)
class JobQueue:
    """The jobs of one model that wait for a replica."""

    returned: OrderedDict[int, Job] = field(default_factory=OrderedDict)
    interactive: OrderedDict[int, Job] = field(default_factory=OrderedDict)
    bulk: OrderedDict[int, Job] = field(default_factory=OrderedDict)
    _turn: int = 0

    def __len__(self) -> int:
        return len(self.returned) + len(self.interactive) + len(self.bulk)

    def jobs(self) -> list[Job]:
        """All that wait, in no order to rely on."""
        return [*self.returned.values(), *self.interactive.values(), *self.bulk.values()]

    def put(self, job: Job, *, first: bool = False) -> None:
        """Queue a job in the lane that its history and priority give it: last in that, or first
        if it has had its turn before. Suspects keep their order among themselves."""
        lane = self._lane(job)
        lane[job.id] = job
        if first and lane is not self.returned:
            lane.move_to_end(job.id, last=False)

    def take_suspect(self) -> Job:
        """The oldest job that a dead replica gave back. Raises KeyError when there is none."""
        return self.returned.popitem(last=False)[1]

    def take(self) -> Job:
        """The next ordinary job. Raises KeyError when there is none."""
        if self.bulk and self.interactive:
            self._turn = (self._turn + 1) % BULK_TURN
            lane = self.interactive if self._turn else self.bulk
        else:
            lane = self.interactive or self.bulk
        return lane.popitem(last=False)[1]

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it waits. Raises KeyError when it does not."""
        del self._lane(job)[job.id]

    def _lane(self, job: Job) -> OrderedDict[int, Job]:
        if job.suspect:
            return self.returned
        return self.bulk if job.request.priority == "bulk" else self.interactive
