"""What the status says, and what it costs the broker that many look at it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient

from webapp.client import ModelClient
from webapp.errors import Unavailable
from webapp.status import FRESH_S, Watch
from webapp.testing import FakeModel
from wire import ScaleAdvice


def test_it_tells_what_the_broker_tells(http: FlaskClient, photo: bytes) -> None:
    assert http.post("/api/v1/classify", data=photo).status_code == 200
    status = http.get("/api/v1/status").get_json()
    assert list(status) == ["uptime_ms", "counts", "models", "replicas"]
    assert status["counts"]["accepted"] == 1
    [model], [replica] = status["models"], status["replicas"]
    assert (model["name"], model["queued"]) == ("fake", 0)
    assert (replica["name"], replica["credit"], replica["held"]) == ("fake-1", 1, 0)


def test_it_advises_how_many_replicas_it_takes(http: FlaskClient, fake: FakeModel) -> None:
    fake.advice = ScaleAdvice(
        wanted=6,
        present=4,
        offered_per_second=16.0,
        replica_per_second=4.0,
        objective_ms=250.0,
        why="Because.",
    )
    assert http.get("/api/v1/scale").get_json() == {
        "models": [
            {
                "name": "fake",
                "version": "1",
                "wanted": 6,
                "present": 4,
                "queued": 0,
                "offered_per_second": 16.0,
                "replica_per_second": 4.0,
                "objective_ms": 250.0,
                "why": "Because.",
            }
        ]
    }
    assert "<td>6</td></tr>" in http.get("/status").get_data(as_text=True)


def test_a_broker_that_knows_no_advice_gives_none(http: FlaskClient) -> None:
    assert http.get("/api/v1/scale").get_json() == {"models": []}
    [model] = http.get("/api/v1/status").get_json()["models"]
    assert "scale" not in model
    assert http.get("/status").status_code == 200


def test_many_who_look_cost_the_broker_one_question(fake: FakeModel, client: ModelClient) -> None:
    watch = Watch(client)
    with ThreadPoolExecutor(16) as viewers:
        looks = [viewers.submit(watch.look, deadline=time.monotonic() + 2) for _ in range(64)]
        assert {look.result().replicas[0].name for look in looks} == {"fake-1"}
    assert fake.observations == 1


def test_what_changed_is_seen_soon(
    fake: FakeModel, client: ModelClient, until: Callable[[Callable[[], object]], None]
) -> None:
    watch = Watch(client)
    began = time.monotonic()
    watch.look(deadline=began + 2)
    fake.replicas = ("fake-1", "fake-2")
    until(lambda: len(watch.look(deadline=time.monotonic() + 2).replicas) == 2)
    assert FRESH_S <= time.monotonic() - began < 2 * FRESH_S + 0.5


def test_a_silent_broker_is_waited_for_once_however_many_look(
    fake: FakeModel, client: ModelClient
) -> None:
    fake.silent = True
    watch = Watch(client)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as viewers:
        looks = [viewers.submit(watch.look, deadline=began + 0.3) for _ in range(8)]
        for look in looks:
            with pytest.raises(Unavailable):
                look.result()
    assert time.monotonic() - began < 1


def test_without_a_broker_it_says_so(fake: FakeModel, http: FlaskClient) -> None:
    fake.silent = True
    answer = http.get("/api/v1/status")
    assert answer.status_code == 503
    assert answer.get_json()["type"] == "urn:sightline:problem:unavailable"
