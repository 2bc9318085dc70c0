"""The Open Inference Protocol: what its specification and Triton's extensions of it promise."""

import base64
import gzip
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from msgspec.structs import replace
from werkzeug.test import TestResponse

from imaging import DecoderPool
from webapp import inference
from webapp.app import create_app
from webapp.client import ModelClient
from webapp.config import Config
from webapp.testing import CONTRACT, FakeModel, predictions
from wire import Failure, FailureCode, Request, Result

INFER = "/v2/models/fake/infer"
SIDE = CONTRACT.width
PIXELS = bytes(range(256)) * (CONTRACT.nbytes // 256)


def binary_files(*files: bytes, **more: Any) -> dict[str, Any]:
    tensor = b"".join(struct.pack("<I", len(file)) + file for file in files)
    given = {"name": "image", "datatype": "BYTES", "shape": [len(files), 1]}
    return with_binary({**given, "parameters": {"binary_data_size": len(tensor)}}, tensor, **more)


def binary_pixels(*pictures: bytes, **more: Any) -> dict[str, Any]:
    tensor = b"".join(pictures)
    given = {"name": "pixels", "datatype": "UINT8", "shape": [len(pictures), SIDE, SIDE, 3]}
    return with_binary({**given, "parameters": {"binary_data_size": len(tensor)}}, tensor, **more)


def with_binary(given: dict[str, Any], tensor: bytes, **more: Any) -> dict[str, Any]:
    head = json.dumps({"inputs": [given], **more}).encode()
    return {"data": head + tensor, "headers": {inference.HEADER: str(len(head))}}


def plain(name: str, datatype: str, shape: list[int], data: Any, **more: Any) -> dict[str, Any]:
    given = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return {"data": json.dumps({"inputs": [given], **more}).encode()}


def outputs(response: TestResponse) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.get_data(as_text=True)
    return {output["name"]: output for output in response.get_json()["outputs"]}


def error(response: TestResponse) -> str:
    assert response.mimetype == "application/json"
    told = response.get_json()
    assert list(told) == ["error"]
    return str(told["error"])


def test_health_is_told(http: FlaskClient, fake: FakeModel) -> None:
    assert http.get("/v2/health/live").get_json() == {"live": True}
    assert http.get("/v2/health/ready").get_json() == {"ready": True}
    assert http.get("/v2/models/fake/ready").get_json() == {"name": "fake", "ready": True}
    fake.replicas = ()
    for path in ("/v2/health/ready", "/v2/models/fake/ready", "/v2/models/fake/versions/1/ready"):
        response = http.get(path)
        assert response.status_code == 503
        assert "alive" in error(response)
        assert int(response.headers["Retry-After"]) >= 1


def test_the_server_tells_what_it_is(http: FlaskClient) -> None:
    server = http.get("/v2").get_json()
    assert server["name"] == "sightline"
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert f'version = "{server["version"]}"' in project.read_text()
    assert "binary_tensor_data" in server["extensions"]
    assert not {"statistics", "model_repository", "sequence"} & set(server["extensions"])


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_a_model_tells_what_it_takes_and_gives(http: FlaskClient, version: str) -> None:
    assert http.get(f"/v2/models/fake{version}").get_json() == {
        "name": "fake",
        "versions": ["1"],
        "platform": "sightline",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "class_indices", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
        ],
    }
    configuration = http.get(f"/v2/models/fake{version}/config").get_json()
    assert configuration["max_batch_size"] == 128
    assert [given["dims"] for given in configuration["input"]] == [[1], [SIDE, SIDE, 3]]
    assert all(given["optional"] for given in configuration["input"])


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/versions/2", "/versions/2/ready"])
def test_what_is_not_served_is_not_found(http: FlaskClient, path: str) -> None:
    name = "fake" if "versions" in path else "nix"
    response = http.get(f"/v2/models/{name}{path}")
    assert response.status_code == 404
    assert "Use " in error(response)


