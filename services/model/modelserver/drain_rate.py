"""How fast a queue drains, measured where it can be: while something waits.

An idle service finishes as many requests as arrive, which says nothing about how many it
could finish. So only time with a backlog counts, and old observations fade. After a while without
a backlog they tell nothing: who is refused by a rate that was slow once makes no backlog that would
put it right.
"""

from typing import Final

HALF_LIFE_S: Final = 5.0
"""Long enough to span many batches, short enough to notice a replica that came or went."""
MIN_OBSERVED_S: Final = 0.25
"""With less than this the figure is an accident of one batch."""

FORGOTTEN_S: Final = 30.0
"""After so long without a backlog the speed has to be found out anew."""


class DrainRate:
    """Departures per second of backlogged time, as an exponentially fading average."""

    def __init__(self) -> None:
        self._departures = 0.0
        self._seconds = 0.0
        self._since: float | None = None
        self._measured_at = -FORGOTTEN_S

    def observe(self, now: float, departures: int, backlog: bool) -> None:
        """Record ``departures`` at ``now`` (seconds), and whether anything waits after them."""
        if self._since is not None:
            elapsed = max(0.0, now - self._since)
            fade = 0.5 ** (elapsed / HALF_LIFE_S)
            self._seconds = self._seconds * fade + elapsed
            self._departures = self._departures * fade + departures
            self._measured_at = now
        elif backlog and self._is_forgotten(now):
            self._seconds = self._departures = 0.0
        self._since = now if backlog else None

    def pause(self) -> None:
        """Nobody works any more, so time no longer says anything about speed."""
        self._since = None

    @property
    def per_second(self) -> float | None:
        """The rate as it was measured last; None before there was backlog enough to measure."""
        if self._seconds < MIN_OBSERVED_S or self._departures == 0:
            return None
        return self._departures / self._seconds

    def seconds_for(self, jobs: int, now: float) -> float | None:
        """How long ``jobs`` jobs would take to leave; None when that is not known, or no more."""
        rate = self.per_second
        return None if rate is None or self._is_forgotten(now) else jobs / rate

    def _is_forgotten(self, now: float) -> bool:
        return now - self._measured_at > FORGOTTEN_S
