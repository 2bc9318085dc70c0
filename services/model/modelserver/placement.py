"""Who gets the next request: whoever is expected to be through with it first.

Rules:
- What a replica is expected to take is what it holds and one more, at its measured pace.
- Of equals, the one that was given work the longest ago.
- A replica much slower than another gets work only if that is not through with all that waits
  even sooner: a CPU helps a GPU out in a crowd, and is not in the way of one person.
- A replica that was not measured yet counts as being as fast as the fastest, so it gets measured.
"""

import heapq
from typing import Final

from modelserver.fleet import Replica

MUCH_SLOWER: Final = 2.0
"""Replicas of one kind differ by less, if only because their last batches did."""


class Placement:
    """One round of handing out. Who was named by `best` must be given a request each time."""

    def __init__(self, staff: list[Replica], lively: float) -> None:
        """``staff``: who may be given work at all. Nobody is waited for of whom nothing was heard
        since ``lively``, a moment on the dispatcher's clock."""
        known = [r.pace for r in staff if r.pace is not None]
        fastest = min(known, default=1.0)
        self._pace = {r.identity: r.pace if r.pace is not None else fastest for r in staff}
        self._rivals = [
            r
            for r in staff
            if max(known, default=0.0) > MUCH_SLOWER * fastest
            if r.heard >= lively and not r.isolating
        ]
        self._ranking = [(self._seconds(r, 1), r.used, n, r) for n, r in enumerate(staff) if r.free]
        heapq.heapify(self._ranking)
        self._last: tuple[int, Replica] | None = None

    def best(self, waiting: int) -> Replica | None:
        """Who is given the first of ``waiting`` requests; None if they had better wait."""
        if self._last is not None:
            n, replica = self._last
            if replica.free:
                heapq.heappush(self._ranking, (self._seconds(replica, 1), replica.used, n, replica))
            self._last = None
        while self._ranking:
            seconds, _, n, replica = heapq.heappop(self._ranking)
            if not any(
                self._pace[replica.identity] > MUCH_SLOWER * self._pace[rival.identity]
                and self._seconds(rival, waiting) < seconds
                for rival in self._rivals
            ):
                self._last = n, replica
                return replica
        return None

    def _seconds(self, replica: Replica, more: int) -> float:
        """Until it is through with what it holds and so many more."""
        return (len(replica.held) + more) * self._pace[replica.identity]