def test_the_index_tells_the_state_of_each_version(http: FlaskClient, fake: FakeModel) -> None:
    listed = {"name": "fake", "version": "1", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b'{"ready": true}'):
        assert http.post("/v2/repository/index", data=body).get_json() == [listed]
    fake.replicas = ()
    assert http.post("/v2/repository/index", data=b'{"ready": true}').get_json() == []
    [shown] = http.post("/v2/repository/index").get_json()
    assert shown["state"] == "UNAVAILABLE"
    assert http.post("/v2/repository/index", data=b"[").status_code == 400


def test_files_and_pixels_get_the_same_answer(
    http: FlaskClient, photo: bytes, decoders: DecoderPool
) -> None:
    pixels = decoders.prepare(photo, CONTRACT).pixels
    seen = predictions(pixels)[:5]
    shape = [1, SIDE, SIDE, 3]
    nested = [list(pixels[at : at + 3]) for at in range(0, len(pixels), 3)]
    nested = [nested[at : at + SIDE] for at in range(0, len(nested), SIDE)]
    text = base64.b64encode(photo).decode()
    for sent in (
        binary_files(photo),
        binary_pixels(pixels),
        plain("image", "BYTES", [1], [text]),
        plain("image", "BYTES", [1, 1], [[text]]),
        plain("pixels", "UINT8", shape, list(pixels)),
        plain("pixels", "UINT8", shape, [nested]),
    ):
        response = http.post(INFER, **sent)
        told = outputs(response)
        assert list(told) == ["probabilities", "class_indices", "labels"]
        assert all(output["shape"] == [1, 5] for output in told.values())
        assert told["probabilities"]["data"] == [one.probability for one in seen]
        assert told["class_indices"]["data"] == [one.class_index for one in seen]
        assert told["labels"]["data"] == [one.label for one in seen]
        assert response.get_json()["model_version"] == "1"
        assert "id" not in response.get_json()


def test_a_batch_is_answered_in_its_order(http: FlaskClient, fake: FakeModel) -> None:
    pictures = [bytes([shade]) * CONTRACT.nbytes for shade in range(128)]
    response = http.post(INFER, **binary_pixels(*pictures, parameters={"top_k": 1}))
    told = outputs(response)
    assert told["labels"]["shape"] == [128, 1]
    assert told["labels"]["data"] == [predictions(picture)[0].label for picture in pictures]
    assert len(fake.requests) == 128
    assert {request.trace for request in fake.requests} == {response.headers["X-Request-Id"]}


def test_a_batch_is_worked_on_at_once_and_no_thread_stays(
    http: FlaskClient, fake: FakeModel
) -> None:
    fake.delay_s = 0.1
    before = threading.active_count()
    # One after the other they would need more time than there is.
    assert http.post(INFER, **binary_pixels(*[PIXELS] * 64)).status_code == 200
    assert threading.active_count() == before


def test_only_what_is_asked_for_is_given_as_it_is_asked_for(http: FlaskClient) -> None:
    seen = predictions(PIXELS)
    wanted = [
        {"name": "labels", "parameters": {"binary_data": True}},
        {"name": "probabilities", "parameters": {"classification": 2, "binary_data": False}},
        {"name": "class_indices"},
    ]
    parameters = {"top_k": 3, "binary_data_output": True, "not known": [1]}
    response = http.post(
        INFER, **binary_pixels(PIXELS, id="my-1", outputs=wanted, parameters=parameters)
    )
    assert response.mimetype == "application/octet-stream"
    length = int(response.headers[inference.HEADER])
    told = json.loads(response.data[:length])
    assert told["id"] == "my-1"
    labels, classified, indices = told["outputs"]
    assert classified["data"] == [
        f"0.500000:{seen[0].class_index}:{seen[0].label}",
        f"0.250000:{seen[1].class_index}:{seen[1].label}",
    ]
    assert (classified["datatype"], classified["shape"]) == ("BYTES", [1, 2])
    size = labels["parameters"]["binary_data_size"]
    encoded = [one.label.encode() for one in seen[:3]]
    assert response.data[length : length + size] == b"".join(
        struct.pack("<I", len(label)) + label for label in encoded
    )
    assert response.data[length + size :] == struct.pack("<3q", *(s.class_index for s in seen[:3]))
    assert indices["parameters"] == {"binary_data_size": 24}
    assert "data" not in indices


