"""From a network to one frozen graph that takes pixels and gives logits.

Rules:
- Whatever the network came as, every artifact is made of the same graph.
- A softmax at the end is cut off: engines make probabilities of logits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from modelserver.build.recipe import BuildError, Recipe
from modelserver.bundle import Preprocessing

_BATCH = 8

Graph = Callable[..., Any]
"""A concrete function without variables, of one tensor."""


def preprocess(pixels: Any, preprocessing: Preprocessing) -> Any:
    """The tensor `pixels`, (n, height, width, 3) RGB 0..255, as the network was trained to see
    them: float32 of the same shape."""
    x = tf.cast(pixels, tf.float32)
    if preprocessing.order == "bgr":
        x = tf.reverse(x, axis=[-1])
    mean = tf.constant(preprocessing.mean, tf.float32)
    return (x - mean) / tf.constant(preprocessing.scale, tf.float32)


def logits_graph(recipe: Recipe) -> Graph:
    """The network of `recipe`, frozen: (n, height, width, 3) float32, preprocessed -> logits.

    Raises BuildError when it cannot be frozen or does not give a row of classes.
    """
    terms = recipe.contract
    network = recipe.network()
    try:
        traced = tf.function(network).get_concrete_function(
            tf.TensorSpec((None, terms.height, terms.width, 3), tf.float32)
        )
        frozen = convert_variables_to_constants_v2(traced)
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
        raise BuildError(f"freezing: {str(error).strip().splitlines()[0]}") from None
    output = frozen.outputs[0]
    if len(frozen.outputs) != 1 or output.shape.rank != 2 or output.shape[1] != terms.classes:
        raise BuildError(
            f"freezing: the network gives {[str(tensor.shape) for tensor in frozen.outputs]}, "
            f"which is not a row of {terms.classes} classes for each picture"
        )
    graph: Graph = frozen.prune(frozen.inputs, [_before_softmax(output)])
    return graph


def _before_softmax(output: Any) -> Any:
    """What `output` is the softmax of; itself where it is no softmax."""
    end = output
    while end.op.type == "Identity":
        end = end.op.inputs[0]
    return end.op.inputs[0] if end.op.type == "Softmax" else output


def pixel_graph(logits: Graph, recipe: Recipe) -> Graph:
    """`logits` with the preprocessing before it: (n, height, width, 3) uint8 RGB -> logits."""
    terms = recipe.contract

    def classify(pixels: Any) -> dict[str, Any]:
        [made] = tf.nest.flatten(logits(preprocess(pixels, recipe.preprocessing)))
        return {"logits": tf.cast(made, tf.float32)}

    spec = tf.TensorSpec((None, terms.height, terms.width, 3), tf.uint8, name="pixels")
    graph: Graph = tf.function(classify, input_signature=[spec]).get_concrete_function()
    return graph


def answers(graph: Graph, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits, (n, classes), that a pixel graph gives for `pixels`."""
    batches = np.split(pixels, range(_BATCH, len(pixels), _BATCH))
    return np.concatenate([graph(tf.constant(batch))["logits"].numpy() for batch in batches])


def check_logits(logits: NDArray[np.float32]) -> None:
    """Raises BuildError when `logits`, (n, classes), are something else.

    Probabilities are: the softmax of them would be nearly the same for every class.
    """
    if not np.isfinite(logits).all():
        raise BuildError("trying the network: its output is not finite")
    if logits.min() >= 0 and logits.max() <= 1:
        raise BuildError(
            "trying the network: it gives values from 0 to 1, and not by a softmax at its end; "
            "save it so that it gives logits or ends in a softmax"
        )


def save(graph: Graph, folder: Path) -> None:
    """Writes a pixel graph as a SavedModel whose one signature it is."""
    module = tf.Module()
    module.classify = graph
    tf.saved_model.save(module, str(folder), signatures=graph)
