"""The HTTP API: the documented answer for a picture, a fitting refusal for anything else."""

import base64
import io
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from msgspec import UNSET
from msgspec.structs import replace
from PIL import Image
from services.web.tests.conftest import DEADLINE_MS
from werkzeug.test import TestResponse

from imaging import DecoderPool
from webapp.app import create_app
from webapp.client import ModelClient
from webapp.config import Config
from webapp.testing import CONTRACT, FakeModel, predictions
from wire import FailureCode

CLASSIFY = "/api/v1/classify"


def form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    """Encoded by hand: werkzeug's own test client would put a long one on disk."""
    body = b"".join(
        b"--b\r\nContent-Disposition: form-data; " + name.encode() + b"\r\n\r\n" + content + b"\r\n"
        for name, content in parts
    )
    return {"data": body + b"--b--\r\n", "content_type": "multipart/form-data; boundary=b"}


def file(content: bytes, field: str = "image") -> tuple[str, bytes]:
    return f'name="{field}"; filename="x"', content


def test_the_answer_is_as_documented(
    http: FlaskClient, photo: bytes, decoders: DecoderPool
) -> None:
    response = http.post(CLASSIFY, data=photo, headers={"X-Request-Id": "my-1"})
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    answer = response.get_json()
    seen = predictions(decoders.prepare(photo, CONTRACT).pixels)
    assert list(answer) == [
        "model",
        "predictions",
        "replica",
        "attempt",
        "batch_size",
        "request_id",
        "warnings",
        "cache",
        "timing_ms",
    ]
    assert answer["model"] == {"name": "fake", "version": "1"}
    assert len(answer["predictions"]) == 5
    assert answer["predictions"][0] == {
        "label": seen[0].label,
        "wnid": seen[0].wnid,
        "class_index": seen[0].class_index,
        "probability": 0.5,
    }
    assert (answer["replica"], answer["attempt"], answer["batch_size"]) == ("fake-1", 1, 1)
    assert (answer["request_id"], answer["warnings"]) == ("my-1", [])
    assert answer["cache"] == "off"
    assert list(answer["timing_ms"]) == ["decode", "queue", "batch", "inference", "total"]
    assert 0 < answer["timing_ms"]["decode"] < answer["timing_ms"]["total"]


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "text/plain", "application/x-www-form-urlencoded", None]
)
def test_a_bare_body_is_taken_whatever_it_is_called(
    http: FlaskClient, photo: bytes, content_type: str | None
) -> None:
    response = http.post(CLASSIFY, data=photo, content_type=content_type)
    assert response.status_code == 200


@pytest.mark.parametrize("field", ["image", "file", "anything"])
def test_one_file_of_a_form_is_taken(http: FlaskClient, photo: bytes, field: str) -> None:
    assert http.post(CLASSIFY, **form(file(photo, field))).status_code == 200


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("shown", ["{}", "data:image/jpeg;base64,{}", "DATA:;Base64,{}", " {} "])
def test_a_picture_in_json_is_taken(
    http: FlaskClient, photo: bytes, shown: str, content_type: str
) -> None:
    for encode in (base64.b64encode, base64.encodebytes):
        body = json.dumps({"image": shown.format(encode(photo).decode()), "more": None})
        response = http.post(CLASSIFY, data=body, content_type=content_type)
        assert (response.status_code, response.mimetype) == (200, "application/json")
    assert http.post(CLASSIFY, data=photo, content_type="application/json").status_code == 200


def test_an_upload_never_touches_the_disk(
    http: FlaskClient, big_photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    assert http.post(CLASSIFY, **form(file(big_photo))).status_code == 200


def test_top_k_classes_are_given(http: FlaskClient, photo: bytes) -> None:
    for top_k in (1, 100):
        answer = http.post(f"{CLASSIFY}?top_k={top_k}", data=photo).get_json()
        assert len(answer["predictions"]) == top_k


def test_what_is_asked_for_reaches_the_broker(
    http: FlaskClient, fake: FakeModel, photo: bytes
) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"traceparent": traceparent}
    http.post(f"{CLASSIFY}?priority=bulk&deadline_ms=1000", data=photo, headers=headers)
    http.post(f"{CLASSIFY}?priority=interactive&deadline_ms=600000", data=photo)
    bulk, plain = fake.requests
    assert (bulk.priority, bulk.traceparent) == ("bulk", traceparent)
    assert 500 < bulk.deadline_ms < 1000
    assert (plain.priority, plain.traceparent) == ("interactive", UNSET)
    assert 1000 < plain.deadline_ms < DEADLINE_MS


