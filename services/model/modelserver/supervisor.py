"""Runs a whole service on one machine: starts its programs, restarts what dies, stops in order.

Rules:
- Programs start together and stop in the reverse of their order: first who takes requests,
  last who carries them, so that everything accepted is still answered.
- A program that dies is started again, at once the first time and then ever more slowly.
  One that cannot start (configuration, or dead at birth again and again) ends the service.
- A signal sets a flag. A second one kills. No program outlives the supervisor.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

log = logging.getLogger("Supervisor")

CONFIG_STATUS: Final = 78
"""Exit status for a bad setting (EX_CONFIG): another try would fail alike."""
BIRTH_S: Final = 5.0
"""A program that dies younger than this was dead at birth."""
MAX_STILLBIRTHS: Final = 5
KILLED: Final = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit statuses of a program that did not end by itself, and so may yet be able to start."""
LONGEST_BACKOFF_S: Final = 5.0
POLL_S: Final = 0.05
PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal a process gets when its parent dies."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One process to keep running."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    grace_s: float
    """How long it may take to stop before it is killed."""
    reloads: bool = False
    """It takes SIGHUP for a wish to load anew what it serves."""


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    start_at: float = 0.0
    stillbirths: int = 0


class Supervisor:
    """Keeps programs running until it is told to stop."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        ready: Callable[[], bool],
        announce: Callable[[], None],
    ) -> None:
        """``announce`` is called once, as soon as ``ready``, asked again and again, says so."""
        self._children = [_Child(program) for program in programs]
        self._ready = ready
        self._announce = announce
        self._signals = 0
        self._reload = False

    def reload(self) -> None:
        """Have programs load anew what they serve. Safe in a signal handler."""
        self._reload = True

    def stop(self) -> None:
        """End `run` in order; called a second time, at once. Safe in a signal handler."""
        self._signals += 1

    def run(self) -> int:
        """Run until stopped. Returns the exit status: 0, or 1 if a program could not run."""
        announced = False
        status = 0
        try:
            while not self._signals:
                for child in self._children:
                    if not self._tend(child, time.monotonic()):
                        return 1
                if self._reload:
                    self._reload = False
                    for child in self._children:
                        if child.program.reloads:
                            _signal(child, signal.SIGHUP)
                if not announced and self._ready():
                    self._announce()
                    announced = True
                time.sleep(POLL_S)
        finally:
            status = self._stop_all()
        return status

    def _tend(self, child: _Child, now: float) -> bool:
        """Start or restart a child where due; False when it is beyond help."""
        name = child.program.name
        if child.process is None:
            if now >= child.start_at:
                self._start(child, now)
            return True
        status = child.process.poll()
        if status is None:
            return True
        child.process = None
        if status == CONFIG_STATUS:
            return False
        if now - child.born < BIRTH_S:
            child.stillbirths += 1
            if child.stillbirths >= MAX_STILLBIRTHS and status not in KILLED:
                log.error("%s died at its start %d times; giving up", name, child.stillbirths)
                return False
        else:
            child.stillbirths = 0
        backoff = min(LONGEST_BACKOFF_S, 0.25 * (2 ** min(child.stillbirths, MAX_STILLBIRTHS) - 1))
        child.start_at = now + backoff
        log.warning("%s ended with status %d; starting it again in %.2f s", name, status, backoff)
        return True

    @staticmethod
    def _start(child: _Child, now: float) -> None:
        child.born = now
        child.process = subprocess.Popen(
            child.program.argv,
            env=dict(child.program.env),
            stdin=subprocess.DEVNULL,
            # Its own group: Ctrl-C reaches the supervisor alone, which stops things in order.
            process_group=0,
            preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,
        )

    def _stop_all(self) -> int:
        status = 0
        groups: dict[str, list[_Child]] = {}
        for child in reversed(self._children):
            groups.setdefault(child.program.name.split(" ")[0], []).append(child)
        for group in groups.values():
            running = [c for c in group if c.process is not None]
            for child in running:
                _signal(child, signal.SIGTERM)
            for child in running:
                status |= self._await_end(child)
        return status

    def _await_end(self, child: _Child) -> int:
        """Wait for a child that was told to stop. Returns 1 if it had to be killed."""
        deadline = time.monotonic() + child.program.grace_s
        process = child.process
        while process is not None and process.poll() is None:
            if time.monotonic() > deadline or self._signals > 1:
                log.warning("%s did not stop in time and is killed", child.program.name)
                _signal(child, signal.SIGKILL)
                process.wait()
                return 1
            time.sleep(POLL_S)
        return 0


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.poll() is None:
        child.process.send_signal(number)


def _die_with(supervisor: int) -> None:
    """In the child, before it becomes its program: end when the supervisor is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)
