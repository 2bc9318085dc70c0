"""Asks the broker once about identical pixels: `flights` with locks, threads and the broker.

Rules:
- Nobody is given another's answer before the broker has said, after he came, that this version of
  the model is in use and that a replica of it lives. So a model that is replaced is replaced for
  remembered answers, too, at once, and without a replica there are none.
- Everybody waits until his own deadline, and as long as his own sender is there. A sender that
  leaves takes away its request's answer only if nobody else waits for it.
- Pixels are the same if their BLAKE3 digests are: nobody can make a picture that gets another's
  answer. It takes 40 microseconds for 224 x 224 pixels on a CPU where SHA-256, by instructions
  made for it, takes 130, and BLAKE2b 270.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Final, Literal

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from webapp.client import PEEK_S, ModelClient
from webapp.errors import (
    DeadlineExceeded,
    EngineFailed,
    Poisoned,
    ProtocolError,
    SenderLeft,
    StaleContract,
    UnknownModel,
)
from webapp.flights import Flights, Seat, State
from webapp.presence import Left
from webapp.terms import Terms
from wire import Contract, Result, Timing
from wire.codec import Buffer

Cache = Literal["off", "miss", "joined", "hit"]
"""How an answer was come by: without any sharing, by asking, from another request that was under
way, from memory."""

Note = Callable[[Cache, int], None]
"""Told how an answer was come by, and how many bytes remembered answers take now."""

Ask = Callable[[Left], Result]

OF_THE_QUESTION: Final = (Poisoned, EngineFailed, ProtocolError, StaleContract, UnknownModel)
"""What is as true for everybody with the same pixels and contract. The engine's failure among
them, since they would have been in the same batch."""

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(Result).decode


class Sharing:
    """Shares answers among all threads of a process."""

    def __init__(self, client: ModelClient, limit_bytes: int, note: Note) -> None:
        """Answers are remembered in ``limit_bytes``; with 0 nothing at all is shared. ``note`` is
        told how each was come by."""
        self._client = client
        self._off = limit_bytes == 0
        self._lock = threading.Lock()
        self._flights = Flights(limit_bytes)
        self._bells: dict[Seat, threading.Event] = {}
        self._note = note

    @property
    def takeovers(self) -> int:
        """How often a request that had joined another had to ask itself, since the start."""
        return self._flights.takeovers

    @property
    def forgotten(self) -> int:
        """How many answers had to make room for others, since the start."""
        return self._flights.forgotten

    @property
    def held_bytes(self) -> int:
        """What the remembered answers take now."""
        return self._flights.held_bytes

    def classify(
        self,
        pixels: Buffer,
        contract: Contract,
        terms: Terms,
    ) -> tuple[Result, Cache]:
        """As `ModelClient.classify`, and how the answer was come by.

        A shared answer's ``timing`` is 0 throughout, since none of it was spent on this request;
        its ``replica``, ``attempt`` and ``batch_size`` are those of the request that asked.

        Raises:
            SenderLeft: ``terms.left`` said so.
            ModelError: One of its subclasses, by what can be done about it.
        """

        def ask(left: Left) -> Result:
            return self._client.classify(pixels, contract, terms._replace(left=left))

        if self._off:
            return self._counted(ask(terms.left), "off")
        key = (contract, terms.top_k, blake3(pixels).digest())
        with self._seated(key, terms) as seat:
            if seat.state is State.ASKS:
                return self._counted(self._ask(seat, ask, terms.left), "miss")
            if self._client.is_in_use(contract, deadline=terms.deadline, left=terms.left):
                return self._counted(*self._share(seat, ask, terms.left))
        # The broker itself has to say what is wrong with this contract.
        return self._counted(ask(terms.left), "miss")

    @contextmanager
    def _seated(self, key: Hashable, terms: Terms) -> Iterator[Seat]:
        """A place that is given up at the end, however that comes about."""
        with self._lock:
            urgent = terms.priority == "interactive"
            seat = self._flights.enter(key, deadline=terms.deadline, urgent=urgent)
            if seat.state is State.WAITS:
                self._bells[seat] = threading.Event()
        try:
            yield seat
        finally:
            with self._lock:
                self._bells.pop(seat, None)
                self._ring(self._flights.leave(seat, time.monotonic()))

    def _share(self, seat: Seat, ask: Ask, left: Left) -> tuple[Result, Cache]:
        bell = self._bells.get(seat)
        if bell is not None:
            _wait(seat, bell, left)
        if seat.state is State.ASKS:
            return self._ask(seat, ask, left), "miss"
        if seat.refusal is not None:
            raise copy(seat.refusal)
        return _unpack(seat.answer), "hit" if bell is None else "joined"

    def _ask(self, seat: Seat, ask: Ask, left: Left) -> Result:
        try:
            result = ask(lambda: left() and not self._is_awaited(seat))
        except OF_THE_QUESTION as error:
            with self._lock:
                # Whoever asked may add words to his own, such as which of his pictures it was.
                self._ring(self._flights.refuse(seat, copy(error)))
            raise
        answer = _pack(replace(result, timing=Timing()))
        with self._lock:
            self._ring(self._flights.land(seat, answer))
        return result

    def _is_awaited(self, seat: Seat) -> bool:
        with self._lock:
            return self._flights.is_awaited(seat)

    def _ring(self, seats: Iterable[Seat]) -> None:
        for seat in seats:
            # Whoever is leaving just now has none any longer.
            if bell := self._bells.get(seat):
                bell.set()

    def _counted(self, result: Result, cache: Cache) -> tuple[Result, Cache]:
        self._note(cache, self.held_bytes)
        return result, cache


def _wait(seat: Seat, bell: threading.Event, left: Left) -> None:
    """Until ``bell`` rings."""
    while not bell.wait(min(PEEK_S, max(0.0, seat.deadline - time.monotonic()))):
        if time.monotonic() >= seat.deadline:
            raise DeadlineExceeded("The same picture was being looked at, but not in time.")
        if left():
            raise SenderLeft("The connection was closed.")
