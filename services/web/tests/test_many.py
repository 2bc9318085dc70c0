"""Many pictures in one request: a line each, one bad one alone, and nothing for who has left."""

import json
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from services.web.tests.conftest import MAX_UPLOAD_BYTES, encoded
from services.web.tests.test_archives import gzipped, tarred, zipped
from services.web.tests.test_server import serving
from werkzeug.test import TestResponse

from imaging import DecoderPool
from webapp.archives import MAX_FILES
from webapp.many import AT_ONCE, REQUESTS
from webapp.testing import CONTRACT, FakeModel, predictions

CLASSIFY = "/api/v1/classify"
LINES = {"Accept": "application/x-ndjson"}
Until = Callable[[Callable[[], object]], None]


def form(files: dict[str, bytes]) -> dict[str, Any]:
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="%b"\r\n\r\n%b\r\n'
        % (name.encode(), data)
        for name, data in files.items()
    )
    return {"data": body + b"--b--\r\n", "content_type": "multipart/form-data; boundary=b"}


WAYS: list[Callable[[dict[str, bytes]], dict[str, Any]]] = [
    form,
    lambda files: {"data": zipped(files), "content_type": "application/zip"},
    lambda files: {"data": tarred(files)},
    lambda files: {"data": gzipped(files)},
]
each_way = pytest.mark.parametrize("sent", WAYS)


@pytest.fixture(scope="session")
def photos() -> dict[str, bytes]:
    return {
        f"{shade}.png": encoded(Image.new("RGB", (40, 40), (shade, 0, 0)), "PNG")
        for shade in range(0, 200, 10)
    }


def lines(response: TestResponse) -> list[dict[str, Any]]:
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson")
    return [json.loads(line) for line in response.get_data().splitlines()]


def kind_of(problem: dict[str, Any]) -> str:
    return str(problem["type"]).removeprefix("urn:sightline:problem:")


@each_way
def test_each_picture_gets_its_own_answer(
    http: FlaskClient,
    fake: FakeModel,
    photos: dict[str, bytes],
    decoders: DecoderPool,
    sent: Callable[[dict[str, bytes]], dict[str, Any]],
) -> None:
    alone = http.post(CLASSIFY, data=photos["0.png"]).get_json()
    fake.requests.clear()
    headers = {"X-Request-Id": "my-1"}
    told = lines(http.post(f"{CLASSIFY}?top_k=2", headers=headers, **sent(photos)))
    assert sorted(line["index"] for line in told) == list(range(len(photos)))
    for line in told:
        assert list(line) == ["id", "index", *alone]
        name = list(photos)[line["index"]]
        seen = predictions(decoders.prepare(photos[name], CONTRACT).pixels)
        assert [p["class_index"] for p in line["predictions"]] == [s.class_index for s in seen[:2]]
        assert (line["id"], line["request_id"]) == (name, f"my-1.{line['index']}")
    assert {request.priority for request in fake.requests} == {"bulk"}
    assert {request.trace for request in fake.requests} == {line["request_id"] for line in told}


@each_way
def test_bad_ones_fail_alone(
    http: FlaskClient,
    photos: dict[str, bytes],
    photo: bytes,
    sent: Callable[[dict[str, bytes]], dict[str, Any]],
) -> None:
    bad = {
        "cut.jpg": photo[:2000],
        "notes.txt": b"Hello. " * 100,
        "empty.png": b"",
        "inner.zip": zipped({"a.jpg": photo}),
        "long.bin": bytes(MAX_UPLOAD_BYTES + 1),
    }
    told = lines(http.post(CLASSIFY, **sent(bad | photos)))
    assert len(told) == len(bad | photos)
    problems = {line["id"]: line for line in told if "type" in line}
    assert {name: (line["status"], kind_of(line)) for name, line in problems.items()} == {
        "cut.jpg": (422, "damaged"),
        "notes.txt": (415, "not-an-image"),
        "empty.png": (400, "empty"),
        "inner.zip": (415, "not-an-image"),
        "long.bin": (413, "too-large"),
    }
    assert "archive" in problems["inner.zip"]["detail"]


def test_one_file_is_answered_as_ever_unless_lines_are_asked_for(
    http: FlaskClient, photo: bytes
) -> None:
    for sent in (form({"a.jpg": photo}), {"data": photo}):
        assert http.post(CLASSIFY, **sent).mimetype == "application/json"
        both = {"Accept": "application/x-ndjson;q=0.5, */*"}
        assert http.post(CLASSIFY, headers=both, **sent).mimetype == "application/json"
        [line] = lines(http.post(CLASSIFY, headers=LINES, **sent))
        assert (line["id"], line["index"]) == ("a.jpg" if "content_type" in sent else "0", 0)
    [line] = lines(http.post(CLASSIFY, data=zipped({"a.jpg": photo})))
    assert line["id"] == "a.jpg"


