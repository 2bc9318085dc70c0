"""What the tests with TensorFlow start from: one way to compute, which a process cannot change."""

from typing import Any

import pytest


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, told to compute on two threads of the CPU, before any test does."""
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    from modelserver.engines.tensorflow import prepare_device

    prepare_device("cpu", 2, None)
    return tensorflow


@pytest.fixture(scope="session")
def keras(tf: Any) -> Any:
    """Keras on that TensorFlow."""
    del tf
    return pytest.importorskip("keras", reason="Keras is not installed")
