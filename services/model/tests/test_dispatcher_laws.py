"""The broker's laws as properties: anything in any order, and after every step every law holds.

A bookkeeper follows what goes in and out of a Dispatcher. It knows the laws and not the code:
who holds what, who waits and who is owed an answer it concludes from the messages alone, and
every action has to be one that the laws allow at that moment. Afterwards nothing may be left
undone that they ask for.

A failing run is printed in steps that can be pasted, and is found again at the next run. For a
longer search than that of every day: ``LAWS_EXAMPLES=5000 pytest <this file>``.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import wire
from modelserver import journal
from modelserver.dispatcher import PROMISED_SHARE, UNREST_S, Dispatcher, Limits
from modelserver.events import (
    Action,
    Asked,
    ClientSaid,
    ClientUnreachable,
    Event,
    ReplicaSaid,
    ReplicaUnreachable,
    TellClient,
    TellReplica,
    Tick,
)
from wire import FailureCode

T = TypeVar("T")
EXAMPLES: Final = int(os.environ.get("LAWS_EXAMPLES", "0"))
LIMITS: Final = Limits(
    queue_requests=6,
    queue_bytes=80,
    liveness_s=2.0,
    execution_s=5.0,
    poison_s=20.0,
    settle_s=1.0,
)
BULK_BYPASS: Final = 3
"""So many interactive requests may overtake a waiting bulk one before it is its turn."""
STALE_DEADLINES: Final = 1024
"""So many deadlines of settled requests may be kept besides as many as there are requests."""


def contract(model: str, version: str) -> wire.Contract:
    return wire.Contract(
        model=model,
        version=version,
        digest=f"{model}/{version}".ljust(8, "."),
        width=2,
        height=2,
        crop=1.0,
        filter="bicubic",
        classes=2,
    )


OLD, NEW, OTHER = contract("m", "1"), contract("m", "2"), contract("n", "1")
CONTRACTS: Final = (OLD, NEW, OTHER)
NBYTES: Final = OLD.nbytes


@dataclass(frozen=True)
class Picture:
    """A payload, equal to others by what it shows."""

    content: bytes

    @property
    def buffer(self) -> memoryview:
        return memoryview(self.content)


@dataclass(eq=False)
class Ask:
    """An accepted request, as its client and the laws see it."""

    trace: str
    client: bytes
    request: wire.Request
    content: bytes
    arrived: float
    deadline: float
    job: int | None = None
    handed: float = 0.0
    handouts: int = 0
    deaths: int = 0
    returns: int = 0
    """How often a replica was idle that should have been at it."""
    open: bool = True
    """Its client still waits for an answer."""
    lost: bool = False
    """Its work, or the reply to it, disappeared on the way."""

    @property
    def key(self) -> tuple[bytes, str]:
        return self.client, self.request.id

    def fits(self, digest: str) -> bool:
        return self.request.encoding == "image" or self.request.digest == digest


@dataclass(eq=False)
class Hand:
    """A replica that the broker has to know."""

    identity: bytes
    contract: wire.Contract
    credit: int
    heard: float
    leaving: bool = False
    held: dict[int, Ask] = field(default_factory=dict)

    @property
    def with_suspect(self) -> bool:
        return any(ask.deaths for ask in self.held.values())


def version(hand: Hand) -> int:
    return int(hand.contract.version)


def said_of(content: bytes, replica: bytes, job: int) -> tuple[wire.Prediction, ...]:
    """What an honest replica says of a picture: different for all pictures, replicas and jobs."""
    return (wire.Prediction(f"{content.hex()} by {replica!r} as {job}", "", 0, 0.5),)


TIMING: Final = wire.Timing(inference=1.0)


class Bookkeeper:
    """A Dispatcher, its clock, and everything that the laws say about the two."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.now = 424.005
        """A time whose sums with whole budgets are not exact."""
        self.first_job = 1
        self.hands: dict[bytes, Hand] = {}
        self.former: list[tuple[bytes, int]] = []
        """Work of replicas that were lost, whose replies may yet come."""
        self.traces = 0
        self.sound = True
        """No law has been broken yet."""
        self.begin()

    def begin(self) -> None:
        """A broker (re)starts: it knows nothing, and only clients and replicas remember."""
        for hand in self.hands.values():
            self.former += [(hand.identity, job) for job in hand.held]
        self.dispatcher = Dispatcher(self.limits, now=self.now, first_job=self.first_job)
        self.journal = [journal.opening(self.limits, now=self.now, first_job=self.first_job)]
        self.told: list[list[Action]] = []
        self.first_job += 1_000_000
        self.started = self.seen = self.now
        self.open: dict[tuple[bytes, str], Ask] = {}
        self.waiting: list[Ask] = []
        """In the order of arrival."""
        self.hands = {}
        self.contracts: dict[str, wire.Contract] = {}
        self.poison: dict[bytes, float] = {}
        self.deaths: list[float] = []
        self.bypassed: Counter[str] = Counter()
        self.late = 0

    # --- what the laws conclude ---------------------------------------------------------------

    def staff(self, model: str) -> list[Hand]:
        """Who takes work for a model: replicas of its present contract that do not leave."""
        present = self.contracts.get(model)
        return [
            hand
            for hand in self.hands.values()
            if present is not None and not hand.leaving and hand.contract.model == model
            if hand.contract.digest == present.digest
        ]

    def lively(self, hand: Hand) -> bool:
        """It was heard of so lately that a suspect may be tried on it."""
        return hand.heard >= self.now - self.limits.liveness_s / 2

    def stale(self, ask: Ask) -> bool:
        present = self.contracts.get(ask.request.model)
        return present is not None and not ask.fits(present.digest)

    def poisoned(self, content: bytes) -> bool:
        return self.poison.get(content, self.now) > self.now

    def remove(self, gone: list[Hand]) -> None:
        """These replicas are no more; where only older versions are left, those serve again."""
        for hand in gone:
            del self.hands[hand.identity]
        for model in {hand.contract.model for hand in gone}:
            self.fall_back(model)

    def fall_back(self, model: str) -> None:
        others = [h for h in self.hands.values() if h.contract.model == model and not h.leaving]
        if others and not self.staff(model):
            self.contracts[model] = max(reversed(others), key=version).contract

    def die(self, gone: list[Hand]) -> None:
        self.remove(gone)
        self.deaths = [then for then in self.deaths if then > self.now - UNREST_S]
        self.deaths += [self.now] * len(gone)
        for hand in gone:
            for job, ask in hand.held.items():
                self.former.append((hand.identity, job))
                ask.deaths += 1
                if ask.deaths >= (3 if len(self.deaths) > ask.deaths else 2):
                    self.poison[ask.content] = self.now + self.limits.poison_s
                if ask.open:
                    self.waiting.append(ask)

    # --- one event ----------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Action]:
        """Hand an event to the Dispatcher and hold what it does against the laws."""
        self.sound = False
        self.journal.append(journal.entry(event, self.now))
        away = self.now - self.seen > self.limits.liveness_s / 2
        self.seen = self.now
        if away:
            for hand in self.hands.values():
                hand.heard = self.now
        lost_before = self.dispatcher.counts["lost"]
        actions = self.dispatcher.handle(event, self.now)
        self.told.append(actions)
        for action in actions:
            self.check_codec(action)
        answers = [a for a in actions if isinstance(a, TellClient)]
        self.check_expiry(answers)
        self.conclude(event, answers, actions, self.dispatcher.counts["lost"] - lost_before)
        self.check_answers(answers)
        self.check_work(actions)
        self.check_nothing_undone()
        self.sound = True
        return actions

    def check_codec(self, action: Action) -> None:
        """What cannot be decoded at the other end has not been said."""
        match action:
            case TellClient(_, message):
                assert wire.to_client.decode([wire.encode(message)]) == message
            case TellReplica(_, message, payload):
                frames = [wire.encode(message), *([payload.buffer] if payload else [])]
                assert wire.to_replica.decode(frames) == message

    def check_expiry(self, answers: list[TellClient]) -> None:
        """Who is due hears so, before anything else happens."""
        due = sorted(
            (ask for ask in self.open.values() if ask.deadline <= self.now),
            key=lambda ask: ask.deadline,
        )
        for ask in due:
            answer = answers.pop(0)
            assert (answer.client, answer.message.id) == ask.key
            expected = "deadline" if self.staff(ask.request.model) else "unavailable"
            assert isinstance(answer.message, wire.Failure)
            assert answer.message.code == expected
            self.close(ask)

    def close(self, ask: Ask) -> None:
        """Nobody is owed anything for this request from now on."""
        ask.open = False
        del self.open[ask.key]
        if ask in self.waiting:
            self.waiting.remove(ask)

    def conclude(
        self, event: Event, answers: list[TellClient], actions: list[Action], lost: int
    ) -> None:
        """What the event means, and the answers that only this event can be the reason for."""
        replies: list[wire.Message] = []
        match event:
            case Asked(client, request, payload):
                self.conclude_asked(client, request, bytes(payload.buffer), answers)
            case ClientSaid(client, wire.Inquire(id=request_id)):
                if (client, request_id) not in self.open:
                    assert answers.pop() == TellClient(client, wire.Unknown(id=request_id))
            case ClientSaid(client, wire.Cancel(id=request_id)):
                if (client, request_id) in self.open:
                    self.close(self.open[client, request_id])
            case ClientSaid(client, wire.Describe(id=request_id)):
                self.check_catalogue(answers.pop(), client, request_id)
            case ClientSaid(client, wire.Observe(id=request_id)):
                self.check_status(answers.pop(), client, request_id)
            case ClientUnreachable(client):
                for ask in [ask for ask in self.open.values() if ask.client == client]:
                    self.close(ask)
            case ReplicaUnreachable(identity):
                if identity in self.hands:
                    self.die([self.hands[identity]])
            case ReplicaSaid(identity, wire.Ready() as ready):
                self.conclude_ready(identity, ready)
            case ReplicaSaid(identity, message):
                replies = self.conclude_said(identity, message, answers)
            case Tick():
                self.conclude_tick(actions, lost)
                lost = 0
        stranger_talk = [
            TellReplica(event.replica, reply) for reply in replies if isinstance(event, ReplicaSaid)
        ]
        talk = [
            a
            for a in actions
            if isinstance(a, TellReplica) and not isinstance(a.message, wire.Work | wire.Ping)
        ]
        assert talk == stranger_talk

    def conclude_asked(
        self, client: bytes, request: wire.Request, content: bytes, answers: list[TellClient]
    ) -> None:
        if (client, request.id) in self.open:
            assert answers == []
            return
        reasons = self.reasons_to_refuse(request, content)
        if answers and answers[0].message.id == request.id:
            assert answers[0].client == client
            refusal = answers.pop(0).message
            assert isinstance(refusal, wire.Failure)
            if refusal.code == FailureCode.OVERLOADED:
                assert refusal.retry_after_ms is not None
                late = refusal.retry_after_ms >= PROMISED_SHARE * request.deadline_ms
                assert refusal.code in reasons or (late and self.staff(request.model))
            else:
                assert refusal.code == reasons[0]
            return
        assert not reasons
        deadline = self.now + request.deadline_ms / 1000
        ask = Ask(request.trace, client, request, content, self.now, deadline)
        self.open[ask.key] = ask
        self.waiting.append(ask)

    def reasons_to_refuse(self, request: wire.Request, content: bytes) -> list[FailureCode]:
        """Why this request must not be accepted, the reason to be told first."""
        reasons = []
        present = self.contracts.get(request.model)
        if present is None:
            if self.contracts and self.now >= self.started + self.limits.settle_s:
                reasons.append(FailureCode.UNKNOWN_MODEL)
        elif request.encoding == "pixels":
            if request.digest != present.digest:
                reasons.append(FailureCode.STALE_CONTRACT)
            if len(content) != present.nbytes:
                reasons.append(FailureCode.BAD_PAYLOAD)
        if self.poisoned(content):
            reasons.append(FailureCode.POISONED)
        nbytes = sum(len(ask.content) for ask in self.waiting) + len(content)
        if len(self.waiting) >= self.limits.queue_requests or nbytes > self.limits.queue_bytes:
            reasons.append(FailureCode.OVERLOADED)
        return reasons

    def check_catalogue(self, answer: TellClient, client: bytes, request_id: str) -> None:
        assert answer.client == client
        assert isinstance(answer.message, wire.Catalogue)
        assert answer.message.id == request_id
        listed = [(s.contract, sorted(s.replicas), len(s.replicas)) for s in answer.message.models]
        expected = []
        for model, present in self.contracts.items():
            serving: dict[str, tuple[wire.Contract, list[str]]] = {present.digest: (present, [])}
            for hand in self.hands.values():
                if hand.contract.model == model and not hand.leaving:
                    entry = serving.setdefault(hand.contract.digest, (hand.contract, []))
                    entry[1].append(hand.identity.decode())
            expected += [(c, sorted(names), len(names)) for c, names in serving.values()]
        assert sorted(listed, key=str) == sorted(expected, key=str)
        first = {s.contract.model: s.contract for s in reversed(answer.message.models)}
        assert first == self.contracts

    def check_status(self, answer: TellClient, client: bytes, request_id: str) -> None:
        assert answer.client == client
        assert isinstance(answer.message, wire.Status)
        assert answer.message.id == request_id
        for model in answer.message.models:
            waiting = [ask for ask in self.waiting if ask.request.model == model.name]
            nbytes = sum(len(ask.content) for ask in waiting)
            assert (model.queued, model.queued_bytes) == (len(waiting), nbytes)
        told = {(r.name, r.version, r.credit, r.held, r.leaving) for r in answer.message.replicas}
        assert told == {
            (h.identity.decode(), h.contract.version, h.credit, len(h.held), h.leaving)
            for h in self.hands.values()
        }

    def conclude_ready(self, identity: bytes, ready: wire.Ready) -> None:
        hand = self.hands.get(identity)
        if hand is not None and hand.contract == ready.contract:
            hand.credit, hand.heard = ready.credit, self.now
            return
        if hand is not None:
            self.die([hand])
        new = Hand(identity, ready.contract, ready.credit, self.now)
        if all(version(other) <= version(new) for other in self.staff(ready.contract.model)):
            self.contracts[ready.contract.model] = ready.contract
        self.hands[identity] = new

    def conclude_said(
        self, identity: bytes, message: wire.FromReplica, answers: list[TellClient]
    ) -> list[wire.Message]:
        """What a replica's word changes, and the word that it must get back."""
        hand = self.hands.get(identity)
        if hand is None:
            self.late += isinstance(message, wire.Done | wire.Failed)
            return [wire.Release() if isinstance(message, wire.Leave) else wire.Introduce()]
        hand.heard = self.now
        match message:
            case wire.Alive(busy_ms=None):
                for job, ask in reversed(list(hand.held.items())):
                    patient = not ask.open or ask.request.encoding == "image"
                    since = ask.deadline if patient else ask.handed
                    if self.now <= since + self.limits.liveness_s:
                        continue
                    del hand.held[job]
                    self.former.append((identity, job))
                    if ask.open:
                        ask.returns += 1
                        self.waiting.insert(0, ask)
            case wire.Alive(busy_ms=busy_ms):
                if busy_ms > self.limits.execution_s * 1000:
                    self.die([hand])
                    return []
            case wire.Leave():
                hand.leaving = True
                self.fall_back(hand.contract.model)
            case wire.Done() | wire.Failed():
                done = hand.held.pop(message.job, None)
                if done is None or not done.open:
                    self.late += 1
                if done is not None and done.open:
                    self.check_reply(done, hand, message, answers.pop(0))
                    self.close(done)
        if hand.leaving and not hand.held:
            self.remove([hand])
            return [wire.Release()]
        return []

    def check_reply(
        self, ask: Ask, hand: Hand, message: wire.Done | wire.Failed, answer: TellClient
    ) -> None:
        """The client hears exactly what the replica that holds its request said of it."""
        assert (answer.client, answer.message.id) == ask.key
        if isinstance(message, wire.Failed):
            assert isinstance(answer.message, wire.Failure)
            assert answer.message.code == message.code
            assert answer.message.message == message.message
            return
        result = answer.message
        assert isinstance(result, wire.Result)
        assert result.predictions == said_of(ask.content, hand.identity, message.job)
        assert (result.model, result.version) == (ask.request.model, hand.contract.version)
        assert (result.replica, result.attempt) == (hand.identity.decode(), ask.deaths + 1)
        assert result.timing.queue == pytest.approx((ask.handed - ask.arrived) * 1000, abs=0.01)
        assert ask.fits(hand.contract.digest)

    def conclude_tick(self, actions: list[Action], lost: int) -> None:
        pinged = {
            a.replica
            for a in actions
            if isinstance(a, TellReplica) and isinstance(a.message, wire.Ping)
        }
        silent = [h for h in self.hands.values() if self.now - h.heard > self.limits.liveness_s]
        assert lost in (0, len(silent))
        overdue = self.limits.liveness_s + 2 * self.limits.ping_s
        if lost:
            self.die(silent)
        else:
            assert not [h for h in silent if self.now - h.heard > overdue]
        assert pinged in (set(), set(self.hands))

    # --- what the actions may be --------------------------------------------------------------

    def check_answers(self, answers: list[TellClient]) -> None:
        """Answers that no reply was the reason for: convicts, their twins, and stale pixels."""
        for answer in answers:
            ask = self.open[answer.client, answer.message.id]
            assert isinstance(answer.message, wire.Failure)
            assert ask in self.waiting
            match answer.message.code:
                case FailureCode.POISONED:
                    assert self.poisoned(ask.content)
                case FailureCode.STALE_CONTRACT:
                    assert self.stale(ask)
                case FailureCode.BAD_PAYLOAD:
                    assert ask.request.encoding == "pixels"
                    assert len(ask.content) != NBYTES
                case code:
                    pytest.fail(f"nobody had a reason to say {code}")
            self.close(ask)

    def check_work(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, TellReplica) and isinstance(action.message, wire.Work):
                assert action.payload is not None
                self.check_handout(action.replica, action.message, action.payload.buffer)

    def check_handout(self, replica: bytes, work: wire.Work, payload: memoryview) -> None:
        hand = self.hands[replica]
        ask = next(ask for ask in self.waiting if ask.trace == work.trace)
        model = ask.request.model
        ahead = [a for a in self.waiting if a.request.model == model and a is not ask]
        ordinary = [a for a in ahead if not a.deaths]
        # To whom.
        assert not hand.leaving
        assert hand.contract.model == model
        assert ask.fits(hand.contract.digest)
        assert len(hand.held) < hand.credit
        assert not hand.with_suspect
        # What.
        assert payload == ask.content
        assert (work.top_k, work.encoding) == (ask.request.top_k, ask.request.encoding)
        assert ask.open
        assert self.now < ask.deadline
        assert work.deadline_ms == pytest.approx((ask.deadline - self.now) * 1000, abs=1)
        assert not any(work.job in h.held for h in self.hands.values())
        assert ask.job in (None, work.job)
        assert ask.handouts - ask.returns == ask.deaths < 3
        assert not self.poisoned(ask.content)
        # In what order.
        if ask.deaths:
            assert not hand.held
            assert self.lively(hand)
        else:
            suspects = [a for a in ahead if a.deaths]
            assert not suspects or hand.held or not self.lively(hand)
            mine = [a for a in ordinary if a.request.priority == ask.request.priority]
            assert all(self.waiting.index(ask) < self.waiting.index(a) for a in mine)
            if ask.request.priority == "bulk":
                self.bypassed[model] = 0
            elif any(a.request.priority == "bulk" for a in ordinary):
                self.bypassed[model] += 1
                assert self.bypassed[model] <= BULK_BYPASS
        self.waiting.remove(ask)
        ask.job, ask.handed, ask.lost = work.job, self.now, False
        ask.handouts += 1
        hand.held[work.job] = ask

    def check_nothing_undone(self) -> None:
        """Nothing is left that the laws ask for at once."""
        for ask in self.waiting:
            assert not self.stale(ask)
            assert not self.poisoned(ask.content)
            assert ask.deaths < 3
        for model in {ask.request.model for ask in self.waiting}:
            waiting = [ask for ask in self.waiting if ask.request.model == model]
            staff = self.staff(model)
            suspects = [ask for ask in waiting if ask.deaths]
            if suspects:
                assert all(hand.held for hand in staff if self.lively(hand))
            if len(suspects) < len(waiting):
                able = [h for h in staff if not h.with_suspect and len(h.held) < h.credit]
                alone = any(hand.with_suspect for hand in staff)
                assert len(able) <= (1 if suspects and not alone else 0)

    def check_books(self) -> None:
        """The Dispatcher keeps exactly what is owed, and nothing of what is settled."""
        kept = self.dispatcher
        ordinary = [ask for ask in self.waiting if not ask.deaths]
        returned = [ask for ask in self.waiting if ask.deaths]
        assert len(ordinary) <= self.limits.queue_requests
        assert sum(len(ask.content) for ask in ordinary) <= self.limits.queue_bytes
        assert kept.queued == len(ordinary) + len(returned)
        for served in kept._models.values():
            assert served.free == {r.identity: r for r in served.staff if r.free}
        assert kept._queued_bytes == sum(len(ask.content) for ask in self.waiting)
        assert set(kept._jobs) == set(self.open)
        assert len(kept._deadlines) <= 2 * len(self.open) + STALE_DEADLINES
        assert {r: set(x.held) for r, x in kept._replicas.items()} == {
            r: set(h.held) for r, h in self.hands.items()
        }
        assert kept.counts["late"] == self.late
        named = {ask.request.model for ask in self.waiting}
        assert set(kept._models) == named | set(self.contracts)

    # --- words for the rules ------------------------------------------------------------------

    def ask(
        self,
        client: bytes,
        request_id: str,
        content: bytes,
        *,
        model: str = "m",
        digest: str = OLD.digest,
        deadline_ms: int = 1000,
        encoding: wire.messages.Encoding = "pixels",
        priority: wire.messages.Priority = "interactive",
    ) -> None:
        self.traces += 1
        request = wire.Request(
            id=request_id,
            model=model,
            digest=digest,
            deadline_ms=deadline_ms,
            encoding=encoding,
            priority=priority,
            trace=str(self.traces),
            top_k=1 + self.traces % 5,
        )
        self.feed(Asked(client, request, Picture(content)))

    def ready(self, replica: bytes, present: wire.Contract, credit: int) -> None:
        message = wire.Ready(
            replica=replica.decode(), contract=present, credit=credit, device="cpu"
        )
        self.feed(ReplicaSaid(replica, message))

    def reply(self, replica: bytes, job: int, *, fail: bool = False) -> None:
        """The honest answer if this replica holds this job, a lie that must not get out if not."""
        hand = self.hands.get(replica)
        ask = hand.held.get(job) if hand else None
        if fail:
            message: wire.FromReplica = wire.Failed(
                job=job, code=FailureCode.ENGINE, message=f"job {job} of {replica!r}"
            )
        else:
            content = ask.content if ask else b"a lie"
            predictions = said_of(content, replica, job)
            message = wire.Done(job=job, predictions=predictions, batch_size=1, timing=TIMING)
        self.feed(ReplicaSaid(replica, message))

    def alive(self, replica: bytes, busy_ms: float | None) -> None:
        self.feed(ReplicaSaid(replica, wire.Alive(busy_ms=busy_ms)))

    def restart(self) -> None:
        """The broker is replaced, and clients send again what they still wait for."""
        pending = [ask for ask in self.open.values() if ask.deadline - self.now >= 0.001]
        self.begin()
        for ask in pending:
            left_ms = int((ask.deadline - self.now) * 1000)
            request = ask.request
            self.ask(
                ask.client,
                request.id,
                ask.content,
                model=request.model,
                digest=request.digest,
                deadline_ms=left_ms,
                encoding=request.encoding,
                priority=request.priority,
            )

    def finish(self) -> None:
        """Good times return: whoever can still be served in time is served."""
        for replica, hand in list(self.hands.items()):
            for job in [job for job, ask in hand.held.items() if not ask.lost]:
                self.reply(replica, job)
        for n, model in enumerate(("m", "n")):
            present = self.contracts.get(model, CONTRACTS[2 * n])
            self.ready(f"healthy {n}".encode(), present, 2)
        while work := [
            (replica, job)
            for replica, hand in self.hands.items()
            for job, ask in hand.held.items()
            if not ask.lost
        ]:
            self.reply(*work[0])
        served = ("m", "n")
        assert all(a.lost or a.request.model not in served for a in self.open.values())

    def forget_everything(self) -> None:
        """Time passes, and nothing is left of anything that ever happened."""
        self.now += 700
        self.feed(Tick())
        for replica in list(self.hands):
            self.alive(replica, None)
        assert not self.open
        assert not self.waiting
        assert not any(hand.held for hand in self.hands.values())
        self.check_books()
        assert self.dispatcher._deadlines == []

    def check_replay(self) -> None:
        """The journal, fed again, gives the same actions, with stand-ins for the pictures."""
        again = journal.replay(self.journal)
        assert [list(map(plain, actions)) for actions in again] == [
            list(map(plain, actions)) for actions in self.told
        ]


