"""The steps from a recipe to a finished bundle.

Rules:
- Nothing is put in place before it has proved itself: the new bundle is loaded, golden-checked
  and compared with the unquantised network in a temporary folder.
- What is compared is the answer of the shipped engine, not of the converter's interpreter.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from modelserver.build import labels, photographs
from modelserver.build.quantise import normalise, quantise
from modelserver.build.recipe import BuildError, Recipe
from modelserver.bundle import (
    LABELS,
    MANIFEST,
    FileFacts,
    Golden,
    Manifest,
    load_bundle,
)
from modelserver.engines import load_engine
from modelserver.engines.engine import softmax

AGREEMENT: Final = 0.85
"""The least share of the calibration crops on which int8 and fp32 must name the same class.
Many show nothing that ImageNet has a class for, so that fp32 itself wavers: EfficientNet-Lite0
agrees on 0.93 (on 0.99 of 100 photographs of ImageNet's classes), and on 0.73 when it has been
calibrated with noise, which costs it a tenth of its accuracy."""

_BATCH: Final = 8

Say = Callable[[str], None]
Classifier = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pixels (n, height, width, 3) to probabilities (n, classes)."""


def assemble(recipe: Recipe, output: Path, say: Say) -> None:
    """Builds the bundle of `recipe` in the folder `output`, which is replaced; tells `say`.

    Takes about a minute. Raises BuildError, BundleError or EngineError when the bundle would
    not be fit for use; `output` is then as it was.
    """
    say(f"rebuilding {recipe.name} with its weights")
    logits = recipe.logits()
    crops = photographs.calibration_crops(recipe.contract)
    say(f"quantising, calibrated with {len(crops)} crops (about half a minute)")
    int8 = quantise(logits, crops, recipe)

    def fp32(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return softmax(logits.predict(normalise(pixels, recipe), batch_size=_BATCH, verbose=0))

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as temporary:
        folder = Path(temporary) / output.name
        say("writing the bundle")
        _write(folder, recipe, int8, fp32)
        say("golden check, and comparing int8 with fp32")
        engine = load_engine("litert", load_bundle(folder), threads=1, max_batch=_BATCH)
        agreement = _agreement(engine.predict, fp32, crops)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    say(f"done: int8 agrees with fp32 on {agreement:.3f} of the crops; bundle in {output}")


def _agreement(int8: Classifier, fp32: Classifier, crops: NDArray[np.uint8]) -> float:
    """The share of `crops` that both name alike; BuildError when it is less than AGREEMENT."""
    batches = np.split(crops, range(_BATCH, len(crops), _BATCH))
    same = [int8(batch).argmax(axis=1) == fp32(batch).argmax(axis=1) for batch in batches]
    agreement = float(np.concatenate(same).mean())
    if agreement < AGREEMENT:
        raise BuildError(
            f"comparing: int8 agrees with fp32 on only {agreement:.3f} of the calibration crops, "
            f"{AGREEMENT} is the least; the quantised model is not fit for use"
        )
    return agreement


def _write(folder: Path, recipe: Recipe, int8: bytes, fp32: Classifier) -> None:
    (folder / "golden").mkdir(parents=True)
    (folder / "int8.tflite").write_bytes(int8)
    names = labels.imagenet_labels()
    (folder / LABELS).write_text("".join(f"{label.wnid} {label.name}\n" for label in names))
    golden = tuple(_write_golden(folder, recipe, fp32))
    credit = "".join(f"{g.picture}: photograph by {g.source}, {g.licence}\n" for g in golden)
    (folder / "NOTICE").write_text(f"{recipe.notice}\n{credit}")
    shutil.copyfile(Path(__file__).parent / f"{recipe.licence}.txt", folder / "LICENSE")

    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        contract=recipe.contract,
        preprocessing=recipe.preprocessing,
        licence=recipe.licence,
        provenance={
            **recipe.provenance,
            "labels": labels.SOURCE,
            "calibration": photographs.SOURCE,
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


def _write_golden(folder: Path, recipe: Recipe, fp32: Classifier) -> Iterator[Golden]:
    for photograph in photographs.GOLDEN:
        pixels = photographs.golden_pixels(photograph, recipe.contract)
        probabilities = fp32(pixels[np.newaxis])[0]
        index = int(probabilities.argmax())
        if index not in photograph.classes:
            raise BuildError(
                f"golden pictures: the network takes {photograph.file} for class {index}, not one "
                f"of {photograph.classes}; it was rebuilt wrongly"
            )
        picture = f"golden/{Path(photograph.file).stem}.png"
        Image.fromarray(pixels).save(folder / picture, optimize=True)
        yield Golden(
            picture=picture,
            class_index=index,
            probability=round(float(probabilities[index]), 3),
            source=photograph.source,
            licence=photograph.licence,
        )


def _facts(path: Path) -> FileFacts:
    content = path.read_bytes()
    return FileFacts(sha256=sha256(content).hexdigest(), bytes=len(content))
