"""Fuzz target: any frames are a message or raise WireError, and a message can be said again.

An input is a byte for the direction and the number of frames, then the header frame.
"""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

import wire
from wire.codec import Decoder
from wire.messages import WITH_PAYLOAD

DECODERS: list[Decoder[Any]] = [
    wire.from_client,
    wire.to_client,
    wire.from_replica,
    wire.to_replica,
]
ODD: list[object] = [
    *(None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**64 - 1),
    *(float("nan"), float("inf"), -0.0, 1e308),
    *("", "\0", "x" * 65, "request", "ready", b"", b"\xff", [], {}, [[]] * 4),
]


def seeds() -> Iterator[bytes]:
    for header in json.loads((Path(__file__).parent / "golden_frames.json").read_text()).values():
        for first in range(4, 12):  # In every direction, as one frame and as two.
            yield bytes([first]) + bytes.fromhex(header)


def check(data: bytes) -> None:
    if not data:
        return
    decoder = DECODERS[data[0] % 4]
    frames = [data[1:], b"pixels", b"more"][: (data[0] >> 2) % 4]
    try:
        message = decoder.decode(frames)
    except wire.WireError:
        return
    again = [wire.encode(message), *frames[1:]]
    assert decoder.decode(again) == message
    assert isinstance(message, WITH_PAYLOAD) == (len(frames) == 2)


def refine(data: bytes, seed: int) -> bytes:
    """Every other time changes a value of the message instead of its bytes."""
    choice = random.Random(seed)
    if choice.random() < 0.5:
        return data
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        body = msgspec.msgpack.decode(data[2:])
        with suppress(TypeError, OverflowError):
            return data[:1] + bytes([wire.VERSION]) + msgspec.msgpack.encode(_changed(body, choice))
    return data


def _changed(value: object, choice: random.Random) -> object:
    if isinstance(value, dict) and value and choice.random() < 0.9:
        key = choice.choice(list(value))
        if choice.random() < 0.1:
            return {other: value[other] for other in value if other != key}
        return value | {key: _changed(value[key], choice)}
    if isinstance(value, list) and value and choice.random() < 0.7:
        at = choice.randrange(len(value))
        return [*value[:at], _changed(value[at], choice), *value[at + choice.randrange(2) :]]
    return choice.choice(ODD)
