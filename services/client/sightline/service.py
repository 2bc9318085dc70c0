"""What the commands ask a service, whichever way they reach it, and how it can fail.

Rules:
- An answer has the shape of the HTTP API's, over the broker too, as far as the broker knows it.
- A failure has the words of a problem document, and is the file's, the command's or the service's.
"""

from enum import IntEnum
from typing import Any, Final, Protocol

import msgspec

from wire import ModelStatus, ReplicaStatus


class Outcome(IntEnum):
    """The exit status; of several, the last in this order that occurred counts."""

    DONE = 0
    FAILED = 1
    """Some files could not be classified, for their own sake."""
    UNAVAILABLE = 3
    """The service cannot be reached or could not answer; the same may work later."""
    USAGE = 2
    """The command cannot work as it is: an option, the key, or the model's name is wrong."""


SEVERITY: Final = tuple(Outcome)

OF_THE_COMMAND: Final = frozenset({"unauthorised", "unknown-model", "bad-request", "not-found"})
"""Kinds of failure that every file of the same command would have."""


class Trouble(Exception):
    """There is no answer, and why."""

    def __init__(self, status: int, kind: str, title: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.remedy = remedy

    @property
    def outcome(self) -> Outcome:
        """What it means for the command."""
        if self.kind in OF_THE_COMMAND:
            return Outcome.USAGE
        if self.status >= 500 or self.status in (408, 429):
            return Outcome.UNAVAILABLE
        return Outcome.FAILED

    @property
    def problem(self) -> dict[str, str | int]:
        """A problem document, for a program."""
        return {
            "type": f"urn:sightline:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        return f"{self.detail} {self.remedy}".strip()


class Unreachable(Trouble):
    """Nobody is there, or who is there is no Sightline."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, "unreachable", "The service cannot be reached", detail, "")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on. All that counts upwards does so from the broker's start."""

    uptime_ms: float
    counts: dict[str, int]
    models: tuple[ModelStatus, ...]
    replicas: tuple[ReplicaStatus, ...]


class ModelScale(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas a model needs at this moment."""

    name: str
    wanted: int | None
    """None before anything was measured."""
    why: str
    """One sentence for a person."""


class Scale(msgspec.Struct, frozen=True):
    """The advice for every model, the default one first."""

    models: tuple[ModelScale, ...]


class Service(Protocol):
    """A running Sightline. For any number of threads."""

    def classify(self, file: bytes, *, model: str, top_k: int) -> dict[str, Any]:
        """The answer for an image file, by ``model``, or by the service's first if that is empty.

        Raises:
            Trouble: There is none.
        """

    def status(self) -> Status:
        """What goes on.

        Raises:
            Trouble: It could not be learnt.
        """

    def close(self) -> None:
        """Frees what was opened."""