def plain(action: Action) -> object:
    """An action without its picture, which a journal does not keep."""
    if isinstance(action, TellReplica) and action.payload is not None:
        return action.replica, action.message, action.payload.buffer.nbytes
    return action


REPLICAS: Final = (b"R1", b"R2", b"R3", b"R4")
replicas = st.sampled_from(REPLICAS)
clients = st.sampled_from((b"c1", b"c2", b"c3"))
ids = st.sampled_from(("a", "b", "c", "d"))
pictures = st.sampled_from([bytes([n]) * NBYTES for n in range(3)])
deadlines = st.sampled_from((1, 100, 900, 5000, 60_000, 600_000))
priorities = st.sampled_from(("interactive", "interactive", "bulk"))
indices = st.integers(0, 1000)


class Laws(RuleBasedStateMachine):
    """Anything that can happen to a broker, in any order."""

    @initialize(joined=st.lists(st.integers(1, 4), max_size=3))
    def begin(self, joined: list[int]) -> None:
        self.books = Bookkeeper()
        for replica, credit in zip(REPLICAS, joined, strict=False):
            self.books.ready(replica, OLD, credit)

    # --- clients ------------------------------------------------------------------------------

    @rule(client=clients, request_id=ids, content=pictures, deadline=deadlines, priority=priorities)
    def ask(
        self,
        client: bytes,
        request_id: str,
        content: bytes,
        deadline: int,
        priority: wire.messages.Priority,
    ) -> None:
        digest = self.books.contracts.get("m", OLD).digest
        self.books.ask(
            client, request_id, content, digest=digest, deadline_ms=deadline, priority=priority
        )

    @rule(numbers=st.lists(st.tuples(pictures, priorities), min_size=2, max_size=8))
    def ask_many(self, numbers: list[tuple[bytes, wire.messages.Priority]]) -> None:
        digest = self.books.contracts.get("m", OLD).digest
        for n, (content, priority) in enumerate(numbers):
            self.books.ask(
                b"crowd",
                f"{self.books.traces}-{n}",
                content,
                digest=digest,
                deadline_ms=30_000,
                priority=priority,
            )

    @rule(
        client=clients,
        request_id=ids,
        content=st.sampled_from((b"", b"x", b"y" * NBYTES, b"z" * 50, b"z" * 90)),
        model=st.sampled_from(("m", "n", "ghost", "phantom")),
        digest=st.sampled_from((OLD.digest, NEW.digest, OTHER.digest, "")),
        encoding=st.sampled_from(("pixels", "image")),
        deadline=deadlines,
    )
    def ask_oddly(
        self,
        client: bytes,
        request_id: str,
        content: bytes,
        model: str,
        digest: str,
        encoding: wire.messages.Encoding,
        deadline: int,
    ) -> None:
        self.books.ask(
            client,
            request_id,
            content,
            model=model,
            digest=digest,
            encoding=encoding,
            deadline_ms=deadline,
        )

    @precondition(lambda self: self.books.open)
    @rule(which=indices)
    def ask_again(self, which: int) -> None:
        ask = self.one(list(self.books.open.values()), which)
        self.books.feed(Asked(ask.client, ask.request, Picture(ask.content)))

    @precondition(lambda self: self.books.open)
    @rule(which=indices)
    def cancel(self, which: int) -> None:
        ask = self.one(list(self.books.open.values()), which)
        self.books.feed(ClientSaid(ask.client, wire.Cancel(id=ask.request.id)))

    @rule(client=clients, request_id=ids)
    def cancel_anything(self, client: bytes, request_id: str) -> None:
        self.books.feed(ClientSaid(client, wire.Cancel(id=request_id)))

    @rule(client=clients, request_id=ids)
    def inquire(self, client: bytes, request_id: str) -> None:
        self.books.feed(ClientSaid(client, wire.Inquire(id=request_id)))

    @rule(client=clients)
    def describe(self, client: bytes) -> None:
        self.books.feed(ClientSaid(client, wire.Describe(id="d")))

    @rule(client=clients)
    def observe(self, client: bytes) -> None:
        self.books.feed(ClientSaid(client, wire.Observe(id="o")))

    @rule(client=clients)
    def lose_client(self, client: bytes) -> None:
        self.books.feed(ClientUnreachable(client))

    # --- replicas -----------------------------------------------------------------------------

    @rule(replica=replicas, credit=st.integers(1, 4))
    def ready(self, replica: bytes, credit: int) -> None:
        known = self.books.hands.get(replica)
        present = known.contract if known else self.books.contracts.get("m", OLD)
        self.books.ready(replica, present, credit)

    @rule(replica=replicas, present=st.sampled_from(CONTRACTS))
    def ready_for_another_contract(self, replica: bytes, present: wire.Contract) -> None:
        self.books.ready(replica, present, 2)

    @precondition(lambda self: self.in_hand())
    @rule(which=indices, fail=st.booleans(), twice=st.booleans())
    def reply(self, which: int, fail: bool, twice: bool) -> None:
        replica, job = self.one(self.in_hand(), which)
        self.books.reply(replica, job, fail=fail)
        if twice:
            self.books.reply(replica, job)

    @precondition(lambda self: self.in_hand())
    @rule(count=st.integers(1, 8))
    def reply_to_many(self, count: int) -> None:
        for replica, job in self.in_hand()[:count]:
            if job in self.books.hands[replica].held:
                self.books.reply(replica, job)

    @precondition(lambda self: self.in_hand())
    @rule(which=indices, replica=replicas)
    def reply_for_another(self, which: int, replica: bytes) -> None:
        holder, job = self.one(self.in_hand(), which)
        if holder != replica:
            self.books.reply(replica, job)

    @precondition(lambda self: self.books.former)
    @rule(which=indices)
    def reply_late(self, which: int) -> None:
        self.books.reply(*self.one(self.books.former, which))

    @rule(replica=replicas, job=st.sampled_from((0, 7, wire.messages.JOB_ID_MAX)))
    def reply_nonsense(self, replica: bytes, job: int) -> None:
        if (replica, job) not in self.in_hand():
            self.books.reply(replica, job)

    @precondition(lambda self: self.in_hand())
    @rule(which=indices)
    def lose_frame(self, which: int) -> None:
        replica, job = self.one(self.in_hand(), which)
        self.books.hands[replica].held[job].lost = True

    @rule(replica=replicas, busy_ms=st.sampled_from((None, None, 0.0, 4999.0, 5001.0)))
    def alive(self, replica: bytes, busy_ms: float | None) -> None:
        self.books.alive(replica, busy_ms)

    @rule(replica=replicas)
    def leave(self, replica: bytes) -> None:
        self.books.feed(ReplicaSaid(replica, wire.Leave()))

    @rule(replica=replicas)
    def kill(self, replica: bytes) -> None:
        self.books.feed(ReplicaUnreachable(replica))

    @precondition(lambda self: self.in_hand())
    @rule(which=indices)
    def kill_at_work(self, which: int) -> None:
        replica, _ = self.one(self.in_hand(), which)
        self.books.feed(ReplicaUnreachable(replica))

    @precondition(lambda self: self.in_hand())
    @rule(which=indices)
    def leave_with_full_hands(self, which: int) -> None:
        replica, _ = self.one(self.in_hand(), which)
        self.books.feed(ReplicaSaid(replica, wire.Leave()))

    @precondition(lambda self: self.in_hand())
    @rule(which=indices)
    def kill_all_that_touch(self, which: int) -> None:
        """A picture that is deadly: whoever holds it dies, as long as anybody is given it."""
        replica, job = self.one(self.in_hand(), which)
        content = self.books.hands[replica].held[job].content
        while holders := [
            hand.identity
            for hand in self.books.hands.values()
            if any(ask.content == content for ask in hand.held.values())
        ]:
            self.books.feed(ReplicaUnreachable(holders[-(which % 2)]))

    @rule(credit=st.integers(1, 4))
    def ready_all(self, credit: int) -> None:
        present = self.books.contracts.get("m", OLD)
        for replica in REPLICAS:
            self.books.ready(replica, present, credit)

    # --- time ---------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.0005, 0.001, 0.03, 0.24)))
    def wait(self, seconds: float) -> None:
        self.books.now += seconds
        self.books.feed(Tick())

    @rule(
        seconds=st.sampled_from((0.5, 1.0, 2.0, 2.6)),
        talk=st.sampled_from((set(), {b"R1"}, {b"R2", b"R3"}, set(REPLICAS))),
    )
    def pass_time(self, seconds: float, talk: set[bytes]) -> None:
        """As a broker passes it: a Tick whenever one is due, and some replicas answer Pings."""
        end = self.books.now + seconds
        while (step := self.books.dispatcher.seconds_to_next(self.books.now)) <= (
            end - self.books.now
        ):
            self.books.now += step
            pinged = self.books.feed(Tick())
            for action in pinged:
                match action:
                    case TellReplica(replica, wire.Ping()) if replica in talk:
                        self.books.alive(replica, None)
        self.books.now = end

    @rule(seconds=st.sampled_from((1.1, 3.0, 13.0, 700.0)))
    def be_away(self, seconds: float) -> None:
        """The broker was stopped for so long; what happens next is the first it sees of it."""
        self.books.now += seconds

    @rule(credit=st.integers(1, 4))
    def cut_the_network(self, credit: int) -> None:
        """Everybody was there, and suddenly nobody is."""
        self.ready_all(credit)
        self.pass_time(2.6, set())

    @rule()
    def restart_the_broker(self) -> None:
        self.books.restart()

    # --- at all times -------------------------------------------------------------------------

    def in_hand(self) -> list[tuple[bytes, int]]:
        """What replicas can still reply to."""
        return [
            (replica, job)
            for replica, hand in self.books.hands.items()
            for job, ask in hand.held.items()
            if not ask.lost
        ]

    @staticmethod
    def one(things: list[T], which: int) -> T:
        return things[which % len(things)]

    @invariant()
    def books_agree(self) -> None:
        self.books.check_books()

    def teardown(self) -> None:
        if hasattr(self, "books") and self.books.sound:
            self.books.finish()
            self.books.forget_everything()
            self.books.check_replay()


Laws.TestCase.settings = settings(
    max_examples=EXAMPLES or 150,
    stateful_step_count=60,
    derandomize=not EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLaws = pytest.mark.timeout(0 if EXAMPLES else 300)(Laws.TestCase)


def test_a_journal_replays_and_holds_no_picture() -> None:
    books = Bookkeeper()
    secret = b"secret photo"
    books.ready(b"R1", OLD, 1)
    books.ask(b"c", "r1", secret)
    books.ask(b"c", "r2", secret)
    books.feed(ReplicaUnreachable(b"R1"))
    books.ready(b"R2", OLD, 1)
    books.feed(ReplicaUnreachable(b"R2"))
    replayed = [action for actions in journal.replay(books.journal) for action in actions]
    codes = [a.message.code for a in replayed if isinstance(a, TellClient)]
    assert codes == [FailureCode.POISONED, FailureCode.POISONED]
    books.check_replay()
    assert not any(secret in line for line in books.journal)