def test_at_most_as_many_classes_as_there_are(http: FlaskClient, fake: FakeModel) -> None:
    fake.contract = replace(CONTRACT, classes=3, digest="fake-contract-3")
    told = outputs(http.post(INFER, **binary_pixels(PIXELS)))
    assert told["labels"]["shape"] == [1, 3]


@pytest.mark.parametrize(
    ("coding", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_body_is_taken(
    http: FlaskClient, coding: str, squeeze: Callable[[bytes], bytes]
) -> None:
    sent = binary_pixels(PIXELS)
    sent["headers"]["Content-Encoding"] = coding
    good = squeeze(sent["data"])
    assert http.post(INFER, data=good, headers=sent["headers"]).status_code == 200
    for body, status in (
        (good[:-1], 400),
        (good + b"more", 400),
        (sent["data"], 400),
        (b"", 400),
        (squeeze(bytes(3 * 1024 * 1024)), 413),  # A thousandth of it arrives.
    ):
        response = http.post(INFER, data=body, headers=sent["headers"])
        assert (response.status_code, bool(error(response))) == (status, True)


def test_an_unknown_compression_is_refused(http: FlaskClient) -> None:
    response = http.post(INFER, data=b"?", headers={"Content-Encoding": "br"})
    assert response.status_code == 415
    assert "gzip or deflate" in error(response)


REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no body": ({"data": b""}, 400, "cannot be read"),
    "no JSON": ({"data": b"\xff"}, 400, "cannot be read"),
    "deep JSON": ({"data": b'{"a":' + b"[" * 1_000_000}, 400, "deeply"),
    "long body": ({"data": bytes(3 * 1024 * 1024)}, 413, "2 MiB"),
    "length that is no number": ({"headers": {inference.HEADER: "-1"}}, 400, "'-1'"),
    "length that is too long": ({"headers": {inference.HEADER: "2"}}, 400, "2 bytes"),
    "another size": (plain("pixels", "UINT8", [1, 1, 1, 3], [1, 2, 3]), 400, "32 x 32"),
    "an empty file": (binary_files(b""), 400, "empty"),
    "no picture in a file": (binary_files(b"Hello, I am no picture."), 415, "picture"),
    "many pictures": (plain("image", "BYTES", [129], []), 413, "128"),
}


@pytest.mark.parametrize(("sent", "status", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_bad_input_is_refused_in_the_protocols_shape(
    http: FlaskClient, sent: dict[str, Any], status: int, words: str
) -> None:
    response = http.post(INFER, **({"data": b"{"} | sent))
    assert (response.status_code, words in error(response)) == (status, True), response.data
    assert http.post(INFER, **binary_pixels(PIXELS)).status_code == 200


def test_a_damaged_file_fails_the_batch_and_is_named(http: FlaskClient, photo: bytes) -> None:
    response = http.post(INFER, **binary_files(photo, photo, photo[:2000], photo))
    assert response.status_code == 422
    assert error(response).startswith("Picture 2 (from 0) of 4: ")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (FailureCode.OVERLOADED, 503),
        (FailureCode.UNAVAILABLE, 503),
        (FailureCode.DEADLINE, 504),
        (FailureCode.STALE_CONTRACT, 503),
        (FailureCode.UNKNOWN_MODEL, 404),
        (FailureCode.BAD_PAYLOAD, 502),
        (FailureCode.POISONED, 422),
        (FailureCode.ENGINE, 502),
    ],
)
def test_a_failure_has_the_status_it_has_elsewhere(
    http: FlaskClient, fake: FakeModel, code: FailureCode, status: int
) -> None:
    fake.failure = code
    fake.retry_after_ms = 3_500
    response = http.post(INFER, **binary_pixels(PIXELS, PIXELS))
    assert (response.status_code, response.headers["Retry-After"]) == (status, "4")
    assert str(code) in error(response)


def test_one_failure_stops_the_others(http: FlaskClient, photo: bytes, fake: FakeModel) -> None:
    fake.delay_s = 1.0
    response = http.post(INFER, **binary_files(photo, b"no picture", *[photo] * 30))
    assert response.status_code == 415
    assert len(fake.requests) < 30


@pytest.mark.parametrize("sent", [binary_pixels(PIXELS), binary_pixels(PIXELS, PIXELS)])
def test_a_model_of_another_size_is_noticed(
    http: FlaskClient, fake: FakeModel, sent: dict[str, Any]
) -> None:
    fake.contract = replace(CONTRACT, width=48, digest="fake-contract-2", version="2")
    http.post(INFER, **sent)
    fake.contract = CONTRACT
    # What is remembered is the size of a moment ago.
    assert http.post(INFER, **sent).status_code == 200


def test_a_version_is_the_one_in_use_or_refused(http: FlaskClient) -> None:
    assert http.post("/v2/models/fake/versions/1/infer", **binary_pixels(PIXELS)).status_code == 200
    response = http.post("/v2/models/fake/versions/2/infer", **binary_pixels(PIXELS))
    assert response.status_code == 404
    assert "Use 1, or none" in error(response)


class ReplacedMidway(FakeModel):
    """Replaces its model by the next version when it has had three requests."""

    def _answer(self, request: Request, payload: bytes) -> tuple[float, Result | Failure]:
        if len(self.requests) == 4:
            self.contract = replace(CONTRACT, version="2", digest="fake-contract-2")
        return super()._answer(request, payload)


def test_a_batch_is_answered_by_one_version(decoders: DecoderPool) -> None:
    with ReplacedMidway() as fake:
        client = ModelClient(fake.endpoint)
        http = create_app(Config(cache_bytes=0), client, decoders).test_client()
        response = http.post(INFER, **binary_pixels(*[PIXELS] * 8))
        assert response.get_json()["model_version"] == "2"
        assert outputs(response)["labels"]["shape"] == [8, 5]
        assert len(fake.requests) > 8
        client.close()


def test_a_batch_has_one_deadline(
    client: ModelClient, decoders: DecoderPool, fake: FakeModel
) -> None:
    http = create_app(Config(deadline_ms=300), client, decoders).test_client()
    fake.delay_s = 60
    response = http.post(INFER, **binary_pixels(*[PIXELS] * 4))
    assert response.status_code == 504
    assert "Picture" in error(response)


@pytest.mark.parametrize(
    ("pictures", "given", "priority"),
    [(1, 0, "interactive"), (2, 0, "bulk"), (2, 1, "interactive"), (1, 2, "bulk")],
)
def test_a_batch_waits_for_single_pictures_unless_it_says_otherwise(
    http: FlaskClient, fake: FakeModel, photo: bytes, pictures: int, given: int, priority: str
) -> None:
    more: Any = {"parameters": {"priority": given}}
    traced = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    for sent in (
        binary_pixels(*[PIXELS] * pictures, **more),
        binary_files(*[photo] * pictures, **more),
    ):
        http.post(INFER, data=sent["data"], headers=sent["headers"] | traced)
    assert len(fake.requests) == 2 * pictures
    assert {request.priority for request in fake.requests} == {priority}
    assert {request.traceparent for request in fake.requests} == {traced["traceparent"]}


@pytest.mark.parametrize("pictures", [1, 2])
def test_a_timeout_is_kept(http: FlaskClient, fake: FakeModel, photo: bytes, pictures: int) -> None:
    fake.delay_s = 60
    parameters = {"timeout": 200_000}  # Microseconds.
    for sent in (
        binary_pixels(*[PIXELS] * pictures, parameters=parameters),
        binary_files(*[photo] * pictures, parameters=parameters),
    ):
        began = time.monotonic()
        assert http.post(INFER, **sent).status_code == 504
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("path", ["/v2/nix", "/v2/models", "/v2/models/fake/stats"])
def test_what_there_is_not_is_told_in_the_protocols_shape(http: FlaskClient, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 404
    assert error(response)
