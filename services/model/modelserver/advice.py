"""How many replicas the present load needs: queueing theory on what was measured.

Rules:
- *Offered* is what came in the last WINDOW_S, what was refused as overloaded among it: a crowd
  that is sent away is still a crowd. What waits by now is to be through within BACKLOG_S, besides.
- *Service time* is what a request costs one replica that has all it can take. Where requests wait,
  that is simply seen: so many replicas got through with so many. Elsewhere it is the engine's time
  for a request in the fullest batches seen, and not in those of the moment: an engine that batches
  is busy all the time with a fraction of what it can do, for it takes what there is, one by one if
  need be. At 8 ms a batch and 0.15 ms a picture a replica would seem to be full with 123 requests
  a second, and takes 870; and with each replica more batches get smaller, and the advice larger.
  Where replicas are too many full batches may not have been seen yet, and the advice is too high
  by some; as they go batches grow, and it comes down.
- Offered times service time is how many replicas are *busy* on average (J. D. C. Little, A Proof
  for the Queuing Formula L = lambda W, Operations Research 9, 1961).
- *Wanted* are the fewest with which LATE of all requests, and no more, wait longer than the
  objective, if arrivals and services are as uneven as chance makes them: M/M/c, and Erlang's
  second formula (D. Gross, C. M. Harris, Fundamentals of Queueing Theory, on M/M/c). Engines are
  more even than that, so it errs towards one too many.

There is one Adviser a model. With every request it only counts. Nothing here knows a clock: times
are seconds on the caller's. It tells the present moment; patience before replicas are taken away
is for whoever acts on it.
"""

from collections import deque
from dataclasses import dataclass
from math import exp
from typing import Final

from wire import ScaleAdvice

WINDOW_S: Final = 5.0
"""Short enough that a load that doubled is seen whole in a few seconds, and long enough to count
enough requests."""
WATCHED_S: Final = 1.0
"""With less than this, what came is an accident."""
BACKLOG_S: Final = 10.0
LATE: Final = 0.05
"""The objective is for the other 95 %."""
MOST: Final = 1000
"""Nobody is told to have more."""
COUNTED: Final = 512
"""Of so many requests in batches of one size the older ones count half, and so on: a replica that
got slower is noticed."""
MEASURED_AFTER: Final = 8
"""Fewer requests than this say little about batches of their size, or of a backlog."""
DRAIN_HALF_LIFE_S: Final = 10.0
"""Of time with a backlog."""
DRAIN_FORGOTTEN_S: Final = 600.0
"""What was seen under a backlog may have been a bad moment (a replica that hung), and if it asked
for too many replicas no backlog will come to correct it."""
LEAST_SERVICE_S: Final = 1e-5
"""So that an engine that takes no time at all does not divide anything by zero."""


@dataclass(slots=True)
class _Cost:
    """What requests in batches of one size took of a replica."""

    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Look:
    now: float
    offered: int
    done: int
    replicas: int


