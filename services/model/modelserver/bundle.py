"""A bundle: one version of one model in a folder, and the proof that the folder is whole.

The folder holds `bundle.json`, the file `labels.txt`, golden pictures, and the artifacts that
engines run: `int8.tflite`, `fp32.tflite` and `saved_model/`, as many of them as were asked for.

Rules:
- Every artifact takes RGB uint8 pixels, (n, height, width, 3), and gives float32 logits,
  (n, classes). Preprocessing is inside it. The engine makes probabilities of the logits: an
  int8 softmax would give them in steps of 1/256, where most of a thousand classes are zero.
- `labels.txt` has a line a class, in the order of the model's output: `wnid name`, where the
  wnid is `-` for a class that is not of WordNet.
- What `bundle.json` does not list does not exist; what it lists is there, byte for byte.
- A bundle is used whole or not at all: anything wrong raises BundleError.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from wire.contract import Contract, Filter, Side

BUNDLES: Final = Path(__file__).parent / "bundles"
"""Where the bundles are that come with the package."""

LABELS: Final = "labels.txt"
MANIFEST: Final = "bundle.json"
INT8: Final = "int8.tflite"
FP32: Final = "fp32.tflite"
SAVED_MODEL: Final = "saved_model"


class BundleError(Exception):
    """The bundle cannot be used; the message names the file and says what would mend it."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of bundle.json: a field more or less is an error."""


class Terms(_Part, frozen=True):
    """What the model asks and gives: its contract, but for what `bundle.json` says as a whole."""

    width: Side
    height: Side
    crop: Annotated[float, msgspec.Meta(gt=0, le=1)]
    filter: Filter
    classes: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)]


class Preprocessing(_Part, frozen=True, omit_defaults=True):
    """Pixels 0..255 become `(pixel - mean) / scale`, the values the network was trained with.

    `mean` and `scale` are one number, or one for each channel in the network's own `order`.
    """

    mean: float | tuple[float, float, float]
    scale: float | tuple[float, float, float]
    order: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        # Not msgspec.Meta(gt=0): in a union with a tuple, msgspec 0.22 dies of it (segfault).
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if min(scales) <= 0:
            raise ValueError("a scale must be above 0")

    @property
    def uniform(self) -> bool:
        """The same for every channel, none of which changes its place."""
        alike = not isinstance(self.mean, tuple) and not isinstance(self.scale, tuple)
        return alike and self.order == "rgb"


class FileFacts(_Part, frozen=True):
    """What a file of the bundle must be."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class Golden(_Part, frozen=True):
    """A picture of the contract's size, and the answer of the model before it was quantised."""

    picture: str
    """A lossless image file of the bundle."""
    class_index: Annotated[int, msgspec.Meta(ge=0)]
    probability: Annotated[float, msgspec.Meta(gt=0, le=1)]
    source: str
    licence: str


class Manifest(_Part, frozen=True):
    """The whole of bundle.json."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    contract: Terms
    preprocessing: Preprocessing
    licence: str
    provenance: dict[str, str]
    golden: Annotated[tuple[Golden, ...], msgspec.Meta(min_length=1)]
    files: dict[str, FileFacts]


class Label(NamedTuple):
    """A class: its WordNet id, empty where it has none, and its name in words."""

    wnid: str
    name: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose every file has been checked."""

    path: Path
    manifest: Manifest
    contract: Contract
    labels: tuple[Label, ...]
    """One a class, in class order."""

    def artifact(self, name: str) -> Path:
        """The path of the artifact called `name`, a file or a folder.

        Raises BundleError when the bundle has none, or when the folder holds a file that was
        not checked.
        """
        path = self.path / name
        if not self.has(name):
            has = ", ".join(
                artifact for artifact in (INT8, FP32, SAVED_MODEL) if self.has(artifact)
            )
            raise BundleError(
                f"{self.path}: has no {name}, which this engine runs; it has {has or 'no model'}. "
                "Build the bundle with that artifact or choose another engine."
            )
        for file in path.rglob("*"):
            listed = file.relative_to(self.path).as_posix()
            if file.is_file() and listed not in self.manifest.files:
                raise BundleError(f"{file}: is not listed in {MANIFEST}; take it away")
        return path

    def has(self, name: str) -> bool:
        """Whether there is an artifact called `name`."""
        return any(file == name or file.startswith(f"{name}/") for file in self.manifest.files)


def find_bundle(name_or_path: str) -> Path:
    """The folder of a bundle: one that comes with the package by its bare name, any by its path.

    Raises BundleError, with the names there are, when there is no bundle.json in it.
    """
    path = Path(name_or_path)
    if path.name == name_or_path:
        path = BUNDLES / name_or_path
    if not (path / MANIFEST).is_file():
        names = sorted(found.parent.name for found in BUNDLES.glob(f"*/{MANIFEST}"))
        raise BundleError(
            f"no bundle {name_or_path!r}: give the path of a folder (./NAME for one that is "
            f"here) or one of: {', '.join(names)}"
        )
    return path


def load_bundle(path: Path) -> Bundle:
    """The bundle in the folder `path`, every file of it read and compared with its sha256.

    Raises BundleError with one sentence when anything is missing, altered or malformed.
    """
    encoded = _read(path, MANIFEST)
    try:
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path / MANIFEST}: {error}; build the bundle again") from None
    for name, facts in manifest.files.items():
        _verify(path, name, facts)

    terms = manifest.contract
    for golden in manifest.golden:
        if golden.class_index >= terms.classes:
            raise BundleError(
                f"{path / MANIFEST}: golden class {golden.class_index} of {golden.picture} is "
                f"outside the {terms.classes} classes"
            )
    for name in (LABELS, *(golden.picture for golden in manifest.golden)):
        if name not in manifest.files:
            raise BundleError(f"{path / MANIFEST}: does not list {name} under files; add it")

    return Bundle(
        path=path,
        manifest=manifest,
        contract=Contract(
            model=manifest.name,
            version=manifest.version,
            digest=_identity(manifest),
            width=terms.width,
            height=terms.height,
            crop=terms.crop,
            filter=terms.filter,
            classes=terms.classes,
        ),
        labels=_labels(path, terms.classes),
    )


def _identity(manifest: Manifest) -> str:
    """A digest of which model it is, in which form its artifacts may be.

    A replica on a CPU with `int8.tflite` and one on a GPU with `saved_model/`, made of the same
    weights, are replicas of one model: pixels that were made for the one fit the other.
    """
    identity = (
        manifest.name,
        manifest.version,
        manifest.contract,
        manifest.preprocessing,
        manifest.provenance.get("weights", ""),
        manifest.files[LABELS].sha256,
    )
    return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:16]


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path / name}: cannot be read ({error.strerror}); copy the bundle again, whole"
        ) from None


def _verify(path: Path, name: str, facts: FileFacts) -> None:
    content = _read(path, name)
    if len(content) != facts.bytes:
        raise BundleError(
            f"{path / name}: has {len(content)} bytes where {MANIFEST} says {facts.bytes}; "
            "copy the bundle again, whole"
        )
    if hashlib.sha256(content).hexdigest() != facts.sha256:
        raise BundleError(
            f"{path / name}: its sha256 is not the one in {MANIFEST}; copy the bundle again, whole"
        )


def _labels(path: Path, classes: int) -> tuple[Label, ...]:
    try:
        lines = _read(path, LABELS).decode().splitlines()
    except UnicodeDecodeError:
        raise BundleError(f"{path / LABELS}: is not UTF-8; save it as UTF-8") from None
    if len(lines) != classes:
        raise BundleError(
            f"{path / LABELS}: has {len(lines)} labels for {classes} classes; "
            "it needs a line a class, in class order"
        )
    labels = []
    for number, line in enumerate(lines, start=1):
        wnid, _, name = line.partition(" ")
        if not wnid or not name.strip():
            raise BundleError(f"{path / LABELS}: line {number} is not 'wnid name'")
        labels.append(Label("" if wnid == "-" else wnid, name.strip()))
    return tuple(labels)