def test_who_has_less_time_hears_sooner(http: FlaskClient, fake: FakeModel, photo: bytes) -> None:
    fake.delay_s = 1.5
    began = time.monotonic()
    response = http.post(f"{CLASSIFY}?deadline_ms=400", data=photo)
    assert time.monotonic() - began < 1.0
    assert (response.status_code, kind_of(response)) == (504, "deadline-exceeded")


@pytest.mark.parametrize(
    ("given", "carried"),
    [
        ("cc-{trace}-{span}-09-what-will-be", "cc-{trace}-{span}-09"),
        ("00-{trace}-{span}-01-more", UNSET),
        ("cc-{trace}-{span}-01.more", UNSET),
        ("ff-{trace}-{span}-01", UNSET),
        ("00-{zeros}-{span}-01", UNSET),
        ("00-{trace}-0000000000000000-01", UNSET),
        ("00-{TRACE}-{span}-01", UNSET),
        ("00-{trace}-{span}", UNSET),
        ("nonsense", UNSET),
    ],
)
def test_a_trace_is_carried_on_if_it_is_one(
    http: FlaskClient, fake: FakeModel, photo: bytes, given: str, carried: Any
) -> None:
    parts = {"trace": "ab" * 16, "TRACE": "AB" * 16, "span": "cd" * 8, "zeros": "0" * 32}
    http.post(CLASSIFY, data=photo, headers={"traceparent": given.format(**parts)})
    [request] = fake.requests
    assert request.traceparent == (carried.format(**parts) if carried else UNSET)


def test_what_was_done_to_a_picture_is_said(http: FlaskClient) -> None:
    frames = [Image.new("L", (64, 64), shade) for shade in (0, 255)]
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    answer = http.post(CLASSIFY, data=gif.getvalue()).get_json()
    assert any("first frame" in warning for warning in answer["warnings"]), answer["warnings"]


REFUSALS: dict[str, tuple[Callable[[pytest.FixtureRequest], dict[str, Any]], int, str]] = {
    "empty body": (lambda _: {"data": b""}, 400, "empty"),
    "text": (lambda _: {"data": b"Hello, I am no picture. " * 10}, 415, "not-an-image"),
    "truncated JPEG": (lambda r: {"data": r.getfixturevalue("photo")[:2000]}, 422, "damaged"),
    "one pixel": (lambda r: {"data": r.getfixturevalue("one_pixel")}, 422, "too-small"),
    "many pixels": (lambda r: {"data": r.getfixturevalue("huge_picture")}, 413, "too-large"),
    "long body": (lambda _: {"data": bytes(3 * 1024 * 1024)}, 413, "too-large"),
    "long body in chunks": (
        lambda _: {
            "input_stream": io.BytesIO(bytes(3 * 1024 * 1024)),
            "headers": {"Transfer-Encoding": "chunked"},
            "environ_overrides": {"wsgi.input_terminated": True},
        },
        413,
        "too-large",
    ),
    "broken JSON": (lambda _: {"data": b'{"image": '}, 400, "bad-request"),
    "other JSON": (lambda _: {"json": {"images": ""}}, 400, "bad-request"),
    "JSON without base64": (lambda _: {"json": {"image": "h\u00e4?"}}, 400, "bad-request"),
    "JSON with an URL": (lambda _: {"json": {"image": "data:image/png,x"}}, 400, "bad-request"),
    "JSON that is no object": (lambda _: {"json": []}, 400, "bad-request"),
    "JSON without a picture": (lambda _: {"json": {"image": ""}}, 400, "empty"),
    "text in JSON": (lambda _: {"json": {"image": "AAAA"}}, 415, "not-an-image"),
    "long JSON": (lambda _: {"json": {"image": "A" * 2_900_000}}, 413, "too-large"),
    "long form": (lambda _: form(file(bytes(3 * 1024 * 1024))), 413, "too-large"),
    "form without a file": (
        lambda _: form(('name="image"', b"text")),
        400,
        "bad-request",
    ),
    "picture as plain text of a form": (
        lambda _: form(('name="image"', bytes(600_000))),
        400,
        "bad-request",
    ),
    "form that is none": (
        lambda _: {"data": b"?", "content_type": "multipart/form-data"},
        400,
        "bad-request",
    ),
    "top_k 0": (lambda _: {"query_string": "top_k=0"}, 400, "bad-request"),
    "top_k 101": (lambda _: {"query_string": "top_k=101"}, 400, "bad-request"),
    "top_k many": (lambda _: {"query_string": "top_k=many"}, 400, "bad-request"),
    "deadline_ms 99": (lambda _: {"query_string": "deadline_ms=99"}, 400, "bad-request"),
    "priority urgent": (lambda _: {"query_string": "priority=urgent"}, 400, "bad-request"),
    "long name of a model": (
        lambda r: {"query_string": "model=" + "x" * 65, "data": r.getfixturevalue("photo")},
        400,
        "bad-request",
    ),
    "unknown model": (
        lambda r: {"query_string": "model=nix", "data": r.getfixturevalue("photo")},
        404,
        "unknown-model",
    ),
}


