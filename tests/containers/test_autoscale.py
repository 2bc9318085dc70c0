"""`make autoscale` on a real engine: replicas follow the load, and Compose takes them for its
own."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modelserver.advice import enough
from tests.conftest import Answer, Processes, classify, eventually
from tests.containers.conftest import Project

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

SERVICE_S = 0.25
OBJECTIVE_S = 1.0
"""Both as in simulated.yml."""
FEW, MANY = 8.0, 16.0
"""Requests a second."""
FOLLOWED_S = 30.0


class Stream:
    """Requests at a steady rate, whatever comes back, as strangers send them."""

    def __init__(self, port: int, picture: bytes) -> None:
        self.rate = FEW
        """A second; may be changed at any time."""
        self.answers: list[Answer] = []
        self.trouble: list[str] = []
        self._port = port
        self._picture = picture

    @contextmanager
    def flowing(self) -> Iterator[None]:
        end = threading.Event()
        source = threading.Thread(target=self._run, args=(end,))
        source.start()
        try:
            yield
        finally:
            end.set()
            source.join()

    def _run(self, end: threading.Event) -> None:
        senders = []
        due = time.monotonic()
        while not end.wait(max(0.0, due - time.monotonic())):
            senders.append(threading.Thread(target=self._send))
            senders[-1].start()
            due += 1 / self.rate
        for sender in senders:
            sender.join()

    def _send(self) -> None:
        try:
            answer = classify(self._port, self._picture)
        except OSError as error:
            self.trouble.append(repr(error))
            return
        self.answers.append(answer)
        if answer.status != 200:
            self.trouble.append(f"{answer.status} {answer.body[:300]!r}")


@pytest.fixture
def scaled(project: Project) -> Iterator[Project]:
    """A project of its own, from the images that ``project`` runs, under names of their own: who
    builds others meanwhile must not be a reason for Compose to make anything anew."""
    files = ["docker-compose.yml", "tests/containers/simulated.yml"]
    own = Project("-scaled", COMPOSE_FILE=os.pathsep.join(files))
    try:
        for part in ("web", "broker", "model"):
            [container] = project.containers(part)
            own.docker("tag", project.inspect(container)["Image"], f"{own.name}-{part}")
        own.compose("up", "--wait", "--detach")
        yield own
    finally:
        own.compose("down", "--volumes", "--timeout", "20", "--rmi", "all")


def autoscale(processes: Processes, project: Project) -> None:
    processes.start(
        "autoscale",
        *("deploy.autoscale", "--project", project.name, "--max", "6", "--down-after", "3"),
        *("--url", f"http://127.0.0.1:{project.port}"),
    )
    eventually(lambda: "advises" in processes.log("autoscale"), within_s=20)


def identity(project: Project, container: str) -> str:
    """All that a container is told to be, but for its name, number and address."""
    facts = project.inspect(container)
    config = {**facts["Config"], "Hostname": ""}
    labels = {**config["Labels"], "com.docker.compose.container-number": ""}
    name, short_id = facts["Name"].removeprefix("/"), facts["Id"][:12]
    networks = {
        network: sorted(set(end["Aliases"]) - {name, short_id})
        for network, end in facts["NetworkSettings"]["Networks"].items()
        if name in end["Aliases"]
    }
    told = [{**config, "Labels": labels}, facts["HostConfig"], facts["Image"], networks]
    return json.dumps(told, sort_keys=True)


def test_a_load_that_doubles_and_halves_is_followed_and_costs_nothing(
    scaled: Project, processes: Processes, picture: bytes
) -> None:
    few, many = (enough(rate, SERVICE_S, OBJECTIVE_S) for rate in (FEW, MANY))
    assert (few, many) == (3, 5)
    stream = Stream(scaled.port, picture)
    autoscale(processes, scaled)
    took = []

    def follows(rate: float, least: int, most: int) -> None:
        stream.rate, began = rate, time.monotonic()
        eventually(lambda: least <= len(scaled.replicas()) <= most, within_s=FOLLOWED_S)
        took.append(f"{rate:g}/s {time.monotonic() - began:.0f} s")

    try:
        with stream.flowing():
            follows(FEW, few, 6)
            follows(MANY, many, 6)
            follows(FEW, 1, few)
        assert stream.trouble == []
        assert len(stream.answers) > 100
    finally:
        status = processes.stop("autoscale", within_s=30)
        print(processes.log("autoscale"), took, len(stream.answers))
    assert status == 0

    likeness = {identity(scaled, container) for container in scaled.containers("model")}
    assert len(likeness) == 1
    # Compose takes them for its own: it lists them, has no reason to make one anew, ...
    before = set(scaled.containers("model"))
    assert len(before) == len(scaled.replicas())
    scaled.compose("up", "--detach", "--scale", f"model={len(before)}")
    assert set(scaled.containers("model")) == before
    # ... and takes them down, although somebody watches over their number.
    autoscale(processes, scaled)
    scaled.compose("down", "--timeout", "20")
    eventually(lambda: "Trying again" in processes.log("autoscale"))
    label = f"label=com.docker.compose.project={scaled.name}"
    assert scaled.docker("ps", "--all", "--quiet", "--filter", label) == ""
    assert processes.stop("autoscale") == 0


@pytest.mark.usefixtures("project")
def test_a_project_that_is_not_there_is_named(processes: Processes) -> None:
    process = processes.start("autoscale", "deploy.autoscale", "--project", "nobody-s")
    assert process.wait(20) == 2
    assert "'nobody-s' has no container" in processes.log("autoscale")
    assert processes.log("autoscale").count("\n") == 1
