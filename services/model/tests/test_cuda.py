"""Why there is no GPU, told in one sentence that names what is missing."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from modelserver.engines.cuda import DRIVER, why_no_gpu

BUILD = {"is_cuda_build": True, "cuda_version": "12.5.1", "cudnn_version": "9"}


class Driver:
    """A stand-in for libcuda.so.1, which no machine without a GPU has."""

    def __init__(self, status: int) -> None:
        self._status = status

    def cuInit(self, flags: int) -> int:  # noqa: N802 - its name in the library
        assert flags == 0
        return self._status


def loads(driver: Driver, missing: str = "") -> Callable[[str], Any]:
    def load(name: str) -> Any:
        if missing and missing in name:
            raise OSError(f"{name}: cannot open shared object file")
        return driver if name == DRIVER else object()

    return load


def test_build_without_cuda_is_named() -> None:
    said = why_no_gpu("2.21.0", {"is_cuda_build": False})
    assert said.startswith("no GPU: this TensorFlow 2.21.0 is built without CUDA;")


def test_missing_driver_is_named_with_the_loaders_words() -> None:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        assert "libcuda.so.1 cannot be loaded (libcuda.so.1: cannot open" in why_no_gpu("2", BUILD)
    else:
        pytest.skip("this machine has NVIDIA's driver")


def test_driver_without_a_gpu_tells_its_error_and_what_was_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    said = why_no_gpu("2", BUILD, loads(Driver(100)))
    assert "cuInit gives error 100, with CUDA_VISIBLE_DEVICES='7'" in said


@pytest.mark.parametrize("library", ["libcudart.so.12", "libcublas.so.12", "libcudnn.so.9"])
def test_missing_library_is_named(library: str) -> None:
    said = why_no_gpu("2.21.0", BUILD, loads(Driver(0), missing=library))
    assert f"{library}, which TensorFlow 2.21.0 was built with, cannot be loaded" in said
    assert "\n" not in said


def test_when_nothing_is_missing_it_says_so() -> None:
    assert "though the driver and CUDA 12.5.1 are there" in why_no_gpu("2", BUILD, loads(Driver(0)))
