"""Makes the .tflite files of LiteRT: of 8-bit integers, or of the floats as they are.

Where the preprocessing is the same for every channel it costs the integers nothing: the graph's
int8 input, which is the pixel less 128, means `(pixel - mean) / scale` by its own quantisation,
when the pictures it was calibrated with hold both a 0 and a 255. (With a uint8 input LiteRT takes
the 128 off itself, by a general rule that takes twenty times as long.) Otherwise it is the
graph's first step, a convolution of 1 x 1: it takes any order and numbers, and its weights are
quantised for each channel. (With tf.reverse in its place LiteRT would move bytes between tensors
of different scales.)
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from modelserver.build.graph import Graph, preprocess
from modelserver.build.recipe import BuildError
from modelserver.bundle import Preprocessing

_PIXELS_AS_THEY_ARE: Final = Preprocessing(mean=0, scale=1)
_REPORT_EVERY: Final = 40


def to_int8(
    logits: Graph,
    preprocessing: Preprocessing,
    crops: NDArray[np.uint8],
    say: Callable[[str], None],
) -> bytes:
    """The .tflite of `logits`: any number of pictures in, as pixels less 128, float32 logits out,
    int8 between.

    `crops`, (n, height, width, 3), show what values to expect inside. Raises BuildError when
    the input's quantisation did not come out as it should.
    """
    read = preprocessing if preprocessing.uniform else _PIXELS_AS_THEY_ARE

    def network(x: Any) -> Any:
        return logits(x if preprocessing.uniform else convolve(x, preprocessing))

    def examples() -> Iterator[list[NDArray[np.float32]]]:
        for number, crop in enumerate(crops):
            if number % _REPORT_EVERY == 0:
                say(f"  {number} of {len(crops)} crops seen")
            yield [preprocess(crop[np.newaxis], read).numpy()]

    converter = _converter(network, crops.shape[1:], tf.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.float32
    content: bytes = converter.convert()
    _check_input(content, read)
    return content


def to_fp32(logits: Graph, preprocessing: Preprocessing, picture: tuple[int, ...]) -> bytes:
    """The .tflite of `logits` in float32: any number of uint8 pictures of shape `picture` in."""
    converter = _converter(lambda x: logits(preprocess(x, preprocessing)), picture, tf.uint8)
    content: bytes = converter.convert()
    return content


def convolve(x: Any, preprocessing: Preprocessing) -> Any:
    """What graph.preprocess does with the float tensor `x`, as one convolution."""
    order = [0, 1, 2] if preprocessing.order == "rgb" else [2, 1, 0]
    scale = np.broadcast_to(np.asarray(preprocessing.scale, np.float32), 3)
    kernel = np.zeros((1, 1, 3, 3), np.float32)
    kernel[0, 0, order, [0, 1, 2]] = 1 / scale
    return (
        tf.nn.conv2d(x, kernel, strides=1, padding="VALID")
        - np.asarray(preprocessing.mean, np.float32) / scale
    )


def _converter(network: Graph, picture: tuple[int, ...], dtype: Any) -> Any:
    # As a function with its shape: TFLiteConverter.from_keras_model knows only Keras 2.
    graph = tf.function(network).get_concrete_function(tf.TensorSpec((None, *picture), dtype))
    holder = tf.Module()
    holder.graph = graph
    return tf.lite.TFLiteConverter.from_concrete_functions([graph], holder)


def _check_input(content: bytes, read: Preprocessing) -> None:
    """At no pixel may the graph's reading differ from `read`, a uniform one, by half a step."""
    [given] = Interpreter(model_content=content).get_input_details()
    scale, zero_point = given["quantization"]
    pixels = np.arange(256, dtype=np.uint8)
    found = (pixels.astype(np.float32) - 128 - zero_point) * scale
    if not np.allclose(found, preprocess(pixels, read).numpy(), atol=scale / 2):
        raise BuildError(
            f"quantising: the input came out as (pixel - {128 + zero_point}) * {scale}, which is "
            "not the preprocessing; the calibration pictures lack black or white"
        )
