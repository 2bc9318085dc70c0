"""Who is measured: how each contender is started, reached and ended.

Rules:
- Each is started anew for each round, alone on the machine, and is ready when it has answered a
  photograph rightly. The end of the context is the end of every process it started.
- Each in the best configuration that was found for it on two cores; what that is stands here.
"""

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from loadtest.bench.generator import HOST, top_class
from loadtest.bench.servers.peer import DEVICE, ENGINE
from loadtest.bench.usage import tree

ROOT: Final = Path(__file__).parents[2]
PORTS: Final = range(12_000, 32_000)
"""Below those that systems give to connections."""
READY_S: Final = 180.0
"""TensorFlow takes its time where cores are few."""
STOP_S: Final = 25.0
CORES: Final = len(os.sched_getaffinity(0))

Engine = Literal["model", "accelerator", "nothing"]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to serve the model over HTTP."""

    name: str
    what: str
    """For the report: what it is, in its best configuration."""
    path: str
    """Where a photograph is posted to."""
    command: Callable[[int], list[str]]
    """The program and its arguments, to listen at a port."""
    python: str = ".venv"
    """The environment it runs in."""
    engines: tuple[Engine, ...] = ("model", "accelerator", "nothing")
    settings: Callable[[Engine], dict[str, str]] = lambda _: {}
    longer: float = 1
    """How much longer it is looked at than others, where its answers take seconds."""


class NotReady(Exception):
    """A contender did not start; the message has the end of what it printed."""


def _sightline(engine: Engine) -> dict[str, str]:
    frontend, backend = free_port(), free_port()
    settings = {
        "BROKER_FRONTEND": f"tcp://{HOST}:{frontend}",
        "BROKER_BACKEND": f"tcp://{HOST}:{backend}",
        # The same photographs are sent all the time. Remembered answers would be measured instead
        # of inference, which no other contender is spared.
        "WEB_CACHE_BYTES": "0",
    }
    if engine != "model":
        settings["MODEL_ENGINE"] = "simulated"
    if engine == "nothing":
        settings |= {"MODEL_SIMULATED_BASE_MS": "0", "MODEL_SIMULATED_IMAGE_MS": "0"}
    return settings


SIGHTLINE: Final = Contender(
    name="sightline",
    what="as `make run` starts it, with WEB_CACHE_BYTES=0",
    path="/api/v1/classify?top_k=3",
    command=lambda port: ["-m", "modelserver", "serve", "--port", str(port)],
    settings=_sightline,
)
PLAIN: Final = Contender(
    name="plain",
    what=f"gunicorn and Flask, the model in each of {CORES} workers of one thread, plain Pillow",
    path="/classify",
    command=lambda port: [
        *("-m", "gunicorn", "loadtest.bench.servers.plain:app", "--bind", f"{HOST}:{port}"),
        *("--workers", str(CORES), "--worker-class", "gthread", "--threads", "1"),
        *("--log-level", "warning", "--no-control-socket"),
    ],
)
MOSEC: Final = Contender(
    name="mosec",
    what=f"mosec 0.9: {CORES} workers that decode with plain Pillow and infer",
    path="/inference",
    command=lambda port: [
        *("-m", "loadtest.bench.servers.mosec_app", "--address", HOST, "--port", str(port)),
        *("--timeout", "60000", "--log-level", "warning"),
    ],
    python=".venv-bench-mosec",
)
TUTORIAL: Final = Contender(
    name="tutorial",
    what="Flask, ZeroMQ, a thread a request, base64 in JSON, `model.predict` of Keras",
    path="/classify",
    command=lambda port: ["-m", "loadtest.bench.servers.tutorial", str(port)],
    python=".venv-bench-tutorial",
    engines=("model",),
    longer=3,
)
PEERS: Final = {"mosec": MOSEC}
ALWAYS: Final = (PLAIN, SIGHTLINE)


def environment(engine: Engine, device: str) -> dict[str, str]:
    """What every measured program is told, besides what it inherits."""
    services = [
        str(ROOT / "services" / part) for part in ("wire", "imaging", "telemetry", "web", "model")
    ]
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("WEB_", "MODEL_", "BROKER_"))
    }
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *services]),
        "LOG_LEVEL": "WARNING",
        ENGINE: engine,
        DEVICE: device,
    }


def interpreter(venv: str) -> str:
    """The Python of an environment of this checkout; the present one for `.venv`."""
    return sys.executable if venv == ".venv" else str(ROOT / venv / "bin" / "python")


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that answers."""

    pid: int
    port: int
    ready_s: float
    """From the start of its first process to its first right answer."""


@contextlib.contextmanager
def running(contender: Contender, engine: Engine, photograph: bytes) -> Iterator[Running]:
    """``contender`` with ``engine``, ready, until the end of the context.

    Raises:
        NotReady: It does not answer ``photograph``.
    """
    port = free_port()
    with tempfile.TemporaryFile() as log, tempfile.NamedTemporaryFile() as device:
        began = time.monotonic()
        process = subprocess.Popen(
            [interpreter(contender.python), *contender.command(port)],
            cwd=ROOT,
            env={**environment(engine, device.name), **contender.settings(engine)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C is for the benchmark alone, which then ends the contender.
            process_group=0,
        )
        try:
            while not _answers(port, contender.path, photograph):
                if process.poll() is not None or time.monotonic() - began > READY_S:
                    log.seek(0)
                    said = log.read().decode(errors="replace")[-2000:]
                    raise NotReady(f"it does not answer; it said:\n{said}")
                time.sleep(0.02)
            yield Running(process.pid, port, time.monotonic() - began)
        finally:
            _end(process)


def _answers(port: int, path: str, photograph: bytes) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=READY_S)
    with contextlib.closing(connection):
        try:
            connection.request("POST", path, photograph)
            response = connection.getresponse()
            return response.status == 200 and top_class(response.read()) is not None
        except (OSError, http.client.HTTPException):
            return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, then end what is left of its tree."""
    pids = tree(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for pid in pids:
        # A number is not given to another process so soon: they are handed out in turn.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port that nobody listens at now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
