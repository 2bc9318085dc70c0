"""`sightline`, as it is typed: a real service, real files, and an exit status to go by."""

import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from modelserver.keygen import make_keys
from tests.conftest import ROOT, Processes, Service, eventually, free_port
from webapp.apikeys import new_api_key

pytestmark = pytest.mark.drill

GOLDEN = ROOT / "services/model/modelserver/bundles/efficientnet-lite0/golden"
COFFEE = str(GOLDEN / "coffee.png")
CAMERA = str(GOLDEN / "camera.png")
DONE, FAILED, USAGE, UNAVAILABLE = 0, 1, 2, 3


def sightline(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sightline", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def objects(done: subprocess.CompletedProcess[str]) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that is not broken by any of the tests."""
    processes = Processes(tmp_path_factory.mktemp("logs"))
    service = Service(processes)
    try:
        service.start()
        yield service
    finally:
        processes.close()


@pytest.fixture(params=["url", "broker"])
def where(request: pytest.FixtureRequest, running: Service) -> list[str]:
    """Both ways to the same service."""
    if request.param == "url":
        return ["--url", f"http://127.0.0.1:{running.port}"]
    return ["--broker", running.frontend]


@pytest.fixture
def nothing() -> str:
    return f"127.0.0.1:{free_port()}"


def test_classes_stand_in_a_table(where: list[str]) -> None:
    done = sightline("classify", COFFEE, CAMERA, "--top-k", "2", *where)
    assert (done.returncode, done.stderr) == (DONE, "")
    head, first, second, other, _ = done.stdout.splitlines()
    assert head.split() == ["FILE", "CLASS", "PROBABILITY"]
    assert first.startswith(COFFEE)
    assert first.split()[1] == "espresso"
    assert first.endswith("%")
    assert second.startswith(" " * len("FILE"))
    assert other.startswith(CAMERA)


def test_a_bad_file_among_good_ones_costs_itself_only(where: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("I am no picture. " * 10)
    files = [COFFEE, str(tmp_path / "bad.jpg"), str(tmp_path / "none.jpg"), CAMERA]
    done = sightline("classify", "--json", *files, *where)
    assert done.returncode == FAILED, done
    told = objects(done)
    assert [answer["file"] for answer in told] == files
    assert ["error" in answer for answer in told] == [False, True, True, False]
    assert told[0]["predictions"][0]["label"] == "espresso"
    assert {"model", "replica", "attempt", "batch_size", "request_id", "timing_ms"} <= set(told[0])
    assert told[1]["error"]["detail"]
    assert told[1]["error"]["status"] in (415, 422)
    assert told[2]["error"]["type"] == "urn:sightline:problem:unreadable"
    assert done.stderr == ""

    table = sightline("classify", *files, *where)
    assert (table.returncode, "espresso" in table.stdout) == (FAILED, True)
    assert f"{files[1]}: " in table.stderr
    assert table.stderr.endswith("2 of 4 files failed\n")


def test_a_model_that_is_not_served_is_the_commands_fault(where: list[str]) -> None:
    done = sightline("classify", COFFEE, "--model", "nix", "--timeout", "5", *where)
    assert done.returncode == USAGE, done


def test_without_a_service_the_status_says_so(nothing: str) -> None:
    done = sightline("classify", "--json", COFFEE, CAMERA, "--url", f"http://{nothing}")
    assert done.returncode == UNAVAILABLE
    assert {a["error"]["type"] for a in objects(done)} == {"urn:sightline:problem:unreachable"}
    broker = sightline("classify", COFFEE, "--broker", f"tcp://{nothing}", "--timeout", "1")
    assert (broker.returncode, broker.stdout) == (UNAVAILABLE, "")
    assert sightline("watch", "--once", "--url", f"http://{nothing}").returncode == UNAVAILABLE


def interrupted(*words: str, at: Callable[[IO[str]], object]) -> int:
    """The exit status of who gets Ctrl-C when ``at``, given what it prints, has returned."""
    with subprocess.Popen(
        [sys.executable, "-m", "sightline", *words],
        stdout=subprocess.PIPE,
        text=True,
        # A test that runs in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        at(process.stdout)
        process.send_signal(signal.SIGINT)
        return process.wait(5)


def test_who_interrupts_it_does_not_wait_for_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, contextlib.ExitStack() as stack:

        def asked(_output: object) -> None:
            connection, _ = mute.accept()
            stack.enter_context(connection).recv(1)

        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        assert interrupted("classify", COFFEE, "--url", url, at=asked) == 130


def test_watch_tells_in_json_that_there_is_no_answer(nothing: str) -> None:
    def told(output: IO[str]) -> None:
        error = json.loads(output.readline())["error"]
        assert error["type"] == "urn:sightline:problem:unreachable"

    assert interrupted("watch", "--json", "--url", f"http://{nothing}", at=told) == 130


def test_an_output_that_is_full_is_the_commands_fault(where: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sightline", "classify", COFFEE, *where],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    words = "sightline: the output cannot be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (USAGE, words)


def test_watch_shows_it_once(running: Service) -> None:
    assert sightline("classify", COFFEE, "--broker", running.frontend).returncode == DONE
    done = sightline("watch", "--once", "--broker", running.frontend)
    assert (done.returncode, done.stderr) == (DONE, "")
    assert "efficientnet-lite0" in done.stdout
    assert running.replicas()[0] in done.stdout
    assert "answered " in done.stdout
    [told] = objects(sightline("watch", "--once", "--json", "--broker", running.frontend))
    assert told["counts"]["answered"] >= 1
    assert [replica["name"] for replica in told["replicas"]] == running.replicas()


def test_in_a_terminal_there_is_a_bar_that_leaves_nothing_behind(running: Service) -> None:
    ours, theirs = pty.openpty()
    ask = ["classify", COFFEE, CAMERA, "--broker", running.frontend]
    with open(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "sightline", *ask], stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # EIO: nobody is at the other end any longer.
            while piece := terminal.read(4096):
                said += piece
        assert process.wait() == DONE
    bar, _, rest = said.partition(b"\r\x1b[KFILE")
    assert b"] 0 of 2" in bar
    assert rest.count(b"%") >= 6
    assert rest.rpartition(b"\n")[2] in (b"", b"\r\x1b[K")


def test_many_files_come_in_the_order_in_which_they_were_named(running: Service) -> None:
    files = [COFFEE, CAMERA, COFFEE] * 4
    done = sightline("classify", "--json", "--jobs", "8", *files, "--broker", running.frontend)
    assert [answer["file"] for answer in objects(done)] == files


def test_an_api_key_is_taken_from_the_option_or_the_environment(
    service: Service, tmp_path: Path
) -> None:
    key, line = new_api_key("a test")
    (tmp_path / "keys").write_text(line + "\n")
    service.start_broker()
    service.start_replica(MODEL_ENGINE="simulated")
    service.start_web(WEB_API_KEYS_FILE=str(tmp_path / "keys"))
    service.await_replicas(1)
    ask = ["classify", COFFEE, "--url", f"http://127.0.0.1:{service.port}"]
    refused = sightline(*ask)
    assert (refused.returncode, "API key" in refused.stderr) == (USAGE, True)
    assert sightline(*ask, "--api-key", key).returncode == DONE
    assert sightline(*ask, SIGHTLINE_API_KEY=key).returncode == DONE


def test_a_broker_that_asks_for_keys_lets_in_a_client_that_has_them(
    service: Service, tmp_path: Path
) -> None:
    keys = {file.stem: str(file) for file in make_keys(tmp_path)}
    service.start_broker(BROKER_KEYS_FILE=keys["broker"])
    service.start_replica(MODEL_ENGINE="simulated", MODEL_KEYS_FILE=keys["model"])
    ask = ["watch", "--once", "--json", "--broker", service.frontend]
    keyed = [*ask, "--keys", keys["web"]]
    eventually(lambda: objects(sightline(*keyed))[0]["replicas"], within_s=30)
    assert sightline(*ask, "--timeout", "1").returncode == UNAVAILABLE


def test_make_installs_the_command() -> None:
    if shutil.which("make") is None or not (ROOT / ".venv/.run").exists():
        pytest.skip("no make, or nothing installed in .venv")
    done = subprocess.run(
        [ROOT / ".venv/bin/sightline", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: sightline")
    assert "exit status:" in done.stdout
