"""Why there is no GPU: finds the first thing that CUDA needs and this process cannot load."""

import ctypes
import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

DRIVER: Final = "libcuda.so.1"
"""Comes with NVIDIA's driver; the container toolkit puts the host's into a container."""

Load = Callable[[str], Any]


def why_no_gpu(version: str, build: Mapping[str, Any], load: Load = ctypes.CDLL) -> str:
    """One sentence for an operator, given what TensorFlow `version` says of its own `build`.

    `build` is what `tensorflow.sysconfig.get_build_info()` gives; `load` opens a shared library
    by its name and raises OSError if it cannot.
    """
    return f"no GPU: {_cause(version, build, load)}"


def _cause(version: str, build: Mapping[str, Any], load: Load) -> str:
    if not build.get("is_cuda_build"):
        return (
            f"this TensorFlow {version} is built without CUDA; "
            "use the gpu image, or set MODEL_DEVICE=cpu"
        )
    try:
        driver = load(DRIVER)
    except OSError as error:
        return (
            f"the NVIDIA driver's {DRIVER} cannot be loaded ({error}); install the driver, and "
            "start a container with its GPUs (docker run --gpus all)"
        )
    status = driver.cuInit(0)
    if status != 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f", with CUDA_VISIBLE_DEVICES={visible!r}"
        return f"the NVIDIA driver finds none (cuInit gives error {status}{hidden})"
    for library in _libraries(build):
        try:
            _load(library, load)
        except OSError as error:
            return (
                f"{library}, which TensorFlow {version} was built with, cannot be loaded "
                f"({error}); install tensorflow[and-cuda]"
            )
    return (
        f"TensorFlow {version} takes none, though the driver and CUDA {build.get('cuda_version')} "
        "are there; its own log, with TF_CPP_MIN_LOG_LEVEL=0, has more"
    )


def _libraries(build: Mapping[str, Any]) -> list[str]:
    """The names of what TensorFlow opens at run time, by the major versions it was built with."""
    cuda = str(build.get("cuda_version", "")).split(".")[0]
    cudnn = str(build.get("cudnn_version", "")).split(".")[0]
    return [f"libcudart.so.{cuda}", f"libcublas.so.{cuda}", f"libcudnn.so.{cudnn}"]


def _load(library: str, load: Load) -> None:
    try:
        load(library)
    except OSError:
        # NVIDIA's wheels bring the libraries, where only TensorFlow's own search path leads.
        found = next(_wheels().glob(f"nvidia/*/lib/{library}"), None)
        if found is None:
            raise
        load(str(found))


def _wheels() -> Path:
    """The folder where wheels are installed beside TensorFlow's."""
    try:
        return Path(str(distribution("tensorflow").locate_file("")))
    except PackageNotFoundError:
        return Path()
