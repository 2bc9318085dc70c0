"""Two models behind one broker, and requests that name none of them."""

import json
import shutil
from pathlib import Path

from tests.conftest import ROOT, Service, classify, eventually

BUNDLE = ROOT / "services/model/modelserver/bundles/efficientnet-lite0"


def test_a_model_that_is_gone_for_good_is_not_asked_for_ever(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    shutil.copytree(BUNDLE, tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / "bundle.json").read_bytes())
    manifest["name"] = "other"
    (tmp_path / "other" / "bundle.json").write_text(json.dumps(manifest))
    service.start_broker()
    first, _ = service.start_replica(MODEL_ENGINE="simulated")
    service.start_web(WEB_DEADLINE_MS="1000")
    service.await_replicas(1)
    assert classify(service.port, picture).json["model"]["name"] == "efficientnet-lite0"
    service.start_replica(MODEL_ENGINE="simulated", MODEL_BUNDLE=str(tmp_path / "other"))
    eventually(lambda: classify(service.port, picture, "?model=other").status == 200)

    service.processes.stop(first)
    # It may be back in time, so the first who asks waits for it until the deadline.
    assert classify(service.port, picture).status == 503
    assert classify(service.port, picture).json["model"]["name"] == "other"
