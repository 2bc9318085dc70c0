"""Prometheus as `--profile monitoring` starts it, and its answers to the dashboard's queries."""

import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import classify, eventually, request
from tests.containers.conftest import Project
from tests.monitoring.rules import alerts, panels, queries
from tests.system.load import Load

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

ONLY_WITH_A_GPU = {"Memory of GPUs"}
CLIENTS = 64
"""Many more than a replica has credit for: the drain rate is measured only while requests wait."""


class Prometheus:
    """Asks a running Prometheus by its HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def targets(self) -> dict[str, list[str]]:
        """The health of each target (`up`, `down` or `unknown`), by job."""
        found: dict[str, list[str]] = {}
        for target in self._get("targets?state=active")["activeTargets"]:
            found.setdefault(target["labels"]["job"], []).append(target["health"])
        return found

    def numbers(self, query: str) -> list[float]:
        """What a query says now, without what is no number."""
        result = self._get(f"query?query={quote(query)}")["result"]
        return [value for one in result if math.isfinite(value := float(one["value"][1]))]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {
            a["labels"]["alertname"]
            for a in self._get("alerts")["alerts"]
            if a["state"] == "firing"
        }

    def rules(self) -> dict[str, str]:
        """The health of every rule, by its name."""
        groups = self._get("rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def _get(self, path: str) -> Any:
        answer = request(self.port, "GET", f"/api/v1/{path}")
        assert answer.status == 200, answer.body
        return answer.json["data"]


@pytest.fixture(scope="module")
def prometheus(project: Project) -> Iterator[Prometheus]:
    monitoring = ("--profile", "monitoring")
    project.compose(*monitoring, "up", "--build", "--wait", "--detach", "--no-deps", "prometheus")
    yield Prometheus(project.prometheus_port)
    project.compose(*monitoring, "rm", "--stop", "--force", "--volumes", "prometheus")


def test_web_broker_and_model_are_up(prometheus: Prometheus) -> None:
    up = {"web": ["up"], "broker": ["up"], "model": ["up"]}
    eventually(lambda: prometheus.targets() == up, within_s=30)


def test_every_panel_of_the_dashboard_has_data(
    project: Project, prometheus: Prometheus, picture: bytes
) -> None:
    silent = {
        query: panel["title"]
        for panel in panels()
        if panel["title"] not in ONLY_WITH_A_GPU
        for query in queries(panel)
    }

    def all_have_spoken() -> bool:
        for query in list(silent):
            if prometheus.numbers(query):
                del silent[query]
        return not silent

    with Load(lambda: classify(project.port, picture), clients=CLIENTS):
        try:
            eventually(all_have_spoken, within_s=60)
        except AssertionError:
            raise AssertionError(f"without data: {silent}") from None


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    health = prometheus.rules()
    assert set(alerts()) <= set(health)
    assert set(health.values()) == {"ok"}


def test_more_replicas_are_found_and_the_loss_of_one_is_told(
    project: Project, prometheus: Prometheus
) -> None:
    assert "ReplicaLost" not in prometheus.firing()
    project.scale(2)
    eventually(lambda: prometheus.targets()["model"] == ["up", "up"], within_s=30)
    eventually(lambda: prometheus.numbers("sum(sightline_broker_replicas)") == [2], within_s=30)
    project.docker("kill", project.containers("model")[0])
    eventually(lambda: "ReplicaLost" in prometheus.firing(), within_s=30)
    project.scale(1)
    eventually(lambda: prometheus.targets()["model"] == ["up"], within_s=30)


def test_its_container_is_locked_down_and_reached_from_this_machine_only(
    project: Project, prometheus: Prometheus
) -> None:
    [container] = project.compose("--profile", "monitoring", "ps", "--quiet", "prometheus").split()
    assert project.docker("port", container).splitlines() == [
        f"9090/tcp -> 127.0.0.1:{prometheus.port}"
    ]
    project.assert_locked_down(container)
