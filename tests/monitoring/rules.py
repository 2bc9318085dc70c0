"""The rules of deploy/prometheus, as Prometheus reads them."""

import functools
from typing import Any

import yaml

from tests.conftest import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"


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
