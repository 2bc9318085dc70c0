"""Triton's own HTTP client against the whole service, used as its manual has it."""

import gzip
import json
import re
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from imaging import prepare
from modelserver.bundle import find_bundle, load_bundle
from tests.conftest import ROOT, Processes, Service, classify

MODEL = "efficientnet-lite0"
CONTRACT = load_bundle(find_bundle(MODEL)).contract


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    processes = Processes(tmp_path_factory.mktemp("logs"))
    service = Service(processes)
    try:
        service.start()
        yield service.port
    finally:
        processes.close()


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{port}", concurrency=8) as client:
        yield client


@pytest.fixture(scope="module")
def seen(port: int, picture: bytes) -> list[dict[str, Any]]:
    """What the service's own API sees in the picture, ten classes."""
    return list(classify(port, picture, "?top_k=10").json["predictions"])


def files(*pictures: bytes, binary: bool = True) -> Any:
    tensor = np.array(pictures, dtype=np.object_).reshape(-1, 1)
    return triton.InferInput("image", tensor.shape, "BYTES").set_data_from_numpy(tensor, binary)


def pixels(*pictures: bytes, binary: bool = True) -> Any:
    shape = (-1, CONTRACT.height, CONTRACT.width, 3)
    prepared = b"".join(bytes(prepare(picture, CONTRACT).pixels) for picture in pictures)
    tensor = np.frombuffer(prepared, np.uint8).reshape(shape)
    return triton.InferInput("pixels", tensor.shape, "UINT8").set_data_from_numpy(tensor, binary)


def labels(predictions: list[dict[str, Any]], count: int = 5) -> list[bytes]:
    return [one["label"].encode() for one in predictions[:count]]


def test_it_finds_the_server_and_its_model(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, CONTRACT.version)
    assert not client.is_model_ready(MODEL, "999")
    assert not client.is_model_ready("nix")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(MODEL)
    assert {given["name"] for given in metadata["inputs"]} == {"image", "pixels"}
    assert metadata == client.get_model_metadata(MODEL, CONTRACT.version)
    assert client.get_model_config(MODEL)["max_batch_size"] == 128
    [indexed] = client.get_model_repository_index()
    assert (indexed["name"], indexed["state"]) == (MODEL, "READY")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", ["files", "pixels"])
def test_it_gets_the_classes(
    client: Any, picture: bytes, seen: list[dict[str, Any]], kind: str, binary: bool
) -> None:
    if kind == "pixels":
        given = pixels(picture, binary=binary)
    elif binary:
        given = files(picture)
    else:
        given = files(b64encode(picture), binary=False)
    names = ("probabilities", "class_indices", "labels")
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    answer = client.infer(MODEL, [given], outputs=wanted, request_id="my-1")
    assert answer.get_response()["id"] == "my-1"
    assert answer.get_response()["model_version"] == CONTRACT.version
    probabilities, indices, found = (answer.as_numpy(name) for name in names)
    assert probabilities.shape == indices.shape == found.shape == (1, 5)
    assert (probabilities.dtype, indices.dtype) == (np.float32, np.int64)
    assert probabilities[0] == pytest.approx([s["probability"] for s in seen[:5]], abs=1e-5)
    assert list(indices[0]) == [s["class_index"] for s in seen[:5]]
    told = [one if isinstance(one, bytes) else one.encode() for one in found[0]]
    assert told == labels(seen)


def test_without_a_word_on_outputs_it_gets_all_of_them(
    client: Any, picture: bytes, seen: list[dict[str, Any]]
) -> None:
    answer = client.infer(MODEL, [files(picture)], parameters={"top_k": 10})
    assert list(answer.as_numpy("labels")[0]) == labels(seen, 10)
    assert answer.as_numpy("probabilities").shape == (1, 10)


