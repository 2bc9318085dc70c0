"""What happened to a Dispatcher, as lines of JSON: written by whoever feeds it, fed again later.

A line says how a Dispatcher began, or what happened to it and when. A broker that is started
again goes on in the same file, with a Dispatcher of its own. No picture gets into a journal: a
stand-in of the same size takes its place, the same one for the same picture. Size and sameness
are all that the Dispatcher looks at.
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


class Opening(msgspec.Struct, frozen=True, tag_field="line", tag="opening"):
    """A Dispatcher begins."""

    limits: Limits
    now: float
    first_job: int


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="line", tag="event"):
    """An event, by the name of its class and what it was made of."""

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
_lines: Final = msgspec.json.Decoder(Opening | Entry)


def opening(limits: Limits, *, now: float, first_job: int) -> bytes:
    """The line for what a Dispatcher was made with."""
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
    """What fresh Dispatchers do about each event, from one opening to the next.

    Raises:
        ValueError: A line is none of a journal's, or an event comes before any opening.
    """
    dispatcher: Dispatcher | None = None
    actions = []
    for line in map(_lines.decode, lines):
        if isinstance(line, Opening):
            dispatcher = Dispatcher(line.limits, now=line.now, first_job=line.first_job)
        elif dispatcher is None:
            raise ValueError("the journal has lost its first line")
        else:
            actions.append(dispatcher.handle(_event(line), line.now))
    return actions


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
