"""Who asks the broker, who waits for another's answer instead, and which answers are remembered.

A question is a picture's pixels, the contract they were made for, and how many classes are wanted;
here it is only a key. Pure: no lock, thread, socket or clock. `sharing` has those.

Rules:
- A question that is under way is not asked again: whoever comes with it waits for that answer.
- But nobody waits for an asker that is less urgent than himself: he asks, too. Whoever has less
  urgency may wait for somebody with more.
- An asker that fails for a reason of its own (its time, its sender) takes nobody along. Of those
  who are left without an asker one takes its place: an urgent one first, then whoever has the most
  time left, so that there is not one failure after the other.
- What is wrong with the question itself is told to all who wait for it, and is not remembered.
- Remembered are results only, the least recently used forgotten first, in bounded memory.
"""

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum, auto
from typing import Final

ENTRY_BYTES: Final = 512
"""What remembering takes besides the answer's own bytes: key, digest, a place in the table.
Measured with tracemalloc: 340 for answers of 5 classes, 580 for those of 100."""


class State(Enum):
    """What a request has to do, or has got."""

    ASKS = auto()
    """It has to ask the broker, and then to `Flights.land`, `Flights.refuse` or `Flights.leave`."""
    WAITS = auto()
    """Somebody else asks."""
    ANSWERED = auto()
    REFUSED = auto()


class Seat:
    """One request that has a question. Only `Flights` changes it."""

    __slots__ = ("answer", "deadline", "key", "refusal", "state", "urgent")

    def __init__(self, key: Hashable, deadline: float, urgent: bool) -> None:
        self.key: Final = key
        self.deadline: Final = deadline
        self.urgent: Final = urgent
        self.state = State.WAITS
        self.answer = b""
        """When answered."""
        self.refusal: Exception | None = None
        """When refused."""


class Flights:
    """The questions under way and the answers that are remembered."""

    def __init__(self, limit_bytes: int) -> None:
        """At most ``limit_bytes`` are taken by what is remembered."""
        self._limit_bytes = limit_bytes
        self._remembered: OrderedDict[Hashable, bytes] = OrderedDict()
        self._flying: dict[Hashable, list[Seat]] = {}
        self.held_bytes = 0
        """What is remembered takes so many, ENTRY_BYTES for each included."""
        self.takeovers = 0
        """How often somebody who waited had to ask himself, since the start."""
        self.forgotten = 0
        """How many answers had to make room for others, since the start."""

    def enter(self, key: Hashable, *, deadline: float, urgent: bool) -> Seat:
        """A seat that is answered already, or waits, or asks.

        Args:
            key: The question.
            deadline: On any clock that goes on; whoever has passed it is not made to ask.
            urgent: Whether it should not wait for one that is not.
        """
        seat = Seat(key, deadline, urgent)
        if (answer := self._remembered.get(key)) is not None:
            self._remembered.move_to_end(key)
            seat.answer, seat.state = answer, State.ANSWERED
            return seat
        seats = self._flying.setdefault(key, [])
        seats.append(seat)
        if not _has_asker(seats, seat):
            seat.state = State.ASKS
        return seat

    def is_awaited(self, seat: Seat) -> bool:
        """Whether anybody waits for the answer to ``seat``'s question."""
        return any(other.state is State.WAITS for other in self._flying.get(seat.key, ()))

    def land(self, seat: Seat, answer: bytes) -> list[Seat]:
        """``seat`` has asked and got ``answer``. Returns those who waited and are answered now."""
        waiting = self._disband(seat)
        for other in waiting:
            other.answer, other.state = answer, State.ANSWERED
        seat.answer, seat.state = answer, State.ANSWERED
        self._remember(seat.key, answer)
        return waiting

    def refuse(self, seat: Seat, refusal: Exception) -> list[Seat]:
        """``seat`` has asked, and the question was at fault. Returns those who are refused now."""
        waiting = self._disband(seat)
        for other in waiting:
            other.refusal, other.state = refusal, State.REFUSED
        seat.refusal, seat.state = refusal, State.REFUSED
        return waiting

    def leave(self, seat: Seat, now: float) -> list[Seat]:
        """``seat`` gives up, whether it asks or waits; one that has got something has nothing to
        give up. Returns who has to ask in its place."""
        if seat.state in (State.ANSWERED, State.REFUSED):
            return []
        seats = self._flying[seat.key]
        self._remove({seat}, seats)
        successors = []
        while orphans := [
            other
            for other in seats
            if other.state is State.WAITS and other.deadline > now and not _has_asker(seats, other)
        ]:
            successor = max(orphans, key=lambda other: (other.urgent, other.deadline))
            successor.state = State.ASKS
            successors.append(successor)
        self.takeovers += len(successors)
        return successors

    def _disband(self, seat: Seat) -> list[Seat]:
        """Those who wait, no longer under way. Another asker stays and gets its own answer."""
        seats = self._flying[seat.key]
        waiting = [other for other in seats if other.state is State.WAITS]
        self._remove({seat, *waiting}, seats)
        return waiting

    def _remove(self, gone: set[Seat], seats: list[Seat]) -> None:
        seats[:] = [seat for seat in seats if seat not in gone]
        if not seats:
            for key in {seat.key for seat in gone}:
                del self._flying[key]

    def _remember(self, key: Hashable, answer: bytes) -> None:
        if (old := self._remembered.pop(key, None)) is not None:
            self.held_bytes -= len(old) + ENTRY_BYTES
        self._remembered[key] = answer
        self.held_bytes += len(answer) + ENTRY_BYTES
        while self.held_bytes > self._limit_bytes:
            _, oldest = self._remembered.popitem(last=False)
            self.held_bytes -= len(oldest) + ENTRY_BYTES
            self.forgotten += 1


def _has_asker(seats: list[Seat], seat: Seat) -> bool:
    """Whether somebody asks for whom ``seat`` may wait."""
    return any(other.state is State.ASKS and other.urgent >= seat.urgent for other in seats)
