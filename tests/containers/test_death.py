"""Containers lose their network, their memory or their only broker, and no request is lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import classify, eventually, request
from tests.containers.conftest import Project
from tests.system.load import Load

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

SMALL = "320m"
"""Memory for a container in which a replica is at ease, and its hog soon is not."""
HOG = """
import contextlib, os, pathlib
me = {1, os.getpid()}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    # A health check comes and goes.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if int(process.name) not in me:
            (process / "oom_score_adj").write_text("1000")
hoard = []
while True:
    hoard.append(bytearray(os.urandom(1024)) * 1024)
"""
"""Eats memory until the kernel kills somebody, after it has named everybody else as the one."""


@contextmanager
def cut_off(project: Project, container: str, service: str) -> Iterator[None]:
    """A container without the inner network, which it gets back at the end."""
    network = f"{project.name}_inner"
    project.docker("network", "disconnect", network, container)
    try:
        yield
    finally:
        project.docker("network", "connect", "--alias", service, network, container)


@contextmanager
def nobody_restarted(project: Project) -> Iterator[None]:
    """What happens meanwhile is got over by the very processes that it happened to."""

    def births() -> dict[str, str]:
        services = ("web", "broker", "model")
        containers = [c for service in services for c in project.containers(service)]
        return {c: project.inspect(c)["State"]["StartedAt"] for c in containers}

    before = births()
    yield
    assert births() == before


def test_a_replica_that_is_cut_off_costs_nothing(project: Project, load: Load) -> None:
    project.scale(2)
    with nobody_restarted(project), load:
        load.flows(100, within_s=60)
        with cut_off(project, project.containers("model")[0], "model"):
            eventually(lambda: len(project.replicas()) == 1, within_s=20)
            load.flows(100, within_s=60)
        eventually(lambda: len(project.replicas()) == 2, within_s=30)
        load.flows(100, within_s=60)
    assert load.trouble == []
    project.scale(1)


@pytest.mark.parametrize("service", ["web", "broker"])
def test_a_network_that_comes_back_within_the_deadline_costs_nothing(
    project: Project, load: Load, service: str
) -> None:
    with nobody_restarted(project), load:
        load.flows(100, within_s=60)
        [container] = project.containers(service)
        with cut_off(project, container, service):
            eventually(lambda: request(project.port, "GET", "/readyz").status == 503)
        began = time.monotonic()
        load.flows(200, within_s=60)
        print(f"200 answers {time.monotonic() - began:.1f} s after the network came back")
    assert load.trouble == []


def test_a_replica_that_is_out_of_memory_costs_nothing(project: Project, load: Load) -> None:
    project.scale(2)
    victim = project.containers("model")[0]
    project.docker("update", "--memory", SMALL, "--memory-swap", SMALL, victim)
    with load:
        load.flows(100, within_s=60)
        before = project.inspect(victim)["RestartCount"]
        began = time.time()
        hog = project.tried("docker", "exec", victim, "python", "-c", HOG)
        assert "Error" not in hog.stderr, hog.stderr
        eventually(lambda: project.inspect(victim)["RestartCount"] == before + 1, within_s=30)
        load.flows(100, within_s=60)
        eventually(lambda: len(project.replicas()) == 2, within_s=60)
    span = ["--since", str(int(began)), "--until", str(int(time.time()) + 1)]
    filters = ["--filter", f"container={victim}", "--filter", "event=oom"]
    assert project.docker("events", *span, *filters), "it was something else that killed it"
    assert load.trouble == []
    project.scale(1)


def test_a_killed_web_costs_what_it_has_begun_and_comes_back(
    project: Project, load: Load, picture: bytes
) -> None:
    [web] = project.containers("web")
    with load:
        load.flows(100, within_s=60)
        project.tried("docker", "exec", web, "python", "-c", "import os; os.kill(-1, 9)")
        eventually(lambda: load.trouble)
    assert set(load.statuses) == {200}, "whoever lost its answer lost its connection"
    eventually(project.replicas, within_s=60)
    assert classify(project.port, picture).status == 200


def test_a_second_broker_is_refused(project: Project, picture: bytes) -> None:
    before = project.containers("broker")
    done = project.tried("docker", "compose", "up", "--detach", "--scale", "broker=2")
    assert done.returncode != 0
    assert "requires each container to have a unique name" in done.stderr
    assert project.containers("broker") == before
    assert classify(project.port, picture).json["attempt"] == 1
