"""The golden check: does this engine, on this device, give the answers the bundle was made with?"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modelserver.bundle import Bundle
from modelserver.engines.engine import Engine, EngineError, GoldenError

INT8_TOLERANCE: Final = 0.1
"""How far a golden probability may be off for int8. The answers are the unquantised model's, from
which EfficientNet-Lite0's int8 form is off by 0.02 on average over 100 photographs, 0.13 at most,
and ResNet50's by 0.06 on average."""
FLOAT_TOLERANCE: Final = 0.02
"""The same for floats. In float32 engines differ by less than 0.0001. In bfloat16, with 8 bits,
EfficientNet-Lite0 was off by 0.023 at its worst golden picture; the float16 of a GPU has 11, which
is eight times finer."""


def golden_check(engine: Engine, bundle: Bundle, tolerance: float) -> None:
    """Raises GoldenError with one sentence unless every golden picture gets its golden answer.

    That is the class, and its probability give or take `tolerance`.
    """
    for golden in bundle.manifest.golden:
        pixels = _read_picture(bundle.path / golden.picture)
        if pixels.shape != (bundle.contract.height, bundle.contract.width, 3):
            raise GoldenError(
                f"golden check: {golden.picture} is not a picture of the contract's size, "
                f"{bundle.contract.width} by {bundle.contract.height}"
            )
        try:
            probabilities = engine.predict(pixels[np.newaxis])[0]
        except EngineError as error:
            raise GoldenError(
                f"golden check on {engine.device}: {golden.picture} gets no answer: {error}"
            ) from None
        index = int(probabilities.argmax())
        probability = float(probabilities[index])
        if index != golden.class_index or abs(probability - golden.probability) > tolerance:
            raise GoldenError(
                f"golden check on {engine.device}: {golden.picture} must be "
                f"{bundle.labels[golden.class_index].name} with probability "
                f"{golden.probability:.2f} (give or take {tolerance}), but the engine says "
                f"{bundle.labels[index].name} with {probability:.2f}"
            )


def _read_picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
