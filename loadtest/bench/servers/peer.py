"""What every peer has in common: plain Pillow, the embedded model, and the shape of an answer.

Rules:
- A peer decodes as its users do, with Pillow alone: no child process, no scaled decoding.
- All use the engine that Sightline uses, so that what is compared is the serving.
- A simulated accelerator is one device, whoever calls: a lock on a file keeps it for one batch at
  a time, in all processes that are told the same file.
"""

import fcntl
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modelserver.bundle import find_bundle, load_bundle
from modelserver.engines import LatencyCurve, load_engine
from modelserver.engines.simulated import INSTANT, SimulatedEngine
from wire.contract import Contract

ENGINE: Final = "BENCH_ENGINE"
"""The variable that says what answers: `model`, `accelerator` or `nothing`."""
DEVICE: Final = "BENCH_DEVICE"
"""The variable that names the file which stands for the accelerator."""
ACCELERATOR: Final = LatencyCurve(base_ms=8, per_image_ms=0.15)
TOP_K: Final = 3

Pixels = NDArray[np.uint8]


class Model:
    """The embedded model behind the engine that the environment asks for."""

    def __init__(self, *, threads: int, max_batch: int) -> None:
        self._bundle = load_bundle(find_bundle("efficientnet-lite0"))
        self.contract = self._bundle.contract
        kind = os.environ.get(ENGINE, "model")
        self._device = os.open(os.environ[DEVICE], os.O_RDWR) if kind == "accelerator" else None
        if kind == "model":
            self._engine = load_engine("litert", self._bundle, threads=threads, max_batch=max_batch)
        else:
            curve = ACCELERATOR if kind == "accelerator" else INSTANT
            self._engine = SimulatedEngine(self.contract, curve, max_batch=max_batch)

    def classify(self, pixels: Pixels) -> list[bytes]:
        """The JSON answer to each picture of (n, height, width, 3) uint8 RGB."""
        if self._device is None:
            return [self._answer(row) for row in self._engine.predict(pixels)]
        fcntl.flock(self._device, fcntl.LOCK_EX)
        try:
            probabilities = self._engine.predict(pixels)
        finally:
            fcntl.flock(self._device, fcntl.LOCK_UN)
        return [self._answer(row) for row in probabilities]

    def _answer(self, probabilities: NDArray[np.float32]) -> bytes:
        best = np.argpartition(probabilities, -TOP_K)[-TOP_K:]
        # Of two that are equally probable the lower class comes first, as Sightline has it.
        best = best[np.lexsort((best, -probabilities[best]))]
        predictions = [
            {
                "label": self._bundle.labels[i].name,
                "class_index": i,
                "probability": float(probabilities[i]),
            }
            for i in best.tolist()
        ]
        return json.dumps({"predictions": predictions}).encode()


def decode(file: bytes, contract: Contract) -> Pixels:
    """The picture in ``file`` as ``contract`` wants it, (height, width, 3) uint8 RGB."""
    with Image.open(BytesIO(file)) as image:
        picture = image.convert("RGB")
    side = contract.crop * min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    size = (contract.width, contract.height)
    return np.asarray(picture.resize(size, Image.Resampling[contract.filter.upper()], box))


def photographs(folder: Path) -> list[bytes]:
    """All files of ``folder``, in the order of their names."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]
