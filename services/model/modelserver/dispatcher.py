"""The broker's rules: an event in, a list of actions out. No socket, thread, clock or log.

Laws, each kept in one place:
- Every accepted request gets exactly one answer, by its deadline ........ `_answer`, `_expire`
- No replica holds more than its credit ................................. `_assign`
- The queue is bounded in requests and bytes; what cannot be in time is refused at once
  .................................................................... `_admit`
- Nothing expired or cancelled is dispatched ............................ `_expire`, `_cancel`
- A dead replica's requests go back to the head of the queue, once; from then on each travels
  alone, so that a second death convicts the right one ......... `_lose`, `_convict`, `_assign`
- A late or unknown reply is dropped and counted ........................ `_finish`, `_stranger`
- A leaving replica gets nothing new and goes when its hands are empty .. `_leave`, `_release`
- Pixels go to replicas of the contract that they were made for ......... `Model.staff`, `_adopt`
- Replicas that see the same GPUs are spread over them .................. `leases.Leases`

Times are seconds on the caller's monotonic clock.
"""

import heapq
import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

import msgspec

from modelserver.drain_rate import DrainRate
from modelserver.events import (
    Action,
    Asked,
    ClientSaid,
    ClientUnreachable,
    Event,
    Note,
    ReplicaSaid,
    ReplicaUnreachable,
    Stay,
    TellClient,
    TellReplica,
    Tick,
)
from modelserver.fleet import Model, Replica, newest
from modelserver.job import Job, Payload
from modelserver.leases import Leases
from modelserver.placement import Placement
from modelserver.poison import PoisonList
from modelserver.status import status
from wire import (
    Alive,
    Cancel,
    Catalogue,
    Contract,
    Describe,
    Devices,
    Done,
    Failed,
    Failure,
    FailureCode,
    FromReplica,
    Inquire,
    Introduce,
    Leave,
    Observe,
    Ping,
    Ready,
    Release,
    Request,
    Result,
    Served,
    Status,
    ToClient,
    Unknown,
    Work,
    traces,
)
from wire.messages import JOB_ID_MAX

RETRY_UNMEASURED_MS: Final = 1000
"""What Retry-After says while no drain rate has been measured."""

PROMISED_SHARE: Final = 0.8
"""A request is accepted if it should be answered within so much of its time. With all of it the
queue grows until whatever gets its turn is a moment too late, and the work is for nothing: at ten
times the capacity only three quarters of it arrived in time."""

UNREST_S: Final = 60.0
"""While replicas die of something else, a second death proves little against a picture: in the
chaos drill a kill now and then hits the replica that is just trying a suspect."""

STALE_DEADLINES: Final = 1024
"""So many deadlines of settled requests may wait for their time, besides as many as there are
requests; then they are swept out. Otherwise fast answers to patient clients fill the memory."""

UNNAMED_MODEL: Final = "default"
"""What a request for no model in particular asks for while none has been seen."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the broker allows. Seconds, bytes and counts as named."""

    queue_requests: int = 1024
    queue_bytes: int = 256 * 1024 * 1024
    ping_s: float = 0.25
    liveness_s: float = 2.0
    """A replica not heard of for so long is dead: eight pings."""
    execution_s: float = 5.0
    """An engine busy with one batch for longer hangs."""
    poison_s: float = 600.0
    """How long the pixels of a poisoned request are refused."""
    poison_digests: int = 1024
    objective_s: float = 0.25
    """The wait in the queue that advice about replicas is given for."""
    settle_s: float = 5.0
    """After the broker's start replicas may still be on their way, so no model is unknown yet."""


class Dispatcher:
    """Decides who does what. Feed it every event; carry out every action, in order."""

    def __init__(self, limits: Limits, *, now: float, first_job: int) -> None:
        """``first_job``: where job ids begin. Two brokers must not begin at the same number,
        or a replica's late reply to the one would answer a request of the other."""
        self.limits = limits
        self.counts: Counter[str] = Counter()
        self._models: dict[str, Model] = {}
        self._replicas: dict[bytes, Replica] = {}
        self._jobs: dict[tuple[bytes, str], Job] = {}
        self._deadlines: list[tuple[float, int, bytes, str]] = []
        """Not the jobs themselves: an answered one must not keep its pixels until then."""
        self._poison = PoisonList(limits.poison_s, limits.poison_digests)
        self._leases = Leases(settled=now + limits.settle_s)
        self._deaths: deque[float] = deque()
        """When replicas were lost, over the last UNREST_S."""
        self._queued_requests = 0
        self._queued_bytes = 0
        self._next_job = first_job
        self._started = now
        self._seen = now
        self._next_ping = now
        self._actions: list[Action] = []

    def handle(self, event: Event, now: float) -> list[Action]:
        """What has to be done about ``event`` at ``now``, in order."""
        if now - self._seen > self.limits.liveness_s / 2:
            self._return(now)
        self._seen = now
        self._expire(now)
        match event:
            case Asked(client, request, payload):
                self._admit(client, request, payload, now)
            case ClientSaid(client, Inquire(id=request_id)):
                self._inquire(client, request_id)
            case ClientSaid(client, Cancel(id=request_id)):
                self._cancel(client, request_id)
            case ClientSaid(client, Describe(id=request_id)):
                self._describe(client, request_id)
            case ClientSaid(client, Observe(id=request_id)):
                self._tell(client, self.status(request_id, now))
            case ReplicaSaid(identity, Ready() as ready):
                self._join(identity, ready, now)
            case ReplicaSaid(identity, Devices() as devices):
                self._actions += self._leases.ask(identity, devices, now)
            case ReplicaSaid(identity, message):
                self._hear(identity, message, now)
            case ReplicaUnreachable(identity, undelivered):
                self._actions += self._leases.drop(identity)
                if identity in self._replicas:
                    replica = self._replicas[identity]
                    self._lose([replica], "its connection is gone", now, undelivered)
            case ClientUnreachable(client):
                self._abandon(client)
            case Tick():
                self._tick(now)
        # Whatever it was: it may have brought work, or room, or taken a suspect out of the way.
        for model in self._models.values():
            self._assign(model, now)
        actions, self._actions = self._actions, []
        return actions

    def seconds_to_next(self, now: float) -> float:
        """How long the caller may wait for an event before it has to send a Tick."""
        due = self._next_ping
        if self._deadlines:
            due = min(due, self._deadlines[0][0])
        return max(0.0, due - now)

    @property
    def default_model(self) -> str:
        """The model for whoever names none: the first that was seen and is still served."""
        known = [m for m in self._models.values() if m.contract is not None]
        served = [m for m in known if m.staff]
        return next((m.name for m in served or known), UNNAMED_MODEL)

    @property
    def queued(self) -> int:
        """Requests that wait for a replica."""
        return self._queued_requests

    def status(self, request_id: str, now: float) -> Status:
        """The books as they are at ``now``, for whoever asked by ``request_id``."""
        return status(
            request_id,
            now=now,
            began=self._started,
            counts=self.counts,
            models=self._models.values(),
            replicas=self._replicas.values(),
            objective_s=self.limits.objective_s,
        )

    # --- clients ------------------------------------------------------------------------------

    def _admit(self, client: bytes, request: Request, payload: Payload, now: float) -> None:
        if (client, request.id) in self._jobs:
            self.counts["repeated"] += 1
            return
        nbytes = payload.buffer.nbytes
        refusal = self._refusal(request, payload, nbytes, now)
        if refusal is not None:
            self.counts[f"refused_{refusal.code}"] += 1
            if refusal.code is FailureCode.OVERLOADED and request.model in self._models:
                self._models[request.model].adviser.offered += 1
            self._tell(client, refusal, _stay(request, now))
            return
        job = Job(
            id=self._next_job,
            client=client,
            request=request,
            payload=payload,
            nbytes=nbytes,
            arrived=now,
            deadline=now + request.deadline_ms / 1000,
            queued=now,
        )
        self._next_job = (self._next_job + 1) % JOB_ID_MAX
        self.counts["accepted"] += 1
        self._jobs[client, request.id] = job
        heapq.heappush(self._deadlines, (job.deadline, job.id, client, request.id))
        model = self._models.setdefault(request.model, Model(request.model))
        model.adviser.offered += 1
        self._enqueue(model, job)

    def _refusal(
        self, request: Request, payload: Payload, nbytes: int, now: float
    ) -> Failure | None:
        """Why a request is not accepted; None if it is."""
        model = self._models.get(request.model)
        if model is None or model.contract is None:
            known = [m.name for m in self._models.values() if m.contract is not None]
            if known and now >= self._started + self.limits.settle_s:
                return _failure(
                    request,
                    FailureCode.UNKNOWN_MODEL,
                    f"No model is called {request.model!r}; there is {', '.join(known)}.",
                )
        else:
            mismatch = _mismatch(request, nbytes, model.contract)
            if mismatch is not None:
                return mismatch
        if self._poison.holds(payload, now):
            return _poisoned(request)
        if (
            self._queued_requests >= self.limits.queue_requests
            or self._queued_bytes + nbytes > self.limits.queue_bytes
        ):
            return self._overloaded(request, model, "The queue is full.", now)
        # Whom a replica takes at once waits for nobody, however slow they were when measured.
        if model is not None and model.staff and (model.queue or not model.free):
            wait = self._wait(model, now)
            if wait is not None and wait * 1000 > request.deadline_ms * PROMISED_SHARE:
                text = f"{model.ahead} requests are ahead, about {wait:.1f} s of work."
                return self._overloaded(request, model, text, now)
        return None

    def _overloaded(
        self, request: Request, model: Model | None, reason: str, now: float
    ) -> Failure:
        wait = self._wait(model, now) if model else None
        retry_ms = RETRY_UNMEASURED_MS if wait is None else math.ceil(wait * 1000)
        return _failure(
            request,
            FailureCode.OVERLOADED,
            f"{reason} Try again in {retry_ms / 1000:.1f} s.",
            retry_after_ms=retry_ms,
        )

    @staticmethod
    def _wait(model: Model, now: float) -> float | None:
        """Seconds until a new request would be answered; None where that is not known."""
        return model.rate.seconds_for(model.ahead + 1, now)

    def _inquire(self, client: bytes, request_id: str) -> None:
        if (client, request_id) not in self._jobs:
            self._tell(client, Unknown(id=request_id))

    def _cancel(self, client: bytes, request_id: str) -> None:
        job = self._jobs.get((client, request_id))
        if job is not None:
            self.counts["cancelled"] += 1
            self._settle(job)

    def _abandon(self, client: bytes) -> None:
        """Nobody is left to answer. A client that comes back inquires, and sends again."""
        orphans = [job for job in self._jobs.values() if job.client == client]
        for job in orphans:
            self._settle(job)
        self.counts["abandoned"] += 1 + len(orphans)

    def _describe(self, client: bytes, request_id: str) -> None:
        models = tuple(
            Served(contract=contract, replicas=tuple(replica.name for replica in replicas))
            for model in self._models.values()
            for contract, replicas in model.versions()
        )
        self._tell(client, Catalogue(id=request_id, models=models))

    # --- replicas -----------------------------------------------------------------------------

    def _join(self, identity: bytes, ready: Ready, now: float) -> None:
        contract = ready.contract
        known = self._replicas.get(identity)
        if known is not None and known.contract == contract:
            known.credit, known.heard = ready.credit, now
            self._models[contract.model].moved(known)
        else:
            if known is not None:
                self._lose([known], f"it serves {contract.model} {contract.version} now", now)
            # Not before: who waited for a model that nobody serves may have been its last reason.
            model = self._models.setdefault(contract.model, Model(contract.model))
            replica = Replica(
                identity=identity,
                name=ready.replica,
                contract=contract,
                credit=ready.credit,
                device=ready.device,
                parallel=ready.parallel,
                heard=now,
            )
            adopts = model.adopts(contract)
            self._replicas[identity] = model.replicas[identity] = replica
            model.changed()
            if adopts:
                self._name_the_unnamed(model)
                self._adopt(model, contract)
            self.counts["joined"] += 1
            self._note(
                f"replica {ready.replica} joined: {contract.model} version {contract.version} "
                f"on {ready.device}, credit {ready.credit}; {len(model.staff)} now"
            )

    def _name_the_unnamed(self, model: Model) -> None:
        """Who asked for no model in particular before one was seen waits for this one now."""
        unnamed = self._models.get(UNNAMED_MODEL)
        if unnamed is None or unnamed is model or unnamed.contract is not None:
            return
        for job in unnamed.queue.jobs():
            job.request = msgspec.structs.replace(job.request, model=model.name)
            model.queue.put(job)
        del self._models[UNNAMED_MODEL]

    def _adopt(self, model: Model, contract: Contract) -> None:
        """From now on pixels are made for this contract; what waits for another is stale."""
        if model.contract == contract:
            return
        model.contract = contract
        model.changed()
        model.adviser.forget()
        model.rate = DrainRate()
        for job in model.queue.jobs():
            mismatch = _mismatch(job.request, job.nbytes, contract)
            if mismatch is not None:
                self._answer(job, mismatch)

    def _fall_back(self, model: Model) -> None:
        """Where nobody serves the present contract any more, those of another one do."""
        others = [replica for replica in model.replicas.values() if not replica.leaving]
        if others and not model.staff:
            self._adopt(model, newest(others))

    def _hear(self, identity: bytes, message: FromReplica, now: float) -> None:
        replica = self._replicas.get(identity)
        if replica is None:
            self._stranger(identity, message)
            return
        replica.heard = now
        match message:
            case Alive(busy_ms=busy_ms):
                replica.busy_ms = busy_ms
                if busy_ms is not None and busy_ms > self.limits.execution_s * 1000:
                    self._lose([replica], f"its engine hangs since {busy_ms / 1000:.1f} s", now)
                elif busy_ms is None:
                    self._write_off(replica, now)
            case Done() | Failed():
                self._finish(replica, message, now)
            case Leave():
                self._leave(replica)

    def _stranger(self, identity: bytes, message: FromReplica) -> None:
        """A replica that this broker does not know: we, or it, have been away."""
        if isinstance(message, Done | Failed):
            self.counts["late"] += 1
        reply = Release() if isinstance(message, Leave) else Introduce()
        self._actions.append(TellReplica(identity, reply))

    def _write_off(self, replica: Replica, now: float) -> None:
        """What an idle replica still owes after a while got lost on the way, there or back: its
        connection broke, and was there again before anybody noticed. Without this its credit
        would be gone for good. Of a file it may be decoding, and so it has until the deadline."""
        due = now - self.limits.liveness_s
        model = self._models[replica.contract.model]
        # The oldest last, so that it comes first again.
        for job in reversed(list(replica.held.values())):
            waited = job.answered or job.request.encoding == "image"
            if (job.deadline if waited else job.dispatched) < due:
                self.counts["written_off"] += 1
                del replica.held[job.id]
                model.moved(replica)
                if not job.answered:
                    self._give_back(model, job, now)
        if replica.leaving:
            self._release(replica)

    def _finish(self, replica: Replica, message: Done | Failed, now: float) -> None:
        job = replica.held.pop(message.job, None)
        if job is None:
            self.counts["late"] += 1
            return
        model = self._models[replica.contract.model]
        model.moved(replica)
        model.rate.observe(now, 1, bool(model.queue))
        if isinstance(message, Done):
            model.observe(replica, message.timing.inference, message.batch_size)
        if job.answered:
            self.counts["late"] += 1
        elif isinstance(message, Failed):
            self._answer(job, _failure(job.request, message.code, message.message))
        else:
            queue_ms = (job.dispatched - job.arrived) * 1000
            model.waited_ms.add(queue_ms)
            model.answered_ms.add((now - job.arrived) * 1000)
            self._answer(
                job,
                Result(
                    id=job.request.id,
                    model=model.name,
                    version=replica.contract.version,
                    predictions=message.predictions,
                    replica=replica.name,
                    attempt=job.deaths + 1,
                    batch_size=message.batch_size,
                    timing=msgspec.structs.replace(message.timing, queue=queue_ms),
                ),
            )
        if replica.leaving:
            self._release(replica)

    def _leave(self, replica: Replica) -> None:
        replica.leaving = True
        model = self._models[replica.contract.model]
        model.changed()
        self._fall_back(model)
        self._note(f"replica {replica.name} is leaving; {len(model.staff)} stay")
        self._release(replica)

    def _release(self, replica: Replica) -> None:
        if not replica.held:
            self._forget([replica])
            self._actions.append(TellReplica(replica.identity, Release()))

    def _lose(
        self, replicas: list[Replica], reason: str, now: float, undelivered: int | None = None
    ) -> None:
        """Together, because none of the lost may inherit the work of another. Nobody can have
        died of the job that was ``undelivered``."""
        self._forget(replicas)
        self._deaths.extend(now for _ in replicas)
        while self._deaths and self._deaths[0] <= now - UNREST_S:
            self._deaths.popleft()
        for replica in replicas:
            model = self._models[replica.contract.model]
            orphans = sum(not job.answered for job in replica.held.values())
            self.counts["lost"] += 1
            self._note(
                f"replica {replica.name} is lost: {reason}; it held {orphans} requests, "
                f"{len(model.staff)} replicas stay",
                alarming=True,
            )
            for job in replica.held.values():
                job.deaths += job.id != undelivered
                if self._is_guilty(job) and job.id != undelivered:
                    self._convict(job, now)
                elif not job.answered:
                    self._give_back(model, job, now)

    def _is_guilty(self, job: Job) -> bool:
        """Two replicas died of it, or three while others died without it."""
        unrest = len(self._deaths) > job.deaths
        return job.deaths > (2 if unrest else 1)

    def _give_back(self, model: Model, job: Job, now: float) -> None:
        """To the head of the queue, if anybody may still serve it."""
        contract = model.contract
        if contract and (mismatch := _mismatch(job.request, job.nbytes, contract)):
            self._answer(job, mismatch)
        elif self._poison.holds(job.payload, now):
            self._answer(job, _poisoned(job.request))
        else:
            job.replica, job.queued = None, now
            self.counts["redispatched"] += 1
            self._enqueue(model, job, first=True)

    def _convict(self, job: Job, now: float) -> None:
        """Replicas died of these pixels, so whoever waits with the same ones has no hope."""
        self.counts["poisoned"] += 1
        self._note(
            f"request {job.request.id} ({traces(job.request)}) is poisoned: "
            f"{job.deaths} replicas died of it",
            alarming=True,
            request=job.request,
        )
        self._poison.add(job.payload, now)
        waiting = [other for model in self._models.values() for other in model.queue.jobs()]
        # As bytes, because memoryviews are compared one element after the other.
        pixels = job.payload.buffer.tobytes()
        twins = [other for other in waiting if other.payload.buffer.tobytes() == pixels]
        for victim in twins if job.answered else [job, *twins]:
            self._answer(victim, _poisoned(victim.request))

    def _forget(self, replicas: list[Replica]) -> None:
        models = dict.fromkeys(replica.contract.model for replica in replicas)
        for replica in replicas:
            del self._replicas[replica.identity]
            del self._models[replica.contract.model].replicas[replica.identity]
        for name in models:
            model = self._models[name]
            model.changed()
            if not model.replicas:
                model.rate.pause()
            self._fall_back(model)

    # --- jobs ---------------------------------------------------------------------------------

    def _enqueue(self, model: Model, job: Job, *, first: bool = False) -> None:
        model.queue.put(job, first=first)
        self._queued_requests += 1
        self._queued_bytes += job.nbytes

    def _dequeued(self, job: Job) -> None:
        self._queued_requests -= 1
        self._queued_bytes -= job.nbytes

    def _assign(self, model: Model, now: float) -> None:
        """Hand out what credit allows: suspects one to an idle replica, then the rest to whoever
        is expected to be through with it first."""
        if not model.queue:
            model.adviser.slack = True
            return
        free = model.free
        if model.queue.returned:
            staff = model.staff
            # Not to one that is about to be lost: its second death would convict an innocent.
            lively = now - self.limits.liveness_s / 2
            for replica in staff:
                if not model.queue.returned:
                    break
                if not replica.held and replica.heard >= lively:
                    self._hand(model.queue.take_suspect(), replica, now)
            if model.queue.returned and not any(replica.isolating for replica in staff):
                # Nobody is idle, so the one nearest to it is kept free of new work until it is.
                nearest = min(staff, key=lambda r: len(r.held), default=None)
                free = {key: replica for key, replica in free.items() if replica is not nearest}
        if not free:
            return
        rivals = model.staff if model.mixed else []
        placement = Placement(free.values(), rivals, now - self.limits.liveness_s / 2)
        while (model.queue.interactive or model.queue.bulk) and (
            chosen := placement.best(len(model.queue))
        ):
            self._hand(model.queue.take(), chosen, now)

    def _hand(self, job: Job, replica: Replica, now: float) -> None:
        self._dequeued(job)
        job.replica = replica.identity
        job.dispatched = replica.used = now
        replica.held[job.id] = job
        self._models[replica.contract.model].moved(replica)
        self.counts["dispatched"] += 1
        work = Work(
            job=job.id,
            # Rounding must not make the budget larger than the request's own, which may be the
            # largest that there is.
            deadline_ms=min(job.request.deadline_ms, math.ceil((job.deadline - now) * 1000)),
            top_k=job.request.top_k,
            encoding=job.request.encoding,
            trace=job.request.trace,
            traceparent=job.request.traceparent,
        )
        stay = _stay(job.request, job.queued, job.deaths + 1, replica.name)
        self._actions.append(TellReplica(replica.identity, work, job.payload, stay))

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, job_id, client, request_id = heapq.heappop(self._deadlines)
            job = self._jobs.get((client, request_id))
            if job is None or job.id != job_id:
                continue
            self.counts["expired"] += 1
            if self._models[job.request.model].staff:
                text = f"No replica finished within {job.request.deadline_ms} ms."
                self._answer(job, _failure(job.request, FailureCode.DEADLINE, text))
            else:
                text = f"No replica of {job.request.model} is alive."
                code, retry_ms = FailureCode.UNAVAILABLE, RETRY_UNMEASURED_MS
                self._answer(job, _failure(job.request, code, text, retry_after_ms=retry_ms))

    def _answer(self, job: Job, message: Result | Failure) -> None:
        self.counts["answered"] += 1
        waited = job.replica is None
        stay = _stay(job.request, job.queued, job.deaths + 1) if waited else None
        self._settle(job)
        self._tell(job.client, message, stay)

    def _settle(self, job: Job) -> None:
        """Nothing more will be said about this job; it leaves the queue if it is there."""
        job.answered = True
        del self._jobs[job.client, job.request.id]
        model = self._models[job.request.model]
        if job.replica is None:
            model.queue.remove(job)
            self._dequeued(job)
        if model.contract is None and not model.queue:
            del self._models[model.name]
        if len(self._deadlines) > 2 * len(self._jobs) + STALE_DEADLINES:
            self._deadlines = [(j.deadline, j.id, *key) for key, j in self._jobs.items()]
            heapq.heapify(self._deadlines)

    # --- time ---------------------------------------------------------------------------------

    def _return(self, now: float) -> None:
        """It was this broker that was away (stopped, or starved): nobody could be heard."""
        for replica in self._replicas.values():
            replica.heard = now
        for model in self._models.values():
            model.rate.pause()
            model.adviser.slack = True

    def _tick(self, now: float) -> None:
        if now < self._next_ping:
            return
        self._next_ping = now + self.limits.ping_s
        due = now - self.limits.liveness_s
        silent = [replica for replica in self._replicas.values() if replica.heard < due]
        self._lose(silent, f"not heard of for {self.limits.liveness_s:.1f} s", now)
        for identity in self._replicas:
            self._actions.append(TellReplica(identity, Ping()))
        self._actions += self._leases.pings()
        for model in self._models.values():
            model.adviser.look(now, len(model.staff))

    # --- words --------------------------------------------------------------------------------

    def _tell(self, client: bytes, message: ToClient, stay: Stay | None = None) -> None:
        self._actions.append(TellClient(client, message, stay))

    def _note(self, text: str, *, alarming: bool = False, request: Request | None = None) -> None:
        self._actions.append(Note(text, alarming, request))


def _stay(request: Request, since: float, attempt: int = 1, replica: str = "") -> Stay | None:
    """For the trace that the request is part of, if it is part of one."""
    if request.traceparent is msgspec.UNSET:
        return None
    return Stay(request, since, attempt, replica)


def _failure(
    request: Request, code: FailureCode, message: str, retry_after_ms: int | None = None
) -> Failure:
    return Failure(id=request.id, code=code, message=message, retry_after_ms=retry_after_ms)


def _poisoned(request: Request) -> Failure:
    text = "Replicas died while they worked on this picture, so it is not tried again."
    return _failure(request, FailureCode.POISONED, text)


def _mismatch(request: Request, nbytes: int, contract: Contract) -> Failure | None:
    """What is wrong with a request's pixels for ``contract``; None if they fit it."""
    if request.encoding == "image":
        return None
    if request.digest != contract.digest:
        text = f"The pixels were made for another version than {contract.version}."
        return _failure(request, FailureCode.STALE_CONTRACT, text)
    if nbytes != contract.nbytes:
        text = f"{nbytes} bytes of pixels; the contract asks for {contract.nbytes}."
        return _failure(request, FailureCode.BAD_PAYLOAD, text)
    return None
