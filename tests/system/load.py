"""Many clients at once against one service, and an account of every request they sent."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable

from tests.conftest import Answer, eventually


class Load:
    """``clients`` threads that call ``send`` one request after the other until stopped."""

    def __init__(self, send: Callable[[], Answer], *, clients: int) -> None:
        self._send = send
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.replicas: Counter[str] = Counter()
        self.attempts: Counter[int] = Counter()
        self.trouble: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def answered(self) -> int:
        return self.statuses[200]

    def flows(self, requests: int, *, within_s: float = 30.0) -> None:
        """Wait until so many more requests have been answered, or one was not."""
        goal = self.answered + requests
        eventually(lambda: self.answered >= goal or self.trouble, within_s=within_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._send()
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.trouble.append(repr(error))
                continue
            with self._lock:
                self.statuses[answer.status] += 1
                if answer.status == 200:
                    self.replicas[answer.json["replica"]] += 1
                    self.attempts[answer.json["attempt"]] += 1
                else:
                    self.trouble.append(f"{answer.status} {answer.body[:300]!r}")
