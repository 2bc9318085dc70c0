"""The Open Inference Protocol, version 2: the routes that clients of KServe and Triton know.

Models, versions and replicas are the broker's, as everywhere; `tensors` is what a request for an
inference and its answer look like.

Rules:
- A batch is answered as a whole, by one version of the model. Its pictures go to the broker one by
  one, which makes the batches, and all of them have the one deadline of their request.
- What is told here is so. Triton's statistics need counts that nobody here keeps, and models are
  neither loaded nor unloaded over HTTP: there are no such routes and no such extensions.
- An error is the protocol's, with the status that it has in the rest of the API.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from flask import Blueprint, Response, g, request

from webapp import tensors
from webapp.api import READY_S
from webapp.classifier import PREPARATIONS, Classifier
from webapp.config import Config
from webapp.envelope import answer
from webapp.errors import (
    BadRequest,
    SenderLeft,
    StaleContract,
    Unavailable,
    UnknownModel,
    from_exception,
)
from webapp.hands import Hands, PartFailed
from webapp.inflate import Inflater
from webapp.presence import Left, sender_left
from webapp.tensors import FILES, INPUTS, MAX_PICTURES, OUTPUTS, PIXELS
from webapp.terms import Terms
from webapp.uploads import whole_body
from wire import Contract, Result, Served

VERSION: Final = "0.1.0"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
)
PLATFORM: Final = "sightline"
HEADER: Final = "Inference-Header-Content-Length"

_CONFIGURED: Final = {
    "BYTES": "TYPE_STRING",
    "UINT8": "TYPE_UINT8",
    "FP32": "TYPE_FP32",
    "INT64": "TYPE_INT64",
}
"""Datatypes as a model's configuration calls them."""


class Live(msgspec.Struct, frozen=True):
    """The server is there."""

    live: bool = True


class Ready(msgspec.Struct, frozen=True):
    """The server can answer."""

    ready: bool = True


class Server(msgspec.Struct, frozen=True):
    """What the server is."""

    name: str = "sightline"
    version: str = VERSION
    extensions: tuple[str, ...] = EXTENSIONS


class ModelReady(msgspec.Struct, frozen=True):
    """A model can answer."""

    name: str
    ready: bool = True


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of a model; -1 is any number, and the first is that of pictures."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Model(msgspec.Struct, frozen=True):
    """What a model takes, in exactly one of its inputs, and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Configured(msgspec.Struct, frozen=True):
    """An input or output as Triton configures it: without the number of pictures."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


class Configuration(msgspec.Struct, frozen=True):
    """As much of Triton's model configuration as means something here."""

    name: str
    platform: str
    max_batch_size: int
    input: tuple[Configured, ...]
    output: tuple[Configured, ...]


class Indexed(msgspec.Struct, frozen=True):
    """A version of a model, and whether it is in use."""

    name: str
    version: str
    state: str
    reason: str = ""


class _IndexQuery(msgspec.Struct, frozen=True):
    ready: bool = False


