"""Rules and dashboard ask for metrics and labels that docs/metrics.md has.

Prometheus answers a misspelt question with silence.
"""

import re

import pytest

from tests.conftest import ROOT
from tests.monitoring.rules import alerts, panels, queries, recordings

OF_A_TARGET = {"job", "instance"}
"""What Prometheus adds to every metric."""
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
_METRIC = re.compile(r"(?<!:)\b((?:sightline|nv)_[a-z0-9_]+)\b(?!:)(?:\{([^}]*)\})?")
_ASKED = [
    *((rule["alert"], rule["expr"]) for rule in alerts().values()),
    *recordings().items(),
    *((panel["title"], query) for panel in panels() for query in queries(panel)),
]


def documented() -> dict[str, set[str]]:
    """The labels of each metric, those of a histogram under the names of its series."""
    found = {}
    for name, kind, labels in _ROW.findall((ROOT / "docs" / "metrics.md").read_text()):
        told = set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            found[f"{name}_bucket"] = told | {"le"}
            found[f"{name}_sum"] = found[f"{name}_count"] = told
        else:
            found[name] = told
    return found


@pytest.mark.parametrize(
    "query", [query for _, query in _ASKED], ids=[where for where, _ in _ASKED]
)
def test_it_asks_for_what_there_is(query: str) -> None:
    labels_of = documented()
    there: set[str] = set(OF_A_TARGET)
    for metric, matchers in _METRIC.findall(query):
        assert metric in labels_of
        there |= labels_of[metric]
        asked = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", matchers))
        assert asked <= labels_of[metric] | OF_A_TARGET
    recorded = re.findall(r"\b(service|job|instance|model):\w+:", query)
    if not recorded:
        grouped = re.findall(r"\b(?:by|on) *\(([^)]*)\)", query)
        assert {label for group in grouped for label in re.findall(r"\w+", group)} <= there
