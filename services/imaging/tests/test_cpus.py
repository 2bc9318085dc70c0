"""How many CPUs a container has, from files as the kernel writes them."""

import os
from pathlib import Path

import pytest

from imaging import cpus

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, HERE),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, HERE),
        ({"cpu.max": "what is this"}, HERE),
        ({}, HERE),
    ],
)
def test_a_share_of_the_time_counts_as_so_many(
    tmp_path: Path, files: dict[str, str], allowed: int
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpus(tmp_path) == min(allowed, HERE)
