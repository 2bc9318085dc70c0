"""How many replicas are advised: the rule holds against a simulation, and each measure against
what it was made for."""

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.advice import (
    BACKLOG_S,
    DRAIN_FORGOTTEN_S,
    LATE,
    MEASURED_AFTER,
    MOST,
    WINDOW_S,
    Adviser,
    enough,
)
from wire import ScaleAdvice

TICK_S = 0.25
OBJECTIVE_S = 0.25


class Clock:
    """An Adviser, its time, and a load that is the same in every tick."""

    def __init__(self, replicas: int = 1) -> None:
        self.adviser = Adviser()
        self.now = 100.0
        self.replicas = replicas

    def run(
        self,
        seconds: float,
        offered: float,
        done: float = 0.0,
        *,
        cost: float = 0.0,
        batch: int = 1,
        backlog: bool = False,
    ) -> None:
        """``offered`` and ``done`` a second; each of those took ``cost`` seconds in a ``batch``."""
        came = went = 0.0
        for _ in range(round(seconds / TICK_S)):
            self.adviser.slack = not backlog
            came += offered * TICK_S
            self.adviser.offered += int(came)
            came -= int(came)
            went += done * TICK_S
            for _ in range(int(went)):
                self.adviser.served(cost, batch)
            went -= int(went)
            self.now += TICK_S
            self.adviser.look(self.now, self.replicas)

    def advice(self, queued: int = 0) -> ScaleAdvice:
        return self.adviser.advice(
            self.now, replicas=self.replicas, queued=queued, objective_s=OBJECTIVE_S
        )


def share_late(per_second: float, service_s: float, replicas: int, objective_s: float) -> float:
    """Which part of many requests waits longer, tried out: one queue, everything by chance."""
    chance = random.Random(1)
    free = [0.0] * replicas
    now, late, requests = 0.0, 0, 20_000
    for _ in range(requests):
        now += chance.expovariate(per_second)
        begins = max(now, heapq.heappop(free))
        late += begins - now > objective_s
        heapq.heappush(free, begins + chance.expovariate(1 / service_s))
    return late / requests


@pytest.mark.parametrize(
    ("per_second", "service_s"), [(3.0, 0.1), (10.0, 0.1), (40.0, 0.1), (16.0, 0.25), (25.0, 0.2)]
)
def test_what_is_advised_is_enough_and_one_less_is_not(per_second: float, service_s: float) -> None:
    advised = enough(per_second, service_s, OBJECTIVE_S)
    assert share_late(per_second, service_s, advised, OBJECTIVE_S) <= 1.3 * LATE
    fewer = advised - 1
    if fewer > per_second * service_s:
        assert share_late(per_second, service_s, fewer, OBJECTIVE_S) > 0.7 * LATE
    else:
        assert fewer <= per_second * service_s, "or the queue grows for ever"


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1000), st.floats(1e-5, 10), st.floats(0.001, 10), st.floats(1, 3))
def test_more_load_or_slower_work_or_less_patience_never_takes_fewer(
    per_second: float, service_s: float, objective_s: float, times: float
) -> None:
    advised = enough(per_second, service_s, objective_s)
    assert 1 <= advised <= MOST
    assert advised == MOST or advised > per_second * service_s
    assert enough(per_second * times, service_s, objective_s) >= advised
    assert enough(per_second, service_s * times, objective_s) >= advised
    assert enough(per_second, service_s, objective_s / times) >= advised


def test_nothing_is_advised_before_anything_was_measured() -> None:
    clock = Clock()
    assert clock.advice().wanted is None
    clock.run(3, offered=10)
    told = clock.advice()
    assert (told.wanted, told.replica_per_second) == (None, None)
    assert told.offered_per_second == pytest.approx(10, rel=0.05)
    clock.run(TICK_S, offered=10, done=4, cost=0.1)
    assert clock.advice().wanted is not None


def test_who_was_watched_for_a_moment_is_not_advised_upon() -> None:
    clock = Clock()
    clock.run(0.5, offered=100, done=10, cost=0.1)
    told = clock.advice()
    assert (told.wanted, told.offered_per_second) == (None, None)


def test_a_model_that_nobody_asks_for_keeps_one() -> None:
    clock = Clock(replicas=3)
    clock.run(3, offered=10, done=10, cost=0.1)
    clock.run(WINDOW_S + TICK_S, offered=0)
    told = clock.advice()
    assert (told.wanted, told.offered_per_second, told.present) == (1, 0, 3)
    assert "Nobody" in told.why


