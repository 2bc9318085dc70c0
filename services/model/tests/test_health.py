"""What a health check says of a replica, and that no wall clock has a say in it."""

import os
import re
import time
from pathlib import Path

import pytest

from modelserver.health import FRESH_S, replica_serves, touch

SERVICES = Path(__file__).parents[2]
WALL_CLOCK = re.compile(r"\btime\.(time(_ns)?|localtime|gmtime|ctime|strftime)\(|\bdatetime\b")


@pytest.fixture
def alive_file(tmp_path: Path) -> Path:
    return tmp_path / "alive"


def test_a_replica_serves_from_its_first_ping_on(alive_file: Path) -> None:
    assert not replica_serves(alive_file)
    touch(alive_file)
    assert replica_serves(alive_file)
    touch(alive_file)
    assert replica_serves(alive_file)


def test_a_replica_that_is_not_pinged_does_not_serve(alive_file: Path) -> None:
    touch(alive_file)
    then = time.monotonic() - FRESH_S
    os.utime(alive_file, (then, then))
    assert not replica_serves(alive_file)


@pytest.mark.parametrize("jump_s", [-86_400, 0, 86_400])
def test_a_file_with_a_time_of_the_wall_clock_proves_nothing(
    alive_file: Path, jump_s: float
) -> None:
    """Touched by a program that goes by the wall clock, which may have jumped meanwhile."""
    touch(alive_file)
    then = time.time() + jump_s
    os.utime(alive_file, (then, then))
    assert not replica_serves(alive_file)


def test_no_part_of_the_service_reads_the_wall_clock() -> None:
    """So it may jump. What logs print before a line is the logging module's own; the times of
    spans are the wall clock's, and only the collector reads them."""
    modules = [file for file in SERVICES.glob("*/*/**/*.py") if "tests" not in file.parts]
    assert len(modules) > 40
    readers = [file.name for file in modules if WALL_CLOCK.search(file.read_text())]
    assert readers == ["spans.py"]
