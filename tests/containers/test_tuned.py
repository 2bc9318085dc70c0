"""Docker Compose takes what `make tune` writes. That needs the command, and no engine."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from loadtest.tune.compose import NAME, override
from loadtest.tune.settings import Settings
from tests.conftest import ROOT

pytestmark = pytest.mark.containers


def test_compose_lays_the_override_over_its_file(tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    file = tmp_path / NAME
    tuned = Settings(replicas=3, threads=2, decoders=5, max_batch=16)
    file.write_text(override(tuned, "8 CPUs"))
    files = ["--file", "docker-compose.yml", "--file", str(file)]
    done = subprocess.run(
        ["docker", "compose", *files, "config", "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    model, web = services["model"], services["web"]
    assert model["deploy"]["replicas"] == 3
    assert model["environment"].items() >= tuned.model_environment().items()
    assert model["environment"]["MODEL_BROKER"] == "tcp://broker:5577"
    assert web["environment"].items() >= tuned.web_environment().items()
    assert model["mem_limit"]
