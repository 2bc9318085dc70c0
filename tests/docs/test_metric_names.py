"""No document, rule, dashboard or manifest names a metric that there is not.

What there is stands in docs/metrics.md, which is held against the code where metrics are made.
"""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.documents import DEPLOYED, DOCUMENTS, manifests, name, text

_METRIC = re.compile(r"(?<![:\w])(?:sightline_(?:web|broker|replica)|nv)_[a-z0-9_]+(?![:\w*])")
_RECORDED = re.compile(r"\b[a-z_]+:[a-z0-9_]+:[a-z0-9_]+\b")


@cache
def metrics() -> frozenset[str]:
    """Every series that is told: of a histogram those that it is told by."""
    named = set(_METRIC.findall(text(ROOT / "docs/metrics.md")))
    return frozenset(
        f"{metric}{part}" for metric in named for part in ("", "_bucket", "_sum", "_count")
    )


@cache
def recorded() -> frozenset[str]:
    """What Prometheus works out of them."""
    return frozenset(
        rule["record"]
        for file in sorted((ROOT / "deploy/prometheus").glob("*.y*ml"))
        for tree in manifests(file)
        for group in tree.get("groups", ())
        for rule in group["rules"]
        if "record" in rule
    )


@pytest.mark.parametrize("file", [*DOCUMENTS, *DEPLOYED], ids=name)
def test_every_metric_that_is_named_is_told(file: Path) -> None:
    named = set(_METRIC.findall(text(file)))
    assert not named or named <= metrics()
    about_us = {series for series in _RECORDED.findall(text(file)) if ":sightline_" in series}
    assert about_us <= recorded()
