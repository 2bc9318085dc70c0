"""Runs a bundle's int8.tflite or fp32.tflite on the CPU with LiteRT; needs no TensorFlow.

Rules:
- A crowd gets a core for each batch, and one picture alone gets all of them. Measured on two
  cores with 32 clients: two batches of one thread each gave 1.4 times the answers of one batch on
  two threads, which wait for each other; alone, two threads take 0.6 of the time of one.
- An interpreter is resized to the batch at hand. Measured with 224 x 224 pictures on two cores:
  an interpreter for each size of 1 to 8 takes 109 MB more than one for the first, this 17 MB.
  Padding to fewer sizes would only cost time, which grows in step with the batch.
- An artifact takes uint8 pixels, or int8, which is the same less 128. One of integers computes
  with int8 and would convert the others itself, for 2 % of the time that a picture takes.
- The largest batch is tried at the start. The interpreter has its memory then, and a resize to
  any size takes 0.2 ms; growing from batch to batch would cost requests up to 10 ms.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from modelserver.engines.engine import EngineError, check_batch, softmax
from wire.contract import Contract


class LiteRTEngine:
    """The Engine of one .tflite file: uint8 pixels in, float32 logits out."""

    kind = "litert"
    device = "cpu"

    def __init__(self, path: Path, contract: Contract, *, threads: int, max_batch: int) -> None:
        """Loads `path` and tries the largest batch; EngineError if it does not fit `contract`."""
        self.max_batch = max_batch
        self.parallel = threads
        # Read here, not mapped by LiteRT: a file replaced under a mapping kills the process.
        model = path.read_bytes()
        self._free = [
            _Network(path, model, contract, threads=1, largest=max_batch) for _ in range(threads)
        ]
        self._wide = None
        if threads > 1:
            self._wide = _Network(path, model, contract, threads=threads, largest=1)
        self._running = 0
        self._lock = threading.Lock()

    def padding(self, n: int) -> int:  # noqa: ARG002 - it takes any batch as it is
        """See Engine.padding."""
        return 0

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.predict."""
        check_batch(len(pixels), self.max_batch)
        with self._network(alone=len(pixels) == 1) as network:
            return softmax(network.run(pixels))

    @contextmanager
    def _network(self, *, alone: bool) -> Iterator["_Network"]:
        with self._lock:
            wide = self._wide if alone and not self._running else None
            network = wide or self._free.pop()
            self._running += 1
        try:
            yield network
        finally:
            with self._lock:
                self._running -= 1
                if network is not wide:
                    self._free.append(network)


class _Network:
    """An interpreter, for one thread at a time."""

    def __init__(
        self, path: Path, model: bytes, contract: Contract, *, threads: int, largest: int
    ) -> None:
        """Tries a batch of the ``largest`` size."""
        try:
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
        except ValueError as error:
            raise EngineError(f"{path}: LiteRT cannot read it ({error})") from None
        [given] = self._interpreter.get_input_details()
        [made] = self._interpreter.get_output_details()
        picture = (contract.height, contract.width, 3)
        if tuple(given["shape"][1:]) != picture or given["dtype"] not in (np.uint8, np.int8):
            raise EngineError(
                f"{path}: does not take pictures of {picture} in 8 bits; build it again"
            )
        if (tuple(made["shape"][1:]), made["dtype"]) != ((contract.classes,), np.float32):
            raise EngineError(
                f"{path}: does not give {contract.classes} float32 logits; build it again"
            )
        self._input: int = given["index"]
        self._signed = given["dtype"] == np.int8
        self._output: int = made["index"]
        self._size = 0
        self.run(np.zeros((largest, *picture), np.uint8))

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) != self._size:
            self._interpreter.resize_tensor_input(self._input, pixels.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._size = len(pixels)
        given = (pixels ^ 0x80).view(np.int8) if self._signed else pixels
        self._interpreter.set_tensor(self._input, given)
        self._interpreter.invoke()
        logits: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return logits
