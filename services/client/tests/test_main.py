"""The command line, in this process: against the web tier's stand-in for a broker, and a small
server that answers whatever it is told."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import msgspec
import pytest

from sightline.__main__ import main
from sightline.service import Outcome, Status
from webapp.testing import FakeModel, predictions
from wire import FailureCode

FILE = b"an image file, as far as the fake model cares"


@pytest.fixture
def fake() -> Iterator[FakeModel]:
    with FakeModel() as fake:
        yield fake


@pytest.fixture
def photo(tmp_path: Path) -> str:
    (tmp_path / "photo.jpg").write_bytes(FILE)
    return str(tmp_path / "photo.jpg")


def problem(kind: str) -> bytes:
    words = {"title": "T", "detail": "D.", "remedy": "R."}
    return json.dumps({"type": f"urn:sightline:problem:{kind}", **words}).encode()


class Handler(BaseHTTPRequestHandler):
    """Says what `says` holds to everybody, after `first` to whoever comes first."""

    says: ClassVar[tuple[int, bytes]] = (200, b"")
    first: ClassVar[list[tuple[int, bytes]]] = []
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.first.pop(0) if self.first else self.says
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 - as the server finds it

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Handler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/somewhere/"
        server.shutdown()
        thread.join()


def test_the_broker_is_given_the_file_itself(
    fake: FakeModel, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["classify", photo, "--broker", fake.endpoint, "--json", "--top-k", "2"]
    assert main(ask) == Outcome.DONE
    told = json.loads(capsys.readouterr().out)
    assert [p["label"] for p in told["predictions"]] == [p.label for p in predictions(FILE)[:2]]
    assert told["model"] == {"name": "fake", "version": "1"}
    [request] = fake.requests
    assert (request.encoding, request.top_k, request.digest) == ("image", 2, "")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (FailureCode.BAD_PAYLOAD, Outcome.FAILED),
        (FailureCode.POISONED, Outcome.FAILED),
        (FailureCode.OVERLOADED, Outcome.UNAVAILABLE),
        (FailureCode.UNKNOWN_MODEL, Outcome.USAGE),
    ],
)
def test_a_failure_at_the_broker_has_its_exit_status(
    fake: FakeModel, photo: str, code: FailureCode, outcome: Outcome
) -> None:
    fake.failure = code
    assert main(["classify", photo, "--broker", fake.endpoint]) == outcome


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (415, "not-an-image", Outcome.FAILED),
        (422, "damaged", Outcome.FAILED),
        (401, "unauthorised", Outcome.USAGE),
        (429, "too-many-at-once", Outcome.UNAVAILABLE),
        (504, "deadline-exceeded", Outcome.UNAVAILABLE),
    ],
)
def test_a_problem_over_http_has_its_exit_status(
    url: str,
    photo: str,
    status: int,
    kind: str,
    outcome: Outcome,
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = {
        "type": f"urn:sightline:problem:{kind}",
        "title": "T",
        "detail": "D.",
        "remedy": "R.",
    }
    Handler.says = (status, json.dumps(problem).encode())
    assert main(["classify", photo, "--url", url, "--model", "a b"]) == outcome
    assert capsys.readouterr().err == f"{photo}: D. R.\n1 of 1 files failed\n"
    assert Handler.asked == ["/somewhere/api/v1/classify?top_k=3&model=a+b"]


@pytest.mark.parametrize(
    "says",
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"predictions":["x"]}'),
        (200, b'{"predictions":[],"x":' + b"[" * 200_000),
        (404, b"nothing here"),
        (502, b"{}"),
        (502, b"[" * 200_000),
    ],
)
def test_something_else_at_that_address_is_told_as_such(
    url: str, photo: str, says: tuple[int, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    Handler.says = says
    assert main(["classify", photo, "--url", url]) == Outcome.UNAVAILABLE
    assert "is no Sightline" in capsys.readouterr().err


def test_a_server_that_never_comes_to_an_end_is_not_waited_for(
    photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    over = Event()

    def drip(server: socket.socket) -> None:
        with server.accept()[0] as connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not over.wait(0.1):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=drip, args=(server,))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        assert main(["classify", photo, "--url", url, "--timeout", "1"]) == Outcome.UNAVAILABLE
        assert time.monotonic() - began < 5
        over.set()
        thread.join()
    assert "did not answer in 1 s" in capsys.readouterr().err


def test_watch_reads_what_web_tells(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = Status(uptime_ms=61_000, counts={"answered": 7}, models=(), replicas=())
    Handler.says = (200, msgspec.json.encode(nothing))
    assert main(["watch", "--once", "--url", url]) == Outcome.DONE
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("broker up for 1 min 1 s")
    assert told[-1] == "answered 7"
    assert Handler.asked == ["/somewhere/api/v1/status"]


def test_when_nobody_is_there_the_other_files_are_not_tried(
    url: str, fake: FakeModel, tmp_path: Path
) -> None:
    files = [str(tmp_path / name) for name in "abc"]
    for file in files:
        Path(file).write_bytes(FILE)
    Handler.says = (200, b"<html>")
    assert main(["classify", *files, "--url", url, "--jobs", "1"]) == Outcome.UNAVAILABLE
    assert len(Handler.asked) == 1
    fake.failure = FailureCode.UNAVAILABLE
    ask = ["classify", *files, "--broker", fake.endpoint, "--jobs", "1"]
    assert main(ask) == Outcome.UNAVAILABLE
    assert len(fake.requests) == 1


def test_of_several_failures_the_one_that_says_most_is_the_status(
    url: str, photo: str, tmp_path: Path
) -> None:
    (tmp_path / "other.jpg").write_bytes(FILE)
    ask = ["classify", photo, str(tmp_path / "other.jpg"), "--url", url, "--jobs", "1"]
    Handler.first[:] = [(401, problem("unauthorised")), (503, problem("overloaded"))]
    assert main(ask) == Outcome.USAGE
    Handler.first[:] = [(503, problem("overloaded")), (415, problem("not-an-image"))]
    assert main(ask) == Outcome.UNAVAILABLE


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["classify"],
        ["classify", "x.jpg", "--top-k", "0"],
        ["classify", "x.jpg", "--url", "ftp://x"],
        ["classify", "x.jpg", "--url", "http://x", "--broker", "tcp://x:1"],
        ["classify", "x.jpg", "--keys", "x"],
        ["classify", "x.jpg", "--api-key", "a\nb"],
        ["classify", "x.jpg", "--broker", "tcp://x:1", "--keys", "/nonexistent"],
    ],
    ids=" ".join,
)
def test_a_slip_is_told_below_the_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == Outcome.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: sightline")
    assert "error: " in said.err.splitlines()[-1]
