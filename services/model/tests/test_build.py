"""The builder. Rebuilding needs the extra `build`; reading a checkpoint needs nothing."""

import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from modelserver.build.checkpoint import MAGIC, VERSION, CheckpointError, read_checkpoint
from modelserver.build.photographs import calibration_crops
from modelserver.bundle import find_bundle, load_bundle
from modelserver.engines import load_engine

# --- checkpoints ----------------------------------------------------------------------------------


def _rebuild_tensor_v2(*_: object) -> None:
    """Only its name is pickled."""


class FloatStorage:
    """Only its name is pickled."""


@pytest.fixture(autouse=True)
def _torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's names, so that pickle writes them; its code is not needed."""
    names: dict[str, Any] = {"torch": FloatStorage, "torch._utils": _rebuild_tensor_v2}
    for module, value in names.items():
        stand_in = ModuleType(module)
        setattr(stand_in, value.__name__, value)
        monkeypatch.setitem(sys.modules, module, stand_in)
        monkeypatch.setattr(value, "__module__", module)


class Call:
    """Pickles as a call, as tensors do, and as a hostile checkpoint would have one made."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduction = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduction


class Storage(tuple[Any, ...]):
    """Pickles as a reference to a storage."""


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return tuple(obj) if isinstance(obj, Storage) else None


def tensor(key: str, size: int, offset: int, shape: Any, strides: Any) -> Call:
    storage = Storage(("storage", FloatStorage, key, "cpu", size, None))
    return Call(_rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict())


def checkpoint(
    path: Path, state: Any, storages: dict[str, list[float]], *, magic: int = MAGIC
) -> Path:
    """Writes a file as torch.save did before PyTorch 1.6."""
    file = io.BytesIO()
    machine = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {}}
    for part in (magic, VERSION, machine, state, sorted(storages)):
        Pickler(file, protocol=2).dump(part)
    for _, elements in sorted(storages.items()):
        file.write(len(elements).to_bytes(8, "little"))
        file.write(np.array(elements, "<f4").tobytes())
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def test_checkpoint_gives_its_tensors(file: Path) -> None:
    state = OrderedDict(
        whole=tensor("a", 6, 0, (2, 3), (3, 1)),
        turned=tensor("a", 6, 0, (3, 2), (1, 3)),
        part=tensor("b", 4, 1, (2,), (2,)),
    )
    tensors = read_checkpoint(checkpoint(file, state, {"b": [6, 7, 8, 9], "a": [0, 1, 2, 3, 4, 5]}))
    assert {name: found.tolist() for name, found in tensors.items()} == {
        "whole": [[0, 1, 2], [3, 4, 5]],
        "turned": [[0, 3], [1, 4], [2, 5]],
        "part": [7, 9],
    }


@pytest.mark.parametrize("function", [os.system, eval, print, getattr])
def test_hostile_checkpoint_is_refused_before_it_acts(
    file: Path, function: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint(file, OrderedDict(weight=Call(function, "echo harm")), {})
    with pytest.raises(CheckpointError, match=rf"asks for \w+\.{function.__name__}, refused"):
        read_checkpoint(file)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2,), (4,)),
        (0, (2,), (-1,)),
        (-1, (2,), (1,)),
        (0, (1 << 40,), (0,)),
    ],
)
def test_tensor_that_leaves_its_storage_is_refused(
    file: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    state = OrderedDict(weight=tensor("a", 4, offset, shape, strides))
    with pytest.raises(CheckpointError):
        read_checkpoint(checkpoint(file, state, {"a": [1, 2, 3, 4]}))


def test_storage_of_another_size_is_refused(file: Path) -> None:
    state = OrderedDict(weight=tensor("a", 4, 0, (4,), (1,)))
    with pytest.raises(CheckpointError, match="has 3 elements, the state dict says 4"):
        read_checkpoint(checkpoint(file, state, {"a": [1, 2, 3]}))


def test_other_files_are_refused(file: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint of PyTorch's old format"):
        read_checkpoint(checkpoint(file, OrderedDict(), {}, magic=1))
    file.write_bytes(b"PK\3\4 a newer checkpoint")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        read_checkpoint(file)


def test_cut_checkpoint_is_refused_wherever_it_ends(file: Path) -> None:
    state = OrderedDict(weight=tensor("a", 4, 0, (4,), (1,)))
    content = checkpoint(file, state, {"a": [1, 2, 3, 4]}).read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(file)


# --- the whole build ------------------------------------------------------------------------------


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelserver.build", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet9000"], ["no model 'resnet9000'", "efficientnet-lite0", "resnet50", "--from"]),
        (["resnet50", "--artifacts", "int9"], ["'int9' is not one of int8, fp32, saved_model"]),
        (["mine", "--from", "mine.keras"], ["--from needs --labels and --preprocessing"]),
        (["resnet50", "--labels", "labels.txt"], ["--labels and --preprocessing are for --from"]),
        (["../mine", "--from", "mine.keras"], ["'../mine' is no name but a path"]),
        (["resnet50", "--version", ""], ["it has 1 to 64 characters"]),
        (["efficientnet-lite0", "--weights", "w.npz"], ["weights of its package alone"]),
    ],
)
def test_command_that_makes_no_sense_is_refused(arguments: list[str], words: list[str]) -> None:
    run = build(*arguments)
    assert run.returncode == 2
    for word in words:
        assert word in run.stderr


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    run = build("efficientnet-lite0", "--output", str(tmp_path))
    assert run.returncode == 2
    assert "is something else than a bundle" in run.stderr
    assert (tmp_path / "mine").is_dir()


@pytest.mark.tensorflow
@pytest.mark.timeout(400)
def test_rebuilt_bundle_answers_like_the_embedded_one(built: Callable[[str], Path]) -> None:
    """With the versions that made the embedded bundle, the answers of the two are equal bit for
    bit. Another TensorFlow or Pillow may round otherwise."""
    folder = built("efficientnet-lite0")
    said = folder.with_suffix(".log").read_text()
    assert "int8.tflite agrees with the network on 1.000 of the 48 crops that it is sure" in said
    assert "fp32.tflite agrees with the network on 1.000" in said
    assert "saved_model agrees with the network on 1.000" in said

    embedded = load_bundle(find_bundle("efficientnet-lite0"))
    rebuilt = load_bundle(folder)
    assert rebuilt.labels == embedded.labels
    assert rebuilt.manifest.contract == embedded.manifest.contract
    assert rebuilt.manifest.preprocessing == embedded.manifest.preprocessing
    assert [golden.class_index for golden in rebuilt.manifest.golden] == [
        golden.class_index for golden in embedded.manifest.golden
    ]
    crops = calibration_crops(embedded.manifest.contract)
    before, after = (
        load_engine("litert", bundle, threads=2, max_batch=len(crops)).predict(crops)
        for bundle in (embedded, rebuilt)
    )
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() >= 0.95
    assert np.abs(before - after).max(axis=1).mean() <= 0.03
