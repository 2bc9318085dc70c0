"""How many replicas there should be, when the advice is about the moment. Pure: no clock.

Rules:
- More at once, for requests wait: up to what is advised, in one step. Then nothing for PAUSE_S, in
  which new ones begin to tell. Those that are not ready yet count, so nobody is started twice.
- Fewer slowly: when the advice has been lower for a while, one replica; after as long again the
  next. So a load that comes back finds most of them still there.
- Never fewer than `least` or more than `most`. Without an advice nothing changes.
"""

from typing import Final

PAUSE_S: Final = 3.0


class Patience:
    """Turns advice into steps. Times are seconds on the caller's clock."""

    def __init__(self, least: int, most: int, *, down_after_s: float) -> None:
        """
        Args:
            least: So many replicas stay, whatever is advised.
            most: There will not be more of them.
            down_after_s: How long the advice has to be lower before one is taken away.

        Raises:
            ValueError: ``least`` is less than 1 or more than ``most``, or a time is negative.
        """
        if not 1 <= least <= most:
            raise ValueError(f"the least, {least}, must be from 1 to the most, {most}")
        if not down_after_s >= 0:
            raise ValueError(f"{down_after_s:g} s is no time to wait")
        self._least = least
        self._most = most
        self._down_after_s = down_after_s
        self._rose: float | None = None
        self._lower_since: float | None = None

    def goal(self, wanted: int | None, running: int, now: float) -> int:
        """How many there should be at ``now``, when ``wanted`` are advised, or None for no advice,
        and so many run or are about to."""
        if wanted is None:
            self._lower_since = None
            return running
        bounded = min(max(wanted, self._least), self._most)
        if bounded >= running:
            self._lower_since = None
            if bounded > running and (self._rose is None or now - self._rose >= PAUSE_S):
                self._rose = now
                return bounded
            return running
        if self._lower_since is None:
            self._lower_since = now
        if now - self._lower_since < self._down_after_s:
            return running
        self._lower_since = now
        return running - 1
