"""The tutorial's own client, understood at the same port and answered in its own words.

It sends one JSON frame ``{"payload": <base64 of an image file>, "_rid": <its number>}`` and
reads one JSON frame ``{"preds": "label : p, label : p, label : p"}``, most probable first. A
REQ socket puts an empty frame before each, which is given back as it came.

When there is no answer ``preds`` is empty and ``error`` says why: nothing is made up.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from wire import MAX_PAYLOAD_BYTES, Failure, Request, Result, WireError

TOP_K: Final = 3
DEADLINE_MS: Final = 10_000


class _Question(msgspec.Struct):
    payload: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PAYLOAD_BYTES)]


class _Answer(msgspec.Struct, omit_defaults=True):
    preds: str
    error: str = ""


_decoder: Final = msgspec.json.Decoder(_Question)
_encoder: Final = msgspec.json.Encoder()


class TutorialDesk:
    """Translates for clients that speak the tutorial's JSON."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, str], list[bytes]] = {}

    @staticmethod
    def speaks(frames: Sequence[memoryview]) -> bool:
        """Whether these frames are JSON rather than a message of `wire`."""
        *envelope, body = frames or [memoryview(b"")]
        return envelope in ([], [b""]) and bytes(body[:1]) == b"{"

    def request(
        self, client: bytes, frames: Sequence[memoryview], model: str
    ) -> tuple[Request, bytes]:
        """The request for ``model`` in frames of this language, and the image file with it.

        Raises:
            WireError: The frames are not what the tutorial's client sends.
        """
        *envelope, body = frames
        try:
            question = _decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireError(f"not the tutorial's JSON: {error}") from None
        request = Request(
            id=secrets.token_hex(8),
            model=model,
            digest="",
            deadline_ms=DEADLINE_MS,
            top_k=TOP_K,
            encoding="image",
            trace="tutorial",
        )
        self._waiting[client, request.id] = [bytes(frame) for frame in envelope]
        return request, question.payload

    def answer(self, client: bytes, message: Result | Failure) -> list[bytes] | None:
        """The frames that answer this client; None if it does not speak the tutorial's JSON."""
        envelope = self._waiting.pop((client, message.id), None)
        if envelope is None:
            return None
        if isinstance(message, Failure):
            answer = _Answer(preds="", error=message.message)
        else:
            pairs = (f"{p.label} : {p.probability:.4f}" for p in message.predictions)
            answer = _Answer(preds=", ".join(pairs))
        return [*envelope, _encoder.encode(answer)]

    def forget(self, client: bytes) -> None:
        """It has gone, and what it asked for will not be answered."""
        for key in [key for key in self._waiting if key[0] == client]:
            del self._waiting[key]

    @staticmethod
    def refusal(frames: Sequence[memoryview], text: str) -> list[bytes]:
        """The frames that tell whoever sent ``frames`` that nothing came of it, and why."""
        envelope = [bytes(frame) for frame in frames[:-1]]
        return [*envelope, _encoder.encode(_Answer(preds="", error=text))]
