"""The clients of a drill: threads, each with one connection that it keeps, asking on and on.

Rules:
- They talk to this machine only.
- No request is sent twice: one without an answer is lost, and the account says so.
- Every request has an id of its own, which has to come back.
"""

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from loadtest.chaos.ledger import Ledger, Reply
from loadtest.chaos.pictures import Picture, Verdict

HOST: Final = "127.0.0.1"
PATIENCE_S: Final = 30.0
"""Three times the deadline by which the service promises an answer."""
PAUSE_S: Final = 0.1
"""After a failure, so that a service that refuses is not stormed."""


class Connection:
    """One keep-alive connection, opened again when it broke."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)

    def classify(self, file: bytes, request_id: str) -> Reply:
        """Ask once. Raises OSError or HTTPException when no whole answer comes."""
        return self._ask("POST", "/api/v1/classify", file, {"X-Request-Id": request_id})

    def replicas(self) -> int:
        """How many replicas the service has, as far as it can tell."""
        try:
            reply = self._ask("GET", "/readyz")
        except (OSError, http.client.HTTPException):
            return 0
        return len(reply.json["replicas"]) if reply.status == 200 else 0

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        try:
            self._http.request(method, path, body, headers or {})
            response = self._http.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise
        return Reply(response.status, response.headers.get("X-Request-Id", ""), body)

    def close(self) -> None:
        """Hang up."""
        self._http.close()


def at_once() -> None:
    """The turn of a client that never waits."""


class Crowd:
    """So many clients at once. A context: they ask while it is open and finish when it ends."""

    def __init__(
        self,
        port: int,
        clients: int,
        pictures: Sequence[Picture],
        ledger: Ledger,
        seed: int,
        turn: Callable[[], None] = at_once,
    ) -> None:
        """``turn`` is called before each request, and returns when it may go out."""
        self._turn = turn
        self._port = port
        self._pictures = pictures
        self._ledger = ledger
        self._seed = seed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        random = Random(f"client {client} {self._seed}")
        connection = Connection(self._port)
        n = 0
        while not self._stop.is_set():
            n += 1
            self._turn()
            self._ask(connection, f"chaos-{self._seed}-{client}-{n}", random.choice(self._pictures))
        connection.close()

    def _ask(self, connection: Connection, request_id: str, picture: Picture) -> None:
        self._ledger.send()
        began = time.monotonic()
        try:
            reply = connection.classify(picture.file, request_id)
        except (OSError, http.client.HTTPException) as error:
            self._ledger.lose(request_id, repr(error))
            self._stop.wait(PAUSE_S)
            return
        self._ledger.settle(
            request_id,
            reply,
            time.monotonic() - began,
            lambda answer: picture.verdict.resembles(Verdict.of(answer)),
        )
        if reply.status != 200:
            self._stop.wait(PAUSE_S)
