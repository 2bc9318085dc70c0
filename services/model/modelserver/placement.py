"""Who gets the next request: whoever is expected to be through with it first.

Rules:
- What a replica is expected to take is what it holds and one more, at its measured pace. Paces that
  differ little count as equal, so that nobody is idle while another has two.
- Of equals, the one that was given work the longest ago.
- A replica much slower than another gets work only if that is not through with all that waits
  even sooner: a CPU helps a GPU out in a crowd, and is not in the way of one person.
- A replica that was not measured yet counts as one of the fastest, so it gets measured.
"""

import heapq
from collections.abc import Iterable

from modelserver.fleet import Replica


class Placement:
    """One round of handing out. Whoever `best` names has to be given a request each time."""

    def __init__(self, free: Iterable[Replica], rivals: Iterable[Replica], lively: float) -> None:
        """
        Args:
            free: Who can be given work.
            rivals: For whom it may be better to wait: all of the staff where some are much slower
                than others, else nobody.
            lively: Nobody is waited for of whom nothing was heard since this moment, on the
                dispatcher's clock.
        """
        self._ranking = [(r.slowness * (len(r.held) + 1), r.used, n, r) for n, r in enumerate(free)]
        heapq.heapify(self._ranking)
        self._rivals = [r for r in rivals if r.heard >= lively and not r.isolating]
        self._last: tuple[int, Replica] | None = None

    def best(self, waiting: int) -> Replica | None:
        """Who is given the first of ``waiting`` requests; None if they had better wait."""
        if self._last is not None and self._last[1].free:
            n, last = self._last
            rank = (last.slowness * (len(last.held) + 1), last.used, n, last)
            heapq.heappush(self._ranking, rank)
        while self._ranking:
            cost, _, n, replica = heapq.heappop(self._ranking)
            if not any(
                rival.slowness < replica.slowness
                and rival.slowness * (len(rival.held) + waiting) < cost
                for rival in self._rivals
            ):
                self._last = n, replica
                return replica
        return None
