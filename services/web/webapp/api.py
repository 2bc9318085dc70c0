"""The HTTP API: pictures in, classes out as JSON; and the two questions of an operator.

What is taken and given here are types; `openapi` makes the API's description out of them.
"""

import time
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from flask import Blueprint, Response, g, request
from msgspec.structs import asdict

from webapp.answers import ModelName, answer_of
from webapp.archives import Upload
from webapp.classifier import Classified, Classifier
from webapp.envelope import answer, note_timing
from webapp.errors import BadRequest
from webapp.many import MEDIA as NDJSON
from webapp.many import Many
from webapp.presence import Left, sender_left
from webapp.status import Watch
from webapp.terms import Terms
from webapp.uploads import CLASSIFY, INSPECT, Limits, picture_in_body, pictures_in_body
from wire import ModelStatus, ScaleAdvice, Served
from wire.contract import Filter
from wire.messages import Priority

READY_S: Final = 1.0
"""How long the broker may take to say who is alive; probes give up soon after."""
_REMEMBERED: Final = 64
"""Queries that need not be read again; the head of a request bounds how long one is."""


class ModelQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What may stand behind the question mark wherever a picture is sent."""

    model: Annotated[
        str,
        msgspec.Meta(
            max_length=64,
            description="The name of a model; without it, the service's first. "
            "GET /api/v1/models lists them.",
        ),
    ] = ""


class Query(ModelQuery, frozen=True, kw_only=True):
    """What may stand there when it is classified."""

    top_k: Annotated[
        int,
        msgspec.Meta(ge=1, le=100, description="A whole number from 1 to 100: so many classes."),
    ] = 5
    deadline_ms: Annotated[
        int,
        msgspec.Meta(
            ge=100,
            le=600_000,
            description="A whole number from 100 to 600000: so many milliseconds may pass from the "
            "last byte of the upload to the answer. The service's own limit stays.",
        ),
    ] = 600_000
    priority: Annotated[
        Priority | msgspec.UnsetType,
        msgspec.Meta(
            description="Either interactive, which one picture is by itself, or bulk, which waits "
            "for those."
        ),
    ] = msgspec.UNSET


Asked = TypeVar("Asked", bound=ModelQuery)


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture is, and what is done to it before a model sees it."""

    format: str
    bytes: int
    """The length of the file."""
    width: int
    """In pixels, when it is turned upright; so is the height."""
    height: int
    mode: str
    """How its pixels are stored, as Pillow calls it: L is grey, P a palette."""
    has_alpha: bool
    has_profile: bool
    """It has a colour profile, which is ignored."""
    orientation: int
    """1 to 8, by its EXIF tag; 1 is upright, or nothing said."""
    frames: int
    """Of an animation; only the first is looked at."""
    model: ModelName
    """For which the picture was prepared: another may warn of other things."""
    warnings: tuple[str, ...]
    """Those that come with an answer."""
    request_id: str


class ModelInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a model makes of a picture before it looks at it."""

    width: int
    """In pixels."""
    height: int
    crop: float
    """The share of the short side that the central crop keeps."""
    filter: Filter


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model, and the replicas of it that are alive."""

    name: str
    version: str
    input: ModelInput
    classes: int
    replicas: tuple[str, ...]


class Models(msgspec.Struct, frozen=True):
    """Every model that is known, the one that is used by default first."""

    models: tuple[ServedModel, ...]


