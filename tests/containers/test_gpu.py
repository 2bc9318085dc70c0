"""The image for GPUs: all of it but the driver, which no machine that runs these tests has.

Built once, which takes minutes: gigabytes are fetched and unpacked.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelserver.supervisor import CONFIG_STATUS
from tests.conftest import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

IMAGE = f"sightline-test-gpu-{os.getpid()}"
FILES = ("-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml")
GIGABYTE = 1_000_000_000
REBUILT_WITHIN_S = 60
"""A generous limit: without the order of its layers it would be minutes."""

WHAT_TENSORFLOW_IS = """
import json, tensorflow
print(json.dumps({"version": tensorflow.__version__, **tensorflow.sysconfig.get_build_info()}))
"""
LOAD_EACH_LIBRARY = """
import ctypes, json, pathlib, site
[packages] = map(pathlib.Path, site.getsitepackages())
tensorflow = [path.read_bytes() for path in packages.glob("tensorflow/libtensorflow_*.so.2")]
libraries = {}
for path in sorted(packages.glob("nvidia/*/lib/lib*.so.*")):
    folder = path.parent.relative_to(packages)
    looked_at = any(f"/{folder}:".encode() in search_path for search_path in tensorflow)
    library = libraries[path.name] = {"looked_at": looked_at, "error": ""}
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        library["error"] = str(error)
print(json.dumps(libraries))
"""
DRIVER = "libcuda.so.1: cannot open"
TENSORFLOW_OPENS = (
    "cudart",
    "cublas",
    "cublasLt",
    "cudnn",
    "cufft",
    "cusolver",
    "cusparse",
    "nccl",
)
CLASSIFY_ON_THE_CPU = """
from modelserver.bundle import find_bundle, load_bundle
from modelserver.engines import load_engine
bundle = load_bundle(find_bundle("efficientnet-lite0"))
print(load_engine("tensorflow", bundle, threads=2, max_batch=2).device)
"""
LARGEST = "du -xd1 --block-size=1M /venv/lib/python3*/site-packages{,/nvidia} | sort -rn | head -12"


def docker(*arguments: str, **env: str) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(context: Path = ROOT) -> float:
    """Build the image of a source tree, and say how many seconds that took."""
    began = time.monotonic()
    dockerfile = str(context / "services/model/Dockerfile")
    docker("build", "--file", dockerfile, "--target", "gpu", "--tag", IMAGE, str(context))
    return time.monotonic() - began


def python(program: str) -> str:
    """What a program prints in the image, without a network and locked down as Compose does."""
    locked = ("--read-only", "--cap-drop=ALL", "--tmpfs=/tmp", "--network=none")
    return docker("run", "--rm", *locked, IMAGE, "python", "-c", program)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "compose", "ls"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine with Compose answers")
    print(f"built in {build():.0f} s")
    yield IMAGE
    docker("image", "rm", "--force", IMAGE)


@pytest.fixture(scope="module")
def tensorflow(image: str) -> dict[str, Any]:
    """What the image's TensorFlow says it is."""
    assert image
    told: dict[str, Any] = json.loads(python(WHAT_TENSORFLOW_IS))
    return told


def model_service(**env: str) -> dict[str, Any]:
    told = docker("compose", *FILES, "config", "--format", "json", **env)
    service: dict[str, Any] = json.loads(told)["services"]["model"]
    return service


def test_compose_reserves_all_gpus_and_asks_for_one_a_replica() -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    model = model_service()
    [device] = model["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}
    assert model["build"]["target"] == "gpu"
    told = model["environment"]
    assert (told["MODEL_ENGINE"], told["MODEL_DEVICE"]) == ("tensorflow", "gpu")
    assert (told["MODEL_BUNDLE"], told["MODEL_REPLICAS_PER_GPU"]) == ("efficientnet-lite0", "0")
    assert model["read_only"]
    assert model["cap_drop"] == ["ALL"]


def test_compose_passes_on_what_an_operator_chooses() -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    told = model_service(MODEL="/bundles/own", REPLICAS_PER_GPU="2")["environment"]
    assert (told["MODEL_BUNDLE"], told["MODEL_REPLICAS_PER_GPU"]) == ("/bundles/own", "2")


def test_how_large_the_image_is_and_why(image: str) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", image))
    print(f"\n{image}: {size / GIGABYTE:.1f} GB, of that in MiB:")
    print(docker("run", "--rm", image, "bash", "-c", LARGEST))
    assert size < 8 * GIGABYTE


def test_tensorflow_is_built_with_cuda_and_finds_and_loads_its_libraries(
    tensorflow: dict[str, Any],
) -> None:
    print(f"\n{tensorflow}")
    assert tensorflow["is_cuda_build"]
    libraries = json.loads(python(LOAD_EACH_LIBRARY))
    cuda, cudnn = (tensorflow[part].split(".")[0] for part in ("cuda_version", "cudnn_version"))
    built_with = {f"libcudart.so.{cuda}", f"libcublas.so.{cuda}", f"libcudnn.so.{cudnn}"}
    assert built_with <= libraries.keys()
    for name in TENSORFLOW_OPENS:
        [(library, facts)] = [f for f in libraries.items() if f[0].startswith(f"lib{name}.so.")]
        assert facts["looked_at"], f"{library} is where TensorFlow does not look"
        assert not facts["error"]
    # One of cuDNN's needs the driver itself.
    errors = {name: facts["error"] for name, facts in libraries.items() if facts["error"]}
    assert all(error.startswith(DRIVER) for error in errors.values()), errors


def test_the_models_own_saved_model_passes_its_golden_check_here(image: str) -> None:
    assert image
    assert python(CLASSIFY_ON_THE_CPU).split()[-1] == "cpu"


def test_without_a_gpu_the_container_stops_with_one_sentence(image: str) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", image], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == CONFIG_STATUS, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("sightline: MODEL_DEVICE is gpu, but no NVIDIA driver answers here")
    assert "docker-compose.gpu.yml" in line


def test_a_change_of_code_is_built_in_seconds(image: str, tmp_path: Path) -> None:
    assert image
    for name in (".dockerignore", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("services", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    with (tmp_path / "services/model/modelserver/replica.py").open("a") as module:
        module.write(f"# {time.time()}\n")
    seconds = build(tmp_path)
    print(f"\nbuilt again in {seconds:.0f} s")
    assert seconds < REBUILT_WITHIN_S
