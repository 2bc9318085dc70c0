"""The pictures that killed two replicas, remembered for a while so that they kill no third.

Only their digests are kept, a bounded number of them, the oldest forgotten first.
"""

import hashlib
from collections import OrderedDict

from modelserver.job import Payload


class PoisonList:
    """Digests of payloads, each until its time is over."""

    def __init__(self, keep_s: float, max_digests: int) -> None:
        self._keep_s = keep_s
        self._max_digests = max_digests
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, payload: Payload, now: float) -> None:
        """Refuse these bytes from now on."""
        self._until[_digest(payload)] = now + self._keep_s
        while len(self._until) > self._max_digests:
            self._until.popitem(last=False)

    def holds(self, payload: Payload, now: float) -> bool:
        """Whether these bytes are refused at ``now``. Hashes only while any are."""
        return bool(self._until) and self._until.get(_digest(payload), now) > now


def _digest(payload: Payload) -> bytes:
    return hashlib.blake2b(payload.buffer, digest_size=16).digest()
