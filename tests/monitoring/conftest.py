"""Prometheus' own tool, where it is installed."""

import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.monitoring.rules import PROMETHEUS

Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs promtool in deploy/prometheus: arguments in, what it printed out. It has to succeed."""
    if shutil.which("promtool") is None:
        pytest.skip("no promtool; on Debian it is in the package prometheus")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
