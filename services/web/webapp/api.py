"""The HTTP API: pictures in, classes out as JSON; and the two questions of an operator.

What is taken and given here are types; `openapi` makes the API's description out of them.
"""

import time
from typing import Annotated, Final

import msgspec
from flask import Blueprint, Response, g, request

from webapp.classifier import Classifier, TimingMs
from webapp.envelope import answer, note_timing
from webapp.errors import BadRequest
from webapp.presence import sender_left
from webapp.uploads import picture_in_body
from wire import Prediction, Served
from wire.contract import Filter
from wire.messages import Priority

READY_S: Final = 1.0
"""How long the broker may take to say who is alive; probes give up soon after."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What may stand behind the question mark when a picture is classified."""

    model: Annotated[
        str,
        msgspec.Meta(
            max_length=64,
            description="The name of a model; without it, the service's first. "
            "GET /api/v1/models lists them.",
        ),
    ] = ""
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


_FIELDS: Final = msgspec.structs.fields(Query)


class ModelName(msgspec.Struct, frozen=True):
    """Which model it was."""

    name: str
    version: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture shows, and how that was found out."""

    model: ModelName
    predictions: tuple[Prediction, ...]
    replica: str
    attempt: int
    batch_size: int
    request_id: str
    warnings: tuple[str, ...]
    timing_ms: TimingMs


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


class Health(msgspec.Struct, frozen=True):
    """One word about the service, and the replicas that it rests on."""

    status: str
    replicas: tuple[str, ...] = ()


def blueprint(classifier: Classifier, description: bytes) -> Blueprint:
    """The routes for programs, answered by ``classifier``; ``description`` is given as it is."""
    api = Blueprint("api", __name__)

    @api.post("/api/v1/classify")
    def classify() -> Response:
        picture = picture_in_body()
        query = _query()
        classified = classifier.classify(
            picture,
            model=query.model,
            top_k=query.top_k,
            deadline_ms=query.deadline_ms,
            priority="interactive" if query.priority is msgspec.UNSET else query.priority,
            began=g.began,
            trace=g.request_id,
            traceparent=g.traceparent,
            left=sender_left(),
        )
        note_timing(classified.timing_ms)
        result = classified.result
        return answer(
            Answer(
                model=ModelName(result.model, result.version),
                predictions=result.predictions,
                replica=result.replica,
                attempt=result.attempt,
                batch_size=result.batch_size,
                request_id=g.request_id,
                warnings=classified.picture.warnings,
                timing_ms=classified.timing_ms,
            )
        )

    @api.get("/api/v1/models")
    def models() -> Response:
        served = classifier.models(deadline=time.monotonic() + READY_S)
        return answer(Models(tuple(map(_served_model, served))))

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


def _query() -> Query:
    given = {}
    for field in _FIELDS:
        if (text := request.args.get(field.name)) is None:
            continue
        try:
            given[field.name] = msgspec.convert(text, field.type, strict=False)
        except msgspec.ValidationError:
            wanted = msgspec.json.schema(field.type)["description"]
            raise BadRequest(f"{field.name} cannot be {text!r}.", wanted) from None
    return Query(**given)


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
