"""Runs a bundle's `saved_model/` with TensorFlow, on the CPU or on an NVIDIA GPU.

Rules:
- One frozen function is called, never `Model.predict`, which costs tens of milliseconds a call.
- A batch is padded to the next bucket (1, 2, 4, ... and the largest batch), and every bucket has
  been run before the engine is handed out: TensorFlow chooses kernels, and XLA compiles, by size.
- The device asked for is the device got: an engine for the GPU that would compute on the CPU
  does not start.
- On a GPU convolutions and products are computed in float16, by TensorFlow's own rewriting of
  the graph; what leaves it are float32 logits, and the softmax is numpy's, as in every engine.
- Threads, visible devices and memory are TensorFlow's for the whole process, and fixed once it
  has computed anything: a second engine in a process must ask for the same.
"""

import os
from pathlib import Path
from typing import Any, Final, Literal

# Read by TensorFlow as it is imported: warnings about the CPU's instructions are no operator's.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from modelserver.engines.cuda import why_no_gpu
from modelserver.engines.engine import EngineError, check_batch, softmax
from wire.contract import Contract

Device = Literal["cpu", "gpu"]
SIGNATURE: Final = "serving_default"


class TensorFlowEngine:
    """The Engine of one SavedModel: uint8 pixels in, float32 logits out."""

    def __init__(
        self,
        path: Path,
        contract: Contract,
        *,
        device: Device,
        threads: int,
        max_batch: int,
        xla: bool = False,
        memory_mib: int | None = None,
    ) -> None:
        """Loads `path`, freezes it and runs every bucket once.

        `threads` are the CPU's. `memory_mib` is this process' share of the GPU's memory, in MiB;
        without one it takes what it needs, and keeps it. `xla` compiles the graph for each
        bucket, which pays on a GPU.

        Raises EngineError with one sentence when the device is not there, or when the graph
        cannot be read or does not fit `contract`.
        """
        self.kind = "tensorflow"
        self.device: str = device
        self.max_batch = max_batch
        self.parallel = 1  # It spreads one batch over all cores, or a GPU.
        self._buckets = buckets(max_batch)
        prepare_device(device, threads, memory_mib)
        function = _frozen(path, contract)
        self._function = tf.function(lambda x: function(x), jit_compile=True) if xla else function
        for size in self._buckets:
            self._warm(path, np.zeros((size, contract.height, contract.width, 3), np.uint8))

    def padding(self, n: int) -> int:
        """See Engine.padding."""
        return self._bucket(n) - n

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.predict."""
        n = len(pixels)
        check_batch(n, self.max_batch)
        logits: NDArray[np.float32] = self._run(self._padded(pixels)).numpy()
        return softmax(logits[:n])

    def _padded(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`pixels` with black pictures after them, as many as the next bucket takes."""
        n = len(pixels)
        size = self._bucket(n)
        if size == n:
            return pixels
        return np.concatenate([pixels, np.zeros((size - n, *pixels.shape[1:]), np.uint8)])

    def _bucket(self, n: int) -> int:
        return next(size for size in self._buckets if size >= n)

    def _run(self, pixels: NDArray[np.uint8]) -> Any:
        """The logits, a tensor where it was computed."""
        [logits] = tf.nest.flatten(self._function(tf.constant(pixels)))
        return logits

    def _warm(self, path: Path, pixels: NDArray[np.uint8]) -> None:
        try:
            logits = self._run(pixels)
            logits.numpy()
        except (tf.errors.OpError, ValueError) as error:
            raise EngineError(
                f"{path}: cannot compute {len(pixels)} pictures on the {self.device} "
                f"({_first_line(error)})"
            ) from None
        if self.device.upper() not in logits.backing_device:
            raise EngineError(
                f"{path}: asked to compute on the {self.device}, TensorFlow did so on "
                f"{logits.backing_device}"
            )


def buckets(max_batch: int) -> tuple[int, ...]:
    """The batch sizes that are run: the powers of two below `max_batch`, and `max_batch`."""
    powers = (1 << exponent for exponent in range(max_batch.bit_length()))
    return (*(size for size in powers if size < max_batch), max_batch)


def prepare_device(device: Device, threads: int, memory_mib: int | None) -> None:
    """Gives TensorFlow the threads, and of all devices the one asked for.

    Raises EngineError when there is no such device, or when this process has computed already
    with other settings.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise EngineError(why_no_gpu(tf.__version__, tf.sysconfig.get_build_info()))
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # One graph at a time, and one that is a chain: more would only wait for each other.
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.set_visible_devices(gpus[:1] if device == "gpu" else [], "GPU")
        if device == "gpu":
            _set_up_gpu(gpus[0], memory_mib)
    except RuntimeError as error:
        raise EngineError(
            f"TensorFlow computes already with other settings in this process ({error})"
        ) from None


def _set_up_gpu(gpu: Any, memory_mib: int | None) -> None:
    """Memory, and mixed precision: what may be float16 becomes it, what may not stays float32."""
    if memory_mib is None:
        tf.config.experimental.set_memory_growth(gpu, True)
    else:
        share = tf.config.LogicalDeviceConfiguration(memory_limit=memory_mib)
        tf.config.set_logical_device_configuration(gpu, [share])
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision": True})


def _frozen(path: Path, contract: Contract) -> Any:
    """The one function of the SavedModel, its variables made constants; EngineError if unfit."""
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise EngineError(f"{path}: TensorFlow cannot read it ({_first_line(error)})") from None
    if SIGNATURE not in loaded.signatures:
        raise EngineError(f"{path}: has no signature {SIGNATURE}; build it again")
    function = loaded.signatures[SIGNATURE]
    given = tf.nest.flatten(function.structured_input_signature)
    made = tf.nest.flatten(function.structured_outputs)
    picture = (contract.height, contract.width, 3)
    if len(given) != 1 or not _is(given[0], (None, *picture), tf.uint8):
        raise EngineError(f"{path}: does not take pictures of {picture} uint8; build it again")
    if len(made) != 1 or not _is(made[0], (None, contract.classes), tf.float32):
        raise EngineError(
            f"{path}: does not give {contract.classes} float32 logits; build it again"
        )
    # The build freezes what it saves: doing it twice would take seconds for nothing.
    return convert_variables_to_constants_v2(function) if function.captured_inputs else function


def _is(tensor: Any, shape: tuple[int | None, ...], dtype: Any) -> bool:
    return bool(tensor.dtype == dtype and tensor.shape.as_list() == list(shape))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
