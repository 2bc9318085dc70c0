"""docs/metrics.md lists what is told and nothing else, by the code and by a running service."""

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from modelserver.broker_metrics import BrokerMetrics
from modelserver.replica_metrics import ReplicaMetrics
from modelserver.tally import Page, Serving, Tally
from tests.conftest import ROOT, Service, classify, free_port, request
from webapp.app import create_app
from webapp.config import Config
from wire import Status

Listed = dict[str, tuple[str, tuple[str, ...]]]
"""Type and labels by name."""

GPU = "sightline_replica_gpu_memory_used_bytes"
PARTS = ("Broker", "Replica", "Web")


def listed(part: str) -> Listed:
    """What the document says of one part."""
    section = (ROOT / "docs/metrics.md").read_text().split(f"\n## {part}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| *(.*?) *\| .+ \|$", section, re.MULTILINE)
    assert rows
    return {
        name: (kind, tuple(sorted(re.findall(r"`(\w+)`", labels)))) for name, kind, labels in rows
    }


def kinds(told: str) -> dict[str, str]:
    """The names and types of a scrape, without the process's own."""
    found = re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE)
    return {name: kind for name, kind in found if not name.startswith("process_")}


def labels(told: str) -> dict[str, set[tuple[str, ...]]]:
    """The labels that the samples of each metric have."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for sample, given in re.findall(r"^(\w+)(?:{(.*)})? \S+$", told, re.MULTILINE):
        name = re.sub(r"_(bucket|sum|count)$", "", sample)
        name = name if name in kinds(told) else sample
        names = set(re.findall(r'(\w+)="', given)) - {"le"}
        found.setdefault(name, set()).add(tuple(sorted(names)))
    return {name: some for name, some in found.items() if name in kinds(told)}


def scraped(collector: Collector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def broker() -> str:
    return scraped(
        BrokerMetrics(lambda: Status(id="", uptime_ms=0, counts={}, models=(), replicas=()))
    )


def replica() -> str:
    tally = Tally()
    tally.serving = Serving("m", "1", "cpu", "litert", 1)
    tally.pages["m", "1"] = Page()
    return scraped(ReplicaMetrics(tally, lambda: {"GPU-1": 1}))


def web() -> str:
    http: FlaskClient = create_app(Config()).test_client()
    http.get("/metrics")
    return http.get("/metrics").text


@pytest.mark.parametrize(("part", "told"), [("Broker", broker), ("Replica", replica), ("Web", web)])
def test_the_tables_of_metrics_are_complete_and_right(part: str, told: Callable[[], str]) -> None:
    document, text = listed(part), told()
    assert kinds(text) == {name: kind for name, (kind, _) in document.items()}
    for name, given in labels(text).items():
        assert given == {document[name][1]}, name


@pytest.mark.drill
def test_a_running_service_tells_what_the_tables_say(service: Service, picture: bytes) -> None:
    ports = {"Broker": free_port(), "Replica": free_port(), "Web": service.port}
    service.start_broker(BROKER_METRICS=f"127.0.0.1:{ports['Broker']}")
    service.start_replica(MODEL_METRICS=f"127.0.0.1:{ports['Replica']}")
    service.start_web()
    service.await_replicas(1)
    assert classify(service.port, picture).status == 200

    def told(part: str) -> str:
        return request(ports[part], "GET", "/metrics").body.decode()

    for part in PARTS:
        text, document = told(part), listed(part)
        document.pop(GPU, None)
        assert kinds(text) == {name: kind for name, (kind, _) in document.items()}
        # Not known after one picture.
        silent = {"sightline_broker_drain_rate", "sightline_broker_replicas_wanted"}
        assert document.keys() - labels(text).keys() <= silent
        for name, given in labels(text).items():
            assert given == {document[name][1]}, name
        assert "\nprocess_resident_memory_bytes " in text
    assert "sightline_broker_requests_answered_total 1.0" in told("Broker")
    assert re.search(r"^sightline_replica_pictures_total{.*} 1\.0$", told("Replica"), re.MULTILINE)
    assert 'sightline_web_pictures_total{outcome="classified"} 1.0' in told("Web")
