"""Fuzz target: whatever bytes gunicorn takes for a request are answered, and never with a 500.

Everything from the connection to the routes is the real thing, but for a model that is always
away: what comes after the request is understood is not the target.
"""

import socket
from collections.abc import Iterator
from gzip import compress

from gunicorn.config import Config as GunicornConfig
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from services.web.tests.test_archives import zipped

from webapp.app import create_app
from webapp.client import ModelClient
from webapp.config import Config
from webapp.errors import Unavailable
from wire import Catalogue, Contract


class NobodyThere(ModelClient):
    """A client whose broker never answers, which it says at once."""

    def contract(self, model: str = "", *, deadline: float) -> Contract:
        raise Unavailable(f"No {model!r} by {deadline}.")

    def catalogue(self, *, deadline: float) -> Catalogue:
        raise Unavailable(f"Nothing by {deadline}.")


APP = create_app(Config(max_upload_bytes=4096), NobodyThere("tcp://127.0.0.1:9"))
GUNICORN = GunicornConfig()
EXPECTED = {200, 304, 308, 400, 401, 404, 405, 408, 413, 415, 422, 429, 501, 503}
FILE = b"\xff\xd8\xff\xe0 not really a JPEG"


def seeds() -> Iterator[bytes]:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + FILE + b"\r\n--b--\r\n"
    )
    for path in (b"/", b"/healthz", b"/readyz", b"/static/style.css", b"//nix", b"/api/v1/models"):
        yield _request(b"GET", path)
    yield _request(b"OPTIONS", b"*")
    for path in (b"/uploader", b"/api/v1/classify"):
        yield _request(b"POST", path, FILE, b"Content-Type: image/jpeg")
        yield _request(b"POST", path, form, b"Content-Type: multipart/form-data; boundary=b")
        yield _request(b"POST", path, bytes(5000))
        yield _request(b"POST", path, b"file=a", b"Content-Type: application/x-www-form-urlencoded")
    yield _request(b"POST", b"/api/v1/classify?top_k=%31%30&model=a%20b+c&top_k=x", FILE)
    yield _request(b"POST", b"/api/v1/classify", b"", b"X-Request-Id: my-1", b"Expect: nothing")
    two = form.replace(b"--b--\r\n", form)
    yield _request(
        b"POST", b"/api/v1/classify", two, b"Content-Type: multipart/form-data; boundary=b"
    )
    for path in (b"/api/v1/classify", b"/api/v1/inspect"):
        yield _request(b"POST", path, b'{"image": "data:;base64,/9j/4AA="}')
        yield _request(b"POST", path, zipped({"a.jpg": FILE}), b"Accept: application/x-ndjson")
    for path in (
        b"/v2",
        b"/v2/health/ready",
        b"/v2/models/a/versions/1/ready",
        b"/v2/models/a/nix",
    ):
        yield _request(b"GET", path)
    tensor = b"\x15\0\0\0" + FILE
    head = (
        b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES",'
        b'"parameters":{"binary_data_size":%d}}]}' % len(tensor)
    )
    lengths = b"Inference-Header-Content-Length: %d" % len(head)
    yield _request(b"POST", b"/v2/models/a/infer", head + tensor, lengths)
    gzip = b"Content-Encoding: gzip"
    yield _request(b"POST", b"/v2/models/a/infer", compress(head + tensor, mtime=0), lengths, gzip)
    yield _request(b"POST", b"/v2/repository/index", b'{"ready":true}')
    yield (
        b"POST /api/v1/classify HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\n\xff\xd8\xff\xe0 \r\n3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n"
    )


def _request(method: bytes, target: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: h", *headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def check(data: bytes) -> None:
    statuses: list[int] = []

    def start(status: str, _headers: list[tuple[str, str]], _error: object = None) -> None:
        statuses.append(int(status.split()[0]))

    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            request = next(RequestParser(GUNICORN, iter([data]), ("127.0.0.1", 9)))
            _, environ = create(request, ours, ("127.0.0.1", 9), ("127.0.0.1", 8000), GUNICORN)
        except (ParseException, NoMoreData, StopIteration):
            return  # gunicorn answers by itself, or closes.
        answer = APP(environ, start)  # type: ignore[arg-type]
        for _ in answer:
            pass
        if close := getattr(answer, "close", None):
            close()
    [status] = statuses
    assert status in EXPECTED, status


def refine(data: bytes, _seed: int) -> bytes:
    """Makes the announced length right: a shorter body is a sender that is awaited for ever."""
    head, gap, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for at, line in enumerate(lines):
        if line.lower().startswith(b"content-length:"):
            lines[at] = b"Content-Length: %d" % len(body)
    return b"\r\n".join(lines) + gap + body
