"""The broker's laws, on a fake clock: events in, actions out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest

import wire
from modelserver.dispatcher import (
    RETRY_UNMEASURED_MS,
    STALE_DEADLINES,
    UNREST_S,
    Dispatcher,
    Limits,
)
from modelserver.drain_rate import FORGOTTEN_S
from modelserver.events import (
    Action,
    Asked,
    ClientSaid,
    ClientUnreachable,
    Event,
    ReplicaSaid,
    ReplicaUnreachable,
    Stay,
    TellClient,
    TellReplica,
    Tick,
)
from modelserver.fleet import COMPARED_EVERY, MEASURED_AFTER
from modelserver.poison import PoisonList
from wire import FailureCode

CONTRACT = wire.Contract(
    model="m",
    version="1",
    digest="0123456789abcdef",
    width=2,
    height=2,
    crop=1.0,
    filter="bicubic",
    classes=2,
)


@dataclass(frozen=True)
class Pixels:
    content: bytes = bytes(CONTRACT.nbytes)

    @property
    def buffer(self) -> memoryview:
        return memoryview(self.content)


class Bench:
    """A Dispatcher, its clock, and words for what happens to it."""

    def __init__(self, **limits: float) -> None:
        self.now = 100.0
        self.dispatcher = Dispatcher(Limits(settle_s=0.0, **limits), now=self.now, first_job=1)

    def feed(self, event: Event) -> list[Action]:
        return self.dispatcher.handle(event, self.now)

    def ask(
        self,
        request_id: str = "r",
        *,
        client: bytes = b"c",
        deadline_ms: int = 1000,
        pixels: Pixels | None = None,
        **fields: object,
    ) -> list[Action]:
        given = {"model": "m", "digest": CONTRACT.digest, **fields}
        request = wire.Request(id=request_id, deadline_ms=deadline_ms, **given)
        return self.feed(Asked(client, request, pixels or Pixels()))

    def ready(
        self, replica: bytes = b"R1", *, credit: int = 4, contract: wire.Contract = CONTRACT
    ) -> list[Action]:
        name = replica.decode()
        message = wire.Ready(replica=name, contract=contract, credit=credit, device="cpu")
        return self.feed(ReplicaSaid(replica, message))

    def done(self, job: int, replica: bytes = b"R1", *, inference_ms: float = 3.0) -> list[Action]:
        predictions = (wire.Prediction("a", "n1", 0, 1.0),)
        timing = wire.Timing(inference=inference_ms)
        message = wire.Done(job=job, predictions=predictions, batch_size=1, timing=timing)
        return self.feed(ReplicaSaid(replica, message))

    def leave(self, replica: bytes = b"R1") -> list[Action]:
        return self.feed(ReplicaSaid(replica, wire.Leave()))

    def kill(self, replica: bytes = b"R1") -> list[Action]:
        return self.feed(ReplicaUnreachable(replica))

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass as a broker does: with a Tick whenever one is due."""
        actions: list[Action] = []
        end = self.now + seconds
        while (step := self.dispatcher.seconds_to_next(self.now)) <= end - self.now:
            self.now += step
            actions += self.feed(Tick())
        self.now = end
        return actions


def works(actions: list[Action]) -> list[tuple[bytes, int]]:
    """Who was handed which job."""
    return [
        (a.replica, a.message.job)
        for a in actions
        if isinstance(a, TellReplica) and isinstance(a.message, wire.Work)
    ]


def answers(actions: list[Action]) -> list[wire.Message]:
    return [a.message for a in actions if isinstance(a, TellClient)]


def codes(actions: list[Action]) -> list[FailureCode]:
    return [m.code for m in answers(actions) if isinstance(m, wire.Failure)]


def test_a_request_goes_to_a_replica_and_its_answer_back() -> None:
    bench = Bench()
    bench.ready()
    [(replica, job)] = works(bench.ask("r7"))
    assert replica == b"R1"
    bench.now += 0.5
    [action] = [a for a in bench.done(job) if isinstance(a, TellClient)]
    assert action.client == b"c"
    result = action.message
    assert isinstance(result, wire.Result)
    assert (result.id, result.version, result.replica, result.attempt) == ("r7", "1", "R1", 1)
    assert result.timing.inference == 3.0
    assert answers(bench.wait(5)) == []


