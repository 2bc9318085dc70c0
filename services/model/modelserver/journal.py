"""What happened to a Dispatcher, as lines of JSON: written by whoever feeds it, fed again later.

The first line says how the Dispatcher began, each other one is an event with its time. No
picture gets into a journal. A stand-in of the same size takes its place, the same one for the
same picture: size and sameness are all that the Dispatcher looks at.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from modelserver import events
from modelserver.dispatcher import Dispatcher, Limits
from wire import FromClient, FromReplica


class Picture(msgspec.Struct, frozen=True):
    """What is kept of a payload."""

    nbytes: int
    digest: bytes


class Opening(msgspec.Struct, frozen=True):
    """The first line."""

    limits: Limits
    now: float
    first_job: int


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Any other line: an event, by the name of its class and what it was made of."""

    now: float
    event: str
    peer: bytes | None = None
    message: FromClient | FromReplica | None = None
    picture: Picture | None = None
    undelivered: int | None = None


@dataclass(frozen=True, slots=True)
class StandIn:
    """As many bytes as the picture had, the same ones whenever it was the same picture."""

    buffer: memoryview


_EVENTS: Final[dict[str, Callable[..., events.Event]]] = {
    kind.__name__: kind
    for kind in (
        events.Asked,
        events.ClientSaid,
        events.ReplicaSaid,
        events.ClientUnreachable,
        events.ReplicaUnreachable,
        events.Tick,
    )
}
_encoder: Final = msgspec.json.Encoder()
_entries: Final = msgspec.json.Decoder(Entry)


def opening(limits: Limits, *, now: float, first_job: int) -> bytes:
    """The first line of a journal: what the Dispatcher was made with."""
    return _encoder.encode(Opening(limits, now, first_job))


def entry(event: events.Event, now: float) -> bytes:
    """The line for ``event`` at ``now``."""
    picture = None
    if isinstance(event, events.Asked):
        buffer = event.payload.buffer
        digest = hashlib.blake2b(buffer, digest_size=16).digest()
        picture = Picture(buffer.nbytes, digest)
    undelivered = event.undelivered if isinstance(event, events.ReplicaUnreachable) else None
    peer, message = _who_said_what(event)
    kind = type(event).__name__
    return _encoder.encode(Entry(now, kind, peer, message, picture, undelivered))


def replay(lines: Iterable[bytes]) -> list[list[events.Action]]:
    """What a fresh Dispatcher does about each entry."""
    first, *rest = lines
    began = msgspec.json.decode(first, type=Opening)
    dispatcher = Dispatcher(began.limits, now=began.now, first_job=began.first_job)
    entries = map(_entries.decode, rest)
    return [dispatcher.handle(_event(entry), entry.now) for entry in entries]


def _who_said_what(
    event: events.Event,
) -> tuple[bytes | None, FromClient | FromReplica | None]:
    match event:
        case events.Asked(peer, message, _):
            return peer, message
        case events.ClientSaid(peer, said):
            return peer, said
        case events.ReplicaSaid(peer, answer):
            return peer, answer
        case events.ClientUnreachable(peer) | events.ReplicaUnreachable(peer, _):
            return peer, None
        case events.Tick():
            return None, None


def _event(entry: Entry) -> events.Event:
    given = (entry.peer, entry.message, entry.undelivered)
    parts: list[object] = [part for part in given if part is not None]
    if entry.picture is not None:
        stand_in = hashlib.shake_128(entry.picture.digest).digest(entry.picture.nbytes)
        parts.append(StandIn(memoryview(stand_in)))
    return _EVENTS[entry.event](*parts)
