"""The whole service with its log as JSON: every line is an object, and names its request."""

import json
from typing import Any

import pytest

from tests.conftest import Processes, eventually, request
from tests.system.test_serve import Machine


@pytest.mark.drill
def test_every_line_is_json_and_names_the_request_that_it_is_about(
    processes: Processes, picture: bytes
) -> None:
    machine = Machine(processes, LOG_FORMAT="json", LOG_LEVEL="DEBUG")
    machine.start()
    eventually(machine.ready, within_s=30)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    path = "/api/v1/classify"
    named = headers | {"X-Request-Id": "good-1"}
    assert request(machine.port, "POST", path, picture, named).status == 200
    named = headers | {"X-Request-Id": "bad-1"}
    assert request(machine.port, "POST", path, b"no picture", named).status == 415
    # It asks for readiness of its own, and may come to know it after the test does.
    eventually(lambda: "Sightline serves http" in processes.log("serve"))
    assert processes.stop("serve") == 0

    lines: list[dict[str, Any]] = [json.loads(line) for line in processes.log("serve").splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    about = [
        (line["request_id"], line["logger"], line["level"])
        for line in lines
        if line.get("trace_id") == trace
    ]
    assert about == [("good-1", "Replica", "DEBUG"), ("bad-1", "webapp", "DEBUG")]
    loggers = {line["logger"] for line in lines}
    assert {"Broker", "Replica", "webapp", "gunicorn.error", "Sightline"} <= loggers
    assert any("Sightline serves http" in line["message"] for line in lines)


@pytest.mark.parametrize(
    ("argv", "setting"),
    [
        (("modelserver", "broker"), "LOG_LEVEL"),
        (("gunicorn", "-c", "python:webapp.gunicorn_conf"), "LOG_FORMAT"),
    ],
    ids=["broker", "web"],
)
def test_a_setting_of_the_log_that_does_not_fit_stops_the_start(
    processes: Processes, argv: tuple[str, ...], setting: str
) -> None:
    process = processes.start("part", *argv, **{setting: "loud"})
    assert process.wait(20) == 78
    assert processes.log("part").startswith(f"sightline: {setting} cannot be 'loud'")
    assert len(processes.log("part").splitlines()) == 1
