"""Reads the tensors of a PyTorch checkpoint without PyTorch, and runs nothing the file asks for.

The file (`torch.save` before PyTorch 1.6) is five pickles one after the other: a magic number,
the format's version, facts about the machine, the state dict, and the keys of its storages; then
for each key, in that order, the storage: an int64 element count and the raw elements.

Rules:
- A pickle may name only what a state dict is made of (`_ALLOWED`). Anything else, a function
  that a hostile file would have called among it, is refused before it is called.
- A tensor is a view of its storage, and numpy refuses a view that leaves the storage.
"""

import collections
import math
import pickle
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelserver.build.recipe import BuildError

MAGIC: Final = 0x1950A86A20F9469CFC6C
"""First value of the file, as PyTorch's serialization.py has it."""
VERSION: Final = 1001


class CheckpointError(BuildError):
    """The file is not a checkpoint of the one kind that is read here."""


class _Storage(NamedTuple):
    """Where a tensor's elements will be found: the storages come after the state dict."""

    dtype: np.dtype[Any]
    key: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage, offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    """Stands in for torch._utils._rebuild_tensor_v2; gradients and hooks are of no use here."""
    return _Tensor(storage, offset, shape, strides)


_ALLOWED: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise CheckpointError(f"the checkpoint asks for {module}.{name}, refused") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(size), None):
                return _Storage(dtype, key, size)
        raise CheckpointError("the checkpoint refers to something that is not a whole storage")


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """The state dict in `path`: tensors (float32 or int64, in PyTorch's axis order) by name.

    Raises CheckpointError when the file is of another kind, damaged, or asks for anything
    that is not a tensor.
    """
    with path.open("rb") as file:
        try:
            return _read(file)
        except CheckpointError as error:
            raise CheckpointError(f"{path.name}: {error}") from None
        except Exception as error:
            # A damaged pickle can raise nearly anything; here they all mean the same.
            raise CheckpointError(f"{path.name}: not a readable checkpoint ({error})") from error


def _read(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    def load() -> Any:
        return _Unpickler(file).load()

    if (load(), load()) != (MAGIC, VERSION):
        raise CheckpointError("not a checkpoint of PyTorch's old format, version 1001")
    if not load()["little_endian"]:
        raise CheckpointError("written on a big-endian machine, which is not read here")
    tensors = {name: t for name, t in load().items() if isinstance(t, _Tensor)}
    keys = load()

    expected = {t.storage.key: t.storage for t in tensors.values()}
    storages = {key: _read_storage(file, expected[key]) for key in keys}
    return {name: _view(t, storages[t.storage.key]) for name, t in tensors.items()}


def _read_storage(file: IO[bytes], storage: _Storage) -> bytes:
    count = int.from_bytes(file.read(8), "little")
    if count != storage.size:
        raise CheckpointError(f"a storage has {count} elements, the state dict says {storage.size}")
    nbytes = count * storage.dtype.itemsize
    elements = file.read(nbytes)
    if len(elements) != nbytes:
        raise CheckpointError("the file ends inside a storage")
    return elements


def _view(tensor: _Tensor, elements: bytes) -> NDArray[Any]:
    itemsize = tensor.storage.dtype.itemsize
    if math.prod(tensor.shape) > tensor.storage.size:
        raise CheckpointError("a tensor is larger than its storage")
    return np.ndarray(
        tensor.shape,
        tensor.storage.dtype,
        buffer=elements,
        offset=tensor.offset * itemsize,
        strides=tuple(stride * itemsize for stride in tensor.strides),
    )