class ModelScale(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas the load of a model needs at this moment, and what that follows from."""

    name: str
    version: str
    wanted: int | None
    """None before anything was measured."""
    present: int
    queued: int
    """Requests that wait for a replica."""
    offered_per_second: float | None
    replica_per_second: float | None
    """What one replica gets through with when it has all it can take."""
    objective_ms: float
    """The wait in the queue that 95 % of all requests should stay below."""
    why: str
    """One sentence for a person."""


class Scale(msgspec.Struct, frozen=True):
    """The advice for every model in use."""

    models: tuple[ModelScale, ...]


class Health(msgspec.Struct, frozen=True):
    """One word about the service, and the replicas that it rests on."""

    status: str
    replicas: tuple[str, ...] = ()


def blueprint(
    classifier: Classifier, watch: Watch, many: Many, limits: Limits, description: bytes
) -> Blueprint:
    """The routes for programs, answered by ``classifier`` and ``watch``; ``description`` is given
    as it is."""
    api = Blueprint("api", __name__)

    @api.post(CLASSIFY)
    def classify() -> Response:
        query = _query(Query)
        about = g._get_current_object()
        accepted = request.accept_mimetypes
        upload = pictures_in_body(
            limits, always_many=accepted[NDJSON] > accepted["application/json"]
        )
        if not isinstance(upload, bytes):
            return _each(upload, query)
        terms = Terms(
            deadline=classifier.deadline(about.began, query.deadline_ms),
            top_k=query.top_k,
            priority="interactive" if query.priority is msgspec.UNSET else query.priority,
            trace=about.request_id,
            traceparent=about.traceparent,
            left=sender_left(),
        )
        classified = classifier.classify(upload, terms, began=about.began, model=query.model)
        note_timing(classified.timing_ms, classified.cache)
        return answer(answer_of(classified, about.request_id))

    def _each(uploads: Iterator[Upload], query: Query) -> Response:
        traceparent = g.traceparent

        def classify(file: bytes, item_id: str, began: float, left: Left) -> Classified:
            terms = Terms(
                deadline=classifier.deadline(began, query.deadline_ms),
                top_k=query.top_k,
                priority="bulk" if query.priority is msgspec.UNSET else query.priority,
                trace=item_id,
                traceparent=traceparent,
                left=left,
            )
            return classifier.classify(file, terms, began=began, model=query.model)

        leave = many.enter()
        lines = many.lines(
            uploads, classify, began=g.began, request_id=g.request_id, left=sender_left()
        )
        response = Response(lines, content_type=NDJSON)
        response.headers["X-Accel-Buffering"] = "no"  # Or nginx would collect the lines.
        response.call_on_close(leave)
        return response

    @api.post(INSPECT)
    def inspect() -> Response:
        query = _query(ModelQuery)
        file = picture_in_body(limits)
        inspected = classifier.inspect(file, began=g.began, model=query.model)
        picture, contract = inspected.picture, inspected.contract
        return answer(
            Inspected(
                format=picture.format,
                bytes=len(file),
                width=picture.width,
                height=picture.height,
                **asdict(inspected.facts),
                model=ModelName(contract.model, contract.version),
                warnings=picture.warnings,
                request_id=g.request_id,
            )
        )

    @api.get("/api/v1/models")
    def models() -> Response:
        served = classifier.models(deadline=time.monotonic() + READY_S)
        return answer(Models(tuple(map(_served_model, served))))

    @api.get("/api/v1/status")
    def status() -> Response:
        return answer(watch.look(deadline=time.monotonic() + READY_S))

    @api.get("/api/v1/scale")
    def scale() -> Response:
        seen = watch.look(deadline=time.monotonic() + READY_S)
        return answer(
            Scale(
                tuple(
                    _model_scale(model, model.scale)
                    for model in seen.models
                    if model.version and isinstance(model.scale, ScaleAdvice)
                )
            )
        )

    @api.get("/api/openapi.json")
    def openapi() -> Response:
        return Response(description, content_type="application/json")

    @api.get("/healthz")
    def healthz() -> Response:
        return answer(Health("alive"))

    @api.get("/readyz")
    def readyz() -> Response:
        replicas = classifier.replicas(deadline=time.monotonic() + READY_S)
        return answer(Health("ready", replicas))

    return api


def _query(kind: type[Asked]) -> Asked:
    asked: Asked = _understood(kind, request.query_string)
    return asked


@lru_cache(_REMEMBERED)
def _understood(kind: type[Asked], _query_string: bytes) -> Asked:
    """What the request that is being handled asks for. Programs ask for the same all the time."""
    given = {}
    for name, allowed in _parameters(kind).items():
        if (text := request.args.get(name)) is None:
            continue
        try:
            given[name] = msgspec.convert(text, allowed, strict=False)
        except msgspec.ValidationError:
            wanted = msgspec.json.schema(allowed)["description"]
            raise BadRequest(f"{name} cannot be {text!r}.", wanted) from None
    return kind(**given)


@cache
def _parameters(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Their names and types. To put them together takes longer than to parse a request."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _model_scale(model: ModelStatus, advice: ScaleAdvice) -> ModelScale:
    return ModelScale(name=model.name, version=model.version, queued=model.queued, **asdict(advice))


def _served_model(served: Served) -> ServedModel:
    contract = served.contract
    return ServedModel(
        name=contract.model,
        version=contract.version,
        input=ModelInput(
            width=contract.width,
            height=contract.height,
            crop=contract.crop,
            filter=contract.filter,
        ),
        classes=contract.classes,
        replicas=served.replicas,
    )
