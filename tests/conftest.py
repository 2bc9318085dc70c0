"""What the tests that cross services start from: real processes, real pictures, no sleeping."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
START_S = 30.0


@pytest.fixture(scope="session")
def picture() -> bytes:
    """One picture that ships with the project: a golden one of the embedded bundle."""
    bundles = ROOT / "services" / "model" / "modelserver" / "bundles"
    return next(iter(sorted(bundles.glob("efficientnet-lite0/golden/*.png")))).read_bytes()


def free_port() -> int:
    """A port that nobody listens at now. None of those that the system gives to connections: a
    client that waits for its server at such a one may be connected to itself."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(
    holds: Callable[[], object], *, within_s: float = 10.0, every_s: float = 0.02
) -> None:
    """Poll until something is so; fail if it does not become so in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"it did not come true within {within_s} s"
        time.sleep(every_s)


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 30.0,
) -> Answer:
    """One HTTP exchange with a service on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.headers), response.read())


def classify(port: int, image: bytes, query: str = "") -> Answer:
    """Send an image file to the API."""
    return request(port, "POST", f"/api/v1/classify{query}", image)


class Processes:
    """Starts programs of the project, and sees to it that none is left behind."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *argv: str, **env: str) -> subprocess.Popen[bytes]:
        """Run ``python -m argv`` with some settings on top of this environment."""
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running[name] = process
        return process

    def log(self, name: str) -> str:
        """What a program has printed."""
        return (self._logs / f"{name}.log").read_text()

    def stop(self, name: str, *, within_s: float = 20.0) -> int:
        """Ask a program to stop, as a container platform does. Returns its exit status."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{name} did not stop:\n{self.log(name)}") from None

    def close(self) -> None:
        """The broker last: a replica that has nobody to take leave of waits before it goes."""
        broker = self._running.pop("broker", None)
        for group in (list(self._running.values()), [broker] if broker else []):
            for process in group:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in group:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


class Service:
    """Broker, replicas and web as processes of their own, on free ports."""

    def __init__(self, processes: Processes, **env: str) -> None:
        self.processes = processes
        self.port = free_port()
        self.frontend = f"tcp://127.0.0.1:{free_port()}"
        self.backend = f"tcp://127.0.0.1:{free_port()}"
        self._env = env
        self._replicas = 0

    def start_broker(self, **env: str) -> subprocess.Popen[bytes]:
        return self.processes.start(
            "broker",
            "modelserver",
            "broker",
            BROKER_FRONTEND=self.frontend,
            BROKER_BACKEND=self.backend,
            **env,
        )

    def start_replica(self, **env: str) -> tuple[str, subprocess.Popen[bytes]]:
        """A further replica; its name is for `processes`, its pid is in its replica name."""
        self._replicas += 1
        name = f"replica{self._replicas}"
        settings = {"MODEL_BROKER": self.backend, "MODEL_THREADS": "1", **self._env, **env}
        return name, self.processes.start(name, "modelserver", "replica", **settings)

    def start_web(self, **env: str) -> subprocess.Popen[bytes]:
        """Without shared answers unless ``env`` has them: most tests send one picture again and
        again, and look at what replicas make of it."""
        settings = {
            "WEB_BROKER": self.frontend,
            "WEB_PORT": str(self.port),
            "WEB_CACHE_BYTES": "0",
            **env,
        }
        return self.processes.start(
            "web", "gunicorn", "-c", "python:webapp.gunicorn_conf", **settings
        )

    def start(self, *, replicas: int = 1, **web: str) -> list[tuple[str, subprocess.Popen[bytes]]]:
        """Everything, with settings for web, and wait until it serves. Returns the replicas as
        `start_replica` does."""
        self.start_broker()
        started = [self.start_replica() for _ in range(replicas)]
        self.start_web(**web)
        self.await_replicas(replicas)
        return started

    def is_up(self) -> bool:
        """Whether web answers at all."""
        try:
            return request(self.port, "GET", "/healthz").status == 200
        except OSError:
            return False

    def replicas(self) -> list[str]:
        """The names of the replicas alive, as web tells."""
        try:
            answer = request(self.port, "GET", "/readyz", timeout_s=5)
        except OSError:
            return []
        return list(answer.json["replicas"]) if answer.status == 200 else []

    def await_replicas(self, count: int) -> None:
        eventually(lambda: len(self.replicas()) == count, within_s=START_S)


@pytest.fixture
def service(processes: Processes) -> Service:
    """Nothing is started yet."""
    return Service(processes)
