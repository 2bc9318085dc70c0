"""Which replica has which GPU: each gets the one that has the fewest, of those that it sees.

Rules:
- A lease belongs to a connection, over which its replica asked, and ends with it. So it needs no
  time limit: a replica that takes minutes to load its model has its GPU, and one that was killed
  has none a moment later.
- Who asks is first put in line, and everyone with a place is pinged. By the time that the question
  is repeated the dead have lost theirs, so that a replica's successor gets the GPU it had.
- A broker that has just started does not know who has what. Until it has settled it listens to
  those who tell, and gives out nothing.
- A GPU is known by its UUID alone. It says which host's, so hosts need no names here.
"""

from collections import Counter

from modelserver.events import Action, Note, TellReplica
from wire import Devices, Lease, Ping


class Leases:
    """The leases of one broker. Times are seconds on the caller's monotonic clock."""

    def __init__(self, *, settled: float) -> None:
        """Nothing is given out before the time ``settled``."""
        self._settled = settled
        self._places: dict[bytes, str | None] = {}
        """By connection; None for who is in line."""

    def ask(self, identity: bytes, devices: Devices, now: float) -> list[Action]:
        """What to do about a replica that says what GPUs it sees."""
        if identity not in self._places and devices.held is None:
            self._places[identity] = None
            return self.pings()
        held = self._places.get(identity)
        gpu = held or devices.held or self._choose(devices, now)
        if gpu is None:
            return []
        self._places[identity] = gpu
        lease = Lease(gpu=gpu, replicas=self._counted()[gpu])
        actions: list[Action] = [TellReplica(identity, lease)]
        if held is None:
            actions.append(Note(f"{devices.replica} has {gpu}; {lease.replicas} on it now"))
        return actions

    def drop(self, identity: bytes) -> list[Action]:
        """What to do about a connection that is gone."""
        gpu = self._places.pop(identity, None)
        if gpu is None:
            return []
        return [Note(f"a lease of {gpu} has ended; {self._counted()[gpu]} on it now")]

    def pings(self) -> list[Action]:
        """What finds out whose connection is gone."""
        return [TellReplica(identity, Ping()) for identity in self._places]

    def _choose(self, devices: Devices, now: float) -> str | None:
        if now < self._settled:
            return None
        counted = self._counted()
        free = [g for g in devices.gpus if not devices.per_gpu or counted[g] < devices.per_gpu]
        return min(free, key=lambda gpu: counted[gpu], default=None)

    def _counted(self) -> Counter[str]:
        return Counter(gpu for gpu in self._places.values() if gpu is not None)
