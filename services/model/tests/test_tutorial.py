"""The tutorial's language, without a socket."""

import base64
import json

import pytest

import wire
from modelserver.tutorial import TutorialDesk


def frames(*parts: bytes) -> list[memoryview]:
    return [memoryview(part) for part in parts]


QUESTION = json.dumps({"payload": base64.b64encode(b"file").decode(), "_rid": 1}).encode()


@pytest.mark.parametrize(
    ("parts", "spoken"),
    [
        ([QUESTION], True),
        ([b"", QUESTION], True),
        ([b"{"], True),
        ([b"\x01\x80", b"{{{{"], False),
        ([b"", b"", QUESTION], False),
        ([b""], False),
        ([], False),
    ],
)
def test_only_json_alone_or_in_an_empty_envelope_is_this_language(
    parts: list[bytes], spoken: bool
) -> None:
    assert TutorialDesk.speaks(frames(*parts)) is spoken


def test_a_question_becomes_a_request_and_the_result_an_answer_once() -> None:
    desk = TutorialDesk()
    request, image = desk.request(b"c", frames(b"", QUESTION), "m")
    assert image == b"file"
    assert (request.model, request.encoding, request.top_k) == ("m", "image", 3)
    result = wire.Result(
        id=request.id,
        model="m",
        version="1",
        predictions=(wire.Prediction("cat", "", 0, 0.5), wire.Prediction("dog", "", 1, 0.25)),
        replica="r",
        attempt=1,
        batch_size=1,
        timing=wire.Timing(),
    )
    assert desk.answer(b"other", result) is None
    assert desk.answer(b"c", result) == [b"", b'{"preds":"cat : 0.5000, dog : 0.2500"}']
    assert desk.answer(b"c", result) is None


def test_what_a_client_asked_for_that_has_gone_is_forgotten() -> None:
    desk = TutorialDesk()
    gone, _ = desk.request(b"c", frames(QUESTION), "m")
    stays, _ = desk.request(b"d", frames(QUESTION), "m")
    desk.forget(b"c")
    failures = [
        wire.Failure(id=request.id, code=wire.FailureCode.DEADLINE, message="Too slow.")
        for request in (gone, stays)
    ]
    assert desk.answer(b"c", failures[0]) is None
    assert desk.answer(b"d", failures[1]) is not None


def test_a_failure_makes_no_prediction_up() -> None:
    desk = TutorialDesk()
    request, _ = desk.request(b"c", frames(QUESTION), "m")
    failure = wire.Failure(id=request.id, code=wire.FailureCode.DEADLINE, message="Too slow.")
    assert desk.answer(b"c", failure) == [b'{"preds":"","error":"Too slow."}']


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"payload": ""}', b'{"payload": "#"}'])
def test_other_json_is_garbage(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        TutorialDesk().request(b"c", frames(body), "m")
