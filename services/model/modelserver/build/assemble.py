"""The steps from a recipe to a finished bundle.

Rules:
- Nothing is put in place before it has proved itself: the new bundle is loaded, golden-checked
  and each artifact compared with the unquantised network, in a temporary folder.
- What is compared is the answer of the engine that will run it, not of the converter's.
- It is built on the CPU, by sums that no other machine would do in another order.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from modelserver.build import graph, labels, photographs
from modelserver.build.quantise import to_fp32, to_int8
from modelserver.build.recipe import BuildError, Recipe
from modelserver.bundle import (
    FP32,
    INT8,
    LABELS,
    MANIFEST,
    SAVED_MODEL,
    Bundle,
    FileFacts,
    Golden,
    Manifest,
    load_bundle,
)
from modelserver.engines import Engine, golden_check
from modelserver.engines.engine import softmax
from modelserver.engines.golden import FLOAT_TOLERANCE, INT8_TOLERANCE
from modelserver.engines.litert import LiteRTEngine
from modelserver.engines.tensorflow import TensorFlowEngine, prepare_device

AGREEMENT: Final = 0.95
"""The least share of the calibration crops that the network is sure of on which an artifact must
name the same class. EfficientNet-Lite0 in int8 agrees on all 48 of them, and on 0.75 when it has
been calibrated with noise, which costs it a tenth of its accuracy; ResNet50 agrees on all 63, and
on 0.51 with its preprocessing quantised wrongly. Of the other crops, which show nothing that
ImageNet has a class for, a sound ResNet50 names a third otherwise."""

SURE: Final = 2 * INT8_TOLERANCE
"""By how much the first class of a picture leads the second where the network is sure: an engine
may be off by the tolerance at each."""

GOLDEN: Final = 3
"""How many golden pictures a bundle has at most."""

_BATCH: Final = 8

Say = Callable[[str], None]


_THREADS: Final = len(os.sched_getaffinity(0))


def prepare_tensorflow() -> None:
    """Has TensorFlow compute on the CPU. Call it before anything is computed, and once."""
    prepare_device("cpu", _THREADS, None)


def assemble(
    recipe: Recipe,
    output: Path,
    artifacts: Collection[str],
    say: Say,
    pictures: Path | None = None,
) -> None:
    """Builds the bundle of `recipe` in the folder `output`, which is replaced; tells `say`.

    `artifacts` are names of bundle.INT8, FP32 and SAVED_MODEL. `pictures` is a folder with
    pictures to calibrate and to check with, instead of the photographs at hand. Takes about a
    minute. Raises BuildError, BundleError or EngineError when the bundle would not be fit for
    use; `output` is then as it was.
    """
    say(f"rebuilding {recipe.name} with its weights")
    logits = graph.logits_graph(recipe)
    whole = graph.pixel_graph(logits, recipe)
    crops = photographs.calibration_crops(recipe.contract, pictures)
    say(f"asking the network about {len(crops)} crops, to compare with")
    raw = graph.answers(whole, crops)
    graph.check_logits(raw)
    fp32 = softmax(raw)
    if not _sure(fp32).any():
        raise BuildError(
            "comparing: the network is sure of none of the calibration crops; give --pictures of "
            "its classes"
        )

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as temporary:
        folder = Path(temporary) / output.name
        folder.mkdir()
        if INT8 in artifacts:
            say(f"quantising for {INT8} (half a minute for a small network, minutes for a large)")
            (folder / INT8).write_bytes(to_int8(logits, recipe.preprocessing, crops, say))
        if FP32 in artifacts:
            say(f"converting for {FP32}")
            content = to_fp32(logits, recipe.preprocessing, crops.shape[1:])
            (folder / FP32).write_bytes(content)
        if SAVED_MODEL in artifacts:
            say(f"saving {SAVED_MODEL}")
            graph.save(whole, folder / SAVED_MODEL)
        golden = tuple(_write_golden(folder, recipe, whole, pictures))
        _write(folder, recipe, golden, pictures)
        say("comparing every artifact with the network, and golden check")
        _prove(load_bundle(folder), artifacts, crops, fp32, say)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    say(f"done: bundle in {output}")


def _prove(
    bundle: Bundle,
    artifacts: Collection[str],
    crops: NDArray[np.uint8],
    fp32: NDArray[np.float32],
    say: Say,
) -> None:
    """Raises EngineError or BuildError unless every artifact answers as the network does."""
    for name in artifacts:
        path = bundle.artifact(name)
        engine: Engine
        if name == SAVED_MODEL:
            engine = TensorFlowEngine(
                path, bundle.contract, device="cpu", threads=_THREADS, max_batch=_BATCH
            )
        else:
            engine = LiteRTEngine(path, bundle.contract, threads=_THREADS, max_batch=_BATCH)
        batches = np.split(crops, range(_BATCH, len(crops), _BATCH))
        say(compare(name, np.concatenate([engine.predict(batch) for batch in batches]), fp32))
        golden_check(engine, bundle, INT8_TOLERANCE if name == INT8 else FLOAT_TOLERANCE)


def compare(name: str, found: NDArray[np.float32], fp32: NDArray[np.float32]) -> str:
    """How the artifact `name` answers, in words, `fp32` being the network's own answers.

    Both are probabilities, (n, classes), and the network is sure of one row at least. Raises
    BuildError when they agree on too few of those.
    """
    sure = _sure(fp32)
    agreement = float((found.argmax(axis=1) == fp32.argmax(axis=1))[sure].mean())
    off = float(np.abs(found - fp32).max(axis=1).mean())
    crops = f"of the {sure.sum()} crops that it is sure of"
    if agreement < AGREEMENT:
        raise BuildError(
            f"comparing: {name} agrees with the network on only {agreement:.3f} {crops}, "
            f"{AGREEMENT} is the least; it is not fit for use. Give --pictures of the model's own "
            "classes to calibrate with, or leave that artifact out"
        )
    return (
        f"  {name} agrees with the network on {agreement:.3f} {crops}; probabilities are off by "
        f"{off:.4f} on average"
    )


def _sure(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """For each row of (n, classes), whether its first class leads by more than SURE."""
    second, first = np.sort(probabilities)[:, -2:].T
    sure: NDArray[np.bool_] = first - second > SURE
    return sure


def _write_golden(
    folder: Path, recipe: Recipe, whole: graph.Graph, pictures: Path | None
) -> Iterator[Golden]:
    """Saves the golden pictures: those that the network is surest of."""
    (folder / "golden").mkdir()
    sure = []
    licence = recipe.licence
    for candidate in photographs.golden_candidates(recipe.contract, pictures, licence=licence):
        [probabilities] = softmax(graph.answers(whole, candidate.pixels[np.newaxis]))
        second, first = np.sort(probabilities)[-2:]
        index = int(probabilities.argmax())
        if recipe.labels is None and candidate.classes and index not in candidate.classes:
            raise BuildError(
                f"golden pictures: the network takes {candidate.name} for class {index}, not one "
                f"of {candidate.classes}; it was rebuilt wrongly"
            )
        if first - second > SURE:
            sure.append((float(first - second), index, float(first), candidate))
    if not sure:
        raise BuildError(
            "golden pictures: the network is sure of none of them; give --pictures of its classes"
        )
    best = sorted(sure, key=lambda found: found[0])[-GOLDEN:]
    for _, index, probability, candidate in sorted(best, key=lambda found: found[3].name):
        picture = f"golden/{candidate.name}.png"
        Image.fromarray(candidate.pixels).save(folder / picture, optimize=True)
        yield Golden(
            picture=picture,
            class_index=index,
            probability=round(probability, 3),
            source=candidate.source,
            licence=candidate.licence,
        )


def _write(folder: Path, recipe: Recipe, golden: tuple[Golden, ...], pictures: Path | None) -> None:
    """Writes what is not an artifact or a picture, bundle.json last."""
    names = labels.imagenet_labels() if recipe.labels is None else recipe.labels
    lines = (f"{label.wnid or '-'} {label.name}\n" for label in names)
    (folder / LABELS).write_text("".join(lines), encoding="utf-8")
    credit = "".join(f"{g.picture}: photograph by {g.source}, {g.licence}\n" for g in golden)
    (folder / "NOTICE").write_text(f"{recipe.notice}\n{credit}")
    licence = Path(__file__).parent / f"{recipe.licence}.txt"
    if licence.is_file():
        shutil.copyfile(licence, folder / "LICENSE")

    source = photographs.SOURCE if pictures is None else f"120 random crops of {pictures.name}"
    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        contract=recipe.contract,
        preprocessing=recipe.preprocessing,
        licence=recipe.licence,
        provenance={
            "labels": labels.SOURCE,
            **recipe.provenance,
            "calibration": source,
            "built_with": f"tensorflow {tf.__version__}, keras {keras.__version__}",
        },
        golden=golden,
        files={
            path.relative_to(folder).as_posix(): _facts(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(encoded + b"\n")


def _facts(path: Path) -> FileFacts:
    content = path.read_bytes()
    return FileFacts(sha256=sha256(content).hexdigest(), bytes=len(content))
