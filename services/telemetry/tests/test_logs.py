"""What a program of the service prints, as text and as JSON: real processes, every line read."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from telemetry import logs

PROGRAM = """
import logging, os, sys, threading, warnings
from telemetry import logs
logs.setup(os.environ, text="%(levelname)s %(name)s: %(message)s")
log = logging.getLogger("Part")
log.debug("not told")
log.info("request %s is slow", "r-1", extra={"request_id": "r-1"})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("two\\nlines and a \\x00")
with logs.printed_as_lines(os.environ):
    os.write(2, b"a library has begun\\n")
    log.warning("meanwhile")
logs.say("the service is there", os.environ)
logs.say("the service cannot start", os.environ, alarming=True)
warnings.warn("old", DeprecationWarning, stacklevel=1)
thread = threading.Thread(target=lambda: [][0])
thread.start()
thread.join()
os.write(2, b"" if logs.is_json(os.environ) else b"as it is\\n")
raise KeyError("nobody catches this")
"""


def run(**env: str) -> list[str]:
    """The lines that PROGRAM prints with these settings."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROGRAM],
        env={"PYTHONPATH": ":".join(sys.path), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


def test_as_json_every_line_is_an_object() -> None:
    lines = [json.loads(line) for line in run(LOG_FORMAT="json")]
    told = {line["message"]: line for line in lines}
    slow = told["request r-1 is slow"]
    assert (slow["level"], slow["logger"], slow["request_id"]) == ("INFO", "Part", "r-1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", slow["time"])
    age = datetime.now(UTC) - datetime.fromisoformat(slow["time"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    broken = told["two\nlines and a \x00"]
    assert broken["exception"].startswith("Traceback")
    assert "ZeroDivisionError" in broken["exception"]
    assert {"a library has begun", "meanwhile", "the service is there"} <= told.keys()
    assert told["the service cannot start"]["level"] == "CRITICAL"
    assert any("DeprecationWarning: old" in message for message in told)
    fatal = [
        line["exception"] for line in lines if line["level"] == "CRITICAL" and "exception" in line
    ]
    assert ["IndexError" in fatal[0], "nobody catches this" in fatal[1]] == [True, True]


def test_as_text_a_line_is_what_it_was() -> None:
    lines = run()
    assert "INFO Part: request r-1 is slow" in lines
    assert {"the service is there", "the service cannot start", "as it is"} <= set(lines)
    assert not any(line.startswith("{") for line in lines)


@pytest.mark.parametrize(
    "env", [{"LOG_FORMAT": "xml"}, {"LOG_FORMAT": "JSON"}, {"LOG_LEVEL": "LOUD"}]
)
def test_a_setting_that_does_not_fit_is_told_in_a_sentence(env: dict[str, str]) -> None:
    [(name, value)] = env.items()
    with pytest.raises(logs.LogError, match=rf"^{name} cannot be '{value}'; it is one of .*\.$"):
        logs.setup(env, text="")


def test_what_is_set_to_nothing_is_not_set() -> None:
    assert logs.level({"LOG_LEVEL": ""}) == "INFO"
    assert not logs.is_json({"LOG_FORMAT": ""})
