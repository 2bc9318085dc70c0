"""The whole service with keys: it works with the right ones, and not at all with others."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelserver.keygen import make_keys
from tests.conftest import Processes, Service, classify, eventually, free_port
from tests.system.load import Load


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {file.stem: str(file) for file in make_keys(tmp_path / "keys")}


def start(service: Service, keys: dict[str, str], web_keys: str) -> None:
    service.start_broker(BROKER_KEYS_FILE=keys["broker"])
    service.start_replica(MODEL_KEYS_FILE=keys["model"])
    service.start_web(WEB_KEYS_FILE=web_keys, WEB_DEADLINE_MS="2000")


def test_with_its_keys_the_service_serves(
    service: Service, keys: dict[str, str], picture: bytes
) -> None:
    start(service, keys, keys["web"])
    service.await_replicas(1)
    assert classify(service.port, picture).status == 200


def test_web_with_other_keys_gets_nothing(
    service: Service, keys: dict[str, str], picture: bytes, tmp_path: Path
) -> None:
    others = {file.stem: str(file) for file in make_keys(tmp_path / "others")}
    start(service, keys, others["web"])
    eventually(service.is_up, within_s=20)
    assert classify(service.port, picture).status == 503
    eventually(lambda: "turned away" in service.processes.log("broker"))


@pytest.mark.drill
def test_a_key_is_replaced_while_everything_runs(
    service: Service, keys: dict[str, str], picture: bytes, tmp_path: Path
) -> None:
    """The steps of docs/operations.md, for the key of the replicas."""
    service.start_broker(BROKER_KEYS_FILE=keys["broker"])
    old_replica, _process = service.start_replica(MODEL_KEYS_FILE=keys["model"])
    service.start_web(WEB_KEYS_FILE=keys["web"])
    service.await_replicas(1)
    broker, old = read(keys["broker"]), read(keys["model"])
    others = {file.stem: str(file) for file in make_keys(tmp_path / "keys" / "new")}
    new = read(others["model"]) | {"broker": old["broker"]}

    def restart_broker(*replicas: str) -> None:
        Path(keys["broker"]).write_text(json.dumps(broker | {"replicas": replicas}))
        service.processes.stop("broker")
        service.start_broker(BROKER_KEYS_FILE=keys["broker"])

    with Load(lambda: classify(service.port, picture), clients=4) as load:
        load.flows(10)
        restart_broker(old["public"], new["public"])
        Path(keys["model"]).write_text(json.dumps(new))
        service.start_replica(MODEL_KEYS_FILE=keys["model"])
        service.await_replicas(2)
        service.processes.stop(old_replica)
        restart_broker(new["public"])
        load.flows(10)
    assert load.trouble == []
    assert "turned away" not in service.processes.log("broker")


def read(path: str) -> dict[str, Any]:
    return dict(json.loads(Path(path).read_bytes()))


def test_the_health_commands_know_the_keys(
    service: Service, keys: dict[str, str], tmp_path: Path
) -> None:
    settings = {"BROKER_FRONTEND": service.frontend, "BROKER_KEYS_FILE": keys["broker"]}
    alive = {"MODEL_ALIVE_FILE": str(tmp_path / "alive")}
    assert health(service.processes, "broker", settings) == 1
    assert health(service.processes, "replica", alive) == 1
    service.start_broker(BROKER_KEYS_FILE=keys["broker"])
    name, _process = service.start_replica(MODEL_KEYS_FILE=keys["model"], **alive)
    eventually(lambda: health(service.processes, "broker", settings) == 0)
    eventually(lambda: health(service.processes, "replica", alive) == 0)
    service.processes.stop(name)
    eventually(lambda: health(service.processes, "replica", alive) == 1)


def health(processes: Processes, part: str, settings: dict[str, str]) -> int:
    return processes.start(f"health{free_port()}", "modelserver", "health", part, **settings).wait()
