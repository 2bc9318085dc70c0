"""The rules: Prometheus takes them, alerts fire when they should, and each says what to do."""

import re

import pytest

from tests.monitoring.conftest import Promtool
from tests.monitoring.rules import alerts, panels, queries, read, recordings
from webapp.errors import IMAGE_REFUSALS, WebError

SEVERITIES = {"critical", "warning", "info"}


def test_prometheus_takes_them(promtool: Promtool) -> None:
    promtool("check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")


@pytest.mark.timeout(300)
def test_each_fires_when_it_should_and_not_else(promtool: Promtool) -> None:
    promtool("test", "rules", "alerts.test.yml")


def test_each_is_seen_firing_and_seen_quiet() -> None:
    scenes = read("alerts.test.yml")["tests"]
    tested = [test for scene in scenes for test in scene.get("alert_rule_test", [])]
    assert {test["alertname"] for test in tested if test["exp_alerts"]} == set(alerts())
    assert {test["alertname"] for test in tested if not test["exp_alerts"]} == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_each_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


def test_recorded_series_are_called_level_metric_operation() -> None:
    for name in recordings():
        assert re.fullmatch(r"(?:service|job|instance|model):[a-z_]+:[a-z0-9_]+", name), name


def test_what_is_recorded_is_used() -> None:
    asked = [
        *recordings().values(),
        *(rule["expr"] for rule in alerts().values()),
        *(query for panel in panels() for query in queries(panel)),
    ]
    for name in recordings():
        assert any(name in query for query in asked), name


def test_the_outcomes_that_are_our_fault_are_those_with_such_a_status() -> None:
    [outcomes] = re.findall(
        r'outcome=~"(.*?)"', recordings()["service:sightline_web_pictures_failed:ratio_rate5m"]
    )
    ours = {kind.kind for kind in kinds(WebError) if kind.status >= 500}
    assert set(outcomes.split("|")) == ours
    assert all(status < 500 for status, _, _ in IMAGE_REFUSALS.values())


def kinds(base: type[WebError]) -> set[type[WebError]]:
    """It and all below it."""
    return {base}.union(*map(kinds, base.__subclasses__()))
