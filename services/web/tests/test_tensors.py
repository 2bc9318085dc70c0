"""Requests for inferences as bytes: taken for what they are, or refused with the reason."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.web.tests.fuzz_tensors import check, refine, seeds

from webapp.errors import BadRequest, UploadTooLarge, WebError
from webapp.tensors import MAX_NUMBERS_BYTES, Inference, read


def request(**changed: Any) -> bytes:
    """One picture of one pixel, as JSON; ``changed`` are fields of the input."""
    pixel = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    return json.dumps({"inputs": [{**pixel, **changed}]}).encode()


def asking(**more: Any) -> bytes:
    """The same, with ``more`` fields of the request."""
    return json.dumps({**json.loads(request()), **more}).encode()


def files(*elements: bytes, shape: list[int] | None = None, cut: int = 0) -> tuple[bytes, int]:
    """A request with ``elements`` as binary data, and the length of its JSON."""
    tensor = b"".join(struct.pack("<I", len(file)) + file for file in elements)
    tensor = tensor[: len(tensor) - cut]
    image = {
        "name": "image",
        "datatype": "BYTES",
        "shape": shape or [len(elements)],
        "parameters": {"binary_data_size": len(tensor)},
    }
    head = json.dumps({"inputs": [image]}).encode()
    return head + tensor, len(head)


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=16), st.booleans())
def test_files_come_out_as_they_went_in(given: list[bytes], column: bool) -> None:
    shape = [len(given), 1] if column else [len(given)]
    asked = read(*files(*given, shape=shape))
    assert [bytes(picture) for picture in asked.pictures] == given
    assert asked.size is None


@given(st.tuples(*[st.integers(1, 4)] * 3), st.data())
def test_pixels_come_out_as_they_went_in(sides: tuple[int, int, int], data: st.DataObject) -> None:
    count, height, width = sides
    each = height * width * 3
    pixels = data.draw(st.binary(min_size=count * each, max_size=count * each))
    flat: Any = list(pixels)
    nested = flat
    for side in (3, width, height):
        nested = [nested[at : at + side] for at in range(0, len(nested), side)]
    for sent in (flat, nested):
        asked = read(request(shape=[count, height, width, 3], data=sent))
        assert b"".join(asked.pictures) == pixels
        assert len(asked.pictures) == count
        assert asked.size == (height, width)


@given(st.binary())
def test_garbage_is_its_senders_fault(body: bytes) -> None:
    check(body)
    check(b"\0\0" + body)


@given(st.sampled_from(list(seeds())), st.data())
def test_a_broken_request_is_its_senders_fault(seed: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(seed) - 1))
    broken = (
        seed[:at] + data.draw(st.binary(max_size=4)) + seed[at + data.draw(st.integers(0, 4)) :]
    )
    check(broken)
    check(refine(broken, at))


def test_a_request_may_be_as_short_as_this() -> None:
    asked = read(request())
    assert isinstance(asked, Inference)
    assert (asked.id, asked.top_k) == ("", 5)
    assert [wanted.name for wanted in asked.outputs] == ["probabilities", "class_indices", "labels"]
    assert not any(wanted.binary or wanted.classified for wanted in asked.outputs)


REFUSALS: dict[str, tuple[bytes, str]] = {
    "no inputs": (b"{}", "inputs"),
    "two inputs": (b'{"inputs":[{},{}]}', "inputs"),
    "unknown input": (request(name="x"), "'x'"),
    "other datatype": (request(datatype="FP32"), "FP32"),
    "files that are numbers": (request(name="image"), "UINT8"),
    "flat pixels": (request(shape=[3]), "shape"),
    "one channel": (request(shape=[1, 1, 3, 1]), "shape"),
    "no picture": (request(shape=[0, 1, 1, 3], data=[]), "shape"),
    "negative sides": (request(shape=[1, -1, -1, 3]), "shape"),
    "vast sides": (request(shape=[1, 2**62, 2**62, 3]), "by its shape"),
    "a side that is no number": (request(shape=[1, 1, None, 3]), "shape"),
    "data and size": (request(parameters={"binary_data_size": 0}), "either"),
    "a size without data": (
        json.dumps(
            {
                "inputs": [
                    {
                        "name": "image",
                        "datatype": "BYTES",
                        "shape": [1],
                        "parameters": {"binary_data_size": 5},
                    }
                ]
            }
        ).encode(),
        "5 bytes",
    ),
    "text as a number": (request(data=["1", 2, 3]), "data"),
    "a number too large": (request(data=[1, 2, 256]), "255"),
    "a number too small": (request(data=[1, 2, -1]), "0"),
    "half a number": (request(data=[1, 2, 0.5]), "data"),
    "too few numbers": (request(data=[1, 2]), "by its shape 3"),
    "uneven nesting": (request(data=[1, [2, 3]]), "data"),
    "other nesting": (request(data=[[1], [2], [3]]), "data"),
    "nested for another shape": (request(data=[[[[1, 2, 3], [4, 5, 6]]]]), "nested"),
    "nested pixels of four": (request(data=[[[[1, 2, 3, 4]]]]), "data"),
    "nested nothing": (request(data=[[[]]]), "data"),
    "no data at all": (request(data=None), "data"),
    "text that is no base64": (
        request(name="image", datatype="BYTES", shape=[1], data=["?"]),
        "base64",
    ),
    "too few files": (
        request(name="image", datatype="BYTES", shape=[2], data=[""]),
        "by its shape 2",
    ),
    "too many files": (
        request(name="image", datatype="BYTES", shape=[1], data=["", ""]),
        "more elements",
    ),
    "shared memory": (request(parameters={"shared_memory_region": "x"}), "shared"),
    "a sequence": (asking(parameters={"sequence_id": 1}), "sequences"),
    "a long id": (asking(id="x" * 1025), "id"),
    "101 classes": (asking(parameters={"top_k": 101}), "100"),
    "a negative timeout": (asking(parameters={"timeout": -1}), "timeout"),
    "no classes": (asking(parameters={"top_k": 0}), "1"),
    "a long shape": (request(shape=[1] * 5000), "longer"),
    "a long name": (request(name="x" * 65), "name"),
    "many outputs": (asking(outputs=[{"name": "x"}] * 1000), "longer"),
    "unknown output": (asking(outputs=[{"name": "x"}]), "'x'"),
    "an output twice": (asking(outputs=[{"name": "labels"}] * 2), "twice"),
    "classified labels": (
        asking(outputs=[{"name": "labels", "parameters": {"classification": 1}}]),
        "classified",
    ),
    "output in shared memory": (
        asking(outputs=[{"name": "labels", "parameters": {"shared_memory_region": "x"}}]),
        "shared",
    ),
}


@pytest.mark.parametrize(("body", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_is_wrong_is_said(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(body)
    assert words in refused.value.detail
    assert len(refused.value.detail) < 300


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (files(b"a", b"b", shape=[1]), "more than its 1"),
        (files(b"a", shape=[2]), "before its 2"),
        (files(b"abc", cut=1), "before its 1"),
        (files(b"", cut=1), "before its 1"),
        ((files(b"a")[0][:-1], files(b"a")[1]), "5 bytes"),
        ((files(b"a")[0] + b"x", files(b"a")[1]), "5 bytes"),
        ((b"{}", 3), "3 bytes"),
    ],
)
def test_binary_data_has_to_be_what_was_announced(sent: tuple[bytes, int], words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(*sent)
    assert words in refused.value.detail


@pytest.mark.parametrize(
    "body",
    [
        request(shape=[129, 1, 1, 3]),
        request(data=[0] * (MAX_NUMBERS_BYTES // 3 + 1)),
    ],
)
def test_what_takes_too_much_is_refused_before_it_is_read(body: bytes) -> None:
    with pytest.raises(UploadTooLarge):
        read(body)


def test_parameters_that_are_not_known_are_ignored() -> None:
    read(asking(parameters={"headers": {}, "x": 5}))
    read(request(parameters={"content_type": "np"}))


def test_every_refusal_says_what_to_do() -> None:
    for body, _ in REFUSALS.values():
        with pytest.raises(WebError) as refused:
            read(body)
        assert refused.value.remedy != WebError.remedy
