"""Asks the broker, for every thread of the web tier at once.

Rules:
- A call ends at its deadline at the latest, with an answer or with an exception.
- Silence is questioned. After INQUIRE_S without a word, or longer where answers take long just
  now, the broker is asked whether it still has the request, and gets it again if not; so a broker
  that restarted or a frame that got lost, in either direction, costs a moment and no request.
- An answer to anything but the question at hand is dropped and counted.
"""

import logging
import time
from contextlib import suppress
from math import ceil
from typing import Final

import zmq
from msgspec import UNSET
from msgspec.structs import replace

from webapp.errors import (
    PictureRefused,
    ProtocolError,
    SenderLeft,
    Unavailable,
    UnknownModel,
    from_failure,
)
from webapp.ids import new_id
from webapp.presence import Left, nobody_left
from webapp.sockets import Closed, Dealer, SocketPool
from webapp.terms import Terms
from wire import (
    Cancel,
    Catalogue,
    Contract,
    Describe,
    Failure,
    FailureCode,
    FromClient,
    Inquire,
    Observe,
    Request,
    Result,
    Status,
    ToClient,
    Unknown,
    WireError,
    encode,
    log_fields,
    to_client,
)
from wire.codec import Buffer
from wire.keys import PeerKeys

INQUIRE_S: Final = 0.5
"""Silence that is worth a question: many times what a healthy answer takes."""
INQUIRE_AFTER: Final = 3
"""Where answers take long just now, it is so many times what they take: with 128 clients of one
replica every request was asked after, for nothing."""
INQUIRE_LATEST_S: Final = 2.0
"""But no longer than this, since a broker may have been restarted meanwhile."""
USUAL_OF: Final = 16
"""What answers take just now goes by about so many of the last results."""
VERDICT_S: Final = 0.05
"""The broker is given this much less time than there is, so that its own word on a missed
deadline still arrives in time."""
PEEK_S: Final = 1.0
"""How often somebody who waits is looked after: soon enough to spare most of a long wait, which is
where it is worth something. A look takes a tenth of a millisecond among many threads: with 128
clients of one replica, ten a second took web a quarter of its CPU time, four a tenth."""
COLD_START_S: Final = 0.2
"""Pause between two questions for a contract while no replica has introduced itself."""

logger = logging.getLogger("ModelClient")