def test_work_is_called_what_its_request_is() -> None:
    bench = Bench()
    bench.ready(credit=1)
    names = {"trace": "t", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    [action] = bench.ask(**names)
    assert isinstance(action, TellReplica)
    work = action.message
    assert isinstance(work, wire.Work)
    assert (work.trace, work.traceparent) == tuple(names.values())


TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def stays(actions: list[Action]) -> list[Stay | None]:
    """Which times in the queue are over."""
    return [a.stay for a in actions if isinstance(a, TellReplica | TellClient)]


def test_a_stay_in_the_queue_is_told_of_what_is_traced() -> None:
    bench = Bench()
    began = bench.now
    bench.ask("traced", traceparent=TRACEPARENT)
    bench.ask("untraced")
    bench.now += 0.2
    first, untraced = stays(bench.ready(b"R1", credit=2))
    assert untraced is None
    assert first is not None
    assert (first.request.id, first.since, first.attempt, first.replica) == (
        "traced",
        began,
        1,
        "R1",
    )
    bench.now += 0.1
    killed = bench.now
    assert stays(bench.kill()) == []
    bench.now += 0.3
    [again] = stays(bench.ready(b"R2", credit=1))
    assert again is not None
    assert (again.since, again.attempt, again.replica) == (killed, 2, "R2")


def test_a_failure_that_ends_a_stay_tells_it() -> None:
    bench = Bench(queue_requests=1)
    began = bench.now
    bench.ask("late", traceparent=TRACEPARENT)
    [refused] = stays(bench.ask("too many", traceparent=TRACEPARENT))
    assert refused is not None
    assert (refused.since, refused.replica) == (began, "")
    [late] = stays(bench.wait(1.1))
    assert late is not None
    assert (late.request.id, late.since, late.attempt, late.replica) == ("late", began, 1, "")
    # What fails while a replica has it has left the queue before.
    bench.ready()
    bench.ask("held", traceparent=TRACEPARENT)
    ended = [a.stay for a in bench.wait(1.1) if isinstance(a, TellClient)]
    assert ended == [None]


def test_a_request_waits_for_the_first_replica() -> None:
    bench = Bench()
    assert bench.ask() == []
    bench.now += 0.2
    [(_, job)] = works(bench.ready())
    [result] = answers(bench.done(job))
    assert isinstance(result, wire.Result)
    assert result.timing.queue == pytest.approx(200)


def test_who_named_no_model_before_one_was_seen_waits_for_the_first() -> None:
    bench = Bench()
    unnamed = bench.dispatcher.default_model
    bench.ask("a", model=unnamed, digest="", encoding="image", priority="bulk")
    bench.ask("b", model=unnamed, digest="", encoding="image")
    bench.ask("pixels", model=unnamed, digest="f" * 16)
    stale = bench.ready(credit=1)
    assert codes(stale) == [FailureCode.STALE_CONTRACT]
    [(_, first)] = works(stale)
    [(_, second)] = works(bench.done(first))
    [result] = answers(bench.done(second))
    assert isinstance(result, wire.Result)
    assert (result.id, result.model) == ("a", "m")
    assert bench.dispatcher.queued == 0
    assert codes(bench.wait(5)) == []
    [served] = bench.dispatcher.status("s", bench.now).models
    assert served.name == "m"


def test_a_model_may_have_the_name_of_none() -> None:
    bench = Bench()
    unnamed = bench.dispatcher.default_model
    bench.ask("a", model=unnamed, digest="", encoding="image")
    contract = msgspec.structs.replace(CONTRACT, model=unnamed)
    [(_, job)] = works(bench.ready(contract=contract))
    [result] = answers(bench.done(job))
    assert isinstance(result, wire.Result)
    assert result.model == unnamed


def test_credit_is_never_exceeded_and_the_queue_is_first_come_first_served() -> None:
    bench = Bench()
    bench.ready(credit=2)
    handed = [work for n in range(5) for work in works(bench.ask(f"r{n}"))]
    assert handed == [(b"R1", 1), (b"R1", 2)]
    assert works(bench.done(2)) == [(b"R1", 3)]
    assert works(bench.done(1)) == [(b"R1", 4)]
    assert works(bench.done(4)) == [(b"R1", 5)]
    assert works(bench.done(3)) == []


def test_work_spreads_over_replicas_that_are_equally_free() -> None:
    bench = Bench()
    for replica in (b"R1", b"R2", b"R3"):
        bench.ready(replica)
    served = []
    for n in range(6):
        bench.now += 0.01
        [(replica, job)] = works(bench.ask(f"r{n}"))
        served.append(replica)
        bench.done(job, replica)
    assert sorted(served) == [b"R1", b"R1", b"R2", b"R2", b"R3", b"R3"]


def test_bulk_gives_way_but_does_not_starve() -> None:
    bench = Bench()
    bench.ask("b", priority="bulk")
    for n in range(6):
        bench.ask(f"i{n}")
    order = works(bench.ready(credit=7))
    assert order.index((b"R1", 1)) == 3


def test_the_deadline_answers_a_request_that_nobody_served() -> None:
    bench = Bench()
    bench.ask(deadline_ms=300)
    assert answers(bench.wait(0.29)) == []
    [failure] = answers(bench.wait(0.02))
    assert isinstance(failure, wire.Failure)
    assert (failure.code, failure.retry_after_ms) == (FailureCode.UNAVAILABLE, RETRY_UNMEASURED_MS)
    assert works(bench.ready()) == []


def test_the_deadline_answers_a_request_that_a_replica_holds_and_its_credit_stays_taken() -> None:
    bench = Bench(liveness_s=60)
    bench.ready(credit=1)
    bench.ask("slow", deadline_ms=300)
    assert codes(bench.wait(0.4)) == [FailureCode.DEADLINE]
    assert works(bench.ask("next")) == []
    late = bench.done(1)
    assert answers(late) == []
    assert works(late) == [(b"R1", 2)]
    assert bench.dispatcher.counts["late"] == 1


def test_a_cancelled_request_is_neither_dispatched_nor_answered() -> None:
    bench = Bench()
    bench.ask()
    assert bench.feed(ClientSaid(b"c", wire.Cancel(id="r"))) == []
    assert works(bench.ready()) == []
    assert answers(bench.wait(2)) == []
    assert bench.dispatcher.queued == 0


def test_a_client_cancels_only_its_own_request() -> None:
    bench = Bench()
    bench.ask(client=b"c")
    bench.feed(ClientSaid(b"other", wire.Cancel(id="r")))
    assert works(bench.ready()) == [(b"R1", 1)]


def test_what_a_vanished_client_asked_for_is_not_done() -> None:
    bench = Bench()
    bench.ask("r1", client=b"gone")
    bench.ask("r2", client=b"here")
    bench.feed(ClientUnreachable(b"gone"))
    assert works(bench.ready()) == [(b"R1", 2)]


def test_the_same_request_sent_again_is_not_done_twice() -> None:
    bench = Bench()
    bench.ready()
    assert works(bench.ask()) == [(b"R1", 1)]
    assert bench.ask() == []
    assert works(bench.ask(client=b"other")) == [(b"R1", 2)]


def test_an_inquiry_is_answered_only_for_what_is_not_here() -> None:
    bench = Bench()
    bench.ready()
    bench.ask()
    inquire = ClientSaid(b"c", wire.Inquire(id="r"))
    assert bench.feed(inquire) == []
    bench.done(1)
    assert answers(bench.feed(inquire)) == [wire.Unknown(id="r")]


def test_the_queue_is_bounded_in_requests() -> None:
    bench = Bench(queue_requests=2)
    bench.ask("r1")
    bench.ask("r2")
    assert codes(bench.ask("r3")) == [FailureCode.OVERLOADED]
    assert len(works(bench.ready())) == 2


def test_the_queue_is_bounded_in_bytes() -> None:
    bench = Bench(queue_bytes=2 * CONTRACT.nbytes)
    bench.ask("r1")
    bench.ask("r2")
    assert codes(bench.ask("r3")) == [FailureCode.OVERLOADED]
    bench.feed(ClientSaid(b"c", wire.Cancel(id="r1")))
    assert codes(bench.ask("r3")) == []


def saturate(bench: Bench, *, per_second: float, seconds: float) -> None:
    """A replica works through a backlog at a steady rate; the backlog stays."""
    bench.ready(credit=1)
    bench.ask("first", deadline_ms=600_000)
    job = 1
    for n in range(int(per_second * seconds)):
        bench.ask(f"s{n}", deadline_ms=600_000)
        bench.now += 1 / per_second
        bench.done(job)
        job += 1


def test_what_cannot_be_in_time_is_refused_at_once_with_the_measured_wait() -> None:
    bench = Bench(liveness_s=600)
    saturate(bench, per_second=10, seconds=3)
    for n in range(20):
        assert codes(bench.ask(f"q{n}", deadline_ms=600_000)) == []
    [failure] = answers(bench.ask("hasty", deadline_ms=500))
    assert isinstance(failure, wire.Failure)
    assert failure.code == FailureCode.OVERLOADED
    assert failure.retry_after_ms == pytest.approx(2000, rel=0.2)
    assert codes(bench.ask("patient", deadline_ms=5000)) == []


def test_whom_a_replica_takes_at_once_is_not_refused_by_a_rate_that_was_slow() -> None:
    bench = Bench(liveness_s=600)
    saturate(bench, per_second=2, seconds=3)
    bench.done(7)
    assert codes(bench.ask("hasty", deadline_ms=400)) == []
    assert codes(bench.ask("behind", deadline_ms=400)) == [FailureCode.OVERLOADED]


def test_a_rate_is_forgotten_when_nothing_has_waited_for_long() -> None:
    bench = Bench(liveness_s=600)
    saturate(bench, per_second=2, seconds=3)
    bench.done(7)
    bench.now += FORGOTTEN_S + 1
    bench.ask("first", deadline_ms=400)
    assert codes(bench.ask("behind", deadline_ms=400)) == []


def test_a_new_version_is_not_judged_by_the_speed_of_the_old_one() -> None:
    bench = Bench(liveness_s=600)
    saturate(bench, per_second=2, seconds=3)
    bench.done(7)
    newer = msgspec.structs.replace(CONTRACT, version="2", digest="fedcba9876543210")
    bench.ready(b"R2", credit=1, contract=newer)
    assert codes(bench.ask("first", deadline_ms=400, digest=newer.digest)) == []
    assert codes(bench.ask("behind", deadline_ms=400, digest=newer.digest)) == []


def test_pixels_for_another_contract_are_stale_and_of_another_size_bad() -> None:
    bench = Bench()
    bench.ready()
    assert codes(bench.ask("r1", digest="fedcba9876543210")) == [FailureCode.STALE_CONTRACT]
    assert codes(bench.ask("r2", pixels=Pixels(b"xyz"))) == [FailureCode.BAD_PAYLOAD]
    assert works(bench.ask("r3", encoding="image", digest="", pixels=Pixels(b"xyz")))


def test_a_new_contract_makes_what_waits_for_the_old_one_stale() -> None:
    bench = Bench()
    bench.ask()
    newer = wire.Contract(**{**wire_fields(CONTRACT), "digest": "fedcba9876543210"})
    assert codes(bench.ready(contract=newer)) == [FailureCode.STALE_CONTRACT]


def wire_fields(contract: wire.Contract) -> dict[str, object]:
    return {name: getattr(contract, name) for name in contract.__struct_fields__}


def test_an_unknown_model_is_refused_by_name() -> None:
    bench = Bench()
    bench.ready()
    [failure] = answers(bench.ask(model="cats"))
    assert isinstance(failure, wire.Failure)
    assert failure.code == FailureCode.UNKNOWN_MODEL
    assert "m" in failure.message


def test_the_catalogue_lists_models_with_their_living_replicas() -> None:
    bench = Bench()
    bench.ready(b"R1")
    bench.ready(b"R2")
    bench.kill(b"R1")
    [catalogue] = answers(bench.feed(ClientSaid(b"c", wire.Describe(id="d"))))
    assert catalogue == wire.Catalogue(
        id="d", models=(wire.Served(contract=CONTRACT, replicas=("R2",)),)
    )


def test_a_status_tells_what_waits_and_what_was_done() -> None:
    bench = Bench()
    bench.ready(b"R1", credit=1)
    bench.ask("r1")
    bench.ask("r2")
    bench.wait(0.02)
    bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=19.0)))
    [status] = answers(bench.feed(ClientSaid(b"c", wire.Observe(id="o"))))
    assert isinstance(status, wire.Status)
    assert (status.id, status.uptime_ms) == ("o", 20.0)
    [model], [replica] = status.models, status.replicas
    assert (model.queued, model.queued_bytes, model.oldest_ms) == (1, CONTRACT.nbytes, 20.0)
    assert (replica.held, replica.credit, replica.busy_ms, replica.done) == (1, 1, 19.0, 0)

    bench.done(1, inference_ms=20.0)
    [status] = answers(bench.feed(ClientSaid(b"c", wire.Observe(id="o"))))
    assert isinstance(status, wire.Status)
    assert status.counts["accepted"] == 2
    [model], [replica] = status.models, status.replicas
    assert (model.queued, model.oldest_ms) == (0, 0.0)
    assert (replica.done, replica.batches, replica.worked_ms) == (1, 1.0, 20.0)
    assert (sum(model.answered_ms.counts), model.answered_ms.total) == (1, 20.0)
    # Exactly at a bound belongs to the part that the bound ends.
    assert model.batch_sizes.bounds[0] == 1
    assert model.batch_sizes.counts[0] == 1


