"""One trace from web to the replica, as a collector sees it; and none where none is wanted."""

import json
import re
import threading

import pytest

from tests.collector import Collector, Told
from tests.conftest import (
    ROOT,
    Answer,
    Service,
    classify,
    eventually,
    free_port,
    request,
)

DOCUMENT = ROOT / "docs" / "observability.md"
WHOLE = ["POST /api/v1/classify", "decode", "classify", "queue", "batch wait", "inference"]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDER = "00f067aa0ba902b7"


def start(service: Service, collector: Collector, **replica: str) -> None:
    """Everything, with one replica; ``replica`` is set for it."""
    service.start_broker(**collector.settings)
    service.start_replica(**collector.settings, **replica)
    service.start_web(**collector.settings)
    service.await_replicas(1)


def classify_traced(service: Service, picture: bytes, traceparent: str, query: str = "") -> Answer:
    headers = {"traceparent": traceparent}
    return request(service.port, "POST", f"/api/v1/classify{query}", picture, headers)


def by_name(spans: list[Told]) -> dict[str, Told]:
    assert len({span.name for span in spans}) == len(spans), spans
    return {span.name: span for span in spans}


def assert_is_one_tree(spans: dict[str, Told], root: str) -> None:
    """Each part lies under what it is a part of, and within its time."""
    server, asked, queue = spans[WHOLE[0]], spans["classify"], spans["queue"]
    parents = {
        WHOLE[0]: root,
        "decode": server.id,
        "classify": server.id,
        "queue": asked.id,
        "batch wait": queue.id,
        "inference": queue.id,
    }
    assert {name: span.parent for name, span in spans.items()} == parents
    services = {"sightline-web": WHOLE[:3], "sightline-broker": WHOLE[3:4]}
    services["sightline-replica"] = WHOLE[4:]
    for name, parts in services.items():
        assert {spans[part].service for part in parts} == {name}
    kinds = [spans[name].kind for name in WHOLE]
    assert kinds == ["server", "internal", "client", "server", "consumer", "consumer"]
    slack = 2_000_000  # The clocks of two processes are one, read at two moments.
    for span in spans.values():
        assert server.began - slack <= span.began <= span.ended <= server.ended + slack
    assert spans["batch wait"].ended == pytest.approx(spans["inference"].began, abs=slack)


@pytest.mark.drill
def test_one_request_is_one_trace_through_all_three_tiers(service: Service, picture: bytes) -> None:
    with Collector() as collector:
        start(service, collector)
        answer = classify(service.port, picture)
        eventually(lambda: len(collector.spans()) == len(WHOLE))
        spans = by_name(collector.spans())
        assert sorted(spans) == sorted(WHOLE)
        assert len({span.trace for span in spans.values()}) == 1
        assert_is_one_tree(spans, root="")
        server = spans[WHOLE[0]].attributes
        assert server["http.route"] == "/api/v1/classify"
        assert server["http.response.status_code"] == 200
        ids = {span.attributes.get("sightline.request_id") for span in spans.values()}
        assert ids == {answer.json["request_id"], None}
        assert spans["inference"].attributes["sightline.batch_size"] == 1
        assert spans["inference"].attributes["sightline.replica"] == answer.json["replica"]
        assert spans["queue"].attributes["sightline.attempt"] == 1
        told = {name for span in spans.values() for name in span.attributes}
        said = re.findall(r"^sightline\S+", DOCUMENT.read_text(), re.MULTILINE)
        assert {name for name in told if name.startswith("sightline.")} == set(said)

        # Somebody else's trace goes on, and one that nobody keeps is not begun here.
        assert classify_traced(service, picture, f"00-{'a' * 32}-{SENDER}-00").status == 200
        assert classify_traced(service, picture, f"00-{TRACE}-{SENDER}-01").status == 200
        eventually(lambda: len(collector.of(TRACE)) == len(WHOLE))
        assert_is_one_tree(by_name(collector.of(TRACE)), root=SENDER)
        assert len(collector.spans()) == 2 * len(WHOLE)

        # What goes wrong is seen where it did.
        assert classify(service.port, b"no picture").status == 415
        assert classify(service.port, picture, "?model=none").status == 404
        eventually(lambda: len(collector.spans()) == 2 * len(WHOLE) + 2)
        assert [s.attributes["http.response.status_code"] for s in collector.spans()[-2:]] == [
            415,
            404,
        ]
        assert not any(span.failed for span in collector.spans())
        for name in ("replica1", "broker", "web"):
            assert service.processes.stop(name) == 0


