"""What a tree of processes uses, read from /proc: CPU time and memory.

Rules:
- A process that ends between two looks is missed in the first and counted in the second by its
  parent, which inherits the time of the children it waited for.
- Memory is PSS: a page that several processes share is counted once, in shares.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """``pid`` and all processes below it, the nearest first."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children += map(int, task.read_text().split())
    return [pid, *(below for child in children for below in tree(child))]


def cpu_seconds(pids: list[int]) -> dict[int, float]:
    """The CPU time of each process that is alive and of its children that are not."""
    found: dict[int, float] = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name in parentheses may hold anything; after it come fields 3 and up (proc(5)).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[pid] = sum(map(int, fields[11:15])) / TICKS
    return found


def busy_seconds() -> float:
    """The CPU time of everything on this machine since it began, idle time left out."""
    # user nice system idle iowait irq softirq steal; guests are in user and nice (proc_stat(5)).
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts)) / TICKS


def pss_bytes(pid: int) -> int:
    """The proportional set size of one process; 0 when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        if size := re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE):
            return int(size[1]) * 1024
    return 0


def part(pid: int) -> str:
    """What a process is, by its command line: the module it runs and that module's first word."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        words = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        if "-m" in words:
            module, *rest = words[words.index("-m") + 1 :]
            word = rest[0] if rest and rest[0].isalpha() else ""
            return f"{module} {word}".strip()
        return Path(words[0]).name
    return "ended"