def scale_advice(bench: Bench) -> wire.ScaleAdvice:
    [status] = answers(bench.feed(ClientSaid(b"c", wire.Observe(id="o"))))
    assert isinstance(status, wire.Status)
    [model] = status.models
    assert isinstance(model.scale, wire.ScaleAdvice)
    return model.scale


def test_scale_advice_counts_who_was_refused_and_sees_how_fast_replicas_are() -> None:
    bench = Bench(objective_s=0.25)
    bench.ready(credit=1)
    assert scale_advice(bench).wanted is None
    job = 0
    for n in range(200):  # Every 50 ms, by a replica that takes 100.
        told = bench.ask(f"r{n}", deadline_ms=1500)
        job = works(told)[0][1] if works(told) else job
        bench.wait(0.05)
        if n % 2:
            told = bench.done(job, inference_ms=80.0)
            job = works(told)[0][1]
    counts, advice = bench.dispatcher.counts, scale_advice(bench)
    assert counts["refused_overloaded"] > 50
    assert advice.offered_per_second == pytest.approx(20, rel=0.05)
    # Seen under the backlog: more than the 80 ms that its engine tells of.
    assert advice.replica_per_second == pytest.approx(10, rel=0.1)
    assert (advice.present, advice.objective_ms) == (1, 250)
    assert advice.wanted is not None
    assert 3 <= advice.wanted <= 5
    bench.ready(b"R2")
    bench.leave()
    assert scale_advice(bench).present == 1


