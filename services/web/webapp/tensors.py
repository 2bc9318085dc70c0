"""The Open Inference Protocol's request and answer as bytes: JSON, and binary tensors after it.

The protocol (version 2) is KServe's, the binary tensors and the classification are Triton's
extensions of it. A request brings a batch of pictures in its only input, and an answer gives each
picture a row in every output.

Rules:
- Bytes in, values out: no socket, no Flask, no numpy. The pictures are views of the body.
- Whatever the bytes are, what comes out is an `Inference` or a refusal for its sender.
- What is announced is held against what is there before any of it is used.
- Parameters that we do not know are ignored, as other servers do; but not those that would make
  the answer another one.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec

from webapp.errors import BadRequest, UploadTooLarge
from wire import Prediction, Result
from wire.messages import Priority

MAX_PICTURES: Final = 128
"""In one request. It is answered as a whole, so more of them would mostly wait for each other."""
MAX_NUMBERS_BYTES: Final = 2 * 1024 * 1024
"""Of pixels as JSON: three pictures of 224 x 224. Each number becomes a Python object, which takes
several times the room and 30 ms in which the whole process stands still."""
MAX_LIST_BYTES: Final = 4096
"""Of a shape, or of the outputs asked for, as JSON."""
TOP_K: Final = 5
LONGEST_MS: Final = 600_000
"""As in the rest of the API."""

FILES: Final = "image"
PIXELS: Final = "pixels"
INPUTS: Final = {FILES: "BYTES", PIXELS: "UINT8"}
"""The two ways to send pictures, by name and datatype."""
PROBABILITIES: Final = "probabilities"
OUTPUTS: Final = {PROBABILITIES: "FP32", "class_indices": "INT64", "labels": "BYTES"}

_REMEDY: Final = "GET /v2/models and the model's name say what it takes and gives."
_LENGTH: Final = struct.Struct("<I")
"""Stands before each element of a binary BYTES tensor."""

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Row = Annotated[list[tuple[_Byte, _Byte, _Byte]], msgspec.Meta(min_length=1)]
_Nested = list[Annotated[list[_Row], msgspec.Meta(min_length=1)]]
_Files = list[bytes | tuple[bytes]]
Kind = TypeVar("Kind")
_Name = Annotated[str, msgspec.Meta(max_length=64)]
_TopK = Annotated[int, msgspec.Meta(ge=1, le=100)]


class _Parameters(msgspec.Struct, frozen=True):
    top_k: _TopK = TOP_K
    timeout: Annotated[int, msgspec.Meta(ge=0)] = 0
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0
    binary_data_output: bool = False
    sequence_id: int | str = 0


class _OfInput(msgspec.Struct, frozen=True):
    binary_data_size: int | None = None
    shared_memory_region: str = ""


class _OfOutput(msgspec.Struct, frozen=True):
    binary_data: bool | None = None
    classification: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    shared_memory_region: str = ""


class _Input(msgspec.Struct, frozen=True):
    name: _Name
    shape: msgspec.Raw
    datatype: _Name
    parameters: _OfInput = _OfInput()
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct, frozen=True):
    name: _Name
    parameters: _OfOutput = _OfOutput()


class _Request(msgspec.Struct, frozen=True):
    inputs: tuple[_Input]
    outputs: msgspec.Raw = msgspec.Raw(b"[]")
    id: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    parameters: _Parameters = _Parameters()


class Wanted(NamedTuple):
    """An output that was asked for."""

    name: str
    classes: int
    """How many it shows of each picture."""
    classified: bool
    """Value, index and label of a class are to be one string."""
    binary: bool


class Inference(NamedTuple):
    """What is asked for."""

    id: str
    """The sender's own, given back in the answer; empty for none."""
    pictures: tuple[bytes | memoryview, ...]
    """At least one, each a file or the pixels of one picture."""
    size: tuple[int, int] | None
    """Height and width of the pixels, which are RGB, rows first; None for files."""
    outputs: tuple[Wanted, ...]
    deadline_ms: int
    """How long it may take; the service's own limit stays."""
    priority: Priority

    @property
    def top_k(self) -> int:
        """How many classes of each picture are needed for all outputs."""
        return max(wanted.classes for wanted in self.outputs)


def read(body: bytes | memoryview, json_bytes: int | None = None) -> Inference:
    """The request in ``body``, of which the first ``json_bytes`` are JSON; all of it for None.

    Raises:
        BadRequest: It is none, or asks for what there is not.
        UploadTooLarge: It has too many pictures, or too many pixels written as JSON.
    """
    view = memoryview(body)
    if json_bytes is not None and json_bytes > len(view):
        raise BadRequest(
            f"The JSON is said to have {json_bytes} bytes, and the body has {len(view)}.",
            "Inference-Header-Content-Length is the length of the JSON alone.",
        )
    request = _decoded(view[:json_bytes], _Request, "The request")
    if request.parameters.sequence_id:
        raise _bad("There are no sequences here: every picture is looked at by itself.")
    [given] = request.inputs
    tensor = view[len(view) if json_bytes is None else json_bytes :]
    parameters = request.parameters
    shape = _short(given.shape, tuple[int, ...], "The shape")
    pictures = _pictures(given, shape, tensor)
    # As Triton has it: 1 is the highest priority, and 0 leaves it to the server.
    bulk = parameters.priority > 1 or (parameters.priority == 0 and len(pictures) > 1)
    return Inference(
        id=request.id,
        pictures=pictures,
        size=(shape[1], shape[2]) if given.name == PIXELS else None,
        outputs=tuple(_wanted(request)),
        deadline_ms=min(LONGEST_MS, ceil(parameters.timeout / 1000) or LONGEST_MS),
        priority="bulk" if bulk else "interactive",
    )


def _pictures(
    given: _Input, shape: tuple[int, ...], tensor: memoryview
) -> tuple[bytes | memoryview, ...]:
    if INPUTS.get(given.name) != given.datatype:
        known = " or ".join(f"{name!r} of {datatype}" for name, datatype in INPUTS.items())
        raise _bad(f"There is no input {given.name!r} of {given.datatype}, but {known}.")
    _refuse_shared_memory(given.parameters.shared_memory_region)
    fits = len(shape) == 4 and shape[3] == 3 if given.name == PIXELS else shape[1:] in ((), (1,))
    if not fits or min(shape, default=0) < 1:
        wanted = "[n, height, width, 3]" if given.name == PIXELS else "[n] or [n, 1]"
        raise _bad(f"The shape of {given.name!r} is {list(shape)} and has to be {wanted}.")
    if shape[0] > MAX_PICTURES:
        raise UploadTooLarge(
            f"There are {shape[0]} pictures in one request.",
            f"Send at most {MAX_PICTURES} at a time, or one by one: they are batched in any case.",
        )
    announced = given.parameters.binary_data_size
    if (len(given.data) == 0) == (announced is None):
        raise _bad(f"{given.name!r} needs either data or a binary_data_size.")
    if len(tensor) != (announced or 0):
        raise BadRequest(
            f"The binary data of {given.name!r} is said to have {announced or 0} bytes, and after "
            f"the JSON there are {len(tensor)}.",
            "Inference-Header-Content-Length is the length of the JSON alone.",
        )
    if given.name == FILES:
        if announced is not None:
            return tuple(_elements(tensor, shape[0]))
        return _files_in_json(given.data, shape[0])
    pixels = tensor if announced is not None else memoryview(_numbers(given.data, shape))
    each = shape[1] * shape[2] * shape[3]
    if len(pixels) != shape[0] * each:
        raise _bad(f"{given.name!r} has {len(pixels)} pixels, and by its shape {shape[0] * each}.")
    return tuple(pixels[at : at + each] for at in range(0, len(pixels), each))


def _elements(tensor: memoryview, count: int) -> Iterator[memoryview]:
    end = 0
    for _ in range(count):
        begin = end + _LENGTH.size
        if begin <= len(tensor):
            end = begin + _LENGTH.unpack_from(tensor, end)[0]
        if max(begin, end) > len(tensor):
            raise _bad(f"The binary data of {FILES!r} ends before its {count} elements do.")
        yield tensor[begin:end]
    if end < len(tensor):
        raise _bad(f"The binary data of {FILES!r} has more than its {count} elements.")


def _files_in_json(data: msgspec.Raw, count: int) -> tuple[bytes, ...]:
    # Base64 (no picture is valid UTF-8) has no commas: they tell how many elements there are
    # before any is made.
    if bytes(data).count(b",") >= count:
        raise _bad(f"{FILES!r} has more elements than the {count} of its shape.")
    files = _decoded(data, _Files, f"As JSON, the data of {FILES!r} is base64, and")
    if len(files) != count:
        raise _bad(f"{FILES!r} has {len(files)} elements, and by its shape {count}.")
    return tuple(file if isinstance(file, bytes) else file[0] for file in files)


