"""The web tier as a real gunicorn process."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from webapp.framing import Framing
from webapp.outlet import Outlet
from webapp.testing import FakeModel
from webapp.worker import PATIENCE_S, Connection

Until = Callable[[Callable[[], object]], None]

GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "python:webapp.gunicorn_conf"]
TOO_LONG = 30 * 1024 * 1024
STOP_S = 15
CONFIG_STATUS = 78


class Server:
    """A gunicorn in a process group of its own, on a port that was free a moment ago."""

    def __init__(self, broker: str, settings: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.env = os.environ | {
            "WEB_PORT": str(self.port),
            "WEB_BROKER": broker,
            "WEB_DECODERS": "1",
            # The tests send one picture again and again and count what arrives.
            "WEB_CACHE_BYTES": "0",
            "HOME": "/nonexistent",
            **settings,
        }
        self.process = subprocess.Popen(
            GUNICORN, env=self.env, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def request(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)  # type: ignore[arg-type]
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        with suppress(OSError):
            return self.request("GET", "/healthz")[0] == 200
        return False

    def is_gone(self) -> bool:
        """Whether not even a child of it is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


@contextmanager
def serving(broker: str, until: Until, **settings: str) -> Iterator[Server]:
    server = Server(broker, settings)
    try:
        until(server.is_up)
        yield server
    finally:
        server.process.terminate()
        server.process.communicate(timeout=STOP_S)


@pytest.fixture(scope="module")
def broker() -> Iterator[FakeModel]:
    with FakeModel() as fake:
        yield fake


@pytest.fixture
def server(fake: FakeModel, until: Until) -> Iterator[Server]:
    with serving(fake.endpoint, until) as server:
        yield server


