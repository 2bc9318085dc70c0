"""How many CPUs there are for this process, which in a container is fewer than the machine has."""

import os
from math import ceil
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where a container sees its own limits (cgroups(7))."""


def cpus(cgroups: Path = CGROUPS) -> int:
    """Those that it may run on, or as many as it is given the time of, if that is less."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota(cgroups)
    return min(there or 1, ceil(quota)) if quota else there or 1


def _quota(cgroups: Path) -> float | None:
    """CPUs' worth of time, as ``docker run --cpus`` sets it; None without a limit."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # "max"
    return share if share > 0 else None  # -1 in version 1
