"""`docker compose up --build`, as any user would, on a real engine."""

import json
import os
from pathlib import Path

import pytest

from modelserver.keygen import make_keys
from tests.conftest import classify, eventually, request
from tests.containers.conftest import Project
from tests.system.load import Load

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

PYTHON_IMAGE = "python:3.12-slim-bookworm"
MEGABYTE = 1_000_000
POLICIES = """
import contextlib, os, pathlib
parts = ("gunicorn", "imaging.child", "modelserver broker", "modelserver replica")
for process in pathlib.Path("/proc").glob("[0-9]*"):
    # A health check comes and goes.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        command = (process / "cmdline").read_bytes().replace(b"\\0", b" ").decode()
        # The first is the engine's own init.
        if any(part in command for part in parts) and int(process.name) not in (1, os.getpid()):
            print(os.sched_getscheduler(int(process.name)))
"""


def test_the_photographs_are_as_right_as_without_containers(
    project: Project, photographs: dict[Path, int]
) -> None:
    first = among_three = 0
    for path, expected in photographs.items():
        predictions = classify(project.port, path.read_bytes(), "?top_k=3").json["predictions"]
        first += predictions[0]["class_index"] == expected
        among_three += expected in [p["class_index"] for p in predictions]
    assert first >= 0.85 * len(photographs)
    assert among_three >= 0.94 * len(photographs)


def test_the_load_test_in_its_container(project: Project, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = project.compose(
        *("--profile", "loadtest", "run", "--build", "--rm", "--volume", f"{tmp_path}:/reports"),
        *("load", "--headless", "--users", "4", "--run-time", "5", "--max-p95-ms", "10000"),
        *("--html", "/reports/load.html"),
    )
    assert " 0 failed" in done
    assert "<html" in (tmp_path / "load.html").read_text()


def test_what_the_images_add_to_their_base(project: Project) -> None:
    def size(image: str) -> int:
        return int(project.docker("image", "inspect", "--format", "{{.Size}}", image))

    base = size(PYTHON_IMAGE)
    added = {part: size(f"sightline-{part}") - base for part in ("web", "broker", "model")}
    print({part: f"{nbytes / MEGABYTE:.0f} MB" for part, nbytes in added.items()})
    assert added["web"] <= 130 * MEGABYTE
    assert added["broker"] <= 30 * MEGABYTE
    assert added["model"] <= 190 * MEGABYTE


def test_every_container_is_locked_down(project: Project) -> None:
    for service in ("web", "broker", "model"):
        [container] = project.containers(service)
        project.assert_locked_down(container)


def test_no_container_is_kept_from_waiting_for_its_turn(project: Project) -> None:
    for service in ("web", "broker", "model"):
        [container] = project.containers(service)
        policies = project.docker("exec", container, "python", "-c", POLICIES).split()
        assert set(policies) == {str(os.SCHED_BATCH)}, service


def test_only_web_is_reachable_and_only_from_this_machine(project: Project) -> None:
    published = {
        service: project.docker("port", container).splitlines()
        for service in ("web", "broker", "model")
        for container in project.containers(service)
    }
    assert published == {
        "web": [f"8000/tcp -> 127.0.0.1:{project.port}"],
        "broker": [],
        "model": [],
    }
    network = project.docker("network", "inspect", f"{project.name}_inner")
    assert json.loads(network)[0]["Internal"]


def test_a_bad_upload_is_refused_here_too(project: Project) -> None:
    answer = classify(project.port, bytes(30 * 1024 * 1024))
    assert answer.status == 413
    assert classify(project.port, b"no picture").status == 415


def test_three_replicas_share_the_work_and_killed_ones_cost_nothing(
    project: Project, load: Load
) -> None:
    project.scale(3)
    with load:
        load.flows(200, within_s=60)
        assert len(load.replicas) == 3
        first, second, *_ = project.containers("model")
        # It may or may not live to tell.
        project.tried("docker", "exec", first, "python", "-c", "import os; os.kill(-1, 9)")
        load.flows(200, within_s=60)
        project.docker("kill", second)
        load.flows(200, within_s=60)
        project.scale(1)
        load.flows(200, within_s=60)
    assert load.trouble == []


@pytest.mark.parametrize("commands", [["restart"], ["kill", "start"]], ids=" ".join)
def test_a_restarted_broker_costs_nothing(
    project: Project, load: Load, commands: list[str]
) -> None:
    [broker] = project.containers("broker")
    with load:
        load.flows(100, within_s=60)
        for command in commands:
            project.docker(command, broker)
        load.flows(100, within_s=60)
    assert load.trouble == []


def test_replicas_made_anew_cost_nothing(project: Project, load: Load) -> None:
    project.scale(2)
    before = set(project.containers("model"))
    with load:
        load.flows(100, within_s=60)
        # Without --scale Compose would go back to one replica at the same time.
        project.compose(
            "up", "--detach", "--force-recreate", "--no-deps", "--scale", "model=2", "model"
        )
        load.flows(200, within_s=60)
    assert not before & set(project.containers("model"))
    assert load.trouble == []
    project.scale(1)


def test_without_a_replica_web_says_so(project: Project, picture: bytes) -> None:
    project.compose("stop", "model")
    try:
        assert request(project.port, "GET", "/readyz").status == 503
        assert request(project.port, "GET", "/healthz").status == 200
        answer = classify(project.port, picture)
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    finally:
        project.compose("start", "model")
    eventually(lambda: len(project.replicas()) == 1, within_s=30)


@pytest.mark.usefixtures("project")  # which has built the images
def test_with_keys_the_containers_find_each_other_and_the_api_asks_for_one(
    picture: bytes, tmp_path: Path
) -> None:
    make_keys(tmp_path / "keys")
    (tmp_path / "api-keys").touch()
    parts = [".", "deploy/curve", "deploy/api-keys"]
    keyed = Project(
        "-keys",
        KEYS=str(tmp_path / "keys"),
        API_KEYS=str(tmp_path / "api-keys"),
        COMPOSE_FILE=os.pathsep.join(f"{part}/docker-compose.yml" for part in parts),
    )
    try:
        made = keyed.compose(
            "run", "--rm", "--no-deps", "web", "python", "-m", "webapp", "key", "me"
        )
        key, line = made.splitlines()
        (tmp_path / "api-keys").write_text(f"{line}\n")
        keyed.compose("up", "--wait", "--detach")
        assert classify(keyed.port, picture).status == 401
        known = {"Authorization": f"Bearer {key}"}
        assert request(keyed.port, "POST", "/api/v1/classify", picture, known).status == 200
    finally:
        keyed.compose("down", "--volumes", "--timeout", "20")
