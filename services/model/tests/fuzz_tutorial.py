"""Fuzz target: any frames are a question of the tutorial's client, or raise WireError.

An input is a byte for the envelope, then the frame that may be JSON.
"""

from base64 import b64encode
from collections.abc import Iterator

import msgspec

from modelserver.tutorial import DEADLINE_MS, TutorialDesk
from wire import MAX_PAYLOAD_BYTES, Failure, FailureCode, WireError

ENVELOPES = ([], [b""], [b"", b""], [b"\x01"])


def seeds() -> Iterator[bytes]:
    payload = b64encode(bytes(range(256))).decode()
    for question in (
        {"payload": payload, "_rid": 7},
        {"_rid": "7", "payload": payload, "more": [None, 1.5, {"a": "\u00e9\U0001f600"}]},
        {"payload": ""},
        {"payload": None},
    ):
        for first in range(len(ENVELOPES)):
            yield bytes([first]) + msgspec.json.encode(question)
    yield b"\0" + b'{"payload":"%s",' % payload.encode() + b'"a":' + b"[" * 2000


def check(data: bytes) -> None:
    envelope = ENVELOPES[data[0] % len(ENVELOPES)] if data else []
    frames = [memoryview(frame) for frame in (*envelope, data[1:])]
    spoken = TutorialDesk.speaks(frames)
    desk = TutorialDesk()
    refusal = desk.refusal(frames, "No.")
    assert len(refusal) == len(frames)
    if not spoken:
        return
    try:
        request, file = desk.request(b"client", frames, "model")
    except WireError:
        return
    assert 0 < len(file) <= MAX_PAYLOAD_BYTES
    assert request.deadline_ms == DEADLINE_MS
    failure = Failure(id=request.id, code=FailureCode.ENGINE, message="No.")
    assert desk.answer(b"client", failure) == refusal
    assert desk.answer(b"client", failure) is None


def refine(data: bytes, _seed: int) -> bytes:
    return data
