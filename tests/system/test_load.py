"""`make load` as an operator runs it: real users of a real service, and an exit status to go by."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, Service, free_port

pytestmark = [pytest.mark.drill, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def _installed() -> None:
    if shutil.which("make") is None or not (ROOT / ".venv/.dev").exists():
        pytest.skip("no make, or nothing installed in .venv")


def load(port: int, *settings: str) -> subprocess.CompletedProcess[str]:
    env = {key: text for key, text in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--old-file=.venv/.dev", "load", f"PORT={port}", "DURATION=8", *settings],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    return f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("shape", ["ramp", "spike", "soak"])
def test_a_service_that_can_do_it_passes(service: Service, shape: str) -> None:
    service.start()
    report = ROOT / "bench-output" / "load.html"
    kept = [report.with_suffix(".md"), report.with_suffix(".svg")]
    for file in (report, *kept):
        file.unlink(missing_ok=True)
    done = load(service.port, f"SHAPE={shape}", "USERS=10", "P95_MS=5000")
    assert done.returncode == 0, said(done)
    account = re.findall(
        r"offered ([\d.]+) turns/s, achieved ([\d.]+); (\d+) requests, 0 failed", said(done)
    )
    offered, achieved, requests = map(float, account[-1])
    assert offered > 1
    assert achieved > 0.5 * offered
    assert requests >= 20
    for name in ("GET      /", "POST     /uploader", "POST     /api/v1/classify"):
        assert name in said(done)
    assert "<html" in report.read_text()
    table, plot = (file.read_text() for file in kept)
    told = re.search(r"^\| all \| (\d+) \| 0 \|", table, re.MULTILINE)
    assert told is not None, table
    assert 0.7 * requests <= int(told[1]) <= requests, "all but those of the last moment"
    assert "requests a second" in plot


def test_answers_that_take_too_long_fail_it(service: Service) -> None:
    service.start()
    done = load(service.port, "USERS=4", "P95_MS=1")
    assert done.returncode != 0
    assert re.search(r"^load: p95 is \d+ ms, more than 1$", said(done), re.MULTILINE), said(done)


def test_refusals_fail_it(service: Service, tmp_path: Path) -> None:
    service.start()
    (tmp_path / "no-picture.jpg").write_text("hello")
    done = load(service.port, "USERS=4", "P95_MS=60000", f"PHOTOS={tmp_path}")
    assert done.returncode != 0
    assert re.search(r"^load: [\d.]+% failed, more than 1.0%$", said(done), re.MULTILINE), said(
        done
    )
    assert "p95 is" not in said(done)


def test_nobody_at_home_fails_it() -> None:
    done = load(free_port(), "USERS=2", "DURATION=3")
    assert done.returncode != 0
    assert "100.0% failed" in said(done)
