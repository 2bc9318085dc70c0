"""Makes a network of 8-bit integers for LiteRT.

The preprocessing costs nothing: the graph's uint8 input means `(pixel - mean) / scale` by its
own quantisation, when the pictures it was calibrated with hold both a 0 and a 255.
"""

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from modelserver.build.recipe import BuildError, Recipe


def normalise(pixels: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
    """`pixels` as the network was trained to see them; the shape stays."""
    numbers = recipe.preprocessing
    return (pixels.astype(np.float32) - np.float32(numbers.mean)) / np.float32(numbers.scale)


def quantise(logits: keras.Model, crops: NDArray[np.uint8], recipe: Recipe) -> bytes:
    """The .tflite of `logits`: any number of uint8 pictures in, float32 logits out, int8 between.

    `crops`, (n, height, width, 3), show what values to expect inside. Raises BuildError when
    the input's quantisation did not come out as the preprocessing.
    """
    shape = (None, *crops.shape[1:])
    # As a function with its shape: TFLiteConverter.from_keras_model knows only Keras 2.
    graph = tf.function(lambda x: logits(x, training=False)).get_concrete_function(
        tf.TensorSpec(shape, tf.float32)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], logits)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([normalise(crop[None], recipe)] for crop in crops)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    content: bytes = converter.convert()
    _check_input(content, recipe)
    return content


def _check_input(content: bytes, recipe: Recipe) -> None:
    """At no pixel may the graph's reading differ from the preprocessing by half a step."""
    [given] = Interpreter(model_content=content).get_input_details()
    scale, zero_point = given["quantization"]
    pixels = np.arange(256, dtype=np.uint8)
    read = (pixels.astype(np.float32) - zero_point) * scale
    if not np.allclose(read, normalise(pixels, recipe), atol=scale / 2):
        raise BuildError(
            f"quantising: the input came out as (pixel - {zero_point}) * {scale}, which is not "
            "the preprocessing; the calibration pictures lack black or white"
        )
