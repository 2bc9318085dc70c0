"""Messages to frames and back.

The frames of one message, after the routing frames that ZeroMQ adds and takes away::

    header    1 byte   protocol version (VERSION)
              n bytes  the message as a msgpack map; its key "type" names the message
    payload   only after Request and Work: pixels or an image file, never copied here

Rules:
- What comes from outside is garbage until proved a message, and garbage raises WireError and
  nothing else, whatever the bytes.
- One decoder a direction: a message that only the other side may say is garbage too.
- A field that this version does not know is ignored, so that a peer one release ahead is
  understood; a change that this cannot carry raises VERSION.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from wire.messages import WITH_PAYLOAD, FromClient, FromReplica, Message, ToClient, ToReplica

VERSION: Final = 1
MAX_HEADER_BYTES: Final = 64 * 1024
"""A Result of 100 classes takes about 10 KiB."""
MAX_BROKER_HEADER_BYTES: Final = 1024 * 1024
"""The Status of a thousand replicas takes about 250 KiB, and the broker is no stranger."""
MAX_PAYLOAD_BYTES: Final = 32 * 1024 * 1024
"""Room for an image file of 20 MiB, also as base64 inside a frame of the tutorial's client."""

Buffer = bytes | bytearray | memoryview
M = TypeVar("M", bound=Message)

_encoder: Final = msgspec.msgpack.Encoder()
_PREFIX: Final = bytes([VERSION])


class WireError(ValueError):
    """These frames are no message of this protocol."""


def encode(message: Message) -> bytes:
    """The header frame of ``message``."""
    return _PREFIX + _encoder.encode(message)


class Decoder(Generic[M]):
    """Turns the frames from one direction into messages."""

    def __init__(self, union: object, max_header: int = MAX_HEADER_BYTES) -> None:
        """For the messages of ``union``, with headers of up to ``max_header`` bytes."""
        self._max_header = max_header
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)

    def decode(self, frames: Sequence[Buffer]) -> M:
        """The message in ``frames``: a header, and a payload exactly where one belongs.

        The payload itself is only measured; it stays where it is, ``frames[1]``.

        Raises:
            WireError: The frames are anything else.
        """
        if not 1 <= len(frames) <= 2:
            raise WireError(f"{len(frames)} frames; a message has 1 or 2")
        header = memoryview(frames[0])
        if not 2 <= header.nbytes <= self._max_header:
            raise WireError(f"a header of {header.nbytes} bytes")
        if header[0] != VERSION:
            raise WireError(f"protocol version {header[0]}; this side speaks {VERSION}")
        try:
            message = self._decoder.decode(header[1:])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireError(f"not a message: {error}") from None
        has_payload = len(frames) == 2
        if has_payload != isinstance(message, WITH_PAYLOAD):
            raise WireError(
                f"{type(message).__name__} {'with' if has_payload else 'without'} a payload"
            )
        if has_payload and memoryview(frames[1]).nbytes > MAX_PAYLOAD_BYTES:
            raise WireError(f"a payload of more than {MAX_PAYLOAD_BYTES} bytes")
        return message


from_client: Final[Decoder[FromClient]] = Decoder(FromClient)
to_client: Final[Decoder[ToClient]] = Decoder(ToClient, MAX_BROKER_HEADER_BYTES)
from_replica: Final[Decoder[FromReplica]] = Decoder(FromReplica)
to_replica: Final[Decoder[ToReplica]] = Decoder(ToReplica)
