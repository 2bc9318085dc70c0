"""The service by its HTTP API. Needs nothing but the standard library and msgspec."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Event, Timer
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from sightline.service import Scale, Status, Trouble, Unreachable

Told = TypeVar("Told")


class _Prediction(msgspec.Struct):
    label: str
    probability: float


class _Answer(msgspec.Struct):
    """What of an answer is shown; the rest is given on as it comes."""

    predictions: tuple[_Prediction, ...]


class HttpService:
    """A web tier."""

    def __init__(self, url: str, *, api_key: str, timeout_s: float) -> None:
        """``timeout_s`` is for all of an exchange, from the connection to the last byte.

        Raises:
            ValueError: ``url`` is not one of HTTP, or ``api_key`` can be no key.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL such as http://127.0.0.1:8000")
        if not (api_key.isascii() and (api_key + "x").isprintable()):
            raise ValueError("the API key has characters that no key has")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s

    def classify(self, file: bytes, *, model: str, top_k: int) -> dict[str, Any]:
        """As `Service.classify`."""
        query = urlencode({"top_k": top_k} | ({"model": model} if model else {}))
        answer = self._ask("POST", f"/api/v1/classify?{query}", file)
        self._decoded(answer, _Answer)
        return self._decoded(answer, dict[str, Any])

    def status(self) -> Status:
        """As `Service.status`."""
        answer = self._ask("GET", "/api/v1/status", None)
        return self._decoded(answer, Status)

    def scale(self) -> Scale:
        """How many replicas it takes. Raises Trouble."""
        answer = self._ask("GET", "/api/v1/scale", None)
        return self._decoded(answer, Scale)

    def close(self) -> None:
        """As `Service.close`; every question has a connection of its own."""

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        connection = self._connection()
        try:
            connection.connect()
            with _within(self._timeout_s, connection.sock):
                connection.request(method, self._prefix + path, body, self._headers)
                response = connection.getresponse()
                answer = response.read()
        except TimeoutError:
            raise Unreachable(f"{self._url} did not answer in {self._timeout_s:g} s.") from None
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{self._url} does not answer: {error}.") from None
        finally:
            connection.close()
        if response.status == 200:
            return answer
        raise self._trouble(response.status, answer)

    def _connection(self) -> HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _decoded(self, answer: bytes, kind: type[Told]) -> Told:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, RecursionError):
            raise self._is_no_sightline() from None

    def _trouble(self, status: int, body: bytes) -> Trouble:
        try:
            told = json.loads(body)
            kind = str(told["type"]).removeprefix("urn:sightline:problem:")
            return Trouble(status, kind, told["title"], told["detail"], told["remedy"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return self._is_no_sightline(f" It said {status}.")

    def _is_no_sightline(self, said: str = "") -> Trouble:
        return Unreachable(f"What answers at {self._url} is no Sightline.{said}")


@contextmanager
def _within(seconds: float, sock: socket.socket) -> Iterator[None]:
    """Ends what ``sock`` does in the block when its time is over, with a TimeoutError. The socket's
    own limit is for each piece, and so none for a server that sends one now and then."""
    late = Event()

    def hang_up() -> None:
        late.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError
