import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modelserver.bundle import BundleError, Label, Preprocessing, find_bundle, load_bundle

NAME = "efficientnet-lite0"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the embedded bundle that a test may spoil."""
    return shutil.copytree(find_bundle(NAME), tmp_path / NAME)


def rewrite(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes bundle.json."""
    manifest = json.loads((copy / "bundle.json").read_bytes())
    change(manifest)
    (copy / "bundle.json").write_text(json.dumps(manifest))


def replace(copy: Path, name: str, content: bytes) -> None:
    """Changes a file together with what bundle.json says of it."""
    (copy / name).write_bytes(content)
    facts = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    rewrite(copy, lambda manifest: manifest["files"].update({name: facts}))


def test_embedded_bundle_is_whole() -> None:
    bundle = load_bundle(find_bundle(NAME))
    assert (bundle.contract.model, bundle.contract.version) == (NAME, "1")
    assert (bundle.contract.width, bundle.contract.height) == (224, 224)
    assert (bundle.contract.crop, bundle.contract.filter) == (0.875, "bicubic")
    assert len(bundle.labels) == bundle.contract.classes == 1000
    assert bundle.labels[0] == Label("n01440764", "tench")
    assert bundle.artifact("int8.tflite").stat().st_size < 6_000_000


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(version="2"),
        lambda manifest: manifest["contract"].update(crop=1.0),
        lambda manifest: manifest["preprocessing"].update(mean=0),
        lambda manifest: manifest["provenance"].update(weights="others"),
    ],
)
def test_another_model_has_another_digest(
    copy: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    before = load_bundle(copy).contract.digest
    rewrite(copy, change)
    assert load_bundle(copy).contract.digest != before


def test_other_labels_have_another_digest(copy: Path) -> None:
    before = load_bundle(copy).contract.digest
    labels = (copy / "labels.txt").read_bytes()
    replace(copy, "labels.txt", labels.replace(b"tench", b"a tench"))
    assert load_bundle(copy).contract.digest != before


def test_the_same_model_in_another_form_has_the_same_digest(copy: Path) -> None:
    before = load_bundle(copy).contract.digest
    replace(copy, "fp32.tflite", b"in 32 bits")
    rewrite(copy, lambda manifest: manifest["files"].pop("int8.tflite"))
    rewrite(copy, lambda manifest: manifest["provenance"].update(built_with="others"))
    assert load_bundle(copy).contract.digest == before


def test_every_label_has_its_own_name_and_id() -> None:
    labels = load_bundle(find_bundle(NAME)).labels
    assert len({label.name for label in labels}) == len(labels)
    # In ImageNet's order of classes the WordNet ids ascend.
    assert [label.wnid for label in labels] == sorted({label.wnid for label in labels})


def test_class_order_is_that_of_the_photographs(photographs: dict[Path, int]) -> None:
    labels = load_bundle(find_bundle(NAME)).labels
    for path, index in photographs.items():
        assert labels[index].wnid == path.name.split("_")[1]


def test_bundle_is_found_by_name_or_path(copy: Path) -> None:
    assert find_bundle(NAME).parent.name == "bundles"
    assert find_bundle(str(copy)) == copy


@pytest.mark.parametrize("name", ["efficientnet-lite9", "./efficientnet-lite0", "..", ""])
def test_unknown_bundle_is_refused_with_the_names_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"one of: .*efficientnet-lite0"):
        find_bundle(name)


def test_missing_artifact_is_named_with_what_there_is() -> None:
    bundle = load_bundle(find_bundle(NAME))
    with pytest.raises(BundleError, match=r"no fp32\.tflite.*it has .*int8\.tflite"):
        bundle.artifact("fp32.tflite")


def refuses(copy: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["int8.tflite", "labels.txt", "golden/coffee.png", "LICENSE"])
def test_altered_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    refuses(copy, f"{name}: its sha256 is not the one in bundle.json; copy")


def test_cut_file_is_refused(copy: Path) -> None:
    content = (copy / "int8.tflite").read_bytes()
    (copy / "int8.tflite").write_bytes(content[:1000])
    refuses(copy, r"int8\.tflite: has 1000 bytes where bundle\.json says")


@pytest.mark.parametrize("name", ["int8.tflite", "labels.txt", "bundle.json"])
def test_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refuses(copy, f"{name}: cannot be read .No such file")


def test_missing_label_is_refused(copy: Path) -> None:
    lines = (copy / "labels.txt").read_bytes().splitlines(keepends=True)
    replace(copy, "labels.txt", b"".join(lines[:-1]))
    refuses(copy, "has 999 labels for 1000 classes")