def test_scale_advice_takes_no_idle_replica_for_a_slow_one() -> None:
    bench = Bench()
    bench.ready()
    for n in range(100):
        [(_, job)] = works(bench.ask(f"r{n}"))
        bench.done(job, inference_ms=20.0)
        bench.wait(0.1)
    advice = scale_advice(bench)
    assert (advice.offered_per_second, advice.replica_per_second) == (pytest.approx(10, 0.05), 50)
    assert advice.wanted == 1


def test_scale_advice_forgets_how_fast_another_version_was() -> None:
    bench = Bench()
    bench.ready()
    for n in range(20):
        [(_, job)] = works(bench.ask(f"r{n}"))
        bench.wait(0.1)
        bench.done(job)
    assert scale_advice(bench).replica_per_second is not None
    newer = msgspec.structs.replace(CONTRACT, version="2", digest="another")
    bench.ready(b"R2", contract=newer)
    assert scale_advice(bench).replica_per_second is None


# --- death ------------------------------------------------------------------------------------


def test_a_dead_replicas_requests_go_to_another_before_everything_else() -> None:
    bench = Bench()
    bench.ready(b"R1", credit=2)
    for n in range(4):
        bench.ask(f"r{n}")
    bench.kill(b"R1")
    assert works(bench.ready(b"R2", credit=1)) == [(b"R2", 1)]
    assert works(bench.done(1, b"R2")) == [(b"R2", 2)]
    [result, *_] = answers(bench.done(2, b"R2"))
    assert isinstance(result, wire.Result)
    assert result.attempt == 2


