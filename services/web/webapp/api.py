"""The HTTP API: one picture in, its classes out as JSON; and the two questions of an operator."""

import time
from typing import Annotated, Final

import msgspec
from flask import Blueprint, Response, g, request

from webapp.classifier import Classifier, TimingMs
from webapp.envelope import answer, note_timing
from webapp.errors import BadRequest
from webapp.presence import sender_left
from webapp.uploads import picture_in_body
from wire import Prediction

READY_S: Final = 1.0
"""How long the broker may take to say who is alive; probes give up soon after."""

TopK = Annotated[int, msgspec.Meta(ge=1, le=100)]


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


class Health(msgspec.Struct, frozen=True):
    """One word about the service, and the replicas that it rests on."""

    status: str
    replicas: tuple[str, ...] = ()


def blueprint(classifier: Classifier) -> Blueprint:
    """The routes for programs, answered by ``classifier``."""
    api = Blueprint("api", __name__)

    @api.post("/api/v1/classify")
    def classify() -> Response:
        classified = classifier.classify(
            picture_in_body(),
            model=request.args.get("model", ""),
            top_k=_top_k(request.args.get("top_k", "5")),
            began=g.began,
            trace=g.request_id,
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

    @api.get("/healthz")
    def healthz() -> Response:
        return answer(Health("alive"))

    @api.get("/readyz")
    def readyz() -> Response:
        replicas = classifier.replicas(deadline=time.monotonic() + READY_S)
        return answer(Health("ready", replicas))

    return api


def _top_k(text: str) -> int:
    try:
        return msgspec.convert(text, TopK, strict=False)
    except msgspec.ValidationError:
        raise BadRequest(
            f"top_k cannot be {text!r}.", "Give a whole number from 1 to 100, or leave it out."
        ) from None
