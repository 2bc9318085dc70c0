"""`make run` from the inside: one command, and everything on this machine comes, stays and goes."""

import contextlib
import os
import signal
import socket
import subprocess
import time

import pytest

from tests.conftest import Processes, classify, eventually, free_port, request
from tests.system.processes import alive, descendants


class Machine:
    """The service as one command runs it."""

    def __init__(self, processes: Processes, *argv: str, **env: str) -> None:
        self.processes = processes
        self.port = free_port()
        self.env = {
            "BROKER_FRONTEND": f"tcp://127.0.0.1:{free_port()}",
            "BROKER_BACKEND": f"tcp://127.0.0.1:{free_port()}",
            **env,
        }
        self.argv = argv

    def start(self) -> subprocess.Popen[bytes]:
        return self.processes.start(
            "serve", "modelserver", "serve", "--port", str(self.port), *self.argv, **self.env
        )

    def ready(self) -> bool:
        try:
            return request(self.port, "GET", "/readyz", timeout_s=5).status == 200
        except OSError:
            return False


def test_one_command_serves_within_five_seconds_and_stops_clean(
    processes: Processes, picture: bytes
) -> None:
    machine = Machine(processes, "--replicas", "2")
    began = time.monotonic()
    serve = machine.start()
    eventually(lambda: "Sightline serves" in processes.log("serve"))
    seconds = time.monotonic() - began
    print(f"serving after {seconds:.1f} s")
    assert seconds < 5
    assert f"http://127.0.0.1:{machine.port}" in processes.log("serve")
    assert classify(machine.port, picture).status == 200
    below = descendants(serve.pid)
    assert len(below) >= 5, "broker, two replicas, gunicorn and its worker"
    assert processes.stop("serve") == 0
    assert alive(below) == []


def test_a_broker_for_all_addresses_is_reached_from_here(
    processes: Processes, picture: bytes
) -> None:
    machine = Machine(
        processes,
        BROKER_FRONTEND=f"tcp://*:{free_port()}",
        BROKER_BACKEND=f"tcp://0.0.0.0:{free_port()}",
    )
    machine.start()
    eventually(machine.ready)
    assert classify(machine.port, picture).status == 200


def two_free_ports() -> int:
    """The lower one of two neighbours."""
    while True:
        port = free_port()
        with socket.socket() as next_one, contextlib.suppress(OSError, OverflowError):
            next_one.bind(("127.0.0.1", port + 1))
            return port


def test_each_replica_has_a_port_for_its_metrics(processes: Processes) -> None:
    port = two_free_ports()
    machine = Machine(processes, "--replicas", "2", MODEL_METRICS=f"127.0.0.1:{port}")
    machine.start()
    eventually(lambda: "Sightline serves" in processes.log("serve"))

    def scraped(port: int) -> bool:
        with contextlib.suppress(OSError):
            return b"process_start_time_seconds" in request(port, "GET", "/metrics").body
        return False

    eventually(lambda: scraped(port) and scraped(port + 1))


def kill_all_below(pid: int) -> None:
    killed = descendants(pid)
    for process in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    eventually(lambda: not alive(killed))


def test_what_dies_is_started_again(processes: Processes, picture: bytes) -> None:
    machine = Machine(processes)
    serve = machine.start()
    eventually(machine.ready)
    for _ in range(2):
        kill_all_below(serve.pid)
        eventually(machine.ready)
        assert classify(machine.port, picture).status == 200


def test_nothing_outlives_a_killed_supervisor(processes: Processes) -> None:
    machine = Machine(processes)
    serve = machine.start()
    eventually(machine.ready)
    below = descendants(serve.pid)
    serve.kill()
    serve.wait()
    eventually(lambda: not alive(below))


def test_a_second_signal_does_not_wait(processes: Processes) -> None:
    machine = Machine(
        processes, MODEL_ENGINE="simulated", MODEL_SIMULATED_BASE_MS="9000", WEB_DEADLINE_MS="9500"
    )
    serve = machine.start()
    eventually(machine.ready)
    with socket.create_connection(("127.0.0.1", machine.port)) as idle:
        idle.sendall(b"POST /api/v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        below = descendants(serve.pid)
        serve.send_signal(signal.SIGINT)
        eventually(lambda: "Handling signal" in processes.log("serve"))
        serve.send_signal(signal.SIGINT)
        began = time.monotonic()
        serve.wait(10)
        assert time.monotonic() - began < 3
    eventually(lambda: not alive(below))


@pytest.mark.parametrize(
    ("argv", "env", "words"),
    [
        (["--model", "nonsense"], {}, "no bundle 'nonsense'"),
        ([], {"MODEL_BATCH": "3"}, "MODEL_BATCH is no setting"),
        ([], {"BROKER_LIVENESS_MS": "soon"}, "BROKER_LIVENESS_MS cannot be 'soon'"),
        ([], {"WEB_THREADS": "0"}, "WEB_THREADS cannot be '0'"),
        (["--replicas", "0"], {}, "must be 1 or more"),
        ([], {"BROKER_BACKEND": "tcp://127.0.0.1:*"}, "BROKER_BACKEND cannot be"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_sentence(
    processes: Processes, argv: list[str], env: dict[str, str], words: str
) -> None:
    serve = Machine(processes, *argv, **env).start()
    assert serve.wait(10) != 0
    log = processes.log("serve")
    assert words in log
    assert "Traceback" not in log
    assert log.count(words) == 1


def test_a_taken_port_is_named(processes: Processes) -> None:
    machine = Machine(processes)
    with socket.socket() as other:
        other.bind(("127.0.0.1", machine.port))
        other.listen()
        assert machine.start().wait(10) != 0
    assert f"127.0.0.1:{machine.port} cannot be used" in processes.log("serve")
    assert "PORT" in processes.log("serve")