def _numbers(data: msgspec.Raw, shape: tuple[int, ...]) -> bytes:
    if len(memoryview(data)) > MAX_NUMBERS_BYTES:
        raise UploadTooLarge(
            f"The pixels as JSON have more than {MAX_NUMBERS_BYTES // 2**20} MiB.",
            "Send them as binary data, which is smaller too.",
        )
    what = f"The data of {PIXELS!r}"
    if not bytes(data)[1:].lstrip().startswith(b"["):
        return bytes(_decoded(data, list[_Byte], what))
    pictures = _decoded(data, _Nested, what)
    count, height, width, _ = shape
    if len(pictures) != count or any(
        len(rows) != height or any(len(row) != width for row in rows) for rows in pictures
    ):
        raise _bad(f"{what} is nested in another way than its shape says.")
    return bytes(value for rows in pictures for row in rows for pixel in row for value in pixel)


def _wanted(request: _Request) -> Iterator[Wanted]:
    asked = _short(request.outputs, tuple[_Output, ...], "The list of outputs")
    asked = asked or tuple(map(_Output, OUTPUTS))
    if len({output.name for output in asked}) < len(asked):
        raise _bad("An output is asked for twice.")
    for name, parameters in ((output.name, output.parameters) for output in asked):
        if name not in OUTPUTS:
            raise _bad(f"There is no output {name!r}, but {', '.join(OUTPUTS)}.")
        _refuse_shared_memory(parameters.shared_memory_region)
        if parameters.classification and name != PROBABILITIES:
            raise _bad(f"{name!r} cannot be classified, only {PROBABILITIES!r}.")
        binary = parameters.binary_data
        yield Wanted(
            name=name,
            classes=parameters.classification or request.parameters.top_k,
            classified=parameters.classification > 0,
            binary=request.parameters.binary_data_output if binary is None else binary,
        )


def _refuse_shared_memory(region: str) -> None:
    if region:
        raise _bad("There is no shared memory here: send the data with the request.")


def _short(data: msgspec.Raw, kind: type[Kind], what: str) -> Kind:
    # A long one would fill the memory before its length is known, and the refusal's words.
    if len(memoryview(data)) > MAX_LIST_BYTES:
        raise _bad(f"{what} is longer than any that is taken.")
    return _decoded(data, kind, what)


def _decoded(data: Any, kind: type[Kind], what: str) -> Kind:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad(f"{what} cannot be read: {error}.") from None
    except RecursionError:
        raise _bad(f"{what} is nested too deeply.") from None


def _bad(detail: str) -> BadRequest:
    return BadRequest(detail, _REMEDY)


class _Tensor(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, int]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Tensor]
    id: str = ""


_VALUES: Final[dict[str, Callable[[Prediction], Any]]] = {
    PROBABILITIES: lambda prediction: prediction.probability,
    "class_indices": lambda prediction: prediction.class_index,
    "labels": lambda prediction: prediction.label,
}
_FORMATS: Final = {"FP32": "f", "INT64": "q"}


def answer(asked: Inference, results: Sequence[Result]) -> tuple[bytes, int | None]:
    """The answer's body, and how many bytes of it are JSON; None where all are.

    Args:
        asked: What was asked for.
        results: One for each of its pictures, in their order, of one version of one model.
    """
    known = min(len(result.predictions) for result in results)
    outputs = []
    tensors = []
    for wanted in asked.outputs:
        count = min(wanted.classes, known)
        show = _as_class if wanted.classified else _VALUES[wanted.name]
        data = [show(seen) for result in results for seen in result.predictions[:count]]
        output = _Tensor(
            name=wanted.name,
            datatype="BYTES" if wanted.classified else OUTPUTS[wanted.name],
            shape=(len(results), count),
        )
        if wanted.binary:
            tensors.append(_packed(output.datatype, data))
            output.parameters = {"binary_data_size": len(tensors[-1])}
        else:
            output.data = data
        outputs.append(output)
    head = msgspec.json.encode(
        _Answer(results[0].model, results[0].version, outputs=outputs, id=asked.id)
    )
    return b"".join((head, *tensors)), len(head) if tensors else None


def _as_class(seen: Prediction) -> str:
    return f"{seen.probability:f}:{seen.class_index}:{seen.label}"


def _packed(datatype: str, data: list[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [text.encode() for text in data]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    return struct.pack(f"<{len(data)}{_FORMATS[datatype]}", *data)