class Adviser:
    """Counts what one model is asked for and what its replicas get through with."""

    def __init__(self) -> None:
        self.offered = 0
        """Requests that came for it, accepted or refused as overloaded. The Dispatcher counts."""
        self.slack = True
        """Since the last look there was a moment that says nothing about how much replicas can do:
        nothing waited, or the broker itself was away. The Dispatcher says so."""
        self._done = 0
        self._costs: dict[int, _Cost] = {}
        """By the bits of the batch's size less one: batches of 1, of 2, of 3 to 4, of 5 to 8."""
        self._looks: deque[_Look] = deque()
        self._drained = 0.0
        self._drain_s = 0.0
        """Seconds of one replica."""
        self._drained_at = 0.0

    def served(self, seconds: float, batch_size: int) -> None:
        """A request is through that took ``seconds`` of a replica, in a batch of so many."""
        self._done += 1
        part = (batch_size - 1).bit_length()
        cost = self._costs.get(part)
        if cost is None:
            cost = self._costs[part] = _Cost()
        cost.requests += 1
        cost.seconds += seconds
        if cost.requests >= COUNTED:
            cost.requests //= 2
            cost.seconds /= 2

    def forget(self) -> None:
        """What was measured was another version's."""
        self._costs.clear()
        self._drained = self._drain_s = 0.0

    def look(self, now: float, replicas: int) -> None:
        """See what has happened by ``now``; so many replicas take work. Several times a second."""
        before = self._looks[-1] if self._looks else None
        self._looks.append(_Look(now, self.offered, self._done, replicas))
        while len(self._looks) > 1 and self._looks[1].now <= now - WINDOW_S:
            self._looks.popleft()
        if before is not None and not self.slack and replicas == before.replicas > 0:
            seconds = now - before.now
            fade = 0.5 ** (seconds / DRAIN_HALF_LIFE_S)
            self._drained = self._drained * fade + self._done - before.done
            self._drain_s = self._drain_s * fade + seconds * replicas
            self._drained_at = now
        self.slack = False

    def advice(self, now: float, *, replicas: int, queued: int, objective_s: float) -> ScaleAdvice:
        """What the load at ``now`` needs.

        Args:
            now: Seconds, on the clock of `look`.
            replicas: How many take work.
            queued: How many requests wait in the broker.
            objective_s: How long 95 % of requests may wait in a queue at most.
        """
        offered, service_s = self._offered(now), self._service_s(now)
        objective_ms = round(objective_s * 1000, 3)
        wanted, why = None, "Nothing was measured yet."
        if offered is not None and service_s is not None:
            load = offered + queued / BACKLOG_S
            wanted = enough(load, service_s, objective_s)
            why = f"Nobody asked for anything in the last {WINDOW_S:.0f} s."
            if load:
                waiting = f", and {queued} that wait," if queued else ""
                why = (
                    f"{offered:.1f} requests a second{waiting} keep {load * service_s:.2f} "
                    f"replicas busy, at {1 / service_s:.1f} a second each; with {wanted}, "
                    f"{100 * (1 - LATE):.0f} % of requests wait less than {objective_ms:g} ms."
                )
        return ScaleAdvice(
            wanted=wanted,
            present=replicas,
            offered_per_second=None if offered is None else round(offered, 3),
            replica_per_second=None if service_s is None else round(1 / service_s, 3),
            objective_ms=objective_ms,
            why=why,
        )

    def _offered(self, now: float) -> float | None:
        """Requests a second; None while too little time was watched."""
        if not self._looks or now - self._looks[0].now < WATCHED_S:
            return None
        first = self._looks[0]
        return (self.offered - first.offered) / (now - first.now)

    def _service_s(self, now: float) -> float | None:
        """Seconds a request of a replica that has all it can take; None before any was seen."""
        if self._drained >= MEASURED_AFTER and now - self._drained_at < DRAIN_FORGOTTEN_S:
            return max(LEAST_SERVICE_S, self._drain_s / self._drained)
        for part in sorted(self._costs, reverse=True):
            cost = self._costs[part]
            if cost.requests >= MEASURED_AFTER:
                return max(LEAST_SERVICE_S, cost.seconds / cost.requests)
        requests = sum(cost.requests for cost in self._costs.values())
        seconds = sum(cost.seconds for cost in self._costs.values())
        return max(LEAST_SERVICE_S, seconds / requests) if requests else None


def enough(per_second: float, service_s: float, objective_s: float) -> int:
    """The fewest replicas of which LATE of the requests, or less, wait longer than
    ``objective_s``: from 1 to MOST.

    Args:
        per_second: Requests that come.
        service_s: Seconds that each takes of a replica; more than 0.
        objective_s: Seconds in the queue.
    """
    busy = per_second * service_s
    if busy >= MOST:
        return MOST
    # Erlang's first formula by its recursion, which never overflows; the second from it.
    blocked = 1.0
    for replicas in range(1, MOST):
        blocked = busy * blocked / (replicas + busy * blocked)
        spare = replicas - busy
        if spare > 0:
            wait = replicas * blocked / (replicas - busy * (1 - blocked))
            if wait * exp(-spare * objective_s / service_s) <= LATE:
                return replicas
    return MOST
