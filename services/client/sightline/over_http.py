"""The service by its HTTP API. Needs nothing but the standard library and msgspec."""

import json
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from sightline.service import Scale, Status, Trouble, Unreachable


class HttpService:
    """A web tier."""

    def __init__(self, url: str, *, api_key: str, timeout_s: float) -> None:
        """``timeout_s`` is for whatever the server lets us wait for.

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
        try:
            found: dict[str, Any] = json.loads(answer)
            if isinstance(found["predictions"], list):
                return found
        except (ValueError, TypeError, KeyError):
            pass
        raise self._is_no_sightline()

    def status(self) -> Status:
        """As `Service.status`."""
        answer = self._ask("GET", "/api/v1/status", None)
        try:
            return msgspec.json.decode(answer, type=Status)
        except msgspec.DecodeError:
            raise self._is_no_sightline() from None

    def scale(self) -> Scale:
        """How many replicas it takes. Raises Trouble."""
        answer = self._ask("GET", "/api/v1/scale", None)
        try:
            return msgspec.json.decode(answer, type=Scale)
        except msgspec.DecodeError:
            raise self._is_no_sightline() from None

    def close(self) -> None:
        """As `Service.close`; every question has a connection of its own."""

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        connection = self._connection()
        try:
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

    def _trouble(self, status: int, body: bytes) -> Trouble:
        try:
            told = json.loads(body)
            kind = str(told["type"]).removeprefix("urn:sightline:problem:")
            return Trouble(status, kind, told["title"], told["detail"], told["remedy"])
        except (ValueError, TypeError, KeyError):
            return self._is_no_sightline(f" It said {status}.")

    def _is_no_sightline(self, said: str = "") -> Trouble:
        return Unreachable(f"What answers at {self._url} is no Sightline.{said}")
