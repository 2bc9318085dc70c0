"""What the operating system says about processes."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

ESTABLISHED: Final = "01"
CLOSE_WAIT: Final = "08"
"""States in /proc/net/tcp, as the kernel's include/net/tcp_states.h numbers them. In the second
only the other side has closed."""


def alive(pids: Iterable[int]) -> list[int]:
    """Which of these processes are still there and no zombies."""
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                state = stat.read().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one, the nearest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, task.read_text().split())
    return [*found, *(below for child in found for below in descendants(child))]


def policies(pid: int) -> set[int]:
    """How the threads of a process are scheduled, as sched_getscheduler(2) has it."""
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return {os.sched_getscheduler(thread) for thread in threads}


def unread_bytes(port: int) -> int:
    """What connections to a port have received, at either end, and nobody has read yet."""
    return sum(
        unread
        for local, remote, state, unread in _connections()
        if state == ESTABLISHED and port in (local, remote)
    )


def connections(port: int) -> int:
    """How many a port here has that its owner has not closed."""
    return sum(
        local == port and state in (ESTABLISHED, CLOSE_WAIT)
        for local, _, state, _ in _connections()
    )


def _connections() -> Iterator[tuple[int, int, str, int]]:
    """Of every TCP socket of IPv4: both ports, the state, and how many bytes lie unread."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _slot, local, remote, state, queues, *_ = line.split()
        ports = [int(end.split(":")[1], 16) for end in (local, remote)]
        yield ports[0], ports[1], state, int(queues.split(":")[1], 16)