@pytest.mark.parametrize(("sent", "status", "kind"), REFUSALS.values(), ids=REFUSALS.keys())
def test_bad_input_is_refused_clearly_and_quickly(
    http: FlaskClient,
    photo: bytes,
    request: pytest.FixtureRequest,
    sent: Callable[[pytest.FixtureRequest], dict[str, Any]],
    status: int,
    kind: str,
) -> None:
    arguments = sent(request)
    began = time.monotonic()
    response = http.post(CLASSIFY, **arguments)
    assert time.monotonic() - began < 1
    assert (response.status_code, kind_of(response)) == (status, kind)
    assert http.post(CLASSIFY, data=photo).status_code == 200


@pytest.mark.parametrize("kind", ["empty body", "text", "long body", "long form"])
def test_bad_input_is_refused_without_a_broker(
    http: FlaskClient, fake: FakeModel, request: pytest.FixtureRequest, kind: str
) -> None:
    fake.stop()
    sent, status, _ = REFUSALS[kind]
    assert http.post(CLASSIFY, **sent(request)).status_code == status


@pytest.mark.parametrize(
    ("code", "status", "retry_after"),
    [
        (FailureCode.OVERLOADED, 503, "4"),
        (FailureCode.UNAVAILABLE, 503, "4"),
        (FailureCode.DEADLINE, 504, "4"),
        (FailureCode.STALE_CONTRACT, 503, "4"),
        (FailureCode.UNKNOWN_MODEL, 404, "4"),
        (FailureCode.BAD_PAYLOAD, 502, "4"),
        (FailureCode.POISONED, 422, "4"),
        (FailureCode.ENGINE, 502, "4"),
    ],
)
def test_a_failure_has_its_status(
    http: FlaskClient,
    fake: FakeModel,
    photo: bytes,
    code: FailureCode,
    status: int,
    retry_after: str,
) -> None:
    fake.failure = code
    fake.retry_after_ms = 3_500
    response = http.post(CLASSIFY, data=photo)
    assert response.status_code == status
    assert response.headers["Retry-After"] == retry_after


def test_an_unavailable_service_always_says_when_to_come_back(
    http: FlaskClient, fake: FakeModel, photo: bytes
) -> None:
    for code in (FailureCode.OVERLOADED, FailureCode.UNAVAILABLE, FailureCode.STALE_CONTRACT):
        fake.failure = code
        assert int(http.post(CLASSIFY, data=photo).headers["Retry-After"]) >= 1


