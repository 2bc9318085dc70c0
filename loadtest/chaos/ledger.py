"""The account of a drill: what was sent, and what became of each request.

Rules:
- A request is entered when it is sent and settled once: by its answer, or as lost.
- An answer under another request's id is duplicated if that one has been answered, else wrong.
- Whatever is not in order is kept in words, too: a drill that fails has to say why.
"""

import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

KEPT_TROUBLES: Final = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, read to its end."""

    status: int
    request_id: str
    """What its header X-Request-Id says."""
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body. Raises ValueError."""
        return json.loads(self.body)


class Ledger:
    """Keeps the account for many threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: set[str] = set()
        self._seconds: list[float] = []
        self.counts: Counter[str] = Counter()
        self.troubles: list[str] = []

    def send(self) -> None:
        """A request is about to go out."""
        with self._lock:
            self.counts["sent"] += 1

    def lose(self, request_id: str, reason: str) -> None:
        """No answer came, or only a part of one."""
        with self._lock:
            self._note("lost", request_id, reason)

    def settle(
        self, request_id: str, reply: Reply, seconds: float, is_right: Callable[[Any], bool]
    ) -> None:
        """An answer came after ``seconds``; ``is_right`` knows the right ones."""
        with self._lock:
            self.counts["answered"] += 1
            self._seconds.append(seconds)
            try:
                self._judge(request_id, reply, is_right)
            except (ValueError, KeyError, TypeError) as error:
                self._note("failed", request_id, f"{error!r} in {reply.body[:300]!r}")
            self._answered.add(request_id)

    def _judge(self, request_id: str, reply: Reply, is_right: Callable[[Any], bool]) -> None:
        answer = reply.json
        named = answer["request_id" if reply.status == 200 else "instance"]
        if not named == reply.request_id == request_id:
            kind = "duplicated" if named in self._answered else "wrong"
            self._note(kind, request_id, f"the answer to {named} in that to {reply.request_id}")
        elif reply.status != 200:
            self._note("failed", request_id, f"{reply.status} {answer['detail']}")
        elif not is_right(answer):
            self._note("wrong", request_id, f"{answer['predictions'][0]}")
        elif answer["attempt"] > 1:
            self.counts["retried"] += 1

    def _note(self, kind: str, request_id: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.troubles) < KEPT_TROUBLES:
            self.troubles.append(f"{kind}: request {request_id}: {text}")

    @property
    def p99_s(self) -> float:
        """99 of 100 answers took no longer; 0 while there is none."""
        with self._lock:
            ranked = sorted(self._seconds)
        return ranked[math.ceil(len(ranked) * 0.99) - 1] if ranked else 0.0

    @property
    def longest_s(self) -> float:
        """The answer that took longest; 0 while there is none."""
        with self._lock:
            return max(self._seconds, default=0.0)

    @property
    def clean(self) -> bool:
        """Every request that was sent has had its own right answer, once."""
        trouble = sum(self.counts[kind] for kind in ("lost", "duplicated", "failed", "wrong"))
        return not trouble and self.counts["sent"] == self.counts["answered"]

    def __str__(self) -> str:
        kinds = ("sent", "answered", "lost", "duplicated", "failed", "wrong")
        return ", ".join([f"{k} {self.counts[k]}" for k in kinds] + [f"p99 {self.p99_s:.2f} s"])
