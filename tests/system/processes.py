"""What the operating system says about processes."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ESTABLISHED: Final = "01"
"""A state in /proc/net/tcp, as the kernel's include/net/tcp_states.h numbers them."""


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


def unread_bytes(port: int) -> int:
    """What connections to a port have received, at either end, and nobody has read yet."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _slot, local, remote, state, queues, *_ = line.split()
        ports = [int(end.split(":")[1], 16) for end in (local, remote)]
        if state == ESTABLISHED and port in ports:
            total += int(queues.split(":")[1], 16)
    return total
