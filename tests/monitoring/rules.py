"""The rules and the dashboard, as Prometheus and Grafana read them."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "sightline.json"

_SUBSTITUTES = {"$__rate_interval": "20s", "$model": ".*"}
"""What Grafana puts for these while the page shows half an hour of all models: its rate interval is
four times the scrape interval that the data source is told."""


@functools.cache
def read(file: str) -> Any:
    """A YAML file of deploy/prometheus."""
    return yaml.safe_load((PROMETHEUS / file).read_text())


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert rule by its name."""
    return {
        rule["alert"]: rule for group in read("alerts.yml")["groups"] for rule in group["rules"]
    }


def recordings() -> dict[str, str]:
    """Every recorded series' name, and the expression it stands for."""
    groups = read("recording.yml")["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}


@functools.cache
def dashboard() -> Any:
    """The dashboard, as Grafana loads it."""
    return json.loads(DASHBOARD.read_text())


def panels() -> Iterator[Any]:
    """Its panels that show something: not the rows that they are in."""
    return (panel for panel in dashboard()["panels"] if panel["type"] != "row")


def queries(panel: Any) -> list[str]:
    """A panel's queries, as Prometheus gets them."""
    found = []
    for target in panel["targets"]:
        query = target["expr"]
        for variable, value in _SUBSTITUTES.items():
            query = query.replace(variable, value)
        found.append(query)
    return found
