"""The drain rate counts only time with a backlog, and forgets."""

import pytest

from modelserver.drain_rate import DrainRate


def drain(rate: DrainRate, start: float, per_second: float, seconds: float) -> float:
    now = start
    for _ in range(int(per_second * seconds)):
        now += 1 / per_second
        rate.observe(now, 1, backlog=True)
    return now


def test_nothing_is_known_before_there_was_a_backlog() -> None:
    rate = DrainRate()
    for n in range(100):
        rate.observe(n * 1.0, 1, backlog=False)
    assert rate.per_second is None
    assert rate.seconds_for(10, 100.0) is None


def test_a_steady_rate_is_measured() -> None:
    rate = DrainRate()
    drain(rate, 0.0, per_second=50, seconds=2)
    assert rate.per_second == pytest.approx(50, rel=0.05)
    assert rate.seconds_for(100, 2.0) == pytest.approx(2, rel=0.05)


def test_idle_time_does_not_count_as_slowness() -> None:
    rate = DrainRate()
    now = drain(rate, 0.0, per_second=50, seconds=2)
    rate.observe(now, 0, backlog=False)
    drain(rate, now + 60, per_second=50, seconds=1)
    assert rate.per_second == pytest.approx(50, rel=0.1)


def test_an_outage_does_not_count_as_slowness() -> None:
    rate = DrainRate()
    now = drain(rate, 0.0, per_second=50, seconds=2)
    rate.pause()
    drain(rate, now + 60, per_second=50, seconds=1)
    assert rate.per_second == pytest.approx(50, rel=0.1)


def test_a_change_of_speed_is_noticed_within_seconds() -> None:
    rate = DrainRate()
    now = drain(rate, 0.0, per_second=100, seconds=30)
    drain(rate, now, per_second=10, seconds=20)
    assert rate.per_second == pytest.approx(10, rel=0.8)
