"""What is counted of requests and pictures, by one process and by several."""

import io
import os
import signal
import socket
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from services.web.tests.test_server import Server, serving

from imaging import DecoderPool
from webapp.app import create_app
from webapp.client import ModelClient
from webapp.config import Config
from webapp.testing import FakeModel

Until = Callable[[Callable[[], object]], None]
AT_ONCE = 8
Told = dict[tuple[str, ...], float]


def samples(text: str) -> Told:
    """Every sample, by its name and its labels' values in their names' order."""
    return {
        (
            sample.name.removeprefix("sightline_web_"),
            *dict(sorted(sample.labels.items())).values(),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def told(http: FlaskClient) -> Told:
    return samples(http.get("/metrics").text)


def outcomes(told: Told) -> dict[str, float]:
    return {key[1]: value for key, value in told.items() if key[0] == "pictures_total" and value}


def test_requests_are_counted_by_route_and_never_by_a_clients_words(http: FlaskClient) -> None:
    http.get("/healthz")
    http.get("/v2/models/fake/ready")
    http.get("/nix/1")
    http.get("/nix/2")
    http.open("/healthz", method="BREW")
    counted = told(http)
    assert counted["requests_total", "GET", "/healthz", "200"] == 1
    assert counted["requests_total", "GET", "/v2/models/<name>/ready", "200"] == 1
    assert counted["requests_total", "GET", "none", "404"] == 2
    assert counted["requests_total", "other", "none", "405"] == 1
    assert counted["request_seconds_count", "none"] == 3
    assert told(http)["requests_total", "GET", "/metrics", "200"] == 1


def test_files_of_the_page_are_counted(http: FlaskClient) -> None:
    with http.get("/static/style.css") as response:
        assert response.status_code == 200
    told = samples(http.get("/metrics").text)
    assert told["requests_total", "GET", "/static/<path:filename>", "200"] == 1


def test_a_picture_is_counted_by_what_became_of_it(
    client: ModelClient, decoders: DecoderPool, photo: bytes
) -> None:
    http = create_app(Config(), client, decoders).test_client()
    assert outcomes(told(http)) == {}
    assert {key[1] for key in told(http) if key[0] == "answers_total"} == {
        "off",
        "miss",
        "joined",
        "hit",
    }
    for body in (photo, photo, photo[:2000], b"hello"):
        http.post("/api/v1/classify", data=body)
    counted = told(http)
    assert outcomes(counted) == {"classified": 2, "damaged": 1, "not-an-image": 1}
    assert (counted["answers_total", "miss"], counted["answers_total", "hit"]) == (1, 1)
    assert counted["decode_seconds_count",] == 2
    assert counted["cache_bytes",] > 0


def test_each_of_many_pictures_is_counted(http: FlaskClient, photo: bytes) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.jpg", photo)
        packed.writestr("b.zip", b"PK\x03\x04 is no picture")
    with http.post("/api/v1/classify", data=archive.getvalue()) as response:
        assert response.text.count("\n") == 2
    counted = told(http)
    assert outcomes(counted) == {"classified": 1, "not-an-image": 1}
    # An answer in lines is over with its last one.
    assert counted["requests_total", "POST", "/api/v1/classify", "200"] == 1


# --- a real server ----------------------------------------------------------------------------


def told_by(server: Server) -> Told:
    """Over a connection of its own, so that any worker may have it."""
    return samples(server.request("GET", "/metrics")[1].decode())


def say(server: Server, request: bytes) -> None:
    """And read whatever comes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        while connection.recv(65536):
            pass


def test_what_the_server_answers_without_the_application_is_counted(
    fake: FakeModel, until: Until
) -> None:
    with serving(fake.endpoint, until, WEB_CLIENT_CONNECTIONS=str(AT_ONCE)) as server:
        say(server, b"GET /" + b"x" * 40_000)
        say(server, b"nonsense\r\n\r\n")
        say(server, b"POST /nix HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        with ExitStack() as held:
            for _ in range(AT_ONCE):
                held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            # Who is one too many may see his connection reset before he has read why.
            until(lambda: not server.is_up())
        until(server.is_up)
        counted = told_by(server)
    assert counted["requests_total", "none", "none", "431"] == 1
    assert counted["requests_total", "none", "none", "400"] == 1
    assert counted["requests_total", "none", "none", "429"] >= 1
    assert counted["requests_in_progress",] == 1
    assert counted["upload_bytes_sum",] == 3
    assert counted["process_open_fds",] > 0


@pytest.mark.drill
def test_several_processes_tell_what_all_have_done(fake: FakeModel, until: Until) -> None:
    before = folders()
    with serving(fake.endpoint, until, WEB_CONCURRENCY="2") as server:
        [folder] = folders() - before

        def workers() -> set[int]:
            children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
            return set(map(int, children.read_text().split()))

        def answered() -> float:
            return told_by(server).get(("requests_total", "GET", "/readyz", "200"), 0)

        def ask(times: int) -> None:
            goal = answered() + times
            for _ in range(times):
                assert server.request("GET", "/readyz")[0] == 200
            assert {answered() for _ in range(5)} == {goal}

        ask(20)
        first = workers()
        assert len(first) == 2
        for victim in first:
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: len(workers() - {victim}) == 2)  # type: ignore[misc]
        until(server.is_up)
        assert answered() == 20
        ask(20)
        # The one that asks. Who was answered last is through a moment later.
        until(lambda: told_by(server)["requests_in_progress",] == 1)
        places = {file.stem.rpartition("_")[2] for file in folder.iterdir()}
        assert places == {"0", "1"}
    assert folders() == before


def folders() -> set[Path]:
    """Where servers of this machine count together."""
    return set(Path("/dev/shm").glob("sightline-web-*"))
