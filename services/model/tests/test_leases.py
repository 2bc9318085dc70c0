"""Who gets which GPU: the rules on a fake clock, and in any order."""

from collections import Counter

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import wire
from modelserver.dispatcher import Dispatcher, Limits
from modelserver.events import Action, ReplicaSaid, ReplicaUnreachable, TellReplica, Tick

GPUS = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
SETTLE_S = 5.0


class Host:
    """A broker's Dispatcher, and replicas that ask it for GPUs."""

    def __init__(self, *, settle_s: float = 0.0) -> None:
        self.now = 100.0
        self.dispatcher = Dispatcher(Limits(settle_s=settle_s), now=self.now, first_job=1)

    def say(self, replica: str, **fields: object) -> list[Action]:
        devices = wire.Devices(replica=replica, **{"gpus": GPUS, **fields})
        return self.dispatcher.handle(ReplicaSaid(replica.encode(), devices), self.now)

    def ask(self, replica: str, **fields: object) -> wire.Lease | None:
        """Ask as a replica does: once more when there was no answer."""
        return lease_in(self.say(replica, **fields)) or lease_in(self.say(replica, **fields))

    def lose(self, replica: str) -> None:
        self.dispatcher.handle(ReplicaUnreachable(replica.encode()), self.now)


def lease_in(actions: list[Action]) -> wire.Lease | None:
    leases = [
        action.message
        for action in actions
        if isinstance(action, TellReplica) and isinstance(action.message, wire.Lease)
    ]
    assert len(leases) <= 1
    return leases[0] if leases else None


def pinged(actions: list[Action]) -> set[bytes]:
    return {
        action.replica
        for action in actions
        if isinstance(action, TellReplica) and isinstance(action.message, wire.Ping)
    }


def gpu(lease: wire.Lease | None) -> str:
    assert lease is not None
    return lease.gpu


def test_four_replicas_get_four_gpus_and_eight_get_two_each() -> None:
    host = Host()
    assert sorted(gpu(host.ask(f"r{n}")) for n in range(4)) == sorted(GPUS)
    later = [host.ask(f"s{n}") for n in range(4)]
    assert sorted(map(gpu, later)) == sorted(GPUS)
    assert {lease.replicas for lease in later if lease} == {2}


def test_a_successor_gets_the_place_of_the_dead() -> None:
    host = Host()
    had = {f"r{n}": gpu(host.ask(f"r{n}")) for n in range(4)}
    host.lose("r2")
    assert gpu(host.ask("successor")) == had["r2"]


def test_whoever_asks_has_the_others_pinged_first_so_that_the_dead_are_out_of_the_way() -> None:
    host = Host()
    had = gpu(host.ask("r1"))
    actions = host.say("successor")
    assert lease_in(actions) is None
    assert b"r1" in pinged(actions)
    host.lose("r1")  # as the ping finds out
    assert gpu(lease_in(host.say("successor"))) == had


def test_who_has_a_lease_or_waits_for_one_is_pinged_all_the_time() -> None:
    host = Host()
    host.ask("r1")
    host.say("in line")
    host.now += 1
    assert pinged(host.dispatcher.handle(Tick(), host.now)) == {b"r1", b"in line"}
    host.lose("r1")
    host.lose("in line")
    host.now += 1
    assert not pinged(host.dispatcher.handle(Tick(), host.now))


def test_a_question_that_is_repeated_has_the_same_answer() -> None:
    host = Host()
    assert host.ask("r1") == host.ask("r1") == host.ask("r1")
    assert gpu(host.ask("r2")) != gpu(host.ask("r1"))


def test_a_replica_gets_only_what_it_sees() -> None:
    host = Host()
    assert gpu(host.ask("r1", gpus=("GPU-z",))) == "GPU-z"
    assert gpu(host.ask("r2", gpus=("GPU-z",))) == "GPU-z"
    assert gpu(host.ask("r3", gpus=("GPU-z", "GPU-y"))) == "GPU-y"


def test_where_there_is_no_room_a_replica_waits_until_there_is() -> None:
    host = Host()
    for n in range(8):
        assert host.ask(f"r{n}", per_gpu=2) is not None
    assert host.ask("ninth", per_gpu=2) is None
    host.lose("r3")
    assert host.ask("ninth", per_gpu=2) is not None


def test_a_new_broker_hears_first_who_has_what() -> None:
    host = Host(settle_s=SETTLE_S)
    assert host.ask("newcomer") is None
    for n in (0, 1, 3):
        lease = host.ask(f"r{n}", held=GPUS[n])
        assert lease == wire.Lease(gpu=GPUS[n], replicas=1)
    host.now += SETTLE_S
    assert gpu(host.ask("newcomer")) == GPUS[2]


def test_a_lease_that_was_lost_and_is_told_of_again_counts_again() -> None:
    """As of a replica that was frozen for so long that its GPU was given to another."""
    host = Host()
    mine = gpu(host.ask("r1", gpus=GPUS[:1]))
    host.lose("r1")
    host.ask("r2", gpus=GPUS[:1])
    assert host.ask("r1", gpus=GPUS[:1], held=mine) == wire.Lease(gpu=mine, replicas=2)


@pytest.mark.parametrize("fields", [{"gpus": ()}, {"gpus": ("",)}, {"held": ""}, {"per_gpu": -1}])
def test_a_question_without_sense_is_garbage(fields: dict[str, object]) -> None:
    sound = {"type": "devices", "replica": "r", "gpus": GPUS}
    body = msgspec.msgpack.encode({**sound, **fields})
    with pytest.raises(wire.WireError):
        wire.from_replica.decode([bytes([wire.VERSION]) + body])


class Anything(RuleBasedStateMachine):
    """Replicas of hosts that see different GPUs come, tell, and go, in any order."""

    replicas = st.sampled_from([f"r{n}" for n in range(9)])
    sights = st.lists(st.sampled_from(GPUS), min_size=1, unique=True).map(tuple)

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.had: dict[str, str] = {}

    @rule(replica=replicas, sight=sights, per_gpu=st.integers(0, 2))
    def ask(self, replica: str, sight: tuple[str, ...], per_gpu: int) -> None:
        before = Counter(self.had.values())
        lease = self.host.ask(replica, gpus=sight, per_gpu=per_gpu)
        if replica in self.had:
            assert gpu(lease) == self.had[replica]
        elif lease is None:
            assert per_gpu
            assert all(before[seen] >= per_gpu for seen in sight)
        else:
            assert lease.gpu in sight
            assert before[lease.gpu] == min(before[seen] for seen in sight)
            assert not per_gpu or before[lease.gpu] < per_gpu
            self.had[replica] = lease.gpu
        if lease:
            assert lease.replicas == Counter(self.had.values())[lease.gpu]

    @rule(replica=replicas, held=st.sampled_from(GPUS))
    def tell(self, replica: str, held: str) -> None:
        expected = self.had.setdefault(replica, held)
        assert gpu(self.host.ask(replica, held=held)) == expected

    @rule(replica=replicas)
    def lose(self, replica: str) -> None:
        self.host.lose(replica)
        self.had.pop(replica, None)

    @invariant()
    def whoever_has_a_lease_is_pinged(self) -> None:
        self.host.now += 1
        reached = pinged(self.host.dispatcher.handle(Tick(), self.host.now))
        assert {replica.encode() for replica in self.had} <= reached


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=30, stateful_step_count=30)