def test_it_gets_a_classification(client: Any, picture: bytes, seen: list[dict[str, Any]]) -> None:
    best = triton.InferRequestedOutput("probabilities", class_count=3)
    answer = client.infer(MODEL, [files(picture, picture)], outputs=[best])
    found = answer.as_numpy("probabilities")
    assert found.shape == (2, 3)
    for row in found:
        for text, one in zip(row, seen[:3], strict=True):
            value, index, label = text.decode().split(":", 2)
            assert float(value) == pytest.approx(one["probability"], abs=1e-5)
            assert (int(index), label) == (one["class_index"], one["label"])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_it_may_compress(
    client: Any, picture: bytes, seen: list[dict[str, Any]], coding: str
) -> None:
    answer = client.infer(
        MODEL,
        [pixels(picture)],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert list(answer.as_numpy("labels")[0]) == labels(seen)


def test_many_requests_at_once_get_their_own_answers(
    client: Any, picture: bytes, seen: list[dict[str, Any]]
) -> None:
    asked = [
        client.async_infer(MODEL, [files(*[picture] * count)], request_id=str(count))
        for count in (1, 2, 3, 4)
    ]
    for count, request in enumerate(asked, start=1):
        answer = request.get_result()
        assert answer.get_response()["id"] == str(count)
        assert answer.as_numpy("labels").tolist() == [labels(seen)] * count


@pytest.mark.parametrize(
    ("model", "given", "status", "words"),
    [
        ("nix", files(b"GIF89a"), "404", "efficientnet-lite0"),
        (MODEL, files(b"Hello, I am no picture."), "415", "JPEG"),
        (MODEL, files(b""), "400", "empty"),
        (MODEL, files(b"GIF89a"), "422", "damaged"),
        (MODEL, files(*[b"GIF89a"] * 2), "422", "(from 0) of 2: This GIF"),
        (MODEL, files(*[b"GIF89a"] * 129), "413", "128"),
        (
            MODEL,
            triton.InferInput("image", [1], "BYTES").set_shared_memory("region", 10),
            "400",
            "shared memory",
        ),
        (
            MODEL,
            triton.InferInput("pixels", [1, 2, 2, 3], "UINT8").set_data_from_numpy(
                np.zeros((1, 2, 2, 3), np.uint8)
            ),
            "400",
            f"takes {CONTRACT.width} x {CONTRACT.height}",
        ),
    ],
)
def test_it_is_told_what_is_wrong(
    client: Any, model: str, given: Any, status: str, words: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, [given])
    assert refused.value.status() == status
    assert words in refused.value.message()


def test_what_there_is_not_it_is_told_too(client: Any) -> None:
    for ask in (
        client.get_inference_statistics,
        client.get_log_settings,
        client.get_cuda_shared_memory_status,
        lambda: client.load_model(MODEL),
    ):
        with pytest.raises(InferenceServerException) as refused:
            ask()
        assert refused.value.status() == "404"


def test_the_readmes_example_works(port: int, picture: bytes, tmp_path: Path) -> None:
    readme = (ROOT / "services/web/README.md").read_text()
    [example] = re.findall(r"```python\n(.*?tritonclient.*?)```", readme, re.DOTALL)
    assert "127.0.0.1:8000" in example
    (tmp_path / "photo.jpg").write_bytes(picture)
    done = subprocess.run(
        [sys.executable, "-c", example.replace(":8000", f":{port}")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.fullmatch(r"\[\[b'0\.\d{6}:\d+:[^']+'(\s+b'[^']+'){2}\]\]\s+", done.stdout), done


def test_any_http_client_will_do(port: int, picture: bytes) -> None:
    """As KServe's does: the header in small letters, gzip, and an answer in JSON."""
    tensor = len(picture).to_bytes(4, "little") + picture
    image = {"name": "image", "shape": [1], "datatype": "BYTES"}
    head = json.dumps({"inputs": [{**image, "parameters": {"binary_data_size": len(tensor)}}]})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer",
        gzip.compress(head.encode() + tensor),
        {
            "content-type": "application/octet-stream",
            "content-encoding": "gzip",
            "inference-header-content-length": str(len(head)),
        },
    )
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    assert [output["name"] for output in answer["outputs"]] == [
        "probabilities",
        "class_indices",
        "labels",
    ]
