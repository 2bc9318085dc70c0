"""When there is a tracer, and what it makes of a request's place in a trace."""

import logging
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import pytest

from telemetry import tracing
from tests.collector import Collector
from tests.conftest import eventually, free_port

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "named", "OTEL_TRACES_SAMPLER": "always_on"},
    ],
)
def test_without_a_collector_there_is_no_tracer(env: dict[str, str]) -> None:
    assert tracing.start("sightline-test", env) is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "says 'grpc'"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4317"}, "cannot be 'collector:4317'"),
    ],
)
def test_a_collector_that_cannot_be_spoken_to_is_told_in_a_sentence(
    setting: dict[str, str], words: str
) -> None:
    with pytest.raises(tracing.TracingError, match=words):
        tracing.start("sightline-test", ENDPOINT | setting)


def test_nothing_of_opentelemetry_is_imported_while_nobody_traces() -> None:
    code = (
        "import os, sys\n"
        "import webapp.wsgi, modelserver.__main__, modelserver.broker, modelserver.replica\n"
        "from telemetry import logs, tracing\n"
        "logs.setup(os.environ, text='')\n"
        "with tracing.tracer('sightline-test', os.environ) as tracer: assert tracer is None\n"
        "print(*sys.modules)\n"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "telemetry.tracing" in imported
    for module in imported:
        assert not module.startswith(("opentelemetry", "telemetry.spans", "pythonjsonlogger"))


def test_spans_have_the_times_parents_and_names_that_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Collector() as collector:
        env = {**collector.settings, "OTEL_RESOURCE_ATTRIBUTES": "zone=a"}
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with tracing.tracer("sightline-test", env) as tracer:
            assert tracer is not None
            now, wall = time.monotonic(), time.time()
            first = tracer.record(
                "wait", PARENT, since=now - 2, until=now - 1, failure=("late", "It was late.")
            )
            assert first.startswith(PARENT[:36])
            assert first != PARENT
            with suppress(ZeroDivisionError), tracer.span("work", first, kind="client") as span:
                span.tell({"n": 1})
                _ = 1 / 0
            assert tracer.begin("free", "").traceparent[3:35] != PARENT[3:35]
            unsampled = tracer.begin("nobody keeps this", PARENT[:-2] + "00")
            assert unsampled.traceparent[-2:] == "00"
            unsampled.end()
            kept_by_nobody = tracer.record("nor this", unsampled.traceparent, since=now, until=now)
            assert kept_by_nobody == unsampled.traceparent
            tracer.begin("garbage", "00-" + "x" * 52).end()
        # Leaving has sent everything that was ended.
        wait, work, garbage = collector.spans()
        assert (wait.name, wait.trace, wait.parent) == ("wait", PARENT[3:35], PARENT[36:52])
        assert wait.ended - wait.began == pytest.approx(1e9)
        assert wait.began / 1e9 == pytest.approx(wall - 2, abs=0.5)
        assert (wait.failed, wait.attributes) == (True, {"error.type": "late"})
        assert (work.parent, work.kind, work.failed) == (wait.id, "client", True)
        assert work.attributes == {"n": 1, "error.type": "ZeroDivisionError"}
        assert (garbage.name, garbage.parent) == ("garbage", "")
        assert {span.service for span in collector.spans()} == {"sightline-test"}


def test_an_operators_name_and_sampler_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        env = collector.settings | {
            "OTEL_SERVICE_NAME": "ours",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with tracing.tracer("sightline-test", env) as tracer:
            assert tracer is not None
            tracer.record("not sampled", "", since=0, until=1)
            tracer.record("sampled before", PARENT, since=0, until=1)
        assert [(span.name, span.service) for span in collector.spans()] == [
            ("sampled before", "ours")
        ]


def test_an_absent_collector_is_mentioned_once_and_again_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_BSP_MAX_QUEUE_SIZE": "4",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "reach" in record.msg]

    with ExitStack() as later, tracing.tracer("sightline-test", env) as tracer:
        assert tracer is not None

        def tells(count: int) -> bool:
            for _ in range(10):
                tracer.record("step", "", since=0, until=1)
            return len(told()) >= count

        eventually(lambda: tells(1))
        collector = later.enter_context(Collector(port))
        eventually(lambda: tells(2) and collector.spans())
    assert len(told()) == 2, told()
    assert "are dropped until they do: " in told()[0]
    assert told()[1].endswith("again")


def test_the_end_does_not_wait_for_a_collector_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("telemetry.spans.FLUSH_S", 0.2)
    for name, value in ENDPOINT.items():
        monkeypatch.setenv(name, value)
    with tracing.tracer("sightline-test", ENDPOINT) as tracer:
        assert tracer is not None
        tracer.record("step", "", since=0, until=1)
        began = time.monotonic()
    # The exporter would try again for ten seconds.
    assert time.monotonic() - began < 5
