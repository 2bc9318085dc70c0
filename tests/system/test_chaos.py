"""The chaos drill: it passes on a sound service, and it sees whatever goes wrong."""

import itertools
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from loadtest.chaos.ledger import Ledger, Reply
from loadtest.chaos.pictures import learn
from loadtest.chaos.timetable import KILL_EVERY_S, Deed, Step, timetable
from tests.conftest import ROOT

SOUND = "sent {0}, answered {0}, lost 0, duplicated 0, failed 0, wrong 0, p99 "


def drill(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest.chaos", *argv],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    return f"{done.stdout}\n{done.stderr}"


@pytest.mark.drill
@pytest.mark.timeout(240)
def test_a_sound_service_passes() -> None:
    done = drill("--seconds", "18", "--requests", "300")
    assert done.returncode == 0, said(done)
    last = done.stdout.splitlines()[-1]
    sent = re.match(r"sent (\d+),", last)
    assert sent is not None
    assert int(sent[1]) >= 300
    assert last.startswith(SOUND.format(sent[1]))
    assert "2 broker kills, " in done.stdout
    assert "calm again: 3 replicas, 48 of 48 right" in done.stdout


@pytest.mark.drill
@pytest.mark.timeout(240)
def test_a_service_that_gives_up_early_does_not_pass() -> None:
    """Its deadline is shorter than it takes to miss a replica that is stopped."""
    done = drill("--seconds", "12", "--requests", "100", WEB_DEADLINE_MS="1000")
    assert done.returncode == 1, said(done)
    assert re.search(r"^failed: request chaos-1-\d+-\d+: 50[34] ", done.stdout, re.MULTILINE)
    assert "failed 0" not in done.stdout


def test_without_a_project_it_refuses_in_one_sentence() -> None:
    done = drill("--target", "compose", COMPOSE_PROJECT_NAME=f"sightline-nothing-{os.getpid()}")
    assert done.returncode == 2, said(done)
    assert done.stdout == ""
    assert re.fullmatch(r"chaos: .+\n", done.stderr)


def test_a_service_that_remembers_answers_is_not_tried() -> None:
    with pytest.raises(ValueError, match="WEB_CACHE_BYTES=0"):
        learn(lambda _: reply("1", cache="miss"), ROOT)


def table(seed: int) -> list[Step]:
    steps = timetable(seed, replicas=3, seconds=60)
    return list(itertools.takewhile(lambda step: step.at_s <= 60, steps))


def test_the_seed_decides_who_is_hit() -> None:
    assert table(1) == table(1)
    assert table(1) != table(2)
    steps = table(1)
    assert steps == sorted(steps, key=lambda step: step.at_s)
    kills = [step for step in steps if step.deed is Deed.KILL]
    assert [step.at_s for step in kills] == [KILL_EVERY_S * n for n in range(1, 31)]
    assert {step.replica for step in kills} == {0, 1, 2}
    assert sum(step.deed is Deed.KILL_BROKER for step in steps) == 2


def test_whoever_is_suspended_is_resumed_before_anybody_else_is_suspended() -> None:
    pauses = [s for s in table(1) if s.deed in (Deed.SUSPEND, Deed.RESUME)]
    for suspend, resume in zip(pauses[::2], pauses[1::2], strict=False):
        assert (suspend.deed, resume.deed) == (Deed.SUSPEND, Deed.RESUME)
        assert suspend.replica == resume.replica


def reply(request_id: str, status: int = 200, **changes: Any) -> Reply:
    answer = {"request_id": request_id, "attempt": 1, "predictions": ["its own"], **changes}
    if status != 200:
        answer = {"instance": request_id, "detail": "It did not work."}
    return Reply(status, request_id, json.dumps(answer).encode())


def is_right(answer: Any) -> bool:
    return bool(answer["predictions"] == ["its own"])


def settled(*replies: Reply) -> Ledger:
    """The account of requests 1, 2, 3, ... after these replies to them."""
    ledger = Ledger()
    for number, got in enumerate(replies, start=1):
        ledger.send()
        ledger.settle(str(number), got, 0.1 * number, is_right)
    return ledger


def test_the_account_of_what_is_in_order() -> None:
    ledger = settled(reply("1"), reply("2", attempt=2))
    assert ledger.clean
    assert ledger.counts["retried"] == 1
    assert str(ledger) == SOUND.format(2) + "0.20 s"


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (reply("2", predictions=["another's"]), "wrong"),
        (reply("3"), "wrong"),
        (reply("1"), "duplicated"),
        (reply("2", status=503), "failed"),
        (Reply(200, "2", b"{}"), "failed"),
        (Reply(200, "2", b"half an answ"), "failed"),
        (Reply(200, "", reply("2").body), "wrong"),
    ],
)
def test_the_account_of_what_is_not(second: Reply, kind: str) -> None:
    ledger = settled(reply("1"), second)
    assert not ledger.clean
    assert ledger.counts[kind] == 1
    assert [trouble.split(":")[0] for trouble in ledger.troubles] == [kind]


def test_the_account_of_what_is_lost() -> None:
    ledger = settled(reply("1"))
    ledger.send()
    assert not ledger.clean, "one is still on its way"
    ledger.lose("2", "the connection broke")
    assert not ledger.clean
    assert ledger.troubles == ["lost: request 2: the connection broke"]
