"""Fuzz target: where a request ends does not depend on the pieces in which it arrives, and is where
gunicorn's parser finds its end, or else the next one would begin in the middle of something."""

from collections.abc import Iterator

from gunicorn.config import Config as GunicornConfig
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser
from services.web.tests.fuzz_http import seeds as requests

from webapp.framing import Framing

GUNICORN = GunicornConfig()
MAX_BODY_BYTES = 4096
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def seeds() -> Iterator[bytes]:
    for request in requests():
        yield request
        yield request + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    for body in (
        b"0\r\n\r\n",
        b"4;a=b\r\n\r\n\r\n\r\n0\r\nA: b\r\n\r\n",
        b"A\r\n0123456789\r\n0\r\n\r\n",
    ):
        yield CHUNKED + body + b"GET / HTTP/1.1\r\n\r\n"
    yield b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
    yield CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") + b"0\r\n\r\nGET /"


def check(data: bytes) -> None:
    framing = Framing(MAX_BODY_BYTES)
    framing.feed(data)
    slowly = Framing(MAX_BODY_BYTES)
    for at in range(len(data)):
        slowly.feed(data[at : at + 1])
        if slowly.end is not None:
            break
    assert slowly.whole == framing.whole
    if not framing.whole:
        return
    assert slowly.end == framing.end
    parser = RequestParser(GUNICORN, iter([data[: framing.end]]), ("127.0.0.1", 9))
    try:
        request = next(parser)
        request.body.read()
    except (ParseException, NoMoreData, StopIteration):
        return  # The connection ends with this.
    if not request.should_close():
        assert parser.unreader.read() == b""


def refine(data: bytes, _seed: int) -> bytes:
    return data
