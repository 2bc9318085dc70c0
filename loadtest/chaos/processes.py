"""A service of the drill's own: broker, replicas and web as processes on free ports.

Rules:
- What is killed is started again at once, as a supervisor would.
- Nothing is left behind: the end of the context is the end of every process.
- The programs' settings come from the environment, but for the addresses, and for answers from
  memory, which there are none.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

PORTS: Final = range(12_000, 32_000)
"""Below those that systems give to connections: there a client that calls a dead broker again and
again can get the broker's own port, reach itself, and keep the new broker from listening."""
STOP_S: Final = 20.0


class OwnService:
    """Runs the parts and breaks them. A context."""

    def __init__(self, replicas: int, logs: Path) -> None:
        self.replicas = replicas
        self.port, frontend, backend = _free_ports(3)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        threads = max(1, len(os.sched_getaffinity(0)) // replicas)
        self._env = {
            "MODEL_THREADS": str(threads),
            **os.environ,
            "BROKER_FRONTEND": f"tcp://127.0.0.1:{frontend}",
            "BROKER_BACKEND": f"tcp://127.0.0.1:{backend}",
            "MODEL_BROKER": f"tcp://127.0.0.1:{backend}",
            "WEB_BROKER": f"tcp://127.0.0.1:{frontend}",
            "WEB_HOST": "127.0.0.1",
            "WEB_PORT": str(self.port),
            # A remembered answer proves nothing of replicas.
            "WEB_CACHE_BYTES": "0",
        }

    def __enter__(self) -> "OwnService":
        self._start("broker")
        for number in range(self.replicas):
            self._start(f"replica {number}")
        self._start("web")
        return self

    def __exit__(self, *_: object) -> None:
        # In the reverse of the order in which they started: who asks goes before who answers.
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pids(self) -> dict[str, int]:
        """The first process of every part, by the part's name."""
        return {name: process.pid for name, process in self._running.items()}

    def kill(self, replica: int) -> None:
        """SIGKILL, and a new one in its place."""
        self._replace(f"replica {replica}")

    def kill_broker(self) -> None:
        """SIGKILL, and a new one in its place."""
        self._replace("broker")

    def suspend(self, replica: int) -> None:
        """SIGSTOP: its connections stand, and nobody is behind them."""
        self._running[f"replica {replica}"].send_signal(signal.SIGSTOP)

    def resume(self, replica: int) -> None:
        """SIGCONT. Nothing happens to one that has been replaced meanwhile."""
        self._running[f"replica {replica}"].send_signal(signal.SIGCONT)

    def _replace(self, name: str) -> None:
        self._running[name].kill()
        self._running[name].wait()
        self._start(name)

    def _start(self, name: str) -> None:
        part, _, _ = name.partition(" ")
        program = ["gunicorn", "-c", "python:webapp.gunicorn_conf"]
        if part != "web":
            program = ["modelserver", part]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *program],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the drill alone, which then ends the parts in order.
                process_group=0,
            )


def judged(name: str, replicas: int, passes: Callable[[OwnService], bool]) -> int:
    """The exit status of a drill called ``name``: 0 if ``passes`` says so of a service of its own,
    which is started for it and ended, and 1 if not. Then what the parts said stays, and it is told
    where.

    Raises:
        OSError: No port is free, or a part cannot be started.
    """
    logs = Path(tempfile.mkdtemp(prefix=f"sightline-{name}-"))
    passed = False
    try:
        with OwnService(replicas, logs) as service:
            passed = passes(service)
    finally:
        if passed:
            shutil.rmtree(logs)
        else:
            print(f"What the parts said is in {logs}", file=sys.stderr)
    return 0 if passed else 1


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"{count} ports are not free on this machine")