@pytest.mark.drill
def test_a_second_attempt_is_a_second_stay_in_the_queue_and_a_failure_is_where_it_was(
    service: Service, picture: bytes
) -> None:
    """A replica is killed while it works; the trace shows to whom the picture went before."""
    with Collector() as collector:
        slow = {"MODEL_ENGINE": "simulated", "MODEL_SIMULATED_BASE_MS": "200"}
        service.start_broker(**collector.settings)
        replicas = [service.start_replica(**collector.settings, **slow) for _ in range(2)]
        service.start_web(**collector.settings)
        service.await_replicas(2)
        many = b"\r\n".join(
            b'--x\r\nContent-Disposition: form-data; name="i"; filename="%d"\r\n\r\n%s'
            % (number, picture)
            for number in range(8)
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answers: list[Answer] = []
        asking = threading.Thread(
            target=lambda: answers.append(
                request(service.port, "POST", "/api/v1/classify", many + b"\r\n--x--", headers)
            )
        )
        asking.start()
        eventually(lambda: any(span.name == "queue" for span in collector.spans()))
        replicas[0][1].kill()
        asking.join()
        lines = [json.loads(line) for line in answers[0].body.splitlines()]
        assert [line for line in lines if "predictions" not in line] == []
        again = {line["request_id"] for line in lines if line["attempt"] == 2}
        assert again

        def parts_of(request_id: str, name: str) -> list[Told]:
            return [
                span
                for span in collector.spans()
                if (span.name, span.attributes.get("sightline.request_id")) == (name, request_id)
            ]

        eventually(lambda: all(parts_of(request_id, "inference") for request_id in again))
        eventually(lambda: all(parts_of(request_id, "classify") for request_id in again))
        eventually(lambda: any(span.name == WHOLE[0] for span in collector.spans()))
        server = next(span for span in collector.spans() if span.name == WHOLE[0])
        for request_id in again:
            [asked] = parts_of(request_id, "classify")
            assert (asked.parent, asked.trace) == (server.id, server.trace)
            first, second = parts_of(request_id, "queue")
            assert first.parent == second.parent == asked.id
            assert first.attributes["sightline.replica"] != second.attributes["sightline.replica"]
            assert second.attributes["sightline.attempt"] == 2
            assert [span.parent for span in parts_of(request_id, "inference")] == [second.id]

        # And when nobody is left, the trace shows where it waited for nothing.
        replicas[1][1].kill()
        eventually(lambda: service.replicas() == [])
        traceparent = f"00-{TRACE}-{SENDER}-01"
        late = classify_traced(service, picture, traceparent, "?deadline_ms=2000")
        assert late.status == 503
        failed = {WHOLE[0], "classify", "queue"}
        eventually(lambda: {span.name for span in collector.of(TRACE) if span.failed} == failed)
        spans = by_name(collector.of(TRACE))
        assert spans["queue"].attributes["error.type"] == "unavailable"
        assert spans["classify"].attributes["error.type"] == "Unavailable"


@pytest.mark.drill
def test_a_collector_that_is_away_costs_nobody_anything(service: Service, picture: bytes) -> None:
    port = free_port()
    away = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BSP_MAX_QUEUE_SIZE": "16",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
    }
    service.start_broker(**away)
    service.start_replica(**away)
    service.start_web(**away)
    service.await_replicas(1)
    parts = ("web", "broker", "replica1")

    def lines_about(part: str) -> list[str]:
        return [line for line in service.processes.log(part).splitlines() if "span" in line]

    def warned() -> bool:
        assert classify(service.port, picture).status == 200
        return all("are dropped until they do" in service.processes.log(part) for part in parts)

    eventually(warned)
    # Further failures say nothing, and then it is there.
    for _ in range(50):
        assert classify(service.port, picture).status == 200
    with Collector(port) as collector:
        eventually(
            lambda: (
                classify(service.port, picture).status == 200
                and {span.service for span in collector.spans()}
                == {"sightline-web", "sightline-broker", "sightline-replica"}
            )
        )
        eventually(lambda: all("reach" in lines_about(part)[-1] for part in parts))
        for part in parts:
            assert len(lines_about(part)) == 3, lines_about(part)
            assert "Traceback" not in service.processes.log(part)
            assert "opentelemetry" not in service.processes.log(part)
    classify(service.port, picture)
    for part in ("web", "replica1", "broker"):
        assert service.processes.stop(part) == 0


@pytest.mark.drill
def test_without_a_collector_nothing_of_opentelemetry_is_imported(
    service: Service, picture: bytes
) -> None:
    imports = {"PYTHONPROFILEIMPORTTIME": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    service.start_broker(**imports)
    service.start_replica(**imports)
    service.start_web(**imports)
    service.await_replicas(1)
    assert classify_traced(service, picture, f"00-{TRACE}-{SENDER}-01").status == 200
    for part in ("web", "broker", "replica1"):
        imported = service.processes.log(part)
        assert "telemetry.tracing" in imported
        assert "opentelemetry" not in imported
        assert "telemetry.spans" not in imported
        assert "pythonjsonlogger" not in imported
