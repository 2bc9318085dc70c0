"""The TensorFlow engine in a real service, and a model of one's own put in as README says."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imaging import prepare
from modelserver.bundle import load_bundle
from modelserver.engines import load_engine
from tests.conftest import ROOT, Processes, Service, classify, eventually, free_port, request

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.timeout(600),
    # Keras' own way of reading its variables.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

START_S = 240.0
"""TensorFlow takes seconds to be imported, and so does a network to be run in every bucket."""


def test_resnet50_is_served_by_tensorflow(
    processes: Processes, built: Callable[[str], Path], photographs: dict[Path, int]
) -> None:
    folder = built("resnet50")
    service = Service(
        processes, MODEL_BUNDLE=str(folder), MODEL_ENGINE="tensorflow", MODEL_THREADS="2"
    )
    service.start_broker()
    service.start_replica()
    service.start_web()
    eventually(lambda: len(service.replicas()) == 1, within_s=START_S)

    bundle = load_bundle(folder)
    # LiteRT's int8 answers are others, so that these come from TensorFlow is seen.
    engine = load_engine("tensorflow", bundle, threads=2, max_batch=1)
    chosen = list(photographs)[::10]
    for path in chosen:
        answer = classify(service.port, path.read_bytes())
        assert answer.status == 200, answer.body
        assert answer.json["model"] == {"name": "resnet50", "version": "1"}
        pixels = np.frombuffer(prepare(path.read_bytes(), bundle.contract).pixels, np.uint8)
        [direct] = engine.predict(pixels.reshape(1, 224, 224, 3))
        best = answer.json["predictions"][0]
        assert best["class_index"] == int(direct.argmax())
        assert best["probability"] == pytest.approx(float(direct.max()), abs=1e-4)
        assert best["label"] == bundle.labels[best["class_index"]].name
    assert service.processes.stop("replica1") == 0


def colours(folder: Path) -> None:
    """What README asks for: a network that knows three colours, their names, and pictures."""
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    image = keras.Input((64, 64, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    model.set_weights([np.eye(3, dtype=np.float32) * 12, np.zeros(3, np.float32)])
    model.save(folder / "my-model.keras")
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index, name in enumerate(["red", "green", "blue"]):
        for suffix in ("", "-too", "-again"):
            pixels = rng.integers(0, 256, (80, 100, 3)) // 3
            pixels[:50, :, index] = 255
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(folder / "photos" / f"{name}{suffix}.png")


def test_own_model_is_put_in_as_the_readme_says(processes: Processes, tmp_path: Path) -> None:
    text = (ROOT / "services" / "model" / "README.md").read_text()
    section = text.split("## Put your own model in\n")[1].split("\n## ")[0]
    fence = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert fence
    build, *lines = fence[1].splitlines()
    serve, ask = (shlex.split(line) for line in lines)

    # The line goes to a shell as it stands: the folder looks like the root of a clone.
    (tmp_path / "services").symlink_to(ROOT / "services")
    (tmp_path / ".venv-build").symlink_to(sys.prefix)
    colours(tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        build, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "int8.tflite agrees with the network on 1.000" in run.stdout

    port = free_port()
    assert serve[:2] == [".venv/bin/python", "-m"]
    program, *arguments = serve[2:]
    where = [str(tmp_path / word) if word.startswith("./") else word for word in arguments]
    processes.start(
        "serve",
        *(program, *where, "--port", str(port)),
        BROKER_FRONTEND=f"tcp://127.0.0.1:{free_port()}",
        BROKER_BACKEND=f"tcp://127.0.0.1:{free_port()}",
    )
    eventually(lambda: is_ready(port), within_s=60)
    [picture] = [word.removeprefix("@") for word in ask if word.startswith("@")]
    assert ask[-1].endswith("/api/v1/classify")
    answer = classify(port, (tmp_path / picture).read_bytes())
    assert answer.status == 200, answer.body
    best: dict[str, Any] = answer.json["predictions"][0]
    assert (best["label"], best["wnid"], best["class_index"]) == ("red", "", 0)


def is_ready(port: int) -> bool:
    try:
        return request(port, "GET", "/readyz", timeout_s=5).status == 200
    except OSError:
        return False
