"""A new version of a model beside the old one, under load."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from modelserver.health import catalogue
from tests.conftest import Service, classify, eventually, free_port, request
from tests.system.load import Load

BUNDLE = Path(__file__).parents[2] / "services/model/modelserver/bundles/efficientnet-lite0"


def version_of(folder: Path, version: str, side: int) -> str:
    """The embedded bundle as another version, for pictures of another size."""
    shutil.copytree(BUNDLE, folder)
    manifest = json.loads((folder / "bundle.json").read_bytes())
    manifest["version"] = version
    manifest["contract"] |= {"width": side, "height": side}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return str(folder)


def replicas_of(service: Service) -> dict[str, int]:
    """How many replicas of each version the broker knows."""
    told = catalogue(service.frontend)
    return {s.contract.version: len(s.replicas) for s in told.models} if told else {}


@pytest.mark.drill
@pytest.mark.timeout(120)
def test_an_upgrade_and_a_way_back_cost_no_request(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    simulated = {"MODEL_ENGINE": "simulated", "MODEL_SIMULATED_BASE_MS": "10"}
    bundles = {v: version_of(tmp_path / f"v{v}", v, side) for v, side in (("9", 224), ("10", 96))}

    def start(version: str, count: int) -> list[str]:
        settings = {"MODEL_BUNDLE": bundles[version], **simulated}
        return [service.start_replica(**settings)[0] for _ in range(count)]

    def serves(version: str) -> bool:
        return bool(classify(service.port, picture).json["model"]["version"] == version)

    service.start_broker()
    old = start("9", 2)
    service.start_web()
    service.await_replicas(2)
    with Load(lambda: classify(service.port, picture), clients=8) as load:
        load.flows(50)
        new = start("10", 2)
        eventually(lambda: serves("10"))
        service.processes.stop(old[0])
        [reborn] = start("9", 1)
        eventually(lambda: replicas_of(service) == {"9": 2, "10": 2})
        load.flows(50)
        assert serves("10")
        service.processes.stop(old[1])
        load.flows(50)
        for name in new:
            service.processes.stop(name)
        eventually(lambda: serves("9"))
        load.flows(50)
    assert load.trouble == []
    assert service.processes.stop(reborn) == 0


@pytest.mark.drill
def test_a_bundle_that_was_replaced_is_loaded_without_a_restart(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    bundle, broken, newer = tmp_path / "bundle", tmp_path / "broken", tmp_path / "newer"
    version_of(bundle, "1", 224)
    version_of(newer, "2", 96)
    shutil.copytree(newer, broken)
    (broken / "labels.txt").write_text("not what the manifest says")
    service.start_broker()
    port = free_port()
    name, process = service.start_replica(
        MODEL_BUNDLE=str(bundle),
        MODEL_ENGINE="simulated",
        MODEL_SIMULATED_BASE_MS="10",
        MODEL_METRICS=f"127.0.0.1:{port}",
    )
    service.start_web()
    service.await_replicas(1)

    def replace(by: Path) -> None:
        shutil.copytree(by, bundle, dirs_exist_ok=True)
        os.kill(process.pid, signal.SIGHUP)

    with Load(lambda: classify(service.port, picture), clients=8) as load:
        load.flows(20)
        replace(broken)
        eventually(lambda: "labels.txt" in service.processes.log(name))
        load.flows(20)
        replace(newer)
        eventually(lambda: classify(service.port, picture).json["model"]["version"] == "2")
        load.flows(20)
    assert load.trouble == []
    told = request(port, "GET", "/metrics").body.decode()
    assert 'bundles_refused_total{reason="load"} 1.0' in told
    assert re.findall(r'^sightline_replica_info{.*version="(.*)"} 1.0$', told, re.M) == ["2"]
    pictures = re.findall(r"^sightline_replica_pictures_total{.*} (.*)$", told, re.M)
    assert len(pictures) == 2
    assert min(map(float, pictures)) >= 20
    assert {replica.split(":")[1] for replica in load.replicas} == {str(process.pid)}
    assert service.processes.stop(name) == 0