def test_a_suspect_travels_alone() -> None:
    bench = Bench()
    bench.ready(b"R1", credit=2)
    for n in range(4):
        bench.ask(f"r{n}")
    bench.kill(b"R1")
    assert works(bench.ready(b"R2", credit=4)) == [(b"R2", 1)]
    assert works(bench.done(1, b"R2")) == [(b"R2", 2)]
    assert works(bench.done(2, b"R2")) == [(b"R2", 3), (b"R2", 4)]


def test_under_load_one_replica_is_kept_free_for_a_suspect() -> None:
    bench = Bench()
    for replica in (b"R1", b"R2", b"R3"):
        bench.ready(replica, credit=1)
    for n in range(8):
        bench.ask(f"r{n}")  # jobs 1 2 3 on R1 R2 R3
    bench.kill(b"R1")
    assert works(bench.done(2, b"R2")) == [(b"R2", 1)]
    assert works(bench.done(3, b"R3")) == [(b"R3", 4)]


def test_a_request_whose_second_replica_dies_is_poisoned_and_its_pixels_refused() -> None:
    bench = Bench(poison_s=60)
    poison = Pixels(b"poison poison".ljust(CONTRACT.nbytes)[: CONTRACT.nbytes])
    for replica in (b"R1", b"R2", b"R3"):
        bench.ready(replica)
    [(first, _)] = works(bench.ask("bad", pixels=poison, deadline_ms=60_000))
    [(second, _)] = works(bench.kill(first))
    died = bench.kill(second)
    assert codes(died) == [FailureCode.POISONED]
    assert works(died) == []
    assert codes(bench.ask("again", pixels=poison)) == [FailureCode.POISONED]
    assert works(bench.ask("other"))
    bench.wait(61)
    assert codes(bench.ask("later", pixels=poison)) == []


def test_one_death_does_not_poison_those_who_were_in_the_same_batch() -> None:
    bench = Bench()
    bench.ready(b"R1")
    for n in range(4):
        bench.ask(f"r{n}", pixels=Pixels(bytes([n]) * CONTRACT.nbytes))
    bench.kill(b"R1")
    bench.ready(b"R2")  # takes job 1 alone
    assert codes(bench.kill(b"R2")) == [FailureCode.POISONED]
    [(_, job)] = works(bench.ready(b"R3"))
    assert job == 2


def test_a_silent_replica_is_pinged_and_then_lost() -> None:
    bench = Bench(liveness_s=2)
    bench.ready()
    bench.ask(deadline_ms=60_000)
    assert TellReplica(b"R1", wire.Ping()) in bench.wait(0.5)
    bench.wait(3)
    assert bench.dispatcher.counts["lost"] == 1
    assert works(bench.ready(b"R2")) == [(b"R2", 1)]


def test_work_that_an_idle_replica_does_not_have_is_handed_out_again() -> None:
    bench = Bench(liveness_s=2)
    bench.ready()
    [(_, job)] = works(bench.ask(deadline_ms=60_000))
    again: list[Action] = []
    for _ in range(6):
        assert not works(again)
        bench.now += 0.5
        again = bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=None)))
        if works(again):
            break
    assert works(again) == [(b"R1", job)]
    assert bench.dispatcher.counts["lost"] == 0
    [answer] = answers(bench.done(job))
    assert isinstance(answer, wire.Result)
    assert answer.attempt == 1


def test_a_file_may_be_decoded_while_the_engine_is_idle() -> None:
    bench = Bench(liveness_s=2)
    bench.ready()
    bench.ask(deadline_ms=60_000, encoding="image", digest="")
    for _ in range(6):
        bench.now += 0.5
        assert not works(bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=None))))


def test_who_becomes_another_model_may_have_been_the_last_reason_for_it() -> None:
    bench = Bench()
    picture = Pixels()
    c = msgspec.structs.replace(CONTRACT, model="c")
    bench.ask("waits", model="c", pixels=picture, encoding="image", digest="")
    bench.ready(contract=CONTRACT)
    bench.ask("kills", pixels=picture, encoding="image", digest="")
    bench.ready(contract=msgspec.structs.replace(CONTRACT, version="2", digest="fedcba9876543210"))
    assert codes(bench.ready(contract=c)) == [FailureCode.POISONED] * 2
    assert TellReplica(b"R1", wire.Release()) in bench.leave()


def test_a_replica_that_answers_pings_lives_however_long_its_batch() -> None:
    bench = Bench(liveness_s=2, execution_s=10)
    bench.ready()
    bench.ask(deadline_ms=60_000)
    for n in range(9):
        bench.wait(1)
        bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=n * 1000)))
    assert bench.dispatcher.counts["lost"] == 0
    bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=10_001)))
    assert bench.dispatcher.counts["lost"] == 1


