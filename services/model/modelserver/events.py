"""What can happen to the broker, and what it can do: the language of the Dispatcher.

A recorded list of events with their times, fed again, gives the same actions.
"""

from dataclasses import dataclass

from modelserver.job import Payload
from wire import Cancel, Describe, FromReplica, Inquire, Observe, Request, ToClient, ToReplica


@dataclass(frozen=True, slots=True)
class Asked:
    """A request came in at the frontend."""

    client: bytes
    request: Request
    payload: Payload


@dataclass(frozen=True, slots=True)
class ClientSaid:
    """Any other message came in at the frontend."""

    client: bytes
    message: Inquire | Cancel | Describe | Observe


@dataclass(frozen=True, slots=True)
class ReplicaSaid:
    """A message came in at the backend."""

    replica: bytes
    message: FromReplica


@dataclass(frozen=True, slots=True)
class ReplicaUnreachable:
    """A message could not be handed to this replica's connection."""

    replica: bytes
    undelivered: int | None = None
    """The job that the message was to bring, if it was Work."""


@dataclass(frozen=True, slots=True)
class ClientUnreachable:
    """An answer could not be handed to this client's connection."""

    client: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = Asked | ClientSaid | ReplicaSaid | ReplicaUnreachable | ClientUnreachable | Tick


@dataclass(frozen=True, slots=True)
class Stay:
    """A request's time in the queue, which is over; told of requests that are part of a trace."""

    request: Request
    since: float
    """On the dispatcher's clock, the time of the action is its end."""
    attempt: int
    """1 for the first time."""
    replica: str = ""
    """Who gets it; empty for one that goes no further."""


@dataclass(frozen=True, slots=True)
class TellClient:
    """Send a message out of the frontend."""

    client: bytes
    message: ToClient
    stay: Stay | None = None
    """What a Failure ends."""


@dataclass(frozen=True, slots=True)
class TellReplica:
    """Send a message, and with Work its payload, out of the backend."""

    replica: bytes
    message: ToReplica
    payload: Payload | None = None
    stay: Stay | None = None
    """What Work ends."""


@dataclass(frozen=True, slots=True)
class Note:
    """Write a line about a change of state into the log."""

    text: str
    alarming: bool = False
    request: Request | None = None
    """The one that it is about."""


Action = TellClient | TellReplica | Note
