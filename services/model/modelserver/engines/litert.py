"""Runs a bundle's int8.tflite or fp32.tflite on the CPU with LiteRT; needs no TensorFlow.

Rules:
- One interpreter is resized to the batch at hand. Measured with 224 x 224 pictures on two cores:
  an interpreter for each size of 1 to 8 takes 109 MB more than one for the first, this 17 MB.
  Padding to fewer sizes would only cost time, which grows in step with the batch: 8 ms a
  picture on one thread, 4 ms on two.
- The largest batch is tried at the start. The interpreter has its memory then, and a resize to
  any size takes 0.2 ms; growing from batch to batch would cost requests up to 10 ms.
"""

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from modelserver.engines.engine import EngineError, check_batch, softmax
from wire.contract import Contract


class LiteRTEngine:
    """The Engine of one .tflite file: uint8 pixels in, float32 logits out."""

    device = "cpu"

    def __init__(self, path: Path, contract: Contract, *, threads: int, max_batch: int) -> None:
        """Loads `path` and tries the largest batch; EngineError if it does not fit `contract`."""
        self.max_batch = max_batch
        try:
            # Read here, not mapped by LiteRT: a file replaced under a mapping kills the process.
            self._interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
        except ValueError as error:
            raise EngineError(f"{path}: LiteRT cannot read it ({error})") from None
        [given] = self._interpreter.get_input_details()
        [made] = self._interpreter.get_output_details()
        picture = (contract.height, contract.width, 3)
        if (tuple(given["shape"][1:]), given["dtype"]) != (picture, np.uint8):
            raise EngineError(f"{path}: does not take pictures of {picture} uint8; build it again")
        if (tuple(made["shape"][1:]), made["dtype"]) != ((contract.classes,), np.float32):
            raise EngineError(
                f"{path}: does not give {contract.classes} float32 logits; build it again"
            )
        self._input: int = given["index"]
        self._output: int = made["index"]
        self._size = 0
        self._run(np.zeros((max_batch, *picture), np.uint8))

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.predict."""
        check_batch(len(pixels), self.max_batch)
        return softmax(self._run(pixels))

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) != self._size:
            self._interpreter.resize_tensor_input(self._input, pixels.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._size = len(pixels)
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        logits: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return logits