def test_when_the_broker_itself_was_away_nobody_is_lost() -> None:
    bench = Bench(liveness_s=2)
    bench.ready()
    bench.wait(1)
    bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=None)))
    bench.now += 30
    bench.feed(Tick())
    assert bench.dispatcher.counts["lost"] == 0


def test_a_stranger_is_asked_who_it_is() -> None:
    bench = Bench()
    asked = [TellReplica(b"R9", wire.Introduce())]
    assert bench.feed(ReplicaSaid(b"R9", wire.Alive(busy_ms=None))) == asked
    assert bench.done(5, b"R9") == asked
    assert bench.dispatcher.counts["late"] == 1
    assert bench.leave(b"R9") == [TellReplica(b"R9", wire.Release())]


def test_an_answer_from_a_replica_that_does_not_hold_the_job_is_dropped() -> None:
    bench = Bench()
    bench.ready(b"R1")
    bench.ready(b"R2")
    [(holder, job)] = works(bench.ask())
    other = b"R2" if holder == b"R1" else b"R1"
    assert answers(bench.done(job, other)) == []
    assert len(answers(bench.done(job, holder))) == 1
    assert answers(bench.done(job, holder)) == []


# --- leaving ----------------------------------------------------------------------------------


def test_a_leaving_replica_answers_what_it_holds_and_gets_nothing_new() -> None:
    bench = Bench()
    bench.ready(b"R1")
    bench.ask("r1")
    assert TellReplica(b"R1", wire.Release()) not in bench.leave()
    assert works(bench.ask("r2")) == []
    last = bench.done(1)
    assert [m.id for m in answers(last) if isinstance(m, wire.Result)] == ["r1"]
    assert TellReplica(b"R1", wire.Release()) in last
    assert works(bench.ready(b"R2")) == [(b"R2", 2)]


def test_a_leaving_replica_with_empty_hands_goes_at_once() -> None:
    bench = Bench()
    bench.ready()
    assert TellReplica(b"R1", wire.Release()) in bench.leave()


def test_a_replica_that_dies_while_leaving_gives_its_work_back() -> None:
    bench = Bench()
    bench.ready(b"R1")
    bench.ask()
    bench.leave()
    bench.kill(b"R1")
    assert works(bench.ready(b"R2")) == [(b"R2", 1)]


def test_an_engine_failure_answers_the_request_and_frees_the_credit() -> None:
    bench = Bench()
    bench.ready(credit=1)
    bench.ask("r1")
    bench.ask("r2")
    failed = wire.Failed(job=1, code=FailureCode.ENGINE, message="NaN.")
    actions = bench.feed(ReplicaSaid(b"R1", failed))
    assert codes(actions) == [FailureCode.ENGINE]
    assert works(actions) == [(b"R1", 2)]


def test_an_answered_request_leaves_nothing_behind() -> None:
    bench = Bench()
    bench.ready()
    for n in range(100):
        [(_, job)] = works(bench.ask(f"r{n}", deadline_ms=100))
        bench.done(job)
    bench.wait(1)
    assert bench.dispatcher.queued == 0
    assert bench.dispatcher._jobs == {}
    assert bench.dispatcher._deadlines == []


def test_two_that_fall_silent_together_do_not_inherit_from_each_other() -> None:
    bench = Bench(liveness_s=2)
    bench.ready(b"R1")
    bench.ready(b"R2")
    bench.ask(deadline_ms=60_000)
    actions = bench.wait(2.6)
    assert len(works(actions)) == 0
    assert codes(actions) == []
    assert bench.dispatcher.counts["lost"] == 2
    assert works(bench.ready(b"R3")) == [(b"R3", 1)]


def test_no_third_replica_gets_what_two_died_of_in_another_request_either() -> None:
    bench = Bench()
    bench.ready(b"R1", credit=1)
    bench.ask("r1")
    bench.ask("twin")
    bench.kill(b"R1")
    bench.ready(b"R2", credit=1)
    assert codes(bench.kill(b"R2")) == [FailureCode.POISONED, FailureCode.POISONED]
    assert works(bench.ready(b"R3")) == []


def test_a_twin_that_a_third_replica_dies_of_goes_to_no_fourth() -> None:
    bench = Bench()
    for replica in (b"R1", b"R2", b"R3"):
        bench.ready(replica, credit=1)
    bench.ask("r1")
    bench.ask("twin")  # on R2
    bench.kill(b"R1")
    assert codes(bench.kill(b"R3")) == [FailureCode.POISONED]
    assert codes(bench.kill(b"R2")) == [FailureCode.POISONED]


def test_pixels_that_nobody_waits_for_any_more_are_poisoned_too() -> None:
    bench = Bench()
    bench.ready(b"R1")
    bench.ask()
    bench.kill(b"R1")
    bench.ready(b"R2")
    bench.feed(ClientSaid(b"c", wire.Cancel(id="r")))
    assert answers(bench.kill(b"R2")) == []
    assert codes(bench.ask("again")) == [FailureCode.POISONED]


