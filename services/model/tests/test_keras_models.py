"""Bundles of Keras models, against Keras itself on the same pixels."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging import prepare
from modelserver.build.applications import APPLICATIONS
from modelserver.build.recipe import PREPROCESSINGS, BuildError
from modelserver.bundle import Bundle, Label, load_bundle
from modelserver.engines import load_engine
from modelserver.engines.litert import LiteRTEngine

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.timeout(400),
    # Keras' own way of reading its variables.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

THREADS = 2
MAX_BATCH = 8


def pixels_of(photographs: dict[Path, int], bundle: Bundle) -> NDArray[np.uint8]:
    contract = bundle.contract
    return np.stack(
        [
            np.frombuffer(prepare(path.read_bytes(), contract).pixels, np.uint8).reshape(
                contract.height, contract.width, 3
            )
            for path in photographs
        ]
    )


def batches(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return np.split(pixels, range(MAX_BATCH, len(pixels), MAX_BATCH))


@pytest.mark.parametrize(
    ("name", "function", "top_1"),
    [("resnet50", "ResNet50", 0.66), ("mobilenet-v2", "MobileNetV2", 0.85)],
)
def test_answers_are_those_of_keras(
    name: str,
    function: str,
    top_1: float,
    built: Callable[[str], Path],
    weights: Path,
    photographs: dict[Path, int],
    keras: Any,
) -> None:
    bundle = load_bundle(built(name))
    engine = load_engine("tensorflow", bundle, threads=THREADS, max_batch=MAX_BATCH)
    pixels = pixels_of(photographs, bundle)
    ours = np.concatenate([engine.predict(batch) for batch in batches(pixels)])

    model = getattr(keras.applications, function)(weights=None)
    with np.load(weights / f"{function.lower()}-imagenet.npz") as arrays:
        for layer in model.layers:
            layer.set_weights([arrays[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
    prepared = sys.modules[model_module(keras, function)].preprocess_input
    theirs = np.concatenate(
        [np.asarray(model(prepared(batch.astype(np.float32)))) for batch in batches(pixels)]
    )

    right = (ours.argmax(axis=1) == list(photographs.values())).mean()
    same = (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()
    off = np.abs(ours - theirs).max()
    print(f"{name}: top-1 {right:.2f}, as Keras on {same:.2f}, off by {off:.1e} at most")
    assert right >= top_1
    assert same >= 0.99
    assert off <= 1e-3


def test_int8_resnet50_is_nearly_as_right(
    built: Callable[[str], Path], photographs: dict[Path, int]
) -> None:
    bundle = load_bundle(built("resnet50"))
    pixels = pixels_of(photographs, bundle)
    right = []
    for kind in ("litert", "tensorflow"):
        engine = load_engine(kind, bundle, threads=THREADS, max_batch=MAX_BATCH)
        answers = np.concatenate([engine.predict(b).argmax(axis=1) for b in batches(pixels)])
        right.append((answers == list(photographs.values())).mean())
    print(f"resnet50: top-1 {right[0]:.2f} in int8, {right[1]:.2f} in fp32")
    assert right[0] >= right[1] - 0.02


def test_builder_says_how_far_off_int8_resnet50_is(built: Callable[[str], Path]) -> None:
    said = built("resnet50").with_suffix(".log").read_text()
    assert "80 of 120 crops seen" in said
    assert "int8.tflite agrees with the network on " in said
    assert "saved_model agrees with the network on 1.000 of the " in said


# --- preprocessing --------------------------------------------------------------------------------


def model_module(keras: Any, function: str) -> str:
    """The module of Keras that has the application and its `preprocess_input`."""
    return str(getattr(keras.applications, function).__module__)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_pixels_become_what_keras_makes_of_them(name: str, keras: Any) -> None:
    from modelserver.build.graph import preprocess
    from modelserver.build.quantise import convolve

    application = APPLICATIONS[name]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    module = sys.modules[model_module(keras, application.function)]
    expected = module.preprocess_input(pixels.astype(np.float32))
    numbers = PREPROCESSINGS[application.preprocessing]
    assert np.allclose(preprocess(pixels, numbers).numpy(), expected, atol=1e-4)
    convolved = convolve(pixels.astype(np.float32), numbers).numpy()
    assert np.allclose(convolved, expected, atol=1e-4)


# --- what is refused ------------------------------------------------------------------------------


def test_quantised_answers_that_disagree_are_refused(keras: Any) -> None:
    del keras
    from modelserver.build.assemble import compare

    fp32 = np.eye(10, dtype=np.float32)[np.arange(100) % 10]
    # Of these it is not sure, so nothing is asked of them.
    fp32[40:] = 0.1
    fp32[40:, 0] = 0.15
    found = fp32.copy()
    found[40:, 1] = 0.2
    assert "on 1.000 of the 40 crops that it is sure of" in compare("int8.tflite", found, fp32)
    found[:3] = fp32[1:4]
    with pytest.raises(BuildError, match=r"int8\.tflite agrees .* only 0\.925 .* 0\.95 is the lea"):
        compare("int8.tflite", found, fp32)


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelserver.build", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("fault", ["another network", "missing", "shape", "no npz"])
def test_weights_that_do_not_fit_are_refused(
    fault: str, weights: Path, tmp_path: Path, keras: Any
) -> None:
    from modelserver.build.keras_models import application_recipe

    del keras
    file = tmp_path / "weights.npz"
    with np.load(weights / "mobilenetv2-imagenet.npz") as arrays:
        changed = dict(arrays)
    match fault:
        case "another network":
            changed["zebra/0"] = np.zeros(1)
            words = "has weights of another network: zebra/0"
        case "missing":
            del changed["predictions/1"]
            words = "has no predictions/1"
        case "shape":
            changed["predictions/1"] = np.zeros(7)
            words = "predictions: "
        case _:
            words = r"is no \.npz file of arrays"
    np.savez(file, **changed)
    if fault == "no npz":
        file.write_bytes(b"PK\3\4 but no more")
    recipe = application_recipe("mobilenet-v2", file, "not stated")
    with pytest.raises(BuildError, match=words) as caught:
        recipe.network()
    assert "\n" not in str(caught.value)


def test_weights_may_be_keras_own_files(tmp_path: Path, keras: Any) -> None:
    from modelserver.build.keras_models import application_recipe

    model = keras.applications.MobileNetV2(weights=None)
    picture = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    expected = np.asarray(model(picture))
    model.save(tmp_path / "whole.keras")
    model.save_weights(tmp_path / "own.weights.h5")
    for file in ("whole.keras", "own.weights.h5"):
        network = application_recipe("mobilenet-v2", tmp_path / file, "not stated").network()
        assert np.allclose(np.asarray(network(picture)), expected, atol=1e-6)
    (tmp_path / "no.h5").write_bytes(b"no")
    with pytest.raises(BuildError, match=r"no\.h5: does not fit mobilenet-v2"):
        application_recipe("mobilenet-v2", tmp_path / "no.h5", "not stated").network()


# --- one's own ------------------------------------------------------------------------------------


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("green grass\nn01440764 tench\nblue\n")
    return tmp_path / "labels.txt"


def test_labels_may_have_wordnet_ids_or_none(labels: Path, keras: Any) -> None:
    del keras
    from modelserver.build.keras_models import read_labels

    assert read_labels(labels) == (
        Label("", "green grass"),
        Label("n01440764", "tench"),
        Label("", "blue"),
    )


@pytest.mark.parametrize(
    ("shape", "layers", "words"),
    [
        ((32, 32, 1), 3, r"takes \(None, 32, 32, 1\), where"),
        ((None, None, 3), 3, "takes pictures of any size; say which with --side"),
        ((32, 32, 3), 4, "which is not a row of 3 classes"),
    ],
)
def test_own_model_that_does_not_fit_is_refused(
    shape: tuple[int | None, ...],
    layers: int,
    words: str,
    labels: Path,
    tmp_path: Path,
    keras: Any,
) -> None:
    from modelserver.build.graph import logits_graph
    from modelserver.build.keras_models import own_recipe

    image = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, keras.layers.Dense(layers)(x)).save(tmp_path / "mine.keras")
    with pytest.raises(BuildError, match=words):
        logits_graph(
            own_recipe(
                "mine",
                tmp_path / "mine.keras",
                labels=labels,
                preprocessing="unit",
                crop=1.0,
                resampling="bicubic",
                side=None,
                licence="not stated",
            )
        )


def test_own_model_is_the_same_as_a_file_and_as_a_saved_model(
    labels: Path, tmp_path: Path, keras: Any
) -> None:
    """A softmax at its end is cut off, whichever it came as."""
    image = keras.Input((32, 48, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) * 3 for w in model.get_weights()])
    model.save(tmp_path / "mine.keras")
    model.export(tmp_path / "exported", verbose=False)

    pixels = rng.integers(0, 256, (4, 32, 48, 3), np.uint8)
    expected = np.asarray(model(pixels.astype(np.float32) / 127.5 - 1))
    for source in ("mine.keras", "exported"):
        run = build(
            *("mine", "--from", str(tmp_path / source), "--labels", str(labels)),
            *("--preprocessing", "tf", "--artifacts", "fp32", "--version", "1.2"),
            *("--output", str(tmp_path / "mine")),
        )
        assert run.returncode == 0, run.stderr
        bundle = load_bundle(tmp_path / "mine")
        assert bundle.contract.version == "1.2"
        assert (bundle.contract.width, bundle.contract.height) == (48, 32)
        assert [label.name for label in bundle.labels] == ["green grass", "tench", "blue"]
        engine = LiteRTEngine(
            bundle.artifact("fp32.tflite"), bundle.contract, threads=1, max_batch=4
        )
        assert np.allclose(engine.predict(pixels), expected, atol=1e-4)
