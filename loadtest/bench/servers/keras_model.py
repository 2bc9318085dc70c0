"""The embedded model before it was quantised, as Keras builds it: what the tutorial's code used.

Runs in an environment with TensorFlow. Building it takes seconds, as it did there.
"""

import os
from typing import Any, Final

from loadtest.bench.servers.peer import TOP_K, decode

# Read by TensorFlow as it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np

from modelserver.build.efficientnet_lite import RECIPE, load
from modelserver.build.labels import imagenet_labels
from wire.contract import Contract

CONTRACT: Final = Contract(
    model=RECIPE.name,
    version=RECIPE.version,
    digest="of no account",
    width=RECIPE.contract.width,
    height=RECIPE.contract.height,
    crop=RECIPE.contract.crop,
    filter=RECIPE.contract.filter,
    classes=RECIPE.contract.classes,
)


class KerasModel:
    """One photograph at a time through `model.predict`."""

    def __init__(self) -> None:
        logits = load()
        self._model = keras.Model(logits.input, keras.layers.Softmax()(logits.output))
        self._labels = imagenet_labels()

    def classify(self, file: bytes) -> list[dict[str, Any]]:
        """The three most probable classes of the picture in ``file``."""
        normal = RECIPE.preprocessing
        pixels = (decode(file, CONTRACT)[None].astype(np.float32) - normal.mean) / normal.scale
        [probabilities] = self._model.predict(pixels, verbose=0)
        return [
            {
                "label": self._labels[i].name,
                "class_index": i,
                "probability": float(probabilities[i]),
            }
            for i in np.argsort(-probabilities)[:TOP_K].tolist()
        ]