class ModelClient:
    """A client of one broker, shared by all threads of a process."""

    def __init__(self, endpoint: str, keys: PeerKeys | None = None) -> None:
        """``endpoint`` is the broker's frontend, ``keys`` are for one that asks for them. Nothing
        is opened before the first call."""
        self._sockets = SocketPool(endpoint, keys)
        self._contracts: dict[str, Contract] = {}
        self._usual_s = 0.0
        self.dropped = 0
        """Answers that came when their question was settled already, since the start."""

    def classify(
        self,
        pixels: Buffer,
        contract: Contract,
        terms: Terms,
    ) -> Result:
        """The classes of ``pixels``: height x width x 3 bytes, RGB, rows first, made for
        ``contract``, which decides about the model.

        Raises:
            SenderLeft: ``terms.left`` said so. The broker has been told.
            ModelError: One of its subclasses, by what can be done about it.
        """
        request = Request(
            id=new_id(),
            model=contract.model,
            digest=contract.digest,
            deadline_ms=_budget_ms(terms.deadline),
            top_k=terms.top_k,
            priority=terms.priority,
            trace=terms.trace,
            traceparent=terms.traceparent or UNSET,
        )
        reply = self._ask(request, terms.deadline, pixels, left=terms.left)
        if isinstance(reply, Failure):
            raise from_failure(reply)
        if not isinstance(reply, Result):
            raise ProtocolError(f"The broker answered a picture with a {type(reply).__name__}.")
        return reply

    def classify_file(
        self,
        file: Buffer,
        terms: Terms,
        model: str = "",
    ) -> Result:
        """The classes of an image file as it was found, which a replica decodes; by ``model`` or,
        for an empty name, the first one that has a replica.

        Raises:
            PictureRefused: The file is no picture that can be used.
            ModelError: Another of its subclasses, by what can be done about it.
        """
        request = Request(
            id=new_id(),
            model=self.contract(model, deadline=terms.deadline).model,
            digest="",
            deadline_ms=_budget_ms(terms.deadline),
            top_k=terms.top_k,
            encoding="image",
            priority=terms.priority,
            trace=terms.trace,
            traceparent=terms.traceparent or UNSET,
        )
        reply = self._ask(request, terms.deadline, file, left=terms.left)
        if isinstance(reply, Failure):
            if reply.code is FailureCode.BAD_PAYLOAD:
                raise PictureRefused(reply.message)
            raise from_failure(reply)
        if not isinstance(reply, Result):
            raise ProtocolError(f"The broker answered a picture with a {type(reply).__name__}.")
        return reply

    def catalogue(self, *, deadline: float, left: Left = nobody_left) -> Catalogue:
        """What the broker serves, possibly nothing.

        Raises:
            Unavailable: The broker did not answer by ``deadline``, of ``time.monotonic()``.
            SenderLeft: ``left`` said that nobody waits for it.
        """
        reply = self._ask(Describe(id=new_id()), deadline, left=left)
        if not isinstance(reply, Catalogue):
            raise ProtocolError(f"The broker described itself by a {type(reply).__name__}.")
        return reply

    def status(self, *, deadline: float) -> Status:
        """What is going on at the broker and its replicas.

        Raises:
            Unavailable: The broker did not answer by ``deadline``, of ``time.monotonic()``.
        """
        reply = self._ask(Observe(id=new_id()), deadline)
        if not isinstance(reply, Status):
            raise ProtocolError(f"The broker told its status by a {type(reply).__name__}.")
        return reply

    def contract(self, model: str = "", *, deadline: float) -> Contract:
        """The contract of ``model``; for an empty name, of the first model that has a replica.

        It is remembered until `forget`. While the broker knows no model at all, as in the first
        moments after a start, this waits. Two threads may ask at once; they hear the same.

        Raises:
            UnknownModel: The broker serves other models, but not this one.
            Unavailable: Nobody answered by ``deadline``, or there was no model yet.
        """
        if known := self._contracts.get(model):
            return known
        while not (models := self.catalogue(deadline=deadline).models):
            pause = min(COLD_START_S, deadline - time.monotonic())
            if pause <= 0 or self._sockets.closing.wait(pause):
                raise Unavailable("No model has introduced itself to the broker yet.")
        # Of several versions the one in use is listed first.
        candidates = [s for s in models if s.contract.model == model] if model else models
        if not candidates:
            names = dict.fromkeys(served.contract.model for served in models)
            raise UnknownModel(f"No model is called {model!r}.", f"Use {' or '.join(names)}.")
        chosen = candidates[0]
        if not model:
            chosen = next((served for served in candidates if served.replicas), chosen)
        self._contracts[model] = chosen.contract
        return chosen.contract

    def is_in_use(self, contract: Contract, *, deadline: float, left: Left = nobody_left) -> bool:
        """Whether the broker, asked now, gives requests for ``contract`` to a replica.

        Raises:
            Unavailable: The broker did not answer by ``deadline``, of ``time.monotonic()``.
            SenderLeft: ``left`` said so.
        """
        for served in self.catalogue(deadline=deadline, left=left).models:
            # Of several versions the one in use is listed first.
            if served.contract.model == contract.model:
                return served.contract.digest == contract.digest and bool(served.replicas)
        return False

    def forget(self, contract: Contract) -> None:
        """Makes sure that ``contract`` is not given out again without asking the broker."""
        self._contracts = {name: c for name, c in self._contracts.items() if c != contract}

    def close(self) -> None:
        """Ends the calls under way as Unavailable, within PEEK_S, and frees all sockets."""
        self._sockets.close()

    def _ask(
        self,
        question: Request | Describe | Observe,
        deadline: float,
        *payload: Buffer,
        left: Left = nobody_left,
    ) -> ToClient:
        """The first message that answers ``question``, however often it has to be repeated."""
        try:
            with self._sockets.borrowed() as dealer:
                return self._wait(dealer, question, deadline, *payload, left=left)
        except Closed:
            raise Unavailable("This server is shutting down.") from None

    def _wait(
        self,
        dealer: Dealer,
        question: Request | Describe | Observe,
        deadline: float,
        *payload: Buffer,
        left: Left,
    ) -> ToClient:
        nudge: FromClient = question
        patience_s = INQUIRE_S
        if isinstance(question, Request):
            nudge = Inquire(id=question.id)
            patience_s = min(INQUIRE_LATEST_S, max(INQUIRE_S, INQUIRE_AFTER * self._usual_s))
        _send(dealer, question, *payload)
        began = now = time.monotonic()
        next_nudge = now + patience_s
        while now < deadline and not self._sockets.closing.is_set():
            pause = min(deadline - now, next_nudge - now, PEEK_S)
            frames = _next_message(dealer, max(1, ceil(pause * 1000)))
            now = time.monotonic()
            if frames:
                next_nudge = now + patience_s
                reply = _understood(frames)
                if reply is None or reply.id != question.id:
                    self.dropped += 1
                elif not isinstance(reply, Unknown):
                    if isinstance(reply, Result):
                        self._note(now - began)
                    return reply
                elif isinstance(question, Request):
                    text = "request %s got lost on its way and is sent again"
                    fields = log_fields(question.trace, question.traceparent)
                    logger.info(text, question.id, extra=fields)
                    _send(dealer, replace(question, deadline_ms=_budget_ms(deadline)), *payload)
            elif left():
                if isinstance(question, Request):
                    _send(dealer, Cancel(id=question.id))
                raise SenderLeft("The connection was closed.")
            if now >= next_nudge:
                next_nudge = now + patience_s
                _send(dealer, nudge)
        if isinstance(question, Request):
            _send(dealer, Cancel(id=question.id))
        raise Unavailable("The broker did not answer.")

    def _note(self, took_s: float) -> None:
        """A result came after ``took_s``. Threads may overwrite each other's, and one more or less
        makes no difference."""
        self._usual_s += (took_s - self._usual_s) / USUAL_OF


def _budget_ms(deadline: float) -> int:
    return max(1, int((deadline - time.monotonic() - VERDICT_S) * 1000))


def _send(dealer: Dealer, message: FromClient, *payload: Buffer) -> None:
    # What a full pipe refuses is as good as lost on the way, which the next nudge mends.
    with suppress(zmq.Again):
        dealer.send_multipart((encode(message), *payload), zmq.DONTWAIT)


def _next_message(dealer: Dealer, patience_ms: int) -> list[bytes] | None:
    # One call, where a poller would have to be made for each.
    dealer.setsockopt(zmq.RCVTIMEO, patience_ms)
    with suppress(zmq.Again):
        return dealer.recv_multipart()
    return None


def _understood(frames: list[bytes]) -> ToClient | None:
    """The message in ``frames``, None if it is not one of ours."""
    try:
        return to_client.decode(frames)
    except WireError as error:
        logger.warning("the broker sent garbage: %s", error)
        return None
