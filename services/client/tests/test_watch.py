"""What is told of one look at the service, or of two."""

import msgspec

from sightline.service import Status
from sightline.terminal import columns, printable
from sightline.watch import lines
from wire import Distribution, ModelStatus, ReplicaStatus

BOUNDS = (10.0, 20.0, 40.0)


def look(*, uptime_ms: float, answered: tuple[int, ...], done: int = 40) -> Status:
    distribution = Distribution(bounds=BOUNDS, counts=answered, total=0.0)
    model = ModelStatus(
        name="tench-net",
        version="2",
        queued=3,
        queued_bytes=450_000,
        oldest_ms=12.4,
        per_second=100.0,
        waited_ms=distribution,
        answered_ms=distribution,
        batch_sizes=distribution,
    )
    replica = ReplicaStatus(
        name="vm:1:abc",
        model="tench-net",
        version="2",
        device="cpu",
        parallel=1,
        credit=8,
        held=2,
        leaving=False,
        busy_ms=None,
        done=done,
        batches=10,
        worked_ms=80.0,
    )
    return Status(
        uptime_ms=uptime_ms, counts={"accepted": done}, models=(model,), replicas=(replica,)
    )


def cells(told: list[str], name: str) -> list[str]:
    [line] = [line for line in told if line.startswith(name)]
    return line.split()


def test_the_first_look_tells_of_all_the_time() -> None:
    told = lines(look(uptime_ms=10_000, answered=(50, 40, 0, 10)))
    assert told[0] == "broker up for 10 s; rates and times are since the broker's start"
    assert cells(told, "tench-net") == ["tench-net", "2", "3", "12", "10.0", "10.0", ">", "40"]
    assert cells(told, "vm:1") == ["vm:1:abc", "tench-net", "cpu", "2/8", "-", "40", "4.0", "2.0"]
    assert told[-1] == "accepted 40"


def test_of_a_broker_that_began_anew_meanwhile_all_its_time_is_told() -> None:
    before = look(uptime_ms=100_000, answered=(5000, 0, 0, 0), done=5000)
    told = lines(look(uptime_ms=300_000, answered=(6, 0, 0, 0), done=6), before)
    assert "since the broker's start" in told[0]


def test_two_looks_tell_of_the_time_between() -> None:
    before = look(uptime_ms=10_000, answered=(50, 40, 0, 10))
    told = lines(look(uptime_ms=12_000, answered=(50, 44, 0, 10)), before)
    assert told[0].endswith("in the last 2.0 s")
    assert cells(told, "tench-net")[4:] == ["2.0", "15.0", "19.5"]


def test_a_broker_that_was_restarted_begins_anew() -> None:
    before = look(uptime_ms=3_600_000, answered=(900, 0, 0, 0))
    told = lines(look(uptime_ms=1_000, answered=(5, 0, 0, 0)), before)
    assert told[0].endswith("since the broker's start")
    assert cells(told, "tench-net")[4] == "5.0"


def test_nothing_at_all_can_be_told() -> None:
    told = lines(Status(uptime_ms=0, counts={}, models=(), replicas=()))
    assert told[-1] == "nothing has happened yet"


def test_what_web_tells_is_understood() -> None:
    seen = look(uptime_ms=1, answered=(0, 0, 0, 0))
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Status) == seen


def test_a_name_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert columns([("NAME", "N"), ("\x1b", "10"), ("é", "7")]) == [
        "NAME  N",
        "\\x1b  10",
        "é      7",
    ]