def test_what_is_wrong_with_all_of_it_is_said_before_any_answer(
    http: FlaskClient, fake: FakeModel, photo: bytes
) -> None:
    many = {str(number): b"x" for number in range(MAX_FILES + 1)}
    for sent, status, kind in (
        (form(many), 413, "too-many-pictures"),
        ({"data": zipped(many)}, 413, "too-many-pictures"),
        ({"data": gzipped(many)}, 413, "too-many-pictures"),
        ({"data": zipped({"a": photo})[:-9]}, 422, "archive-refused"),
        ({"data": gzipped({"a": bytes(40_000_000)})}, 413, "too-large"),
        ({"data": zipped({})}, 400, "bad-request"),
        ({"query_string": "priority=x", **form({"a": photo, "b": photo})}, 400, "bad-request"),
    ):
        response = http.post(CLASSIFY, **sent)
        problem = response.get_json()
        assert (response.status_code, kind_of(problem)) == (status, kind)
    assert fake.requests == []


def test_nothing_touches_the_disk(
    http: FlaskClient, big_photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    for sent in WAYS:
        told = lines(http.post(CLASSIFY, headers=LINES, **sent({"a": big_photo, "b": big_photo})))
        assert ["predictions" in line for line in told] == [True, True]


def test_each_has_its_own_time(
    http: FlaskClient, fake: FakeModel, photos: dict[str, bytes]
) -> None:
    fake.delay_s = 0.4
    told = lines(http.post(f"{CLASSIFY}?deadline_ms=1100", **form(photos)))
    # Three rounds, one after the other, take longer than any of them may.
    assert all("predictions" in line for line in told)
    fake.delay_s = 1.0
    told = lines(http.post(f"{CLASSIFY}?deadline_ms=500&priority=interactive", **form(photos)))
    assert "deadline-exceeded" in {kind_of(line) for line in told}
    assert not any("predictions" in line for line in told)
    assert fake.requests[-1].priority == "interactive"


def test_an_item_says_when_to_come_back(
    http: FlaskClient, fake: FakeModel, photos: dict[str, bytes]
) -> None:
    fake.replicas = ()
    [line] = lines(http.post(f"{CLASSIFY}?deadline_ms=200", data=photos["0.png"], headers=LINES))
    assert (line["status"], line["retry_after_s"]) == (503, 2)


def test_so_many_such_requests_and_no_more(app: Flask, photo: bytes) -> None:
    http = app.test_client()
    sent = form({"a": photo, "b": photo})
    open_ones = [http.post(CLASSIFY, **sent) for _ in range(REQUESTS)]
    assert http.post(CLASSIFY, **sent).status_code == 503
    assert http.post(CLASSIFY, data=photo).status_code == 200
    for response in open_ones:
        assert len(lines(response)) == 2
        response.close()
    assert len(lines(http.post(CLASSIFY, **sent))) == 2


@pytest.fixture
def post(photos: dict[str, bytes]) -> bytes:
    body: bytes = form(photos)["data"]
    return (
        b"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


def test_lines_come_one_by_one_and_not_to_who_has_left(
    fake: FakeModel, until: Until, photos: dict[str, bytes], post: bytes
) -> None:
    with serving(fake.endpoint, until) as server:
        fake.delay_s = 0.4
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sender:
            sender.sendall(post)
            received = b""
            while b'"index":' not in received:
                received += sender.recv(65536)
            assert len(fake.requests) < len(photos)
            fake.delay_s = 9.0
            until(lambda: len(fake.requests) >= 2 * AT_ONCE)
            # Nothing is written any more, which would show that nobody reads.
        fake.delay_s = 0.0
        until(lambda: len(fake.cancelled) > 0)
        sent = len(fake.requests)
        assert sent < len(photos)
        # A place is given back when nothing of its request is under way any longer.
        for _ in range(REQUESTS):
            assert server.request("POST", CLASSIFY, photos["0.png"], **LINES)[0] == 200
        assert len(fake.requests) == sent + REQUESTS


@pytest.mark.drill
def test_a_stop_tells_who_was_not_begun(
    fake: FakeModel, until: Until, photos: dict[str, bytes], post: bytes
) -> None:
    fake.delay_s = 1.5
    with serving(fake.endpoint, until) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sender:
            sender.sendall(post)
            until(lambda: len(fake.requests) == AT_ONCE)
            server.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: sender.recv(65536), b""))
        assert server.process.wait(15) == 0
    told = [json.loads(line) for line in answer.splitlines() if line.startswith(b"{")]
    assert len(told) == len(photos)
    begun = [line for line in told if "predictions" in line]
    assert len(begun) >= AT_ONCE
    rest = [line for line in told if "type" in line]
    assert {kind_of(line) for line in rest} == {"unavailable"}
    assert len(rest) > 0


@pytest.mark.drill
def test_a_request_may_be_longer_when_it_has_many(
    fake: FakeModel, until: Until, photo: bytes
) -> None:
    sent = form({"long": bytes(21 * 1024 * 1024), "a.jpg": photo})
    headers = {"Content-Type": sent["content_type"]}
    with serving(fake.endpoint, until) as server:
        status, answer = server.request("POST", CLASSIFY, sent["data"], **headers)
        assert status == 200
        told = [json.loads(line) for line in answer.splitlines()]
        assert {line["id"]: line.get("status", 200) for line in told} == {"long": 413, "a.jpg": 200}
        assert server.request("POST", CLASSIFY, bytes(64 * 1024 * 1024 + 1))[0] == 413
        assert server.request("POST", "/uploader", sent["data"], **headers)[0] == 413