def test_without_a_replica_there_is_no_answer_but_in_time(
    http: FlaskClient, fake: FakeModel, photo: bytes
) -> None:
    fake.replicas = ()
    began = time.monotonic()
    response = http.post(CLASSIFY, data=photo)
    assert time.monotonic() - began < 2.1
    assert (response.status_code, kind_of(response)) == (503, "unavailable")
    assert "Retry-After" in response.headers


def test_a_replaced_model_costs_no_request(
    http: FlaskClient, fake: FakeModel, photo: bytes, decoders: DecoderPool
) -> None:
    http.post(CLASSIFY, data=photo)
    newer = replace(CONTRACT, version="2", digest="fake-contract-2", width=48)
    fake.contract = newer
    answer = http.post(CLASSIFY, data=photo).get_json()
    assert answer["model"] == {"name": "fake", "version": "2"}
    seen = predictions(decoders.prepare(photo, newer).pixels, newer)
    assert answer["predictions"][0]["class_index"] == seen[0].class_index


def test_a_model_of_another_name_takes_the_place_of_the_default(
    http: FlaskClient, fake: FakeModel, photo: bytes
) -> None:
    http.post(CLASSIFY, data=photo)
    fake.contract = replace(CONTRACT, model="other")
    answer = http.post(CLASSIFY, data=photo).get_json()
    assert answer["model"]["name"] == "other"


def test_a_contract_that_never_fits_is_given_up(
    http: FlaskClient, fake: FakeModel, photo: bytes
) -> None:
    fake.failure = FailureCode.STALE_CONTRACT
    assert kind_of(http.post(CLASSIFY, data=photo)) == "stale-contract"
    assert len(fake.requests) == 3


def test_the_models_are_listed_with_what_they_want(http: FlaskClient, fake: FakeModel) -> None:
    model = {
        "name": "fake",
        "version": "1",
        "input": {"width": 32, "height": 32, "crop": 0.875, "filter": "bicubic"},
        "classes": 1000,
        "replicas": ["fake-1"],
    }
    assert http.get("/api/v1/models").get_json() == {"models": [model]}
    fake.replicas = ()
    assert http.get("/api/v1/models").get_json() == {"models": [model | {"replicas": []}]}
    fake.contract = None
    assert http.get("/api/v1/models").get_json() == {"models": []}


def test_without_a_broker_no_model_can_be_listed(http: FlaskClient, fake: FakeModel) -> None:
    fake.stop()
    response = http.get("/api/v1/models")
    assert (response.status_code, kind_of(response)) == (503, "unavailable")


def test_alive_without_anybody_else(http: FlaskClient, fake: FakeModel) -> None:
    fake.stop()
    assert http.get("/healthz").get_json()["status"] == "alive"


def test_ready_with_a_replica_only(http: FlaskClient, fake: FakeModel) -> None:
    ready = http.get("/readyz")
    assert (ready.status_code, ready.get_json()["replicas"]) == (200, ["fake-1"])
    fake.replicas = ()
    response = http.get("/readyz")
    assert (response.status_code, kind_of(response)) == (503, "unavailable")
    assert "Retry-After" in response.headers
    fake.replicas = ("fake-2",)
    assert http.get("/readyz").get_json()["replicas"] == ["fake-2"]


def test_not_ready_without_a_broker(http: FlaskClient, fake: FakeModel) -> None:
    fake.stop()
    began = time.monotonic()
    assert http.get("/readyz").status_code == 503
    assert time.monotonic() - began < 1.2


def test_ready_means_the_model_that_is_configured(
    client: ModelClient, decoders: DecoderPool
) -> None:
    app = create_app(Config(model="resnet50"), client, decoders)
    assert app.test_client().get("/readyz").status_code == 503


def test_all_decoders_busy_is_an_overload(fake: FakeModel, photo: bytes) -> None:
    client = ModelClient(fake.endpoint)
    closed = DecoderPool(1)
    closed.close()
    http = create_app(Config(), client, closed).test_client()
    response = http.post(CLASSIFY, data=photo)
    assert (response.status_code, kind_of(response)) == (503, "overloaded")
    client.close()


def kind_of(response: TestResponse) -> str:
    problem = response.get_json()
    assert problem is not None
    return str(problem["type"]).removeprefix("urn:sightline:problem:")
