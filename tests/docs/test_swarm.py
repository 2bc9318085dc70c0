"""The stack files of deploy/swarm say what the code does and what Compose says. Needs no engine.

That every variable in them is a setting is tested in test_settings.py.
"""

import re
from typing import Any

import pytest
import yaml

from modelserver import keygen
from modelserver.config import BrokerConfig, ReplicaConfig
from tests.conftest import ROOT
from webapp.config import Config

FOLDER = ROOT / "deploy/swarm"
STACKS = {"web": "web.yml", "broker": "models.yml", "model": "models.yml"}
NOT_IN_SWARM = {"build", "container_name", "depends_on", "restart", "security_opt", "mem_limit"}
NOT_IN_SWARM |= {"tmpfs", "dns_opt", "pids_limit", "profiles"}
"""What a stack deploy ignores or refuses."""


def load(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return found


def service(part: str) -> dict[str, Any]:
    found: dict[str, Any] = load(f"deploy/swarm/{STACKS[part]}")["services"][part]
    return found


def compose(part: str) -> dict[str, Any]:
    found: dict[str, Any] = load("docker-compose.yml")["services"][part]
    return found


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.yml")))
def test_nothing_is_said_that_swarm_does_not_hear(file: str) -> None:
    for said in load(f"deploy/swarm/{file}")["services"].values():
        assert not said.keys() & NOT_IN_SWARM


@pytest.mark.parametrize("part", STACKS)
def test_a_service_is_what_it_is_in_compose(part: str) -> None:
    here, there = service(part), compose(part)
    assert here["image"] == f"${{REGISTRY:-}}{there['image']}:${{TAG:-latest}}"
    assert here["healthcheck"]["test"] == there["healthcheck"]["test"]
    assert here["stop_grace_period"] == there["stop_grace_period"]
    assert here["cap_drop"] == there["cap_drop"]
    assert here["read_only"]
    assert here["init"]
    limits = here["deploy"]["resources"]["limits"]
    assert (limits["memory"].lower(), limits["pids"]) == (there["mem_limit"], there["pids_limit"])
    [tmp] = here["volumes"]
    assert f"/tmp:size={tmp['tmpfs']['size'] // 1024**2}m" in there["tmpfs"]


@pytest.mark.parametrize("part", STACKS)
def test_a_service_has_its_own_key_file_as_a_secret(part: str) -> None:
    stack = load(f"deploy/swarm/{STACKS[part]}")
    said = stack["services"][part]
    assert said["secrets"] == [part]
    assert said["environment"][f"{part.upper()}_KEYS_FILE"] == f"/run/secrets/{part}"
    name = {"web": keygen.WEB, "broker": keygen.BROKER, "model": keygen.MODEL}[part]
    assert stack["secrets"][part]["file"] == f"../../keys/${{KEYS_VERSION:-1}}/{name}"


def test_web_and_replicas_ask_the_broker_where_it_listens() -> None:
    broker = service("broker")
    [alias] = broker["networks"]["brokers"]["aliases"]
    frontend, backend = (BrokerConfig().frontend, BrokerConfig().backend)
    assert service("web")["environment"]["WEB_BROKER"] == frontend.replace("127.0.0.1", alias)
    assert service("model")["environment"]["MODEL_BROKER"] == backend.replace("127.0.0.1", "broker")
    assert "brokers" in service("web")["networks"]
    assert service("model")["networks"] == ["models"]
    networks = [load(f"deploy/swarm/{file}")["networks"] for file in ("web.yml", "models.yml")]
    assert networks[0]["brokers"] == networks[1]["brokers"]
    assert networks[1]["models"]["internal"]


@pytest.mark.parametrize("files", [["web.yml"], ["web.yml", "host-ports.yml"]], ids=len)
def test_the_port_is_the_one_that_web_listens_at(files: list[str]) -> None:
    for file in files:
        [port] = load(f"deploy/swarm/{file}")["services"]["web"]["ports"]
        assert port["target"] == Config().port
        assert port["published"] == f"${{PORT:-{Config().port}}}"


def test_whoever_stops_has_time_to_answer_and_updates_wait_for_that() -> None:
    drain_s = ReplicaConfig().drain_ms / 1000
    assert seconds(service("model")["stop_grace_period"]) > drain_s
    answers_s = Config().deadline_ms / 1000 + 5  # graceful_timeout in webapp.gunicorn_conf
    web = service("web")
    assert seconds(web["stop_grace_period"]) > answers_s
    assert seconds(web["deploy"]["update_config"]["monitor"]) >= seconds(web["stop_grace_period"])


def test_there_is_never_a_second_broker_and_always_a_replica_and_a_web() -> None:
    broker = service("broker")["deploy"]
    assert broker["replicas"] == 1
    for part, order in (("broker", "stop-first"), ("model", "start-first"), ("web", "start-first")):
        deploy = service(part)["deploy"]
        assert deploy["update_config"]["order"] == deploy["rollback_config"]["order"] == order
        assert deploy["update_config"]["failure_action"] == "rollback"


def test_the_table_of_variables_is_complete_and_right() -> None:
    said = "".join(path.read_text() for path in FOLDER.glob("*.yml"))
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", said))
    assert used.keys() == set(re.findall(r"\$\{?(\w+)", said)), "one without a default"
    rows = re.findall(
        r"^\| (`[A-Z_`, ]+`) \| (.+?) \|", (FOLDER / "README.md").read_text(), re.MULTILINE
    )
    told: dict[str, str] = {}
    for names, defaults in rows:
        told |= zip(names.split(", "), defaults.split(", "), strict=True)
    expected = {
        f"`{name}`": f"`{default}`" if default else "none" for name, default in used.items()
    }
    assert told == expected
