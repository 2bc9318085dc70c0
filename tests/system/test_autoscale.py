"""`make autoscale`: up at once, down with patience; and the advice that it follows is right."""

import time
from contextlib import closing

import pytest

from deploy.autoscale.patience import PAUSE_S, Patience
from loadtest.bench.scale.clients import Clients
from loadtest.bench.scale.peers import Curve
from loadtest.bench.scale.report import PIXELS
from loadtest.bench.scale.stage import stage
from modelserver.advice import WINDOW_S, enough
from tests.conftest import Processes
from webapp.client import ModelClient
from wire import ScaleAdvice


def test_more_are_had_at_once_and_then_they_get_time_to_begin() -> None:
    patience = Patience(1, 10, down_after_s=60)
    assert patience.goal(4, 1, 0.0) == 4
    assert patience.goal(6, 4, PAUSE_S - 0.1) == 4
    assert patience.goal(6, 4, PAUSE_S) == 6
    assert patience.goal(6, 6, 2 * PAUSE_S) == 6


def test_fewer_are_had_one_by_one_when_the_advice_was_lower_for_a_while() -> None:
    patience = Patience(1, 10, down_after_s=60)
    assert patience.goal(2, 4, 0.0) == 4
    assert patience.goal(2, 4, 59.0) == 4
    assert patience.goal(3, 4, 60.0) == 3
    assert patience.goal(2, 3, 61.0) == 3
    assert patience.goal(2, 3, 120.0) == 2
    assert patience.goal(2, 2, 500.0) == 2


@pytest.mark.parametrize("interruption", [4, 5, None])
def test_patience_begins_anew_when_the_load_comes_back_or_nothing_is_known(
    interruption: int | None,
) -> None:
    patience = Patience(1, 4, down_after_s=60)
    assert patience.goal(1, 4, 0.0) == 4
    assert patience.goal(interruption, 4, 50.0) == 4
    assert patience.goal(1, 4, 61.0) == 4
    assert patience.goal(1, 4, 120.0) == 4
    assert patience.goal(1, 4, 121.0) == 3


def test_bounds_are_kept_whatever_is_advised() -> None:
    patience = Patience(2, 4, down_after_s=1)
    assert patience.goal(100, 3, 0.0) == 4
    assert patience.goal(100, 4, 100.0) == 4
    assert patience.goal(0, 2, 200.0) == 2
    assert patience.goal(0, 1, 300.0) == 2
    # An operator had more than that.
    assert patience.goal(100, 6, 400.0) == 6
    assert patience.goal(100, 6, 401.0) == 5


@pytest.mark.parametrize(("least", "most", "seconds"), [(0, 1, 1), (3, 2, 1), (1, 2, -1)])
def test_bounds_that_cannot_be_kept_are_refused(least: int, most: int, seconds: int) -> None:
    with pytest.raises(ValueError, match=r"must be|no time"):
        Patience(least, most, down_after_s=seconds)


def test_without_a_docker_engine_it_says_so(processes: Processes) -> None:
    process = processes.start(
        "autoscale", "deploy.autoscale", DOCKER_HOST="unix:///nowhere/docker.sock"
    )
    assert process.wait(20) == 2
    said = processes.log("autoscale")
    assert said.startswith("autoscale: No Docker engine answers")
    assert said.count("\n") == 1


ACCELERATOR = Curve(base_ms=80, image_ms=1.5, max_batch=8)
"""An accelerator ten times slower than one, so that a busy machine can keep up."""


@pytest.mark.drill
@pytest.mark.parametrize(
    ("curve", "replicas", "per_second", "wanted"),
    [
        # Less than it takes, so that what waits counts, too.
        (Curve(base_ms=100, image_ms=0, max_batch=1), 1, 14, enough(14, 0.1, 0.25)),
        # Two that are busy all the time, as three would be, and a single one could do it.
        (ACCELERATOR, 2, 60, enough(60, (0.08 + 8 * 0.0015) / 8, 0.25)),
    ],
    ids=["too few", "accelerators"],
)
def test_the_advice_is_right_within_one(
    curve: Curve, replicas: int, per_second: float, wanted: int
) -> None:
    looks: list[ScaleAdvice] = []
    with (
        stage("broker", replicas, curve) as running,
        closing(ModelClient(running.frontend)) as client,
        Clients(running.frontend, PIXELS) as clients,
    ):

        def look() -> None:
            [model] = client.status(deadline=time.monotonic() + 5).models
            assert isinstance(model.scale, ScaleAdvice)
            looks.append(model.scale)

        clients.strangers(per_second, WINDOW_S + 1, look)
    _, after = looks
    print(after)
    assert after.wanted is not None
    assert abs(after.wanted - wanted) <= 1
