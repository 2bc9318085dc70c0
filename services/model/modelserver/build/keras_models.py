"""Recipes for Keras: a model of keras.applications, or any Keras file or SavedModel of one's own.

Rules:
- An application's weights are Keras' own, downloaded by it, or those of a file that fits the
  network to the last array.
- A crop of 0.875 of the short side, bicubic, is how nearly all applications were evaluated.
- A file of one's own says its input's size itself, where it knows it; what its pixels have to
  become no file says, so that is declared.
- A Keras file that brings code of its own (a Lambda layer) is refused, by Keras' safe mode.
"""

import re
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from modelserver.build.applications import APPLICATIONS
from modelserver.build.recipe import PREPROCESSINGS, BuildError, Recipe
from modelserver.bundle import Label, Terms
from wire.contract import Filter

_SIGNATURE: Final = "serving_default"


def application_recipe(name: str, weights: Path | None, licence: str) -> Recipe:
    """The application called `name`, with the weights in the file `weights` or Keras' own.

    `weights` is `.npz` (arrays called `layer/0`, `layer/1`, ... in the order of the layer's
    weights), `.h5` or `.keras`.
    """
    side = APPLICATIONS[name].side
    source = "downloaded by Keras" if weights is None else _source(weights)
    function = APPLICATIONS[name].function
    return Recipe(
        name=name,
        version="1",
        contract=Terms(width=side, height=side, crop=0.875, filter="bicubic", classes=1000),
        preprocessing=PREPROCESSINGS[APPLICATIONS[name].preprocessing],
        licence=licence,
        notice=f"keras.applications.{function}, trained on ImageNet. Weights: {source}.",
        provenance={"architecture": f"keras.applications.{function}", "weights": source},
        network=lambda: _inference(_application(name, weights)),
    )


def own_recipe(
    name: str,
    path: Path,
    *,
    labels: Path,
    preprocessing: str,
    crop: float,
    resampling: Filter,
    side: int | None,
    licence: str,
) -> Recipe:
    """The model in `path`: a `.keras` or `.h5` file, or the folder of a SavedModel.

    `labels` is a text file with a class a line, in class order: a name, or `wnid name`.
    `preprocessing` is one of PREPROCESSINGS. `side` is for an input without a size of its own.
    Raises BuildError when `path` or `labels` cannot be used.
    """
    names = read_labels(labels)
    network, shape = _saved_model(path) if path.is_dir() else _keras_file(path)
    height, width = (length or side for length in shape)
    if height is None or width is None:
        raise BuildError(f"{path}: takes pictures of any size; say which with --side")
    try:
        contract = Terms(
            width=width, height=height, crop=crop, filter=resampling, classes=len(names)
        )
    except ValueError as error:
        raise BuildError(f"{path}: {error}") from None
    source = _source(path)
    return Recipe(
        name=name,
        version="1",
        contract=contract,
        preprocessing=PREPROCESSINGS[preprocessing],
        licence=licence,
        notice=f"Made of {source}.",
        provenance={"weights": source, "labels": _source(labels)},
        network=lambda: network,
        labels=names,
    )


def read_labels(path: Path) -> tuple[Label, ...]:
    """The classes in the text file `path`, one a line: a name, or `wnid name`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{path}: cannot be read as text ({error})") from None
    labels = []
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"(?:(n\d{8}) )?\s*(\S.*?)\s*", line)
        if match is None:
            raise BuildError(f"{path}: line {number} is empty; it needs a class a line")
        labels.append(Label(match[1] or "", match[2]))
    if len(labels) < 2:
        raise BuildError(f"{path}: has {len(labels)} labels; a classifier needs two at least")
    return tuple(labels)


def _inference(model: keras.Model) -> Callable[[Any], Any]:
    return lambda x: model(x, training=False)


def _source(path: Path) -> str:
    if path.is_dir():
        path = path / "saved_model.pb"
    try:
        return f"{path.name}, sha256 {sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        raise BuildError(f"{path}: cannot be read ({error.strerror})") from None


# --- keras.applications ---------------------------------------------------------------------------


def _application(name: str, weights: Path | None) -> keras.Model:
    function = getattr(keras.applications, APPLICATIONS[name].function)
    if weights is None:
        try:
            return function(weights="imagenet")
        except Exception as error:  # noqa: BLE001 - what Keras raises where it cannot download
            raise BuildError(
                f"the weights of {name} cannot be downloaded ({error}); give them as a file with "
                "--weights"
            ) from None
    model = function(weights=None)
    if weights.suffix == ".npz":
        _load_npz(model, weights)
    else:
        try:
            model.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise BuildError(f"{weights}: does not fit {name} ({_first_line(error)})") from None
    return model


def _load_npz(model: keras.Model, path: Path) -> None:
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays = dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BuildError(f"{path}: is no .npz file of arrays ({_first_line(error)})") from None
    for layer in model.layers:
        names = [f"{layer.name}/{number}" for number in range(len(layer.weights))]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise BuildError(f"{path}: has no {missing[0]}")
        try:
            layer.set_weights([arrays.pop(name) for name in names])
        except ValueError as error:
            raise BuildError(f"{path}: {layer.name}: {_first_line(error)}") from None
    if arrays:
        raise BuildError(f"{path}: has weights of another network: {min(arrays)}")


# --- one's own ------------------------------------------------------------------------------------

_Found = tuple[Callable[[Any], Any], tuple[int | None, int | None]]
"""A network, and the height and width of its input."""


def _keras_file(path: Path) -> _Found:
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BuildError(f"{path}: Keras cannot load it ({_first_line(error)})") from None
    if len(model.inputs) != 1:
        raise BuildError(f"{path}: has {len(model.inputs)} inputs; a classifier here has one")
    return _inference(model), _height_and_width(path, model.inputs[0].shape)


def _saved_model(path: Path) -> _Found:
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise BuildError(f"{path}: is no SavedModel ({_first_line(error)})") from None
    if _SIGNATURE not in loaded.signatures:
        raise BuildError(f"{path}: has no signature {_SIGNATURE}; export it with one")
    signature = loaded.signatures[_SIGNATURE]
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        raise BuildError(
            f"{path}: its signature has {len(inputs)} inputs and "
            f"{len(signature.structured_outputs)} outputs; a classifier here has one of each"
        )
    [(name, spec)] = inputs.items()

    def network(x: Any) -> Any:
        return signature(**{name: tf.cast(x, spec.dtype)})

    # The variables live as long as what was loaded.
    network.loaded = loaded  # type: ignore[attr-defined]
    return network, _height_and_width(path, tuple(spec.shape))


def _height_and_width(path: Path, shape: tuple[int | None, ...]) -> tuple[int | None, int | None]:
    match shape:
        case (None, height, width, 3):
            return height, width
    raise BuildError(
        f"{path}: takes {shape}, where (None, height, width, 3) is any number of RGB pictures"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