def test_the_last_poison_is_remembered_longest_though_it_was_poison_before() -> None:
    poison = PoisonList(keep_s=10, max_digests=2)
    first, second, third = (Pixels(bytes([n])) for n in range(3))
    poison.add(first, 0)
    poison.add(second, 1)
    poison.add(first, 2)
    poison.add(third, 3)
    assert [poison.holds(p, 4) for p in (first, second, third)] == [True, False, True]


def test_a_credit_whose_work_or_reply_got_lost_comes_back() -> None:
    bench = Bench(liveness_s=2)
    bench.ready(credit=1)
    bench.ask("lost", deadline_ms=1000)
    bench.ask("next", deadline_ms=60_000)
    handed = []
    for _ in range(4):
        handed += works(bench.wait(1))
        handed += works(bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=None))))
    assert handed == [(b"R1", 2)]


def test_the_largest_budget_is_not_rounded_beyond_what_a_replica_understands() -> None:
    bench = Bench()
    bench.ready()
    bench.now = 424.005
    [action] = bench.ask(deadline_ms=600_000)
    assert isinstance(action, TellReplica)
    frames = [wire.encode(action.message), b""]
    assert wire.to_replica.decode(frames) == action.message


def test_fast_answers_to_patient_clients_do_not_fill_the_memory() -> None:
    bench = Bench()
    bench.ready()
    for n in range(5000):
        [(_, job)] = works(bench.ask(f"r{n}", deadline_ms=600_000))
        bench.done(job)
    assert len(bench.dispatcher._deadlines) <= STALE_DEADLINES


def test_an_outage_does_not_count_as_slowness_when_the_last_replica_left() -> None:
    bench = Bench(liveness_s=600)
    saturate(bench, per_second=10, seconds=3)
    bench.leave()
    bench.ask("waits", deadline_ms=600_000)
    bench.done(31)
    bench.wait(60)
    bench.ready(b"R2", credit=1)
    for n in range(3):
        bench.ask(f"waits too {n}", deadline_ms=600_000)
    bench.done(32, b"R2")
    assert codes(bench.ask("hasty", deadline_ms=2000)) == []


def test_when_the_broker_itself_was_away_nobody_was_slow() -> None:
    bench = Bench(liveness_s=2)
    saturate(bench, per_second=10, seconds=3)
    bench.ask("waits", deadline_ms=600_000)
    bench.now += 60
    bench.done(31)
    bench.ask("waits too", deadline_ms=600_000)
    assert codes(bench.ask("hasty", deadline_ms=2000)) == []


# --- two versions -----------------------------------------------------------------------------

NEWER = msgspec.structs.replace(CONTRACT, version="2", digest="fedcba9876543210")


def test_pixels_never_go_to_a_replica_of_another_version() -> None:
    bench = Bench()
    bench.ready(b"old")
    bench.ready(b"new", credit=1, contract=NEWER)
    handed = [work for n in range(3) for work in works(bench.ask(f"r{n}", digest=NEWER.digest))]
    assert handed == [(b"new", 1)]
    assert works(bench.ask("image", encoding="image")) == []


def test_what_an_old_version_died_of_is_stale_for_the_new_one() -> None:
    bench = Bench()
    bench.ready(b"old")
    bench.ask()
    bench.ready(b"new", contract=NEWER)
    died = bench.kill(b"old")
    assert codes(died) == [FailureCode.STALE_CONTRACT]
    assert works(died) == []


def test_an_old_replica_that_says_ready_again_does_not_bring_its_version_back() -> None:
    bench = Bench()
    bench.ready(b"old")
    bench.ready(b"new", contract=NEWER)
    bench.ready(b"old")
    assert works(bench.ask(digest=NEWER.digest)) == [(b"new", 1)]


@pytest.mark.parametrize("end", [Bench.kill, Bench.leave])
def test_without_the_new_version_the_old_one_serves_again(
    end: Callable[[Bench, bytes], object],
) -> None:
    bench = Bench()
    bench.ready(b"old")
    bench.ready(b"new", contract=NEWER)
    end(bench, b"new")
    assert works(bench.ask()) == [(b"old", 1)]


def test_an_old_version_that_joins_late_does_not_come_back_into_use() -> None:
    bench = Bench()
    bench.ready(b"new", contract=NEWER)
    bench.ready(b"old")
    assert codes(bench.ask()) == [FailureCode.STALE_CONTRACT]
    assert works(bench.ask(digest=NEWER.digest)) == [(b"new", 1)]
    bench.leave(b"new")
    [catalogue] = answers(bench.feed(ClientSaid(b"c", wire.Describe(id="d"))))
    assert isinstance(catalogue, wire.Catalogue)
    assert [(s.contract, s.replicas) for s in catalogue.models] == [(CONTRACT, ("old",))]


def test_of_several_old_versions_the_newest_serves_again() -> None:
    versions = [
        msgspec.structs.replace(CONTRACT, version=v, digest=v.ljust(8, "."))
        for v in ("1.9", "1.10", "1.10-rc", "2")
    ]
    bench = Bench()
    for contract in versions:
        bench.ready(contract.version.encode(), contract=contract)
    bench.kill(b"2")
    [catalogue] = answers(bench.feed(ClientSaid(b"c", wire.Describe(id="d"))))
    assert isinstance(catalogue, wire.Catalogue)
    assert [s.contract.version for s in catalogue.models] == ["1.10-rc", "1.9", "1.10"]