def test_the_advice_is_littles_law_and_says_what_it_rests_on() -> None:
    clock = Clock(replicas=2)
    clock.run(10, offered=16, done=16, cost=0.25)
    told = clock.advice()
    assert told.offered_per_second == pytest.approx(16)
    assert told.replica_per_second == pytest.approx(4)
    assert told.wanted == enough(16, 0.25, OBJECTIVE_S) == 6
    for words in ("16.0 requests a second", "4.00 replicas", "with 6,", "95 %", "250 ms"):
        assert words in told.why


def test_a_load_that_doubled_is_seen_whole_after_the_window() -> None:
    clock = Clock()
    clock.run(20, offered=10, done=10, cost=0.1)
    clock.run(WINDOW_S, offered=20, done=10, cost=0.1)
    assert clock.advice().offered_per_second == pytest.approx(20, rel=0.06)


def test_what_waits_raises_the_advice() -> None:
    clock = Clock(replicas=2)
    clock.run(10, offered=10, done=10, cost=0.1)
    quiet, told = clock.advice(), clock.advice(queued=200)
    assert quiet.wanted is not None
    assert told.wanted == enough(10 + 200 / BACKLOG_S, 0.1, OBJECTIVE_S) > quiet.wanted
    assert "200 that wait" in told.why


def test_an_accelerator_that_is_busy_with_small_batches_is_not_full() -> None:
    """Four replicas, 8 ms a batch and 0.15 ms a picture: each takes pictures one and two at a
    time and is busy all the time, and one of them could do it all."""
    clock = Clock(replicas=4)
    clock.run(5, offered=400, done=300, cost=0.00815, batch=1)
    assert clock.advice().wanted == enough(400, 0.00815, OBJECTIVE_S) >= 4, "as it seems"
    clock.run(5, offered=400, done=50, cost=(0.008 + 8 * 0.00015) / 8, batch=8)
    told = clock.advice()
    assert told.replica_per_second == pytest.approx(870, rel=0.01)
    assert told.wanted == 1


def test_a_few_large_batches_are_no_measure() -> None:
    clock = Clock()
    clock.run(5, offered=40, done=40, cost=0.008, batch=1)
    for _ in range(MEASURED_AFTER - 1):
        clock.adviser.served(0.001, 8)
    assert clock.advice().replica_per_second == pytest.approx(125)
    clock.adviser.served(0.001, 8)
    assert clock.advice().replica_per_second == pytest.approx(1000)


def test_what_is_got_through_under_a_backlog_beats_what_the_engine_tells() -> None:
    """Replicas that share cores, or decode files themselves: more than the engine is at work."""
    clock = Clock(replicas=2)
    clock.run(5, offered=20, done=20, cost=0.05)
    clock.run(5, offered=40, done=16, cost=0.05, backlog=True)
    assert clock.advice().replica_per_second == pytest.approx(8, rel=0.05)
    clock.run(20, offered=10, done=10, cost=0.05)
    assert clock.advice().replica_per_second == pytest.approx(8, rel=0.05)
    clock.run(DRAIN_FORGOTTEN_S, offered=10, done=10, cost=0.05)
    assert clock.advice().replica_per_second == pytest.approx(20, rel=0.05)


def test_a_moment_in_which_a_replica_came_measures_nothing() -> None:
    clock = Clock()
    clock.run(5, offered=20, done=20, cost=0.01)
    for _ in range(40):
        clock.replicas += 1
        clock.run(TICK_S, offered=20, done=20, cost=0.01, backlog=True)
    assert clock.advice().replica_per_second == pytest.approx(100)


def test_another_version_is_measured_anew() -> None:
    clock = Clock()
    clock.run(5, offered=20, done=20, cost=0.1)
    clock.run(5, offered=20, done=10, cost=0.1, backlog=True)
    clock.adviser.forget()
    assert clock.advice().wanted is None
    clock.run(1, offered=20, done=20, cost=0.02)
    assert clock.advice().replica_per_second == pytest.approx(50)


def test_a_replica_that_got_slower_is_noticed() -> None:
    clock = Clock()
    clock.run(60, offered=50, done=50, cost=0.01)
    clock.run(30, offered=50, done=50, cost=0.02)
    assert clock.advice().replica_per_second == pytest.approx(50, rel=0.1)


def test_an_engine_that_takes_no_time_is_no_division_by_zero() -> None:
    clock = Clock()
    clock.run(3, offered=1000, done=1000, cost=0.0)
    assert clock.advice().wanted == 1


def test_what_is_kept_does_not_grow() -> None:
    clock = Clock()
    clock.run(600, offered=4, done=4, cost=0.1)
    assert len(clock.adviser._looks) <= WINDOW_S / TICK_S + 2
