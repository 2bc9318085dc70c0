"""The compose project that all container tests share, started once as any user would."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT, Answer, classify, eventually, free_port, request
from tests.system.load import Load

CLIENTS = 16


class Project:
    """One compose project, with a name and a port of its own."""

    def __init__(self, suffix: str = "", **env: str) -> None:
        self.port = free_port()
        self.prometheus_port = free_port()
        self.name = f"sightline-test-{os.getpid()}{suffix}"
        self.env = {
            **os.environ,
            "PORT": str(self.port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "COMPOSE_PROJECT_NAME": self.name,
            # The tests send one picture again and again and look at what replicas make of it.
            "CACHE_BYTES": "0",
            **env,
        }

    def compose(self, *arguments: str) -> str:
        return self._run("docker", "compose", *arguments)

    def docker(self, *arguments: str) -> str:
        return self._run("docker", *arguments)

    def tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that may fail."""
        return subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False
        )

    def _run(self, *command: str) -> str:
        done = self.tried(*command)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container: str) -> Any:
        """What the engine knows of a container."""
        [facts] = json.loads(self.docker("inspect", container))
        return facts

    def assert_locked_down(self, container: str) -> None:
        """It runs as nobody, can write nowhere but where it must, and is limited."""
        facts = self.inspect(container)
        host = facts["HostConfig"]
        assert facts["Config"]["User"] == "65532:65532"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0
        assert host["Init"]
        write = self.tried("docker", "exec", container, "python", "-c", "open('/usr/x', 'w')")
        assert "Read-only file system" in write.stderr

    def scale(self, replicas: int) -> None:
        self.compose(
            "up", "--detach", "--no-recreate", "--no-deps", "--scale", f"model={replicas}", "model"
        )
        eventually(lambda: len(self.replicas()) == replicas, within_s=60)

    def replicas(self) -> list[str]:
        try:
            answer = request(self.port, "GET", "/readyz")
        except OSError:
            return []
        return list(answer.json["replicas"]) if answer.status == 200 else []


@pytest.fixture(scope="session")
def project() -> Iterator[Project]:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    probe = subprocess.run(["docker", "compose", "ls"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("no Docker engine with Compose answers")
    started = Project()
    try:
        started.compose("up", "--build", "--wait", "--detach")
        yield started
    finally:
        started.compose("--profile", "*", "down", "--volumes", "--timeout", "20")


@pytest.fixture
def load(project: Project, picture: bytes) -> Load:
    def send() -> Answer:
        return classify(project.port, picture)

    return Load(send, clients=CLIENTS)
