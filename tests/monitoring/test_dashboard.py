"""The dashboard is one that Grafana should be able to show, as far as its file can tell.

No Grafana runs in any test. What the queries are answered is asked of a real Prometheus, in
tests/containers/test_monitoring.py.
"""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.monitoring.conftest import Promtool
from tests.monitoring.rules import GRAFANA, dashboard, panels, queries, read

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"short", "s", "bytes", "reqps", "percentunit"}
"""Of Grafana's units those that are used here: seconds, bytes, a rate per second, a share of 1."""


def test_every_panel_has_an_id_and_a_title_of_its_own() -> None:
    all_panels = dashboard()["panels"]
    assert len({panel["id"] for panel in all_panels}) == len(all_panels)
    assert len({panel["title"] for panel in all_panels}) == len(all_panels)


def test_no_panel_lies_on_another() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard()["panels"]]
    for title, place in places:
        assert place["w"] > 0 < place["h"], title
        assert 0 <= place["x"] <= COLUMNS - place["w"], title
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one} and {other}"


def test_every_panel_asks_something_and_names_the_unit_of_the_answer() -> None:
    for panel in panels():
        title = panel["title"]
        assert panel["datasource"] == DATASOURCE, title
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, title
        assert panel["targets"], title
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), title
        for target in panel["targets"]:
            assert target["datasource"] == DATASOURCE, title
            assert target["legendFormat"], title


def test_a_legend_names_labels_that_the_query_leaves() -> None:
    for panel in panels():
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            groups = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            for group in groups:
                assert wanted <= set(re.split(r",\s*", group)), panel["title"]


def test_variables_are_those_that_are_used() -> None:
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", str(dashboard()["panels"])))
    assert used == set(variables) == {"datasource", "model"}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["model"]["datasource"] == DATASOURCE


def test_prometheus_understands_every_query(promtool: Promtool, tmp_path: Path) -> None:
    asked = [query for panel in panels() for query in queries(panel)]
    assert not [query for query in asked if "$" in query]
    rules = [{"record": f"query:number:{i}", "expr": query} for i, query in enumerate(asked)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(asked)} rules found" in promtool("check", "rules", str(file))


def test_what_grafana_is_given_at_its_start_fits_the_compose_files() -> None:
    [source] = provision("datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == read("prometheus.yml")["global"]["scrape_interval"]
    [provider] = provision("dashboards/sightline.yml")["providers"]
    compose = yaml.safe_load((GRAFANA / "docker-compose.yml").read_text())
    mounts = {}
    for mount in compose["services"]["grafana"]["volumes"]:
        here, there, mode = mount.split(":")
        assert (ROOT / here).is_dir()
        assert mode == "ro"
        mounts[there] = (ROOT / here).resolve()
    environment = compose["services"]["grafana"]["environment"]
    assert mounts[provider["options"]["path"]] == GRAFANA / "dashboards"
    assert mounts[environment["GF_PATHS_PROVISIONING"]] == GRAFANA / "provisioning"


def provision(file: str) -> Any:
    return yaml.safe_load((GRAFANA / "provisioning" / file).read_text())
