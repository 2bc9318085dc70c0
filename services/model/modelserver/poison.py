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
        digest = _digest(payload)
        self._until[digest] = now + self._keep_s
        self._until.move_to_end(digest)
        while len(self._until) > self._max_digests:
            self._until.popitem(last=False)

    def holds(self, payload: Payload, now: float) -> bool:
        """Whether these bytes are refused at ``now``. Hashes only while any are."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return bool(self._until) and _digest(payload) in self._until


def _digest(payload: Payload) -> bytes:
    return hashlib.blake2b(payload.buffer, digest_size=16).digest()