# --- a mixed fleet ----------------------------------------------------------------------------


def measured(paces_ms: dict[bytes, float], *, credit: int) -> Bench:
    """Replicas that were each seen to take so long for a picture."""
    bench = Bench()
    for replica in paces_ms:
        bench.ready(replica, credit=credit)
    for n in range(MEASURED_AFTER * len(paces_ms) + COMPARED_EVERY):
        bench.now += 0.001
        [(replica, job)] = works(bench.ask(f"measure {n}"))
        bench.done(job, replica, inference_ms=paces_ms[replica])
    return bench


def handed(bench: Bench, requests: int) -> list[bytes]:
    """Who was given something while so many requests arrived."""
    before = bench.dispatcher.counts["accepted"]
    ids = [f"r{before + n}" for n in range(requests)]
    return [replica for name in ids for replica, _ in works(bench.ask(name))]


def test_a_single_request_goes_to_the_fastest() -> None:
    bench = measured({b"cpu": 40.0, b"gpu": 2.0}, credit=64)
    assert handed(bench, 3) == [b"gpu"] * 3


def test_a_crowd_is_shared_as_the_paces_are() -> None:
    bench = measured({b"cpu": 40.0, b"gpu": 2.0, b"gpu too": 2.0}, credit=64)
    shares = Counter(handed(bench, 82))
    assert shares == {b"gpu": 40, b"gpu too": 40, b"cpu": 2}


def test_what_the_fast_one_does_sooner_the_slow_one_does_not_get() -> None:
    bench = measured({b"cpu": 40.0, b"gpu": 2.0}, credit=4)
    assert handed(bench, 12) == [b"gpu"] * 4
    assert bench.dispatcher.queued == 8
    assert handed(bench, 9) == [b"cpu"]  # With 16 waiting, and 4 at work, it takes as long.


def test_nobody_waits_for_a_fast_one_that_is_not_heard_of() -> None:
    bench = measured({b"cpu": 40.0, b"gpu": 2.0}, credit=1)
    assert handed(bench, 2) == [b"gpu"]
    bench.wait(0.9)
    bench.feed(ReplicaSaid(b"cpu", wire.Alive(busy_ms=None)))
    bench.wait(0.3)
    assert bench.dispatcher.queued == 0


def test_replicas_of_one_kind_are_all_used_whatever_their_last_batches_took() -> None:
    bench = measured({b"R1": 5.0, b"R2": 9.0}, credit=2)
    assert sorted(handed(bench, 4)) == [b"R1", b"R1", b"R2", b"R2"]


def test_nobody_dies_of_what_was_not_delivered() -> None:
    bench = Bench()
    for replica in (b"R1", b"R2", b"R3"):
        bench.ready(replica)
    [(first, job)] = works(bench.ask("r", deadline_ms=60_000))
    [(second, _)] = works(bench.feed(ReplicaUnreachable(first, job)))
    [(third, _)] = works(bench.feed(ReplicaUnreachable(second, job)))
    [result] = answers(bench.done(job, third))
    assert isinstance(result, wire.Result)
    assert result.attempt == 1


def test_what_was_not_delivered_keeps_its_place_in_the_queue() -> None:
    bench = Bench()
    bench.ready(b"R1", credit=1)
    for n in range(3):
        bench.ask(f"r{n}")
    bench.feed(ReplicaUnreachable(b"R1", 1))
    assert works(bench.ready(b"R2", credit=3)) == [(b"R2", 1), (b"R2", 2), (b"R2", 3)]


def test_a_suspect_does_not_go_to_a_replica_that_may_be_lost_too() -> None:
    bench = Bench(liveness_s=2)
    bench.ready(b"R1")
    bench.ask("r", deadline_ms=60_000)
    bench.ready(b"R2")
    bench.wait(0.9)
    bench.feed(ReplicaSaid(b"R1", wire.Alive(busy_ms=None)))
    bench.wait(0.3)
    assert works(bench.kill(b"R1")) == []
    assert works(bench.feed(ReplicaSaid(b"R2", wire.Alive(busy_ms=None)))) == [(b"R2", 1)]


def test_while_replicas_die_of_something_else_it_takes_a_third_death() -> None:
    bench = Bench()
    bench.ready(b"R0")
    bench.kill(b"R0")
    for replica in (b"R1", b"R2", b"R3"):
        bench.ready(replica)
    [(first, _)] = works(bench.ask("r", deadline_ms=600_000))
    [(second, _)] = works(bench.kill(first))
    died = bench.kill(second)
    assert codes(died) == []
    [(third, _)] = works(died)
    assert codes(bench.kill(third)) == [FailureCode.POISONED]


def test_deaths_of_long_ago_say_nothing() -> None:
    bench = Bench()
    bench.ready(b"R0")
    bench.kill(b"R0")
    bench.wait(UNREST_S + 1)
    for replica in (b"R1", b"R2", b"R3"):
        bench.ready(replica)
    [(first, _)] = works(bench.ask("r", deadline_ms=600_000))
    [(second, _)] = works(bench.kill(first))
    assert codes(bench.kill(second)) == [FailureCode.POISONED]