def blueprint(classifier: Classifier, config: Config) -> Blueprint:
    """The routes, answered by ``classifier``."""
    v2 = Blueprint("inference", __name__)
    inflater = Inflater(
        max_bytes=config.max_upload_bytes, room_bytes=max(1, config.buffer_bytes // 4)
    )
    hands = Hands()
    # Lists of numbers take several times the room of the bytes they become.
    reading = threading.Lock()

    def served() -> tuple[Served, ...]:
        return classifier.models(deadline=time.monotonic() + READY_S)

    @v2.get("/v2/health/live")
    def live() -> Response:
        return answer(Live())

    @v2.get("/v2/health/ready")
    def ready() -> Response:
        classifier.replicas(deadline=time.monotonic() + READY_S)
        return answer(Ready())

    @v2.get("/v2")
    def server() -> Response:
        return answer(Server())

    @v2.get("/v2/models/<name>")
    @v2.get("/v2/models/<name>/versions/<version>")
    def model(name: str, version: str = "") -> Response:
        return answer(_model(_in_use(served(), name, version).contract))

    @v2.get("/v2/models/<name>/ready")
    @v2.get("/v2/models/<name>/versions/<version>/ready")
    def model_ready(name: str, version: str = "") -> Response:
        if not _in_use(served(), name, version).replicas:
            raise Unavailable(f"No replica of {name} is alive.")
        return answer(ModelReady(name))

    @v2.get("/v2/models/<name>/config")
    @v2.get("/v2/models/<name>/versions/<version>/config")
    def model_config(name: str, version: str = "") -> Response:
        return answer(_configuration(_model(_in_use(served(), name, version).contract)))

    @v2.post("/v2/repository/index")
    def index() -> Response:
        try:
            query = msgspec.json.decode(whole_body() or b"{}", type=_IndexQuery)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadRequest(
                "The body is no JSON object.", 'Send {"ready": true}, or {}.'
            ) from None
        models = _index(served())
        shown = [one for one in models if one.state == "READY" or not query.ready]
        return Response(msgspec.json.encode(shown) + b"\n", content_type="application/json")

    @v2.post("/v2/models/<name>/infer")
    @v2.post("/v2/models/<name>/versions/<version>/infer")
    def infer(name: str, version: str = "") -> Response:
        began = g.began
        coding = request.headers.get("Content-Encoding", "")
        with inflater.plain(whole_body(), coding) as body:
            with reading:
                asked = tensors.read(body, _json_bytes())

            def in_use() -> str:
                return _in_use(served(), name, version).contract.version

            if version:
                in_use()

            terms = Terms(
                deadline=classifier.deadline(began, asked.deadline_ms),
                top_k=asked.top_k,
                priority=asked.priority,
                trace=g.request_id,
                traceparent=g.traceparent,
            )

            def one(at: int, left: Left) -> Result:
                picture, terms_of_one = asked.pictures[at], terms._replace(left=left)
                if asked.size is None:
                    file = bytes(picture)
                    return classifier.classify(file, terms_of_one, began=began, model=name).result
                height, width = asked.size
                return classifier.classify_pixels(
                    picture, terms_of_one, height=height, width=width, model=name
                )

            results = _of_one_version(one, len(asked.pictures), hands, in_use, sender_left())
            if version not in ("", results[0].version):
                raise StaleContract(f"Version {version} of {name} is being replaced.")
        body, json_bytes = tensors.answer(asked, results)
        if json_bytes is None:
            return Response(body, content_type="application/json")
        response = Response(body, content_type="application/octet-stream")
        response.headers[HEADER] = str(json_bytes)
        return response

    return v2


def _of_one_version(
    one: Callable[[int, Left], Result],
    count: int,
    hands: Hands,
    in_use: Callable[[], str],
    left: Left,
) -> list[Result]:
    """What ``one`` makes of each of ``count`` pictures; again, where the model is replaced
    meanwhile and not all results are of the version that is then ``in_use``."""
    results: dict[int, Result] = {}
    missing = list(range(count))
    for _ in range(PREPARATIONS):
        results |= zip(missing, _each(one, missing, count, hands, left), strict=True)
        if len({result.version for result in results.values()}) == 1:
            return [results[at] for at in range(count)]
        version = in_use()
        missing = [at for at in range(count) if results[at].version != version]
    raise StaleContract("The model was replaced again and again.")


def _each(
    one: Callable[[int, Left], Result], pictures: list[int], count: int, hands: Hands, left: Left
) -> list[Result]:
    if count == 1:
        return [one(0, left)]
    try:
        return hands.each(lambda at, useless: one(pictures[at], useless), len(pictures), left)
    except PartFailed as failed:
        error = from_exception(failed.error)
        if not isinstance(error, SenderLeft):
            error.detail = f"Picture {pictures[failed.at]} (from 0) of {count}: {error.detail}"
        raise error from failed.error


def _in_use(models: tuple[Served, ...], name: str, version: str) -> Served:
    """The version of ``name`` that is in use, which is the only one that can be asked for."""
    if not models:
        raise Unavailable("No model has introduced itself to the broker yet.")
    for served in models:
        # Of several versions the one in use is listed first.
        if served.contract.model == name:
            if version not in ("", served.contract.version):
                raise UnknownModel(
                    f"Version {version!r} of {name} is not in use.",
                    f"Use {served.contract.version}, or none.",
                )
            return served
    names = dict.fromkeys(served.contract.model for served in models)
    raise UnknownModel(f"No model is called {name!r}.", f"Use {' or '.join(names)}.")


def _model(contract: Contract) -> Model:
    shapes = {FILES: (-1, 1), PIXELS: (-1, contract.height, contract.width, 3)}
    return Model(
        name=contract.model,
        versions=(contract.version,),
        platform=PLATFORM,
        inputs=tuple(Tensor(name, datatype, shapes[name]) for name, datatype in INPUTS.items()),
        outputs=tuple(Tensor(name, datatype, (-1, -1)) for name, datatype in OUTPUTS.items()),
    )


def _configuration(model: Model) -> Configuration:
    return Configuration(
        name=model.name,
        platform=model.platform,
        max_batch_size=MAX_PICTURES,
        # Exactly one of them; the configuration has no way to say it.
        input=tuple(_configured(tensor, optional=True) for tensor in model.inputs),
        output=tuple(_configured(tensor) for tensor in model.outputs),
    )


def _configured(tensor: Tensor, *, optional: bool = False) -> Configured:
    return Configured(tensor.name, _CONFIGURED[tensor.datatype], tensor.shape[1:], optional)


def _index(models: tuple[Served, ...]) -> Iterator[Indexed]:
    in_use: dict[str, str] = {}
    for served in models:
        name, version = served.contract.model, served.contract.version
        used = in_use.setdefault(name, version)
        if version != used:
            yield Indexed(name, version, "UNAVAILABLE", f"version {used} is in use")
        elif not served.replicas:
            yield Indexed(name, version, "UNAVAILABLE", "no replica is alive")
        else:
            yield Indexed(name, version, "READY")


def _json_bytes() -> int | None:
    text = request.headers.get(HEADER)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest(f"{HEADER} cannot be {text!r}.", "It is the length of the JSON in bytes.")
    return int(text)