def test_a_body_that_is_too_long_gets_its_answer(server: Server, photo: bytes) -> None:
    body = bytes(TOO_LONG)
    pieces = [body[i : i + 65536] for i in range(0, TOO_LONG, 65536)]
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    ended = [part, *pieces, b"\r\n--b--\r\n"]
    for path, sent, headers in [
        ("/api/v1/classify", body, {}),
        ("/api/v1/classify", iter(pieces), {}),
        ("/api/v1/classify", iter(ended), multipart),
        ("/uploader", b"".join(ended), multipart),
    ]:
        status, answer = server.request("POST", path, sent, **headers)
        assert status == 413
        assert b"20 MiB" in answer
    for path, expected in [("/nix", 404), ("/healthz", 405)]:
        assert server.request("POST", path, body)[0] == expected
    assert server.request("POST", "/api/v1/classify", photo)[0] == 200


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("options", [[], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"]])
def test_curl_gets_the_answer_too(server: Server, options: list[str]) -> None:
    url = f"http://127.0.0.1:{server.port}/api/v1/classify"
    finished = subprocess.run(
        ["curl", "-sS", "--data-binary", "@-", *options, url],
        input=bytes(TOO_LONG),
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert json.loads(finished.stdout)["status"] == 413


def upload(nbytes: int) -> bytes:
    return f"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {nbytes}\r\n\r\n".encode()


def answer_on(connection: socket.socket) -> bytes:
    """What comes until the server has closed its side."""
    received = bytearray()
    while piece := connection.recv(65536):
        received += piece
    return bytes(received)


def test_a_reader_who_does_not_read_keeps_no_thread_and_gets_it_all_later(
    fake: FakeModel, until: Until, photo: bytes
) -> None:
    asked = 400
    with serving(fake.endpoint, until, WEB_THREADS="1") as server:
        there = ("127.0.0.1", server.port)
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.settimeout(10)
            lazy.connect(there)
            # More than the buffers of both ends take.
            lazy.sendall(asked * b"GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
            # The thread takes turns: by then it has come to all of these.
            for _ in range(asked):
                assert server.request("GET", "/healthz")[0] == 200
            assert server.request("POST", "/api/v1/classify", photo)[0] == 200
            lazy.shutdown(socket.SHUT_WR)
            answers = answer_on(lazy)
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == asked
        assert answers.endswith(b"}")


def test_an_upload_in_single_bytes_is_an_upload(server: Server, photo: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in upload(len(photo)):
            connection.send(bytes([byte]))
        connection.sendall(photo)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_a_head_that_is_too_long_is_told_so_in_our_words(server: Server) -> None:
    status, answer = server.request("GET", "/api/v1/models?model=" + "x" * 10_000)
    assert (status, answer) == server.request("GET", "/api/v1/models")
    status, answer = server.request("POST", "/api/v1/classify?model=" + "x" * 10_000, b"x")
    assert status == 400
    assert server.request("GET", "/healthz", **{"X-Long": "x" * 10_000})[0] == 200
    for path, headers in (("/" + "x" * 40_000, {}), ("/", {"X-Long": "x" * 40_000})):
        status, answer = server.request("GET", path, **headers)
        assert status == 431
        assert json.loads(answer)["type"] == "urn:sightline:problem:head-too-long"


def test_one_client_cannot_open_all_connections(fake: FakeModel, until: Until) -> None:
    with serving(fake.endpoint, until, WEB_CLIENT_CONNECTIONS="4") as server:

        def connected(client: str) -> socket.socket:
            there = ("127.0.0.1", server.port)
            return socket.create_connection(there, timeout=5, source_address=(client, 0))

        def answered(client: str) -> bool:
            with connected(client) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return answer_on(connection).startswith(b"HTTP/1.1 200 ")

        # Another one than has just asked whether the server is up.
        held = [connected("127.0.0.2") for _ in range(4)]
        with connected("127.0.0.2") as one_too_many:
            answer = answer_on(one_too_many)
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert b"\r\nX-Request-Id: " in answer
        assert b"urn:sightline:problem:too-many-at-once" in answer
        assert answered("127.0.0.3")
        held.pop().close()
        until(lambda: answered("127.0.0.2"))
        for connection in held:
            connection.close()


def test_one_client_cannot_fill_the_memory(fake: FakeModel, until: Until, photo: bytes) -> None:
    limit = 20 * 1024 * 1024
    part = bytes(15 * 1024 * 1024)
    with serving(fake.endpoint, until, WEB_BUFFER_BYTES=str(2 * limit)) as server:
        there = ("127.0.0.1", server.port)
        with socket.create_connection(there, timeout=5) as first:
            first.sendall(upload(len(part) + 1) + part)
            with socket.create_connection(there, timeout=5) as second:
                second.sendall(upload(len(part) + 1) + part)
                answer = answer_on(second)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"urn:sightline:problem:no-room" in answer
            assert server.request("POST", "/api/v1/classify", photo)[0] == 200
            first.sendall(b"x")
            assert first.recv(4096).startswith(b"HTTP/1.1 415 ")
        # The room is free a moment after the answer has gone out.
        until(lambda: server.request("POST", "/api/v1/classify", bytes(len(part)))[0] == 415)


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"3;" + bytes(300)])
def test_a_chunk_that_is_none_is_refused(server: Server, chunk: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(
            b"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunk
        )
        answer = b""
        while b"}\n" not in answer:
            received = connection.recv(4096)
            assert received, answer
            answer += received
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"urn:sightline:problem:bad-request" in answer


def test_a_request_whose_sender_left_is_cancelled(
    server: Server, fake: FakeModel, photo: bytes, until: Until
) -> None:
    fake.delay_s = 5.0
    head = f"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head.encode() + photo)
        until(lambda: len(fake.requests) == 1)
        assert fake.cancelled == []
    until(lambda: fake.cancelled == [fake.requests[0].id])


def test_a_sender_who_is_early_with_the_next_request_has_not_left(
    server: Server, fake: FakeModel, photo: bytes
) -> None:
    fake.delay_s = 0.5
    head = f"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(2 * (head.encode() + photo))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert fake.cancelled == []


def test_who_waits_for_a_word_behind_another_request_gets_it(server: Server, photo: bytes) -> None:
    head = f"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        both = head.encode() + b"\r\n" + photo + head.encode() + b"Expect: 100-continue\r\n\r\n"
        connection.sendall(both)
        told = b""
        while not told.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            received = connection.recv(4096)
            assert received, told
            told += received
        connection.sendall(photo)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_what_a_sender_says_of_proxies_spoils_nothing(server: Server, photo: bytes) -> None:
    said = {
        "SCRIPT_NAME": "/foo",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Ssl": "off",
        "X-Forwarded-For": "nobody",
    }
    assert server.request("POST", "/api/v1/classify", photo, **said)[0] == 200


def test_who_idles_before_sending_has_all_the_time_to_send() -> None:
    ours, theirs = socket.socketpair()
    with ours, Outlet(theirs) as outlet:
        connection = Connection(SimpleNamespace(keepalive=5), outlet, ("127.0.0.1", 1), None)
        framing = Framing(1000)
        connection.begin(framing, 0.0)
        assert not connection.is_too_slow(PATIENCE_S - 0.1)
        connection.begins_to_send(PATIENCE_S - 0.1)
        framing.feed(b"POST")
        assert not connection.is_too_slow(PATIENCE_S + 1)
        assert connection.is_too_slow(2 * PATIENCE_S)


def test_a_stop_finishes_what_was_begun(
    server: Server, fake: FakeModel, photo: bytes, until: Until
) -> None:
    fake.delay_s = 1.0
    with ThreadPoolExecutor(4) as threads:
        waiting = [
            threads.submit(server.request, "POST", "/api/v1/classify", photo) for _ in range(4)
        ]
        until(lambda: len(fake.requests) == 4)
        server.process.send_signal(signal.SIGTERM)
        assert [answer.result()[0] for answer in waiting] == [200] * 4
    assert server.process.wait(STOP_S) == 0
    until(server.is_gone)


def test_an_answer_after_the_stop_says_that_it_is_the_last_on_its_connection(
    server: Server, fake: FakeModel, photo: bytes, until: Until
) -> None:
    fake.delay_s = 1.0
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(upload(len(photo)) + photo)
        until(lambda: fake.requests)
        server.process.send_signal(signal.SIGTERM)
        answer = answer_on(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in answer


def test_a_stop_waits_for_what_is_being_uploaded_and_for_nothing_else(
    server: Server, photo: bytes, until: Until
) -> None:
    there = ("127.0.0.1", server.port)
    with (
        socket.create_connection(there, timeout=10) as silent,
        socket.create_connection(there, timeout=10) as sender,
    ):
        sender.sendall(upload(len(photo)) + photo[:100])
        server.request("GET", "/healthz")  # By now the other bytes have arrived, too.
        server.process.send_signal(signal.SIGTERM)
        assert answer_on(silent) == b""
        sender.sendall(photo[100:])
        answer = answer_on(sender)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert server.process.wait(STOP_S) == 0
    until(server.is_gone)


def test_the_health_command_tells_a_server_from_none(server: Server) -> None:
    def health() -> tuple[int, str]:
        finished = subprocess.run(
            [sys.executable, "-m", "webapp", "health"],
            env=server.env,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return finished.returncode, finished.stderr

    assert health() == (0, "")
    server.process.terminate()
    server.process.wait(STOP_S)
    status, said = health()
    assert status == 1
    assert f"127.0.0.1:{server.port} does not answer" in said


def test_an_address_of_ipv6_is_given_to_gunicorn_as_it_wants_it() -> None:
    """Asked of gunicorn, since not every machine has such an address to listen on."""
    told = subprocess.run(
        [*GUNICORN, "--print-config"],
        env=os.environ | {"WEB_HOST": "::", "WEB_PORT": "81"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert re.search(r"^bind +=.*\[::\]:81", told.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "status"),
    [(GUNICORN, CONFIG_STATUS), ([sys.executable, "-m", "webapp", "health"], 1)],
)
def test_a_wrong_setting_stops_the_start_with_one_sentence(command: list[str], status: int) -> None:
    finished = subprocess.run(
        command,
        env=os.environ | {"WEB_PROT": "8000"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert finished.returncode == status
    [sentence] = finished.stderr.splitlines()
    assert "WEB_PROT is no setting" in sentence