@pytest.mark.parametrize("line", [b"n01440764\n", b"n01440764 \n", b" tench\n", b"\n"])
def test_label_without_both_parts_is_refused(copy: Path, line: bytes) -> None:
    lines = (copy / "labels.txt").read_bytes().splitlines(keepends=True)
    replace(copy, "labels.txt", b"".join([lines[0], line, *lines[2:]]))
    refuses(copy, "line 2 is not 'wnid name'")


def test_labels_that_are_no_text_are_refused(copy: Path) -> None:
    replace(copy, "labels.txt", b"\xff" * 1000)
    refuses(copy, "not UTF-8")


@pytest.mark.parametrize("length", [0, 1, 500])
def test_truncated_manifest_is_refused(copy: Path, length: int) -> None:
    content = (copy / "bundle.json").read_bytes()
    (copy / "bundle.json").write_bytes(content[:length])
    refuses(copy, r"bundle\.json: Input data was truncated")


def test_manifest_that_is_no_text_is_refused(copy: Path) -> None:
    content = (copy / "bundle.json").read_bytes()
    (copy / "bundle.json").write_bytes(content.replace(b'"licence": "', b'"licence": "\xff', 1))
    refuses(copy, r"bundle\.json: .*codec can't decode.*; build the bundle again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(colour="blue"), "unknown field `colour`"),
        (lambda m: m["contract"].update(depth=3), r"unknown field `depth` - at `\$.contract`"),
        (lambda m: m.pop("licence"), "missing required field `licence`"),
        (lambda m: m["preprocessing"].update(mean=[1, 2]), "of length 3"),
        (lambda m: m["preprocessing"].update(scale=0), "a scale must be above 0"),
        (lambda m: m["preprocessing"].update(scale=[1, 1, -1]), "a scale must be above 0"),
        (lambda m: m["preprocessing"].update(order="gbr"), "Invalid enum value 'gbr'"),
        (lambda m: m["contract"].update(width=0), r"`\$.contract.width`"),
        (lambda m: m["contract"].update(filter="nearest"), "Invalid enum value 'nearest'"),
        (lambda m: m["files"]["LICENSE"].update(sha256="ABC"), "matching regex .*sha256"),
        (lambda m: m.update(golden=[]), r"`\$.golden`"),
        (lambda m: m["golden"][0].update(class_index=1000), "golden class 1000 .* outside"),
        (lambda m: m["files"].pop("golden/coffee.png"), "does not list golden/coffee.png"),
        (lambda m: m["files"].pop("labels.txt"), "does not list labels.txt"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(copy, change)
    refuses(copy, message)


def test_label_may_be_of_no_wordnet_class(copy: Path) -> None:
    lines = (copy / "labels.txt").read_bytes().splitlines(keepends=True)
    replace(copy, "labels.txt", b"".join([b"- fish of mine\n", *lines[1:]]))
    assert load_bundle(copy).labels[0] == Label("", "fish of mine")


def test_artifact_may_be_a_folder_of_listed_files(copy: Path) -> None:
    (copy / "saved_model" / "variables").mkdir(parents=True)
    replace(copy, "saved_model/saved_model.pb", b"a graph")
    replace(copy, "saved_model/variables/variables.index", b"an index")
    bundle = load_bundle(copy)
    assert bundle.artifact("saved_model") == copy / "saved_model"
    assert not bundle.has("saved")
    (copy / "saved_model" / "variables" / "more").write_bytes(b"not checked")
    with pytest.raises(BundleError, match=r"variables/more: is not listed in bundle\.json"):
        bundle.artifact("saved_model")


@pytest.mark.parametrize(
    ("numbers", "uniform"),
    [
        (Preprocessing(mean=127, scale=128), True),
        (Preprocessing(mean=0, scale=1, order="bgr"), False),
        (Preprocessing(mean=(1, 2, 3), scale=1), False),
        (Preprocessing(mean=0, scale=(1, 2, 3)), False),
    ],
)
def test_preprocessing_knows_whether_it_is_the_same_for_every_channel(
    numbers: Preprocessing, uniform: bool
) -> None:
    assert numbers.uniform is uniform


def test_bundle_cannot_be_changed() -> None:
    bundle = load_bundle(find_bundle(NAME))
    for holder, field in [(bundle, "labels"), (bundle.manifest, "name"), (bundle.contract, "crop")]:
        with pytest.raises(AttributeError):
            setattr(holder, field, None)
