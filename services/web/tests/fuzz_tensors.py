"""Fuzz target: any body is a request for an inference or refused as its sender's fault, and every
request gets an answer that is what it announces.

An input is the length of the JSON in two bytes, 0 for all of it, then the body.
"""

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from webapp.errors import BadRequest, UploadTooLarge
from webapp.tensors import FILES, MAX_PICTURES, OUTPUTS, PIXELS, answer, read
from webapp.testing import predictions
from wire import Result, Timing

FILE = b"\xff\xd8\xff\xe0 not really a JPEG"
WANTED = (
    (),
    [{"name": "labels", "parameters": {"binary_data": True}}],
    [{"name": "probabilities", "parameters": {"classification": 3}}, {"name": "class_indices"}],
)


def seeds() -> Iterator[bytes]:
    for wanted in WANTED:
        for parameters in ({}, {"top_k": 2, "binary_data_output": True}):
            more = {"id": "a", "outputs": wanted, "parameters": parameters}
            yield _seed(FILES, "BYTES", [2], {**more, "id": ""}, ["/9j/4A==", "AA=="])
            yield _seed(FILES, "BYTES", [1, 1], more, [["/9j/4A=="]])
            yield _seed(FILES, "BYTES", [1], more, b"\x15\0\0\0" + FILE)
            yield _seed(PIXELS, "UINT8", [2, 1, 2, 3], more, bytes(12))
            yield _seed(PIXELS, "UINT8", [1, 1, 2, 3], more, [0, 9, 255, 1, 2, 3])
            yield _seed(PIXELS, "UINT8", [1, 1, 2, 3], more, [[[[0, 9, 255], [1, 2, 3]]]])


def _seed(
    name: str, datatype: str, shape: list[int], more: dict[str, Any], data: bytes | list[Any]
) -> bytes:
    given: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if isinstance(data, list):
        return b"\0\0" + msgspec.json.encode({"inputs": [{**given, "data": data}], **more})
    given["parameters"] = {"binary_data_size": len(data)}
    return _joined({"inputs": [given], **more}, data)


def _joined(request: object, tensor: bytes) -> bytes:
    head = msgspec.json.encode(request)
    return len(head).to_bytes(2, "little") + head + tensor


def check(data: bytes) -> None:
    body = data[2:]
    try:
        asked = read(body, int.from_bytes(data[:2], "little") or None)
    except (BadRequest, UploadTooLarge):
        return
    assert 1 <= len(asked.pictures) <= MAX_PICTURES
    assert sum(map(len, asked.pictures)) <= len(body)
    if asked.size is not None:
        assert {len(picture) for picture in asked.pictures} == {asked.size[0] * asked.size[1] * 3}
    assert 1 <= asked.top_k <= 100
    results = [_result(bytes(picture), asked.top_k) for picture in asked.pictures]
    answered, json_bytes = answer(asked, results)
    told = msgspec.json.decode(answered[:json_bytes])
    assert told.get("id", "") == asked.id
    binary = 0
    for wanted, output in zip(asked.outputs, told["outputs"], strict=True):
        assert output["name"] == wanted.name
        assert output["shape"] == [len(results), wanted.classes]
        assert output["datatype"] == ("BYTES" if wanted.classified else OUTPUTS[wanted.name])
        if wanted.binary:
            binary += output["parameters"]["binary_data_size"]
        else:
            assert len(output["data"]) == len(results) * wanted.classes
    assert (json_bytes is None) == (not binary)
    assert len(answered) == (len(answered) if json_bytes is None else json_bytes + binary)


def _result(picture: bytes, top_k: int) -> Result:
    return Result(
        id="1",
        model="fake",
        version="1",
        predictions=predictions(picture)[:top_k],
        replica="fake-1",
        attempt=1,
        batch_size=1,
        timing=Timing(),
    )


def refine(data: bytes, seed: int) -> bytes:
    """Every other time makes the announced lengths right."""
    if random.Random(seed).random() < 0.5:
        return data
    json_bytes = int.from_bytes(data[:2], "little")
    tensor = data[2 + json_bytes :]
    with suppress(msgspec.MsgspecError, RecursionError, TypeError, ValueError, LookupError):
        request = msgspec.json.decode(data[2 : 2 + json_bytes])
        request["inputs"][0]["parameters"]["binary_data_size"] = len(tensor)
        return _joined(request, tensor)
    return data
