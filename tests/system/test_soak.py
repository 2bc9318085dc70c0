"""The soak: it passes on a service that does not grow, and it sees one that does."""

import re
import subprocess
import sys
import time

import pytest

from loadtest.growth import FEWEST, Process, Sample, Use, judge, measure
from loadtest.soak import Pace
from tests.conftest import ROOT

STEADY = Process("broker", 1)
SUSPECT = Process("web worker", 2)
USE = Use(pss_kib=10_000, descriptors=50, threads=6)


def samples(*uses: Use | None) -> list[Sample]:
    """A steady process beside one with these uses; None where it is not there."""
    return [{STEADY: USE} | ({} if use is None else {SUSPECT: use}) for use in uses]


def troubles(*uses: Use | None) -> tuple[str, ...]:
    steady, suspect = judge(samples(*uses), tolerance=0.01)
    assert (steady.process, steady.troubles) == (STEADY, ())
    assert suspect.process == SUSPECT
    return suspect.troubles


def test_what_only_swings_does_not_grow() -> None:
    high = Use(pss_kib=15_000, descriptors=90, threads=9)
    assert troubles(*([USE, USE, high] * 20)) == ()
    assert troubles(*([USE] * 57), high, USE, high) == ()


@pytest.mark.parametrize(
    ("last", "trouble"),
    [
        (USE._replace(pss_kib=10_100), "memory grew"),
        (USE._replace(descriptors=51), "descriptors grew"),
        (USE._replace(threads=7), "threads grew"),
        (None, "ended meanwhile"),
    ],
)
def test_what_grows_is_seen(last: Use | None, trouble: str) -> None:
    assert troubles(*([USE] * 50), *([last] * 10)) == (trouble,)


def test_what_grows_by_less_than_the_tolerance_is_not() -> None:
    assert troubles(*([USE] * 50), *([USE._replace(pss_kib=10_099)] * 10)) == ()


def test_who_comes_meanwhile_is_seen() -> None:
    assert troubles(*([None] * 50), *([USE] * 10)) == ("came meanwhile",)
    assert troubles(*([None] * 25), *([USE] * 10), *([None] * 25)) == ("came meanwhile",)


def test_a_few_samples_are_not_judged() -> None:
    with pytest.raises(ValueError, match="say nothing"):
        judge(samples(*([USE] * (FEWEST - 1))), tolerance=0.01)


GROWING = """
import os, threading
def await_line(): print(flush=True); input()
await_line()
hoard = bytearray(os.urandom(1024)) * 50_000
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
opened = open(os.devnull)
await_line()
"""


def test_what_a_process_takes_is_measured() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GROWING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as grows:
        assert grows.stdin
        assert grows.stdout
        uses = []
        for _ in range(2):
            grows.stdout.readline()
            [use] = measure({"grows": grows.pid}).values()
            uses.append(use)
            grows.stdin.write(b"\n")
            grows.stdin.flush()
    before, after = uses
    assert 0.9 * 50_000 < after.pss_kib - before.pss_kib < 1.1 * 50_000
    assert (after.descriptors, after.threads) == (before.descriptors + 1, before.threads + 1)


def test_turns_come_at_a_constant_rate() -> None:
    began = time.monotonic()
    pace = Pace(100)
    for _ in range(21):
        pace.await_turn()
    assert 0.2 <= time.monotonic() - began < 1


@pytest.mark.drill
@pytest.mark.timeout(240)
def test_a_short_soak_of_the_service() -> None:
    """Too short to judge its memory, but nobody comes or goes and every answer is right."""
    options = "--seconds 15 --warm-up 5 --calibration 6 --tolerance 100"
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.soak", *options.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = re.findall(r"^(.+?) +\d+\.\d +\d+\.\d MiB .* ok$", done.stdout, re.MULTILINE)
    assert {"broker", "replica 0", "replica 1", "web", "web worker", "web decoder"} <= set(rows)
    assert re.search(r"^sent (\d+), answered \1, lost 0, .* wrong 0, p99 ", done.stdout, re.M)
