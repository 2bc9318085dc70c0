"""What is answered about a picture, alone or as one of many."""

import msgspec

from webapp.classifier import Classified, TimingMs
from webapp.envelope import Problem
from webapp.sharing import Cache
from wire import Prediction


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
    cache: Cache
    """What spared a replica the work: an earlier answer (hit), or another request for the same
    pixels that was under way (joined). Nothing did: miss, or off where nothing is shared."""
    timing_ms: TimingMs


class AnswerLine(Answer, frozen=True, kw_only=True):
    """What one of many pictures shows. Its deadline, and so its timing, began at its turn."""

    id: str
    """What its sender calls the file, as far as that can be printed, or else its index."""
    index: int
    """Which of the files it is; the first is 0."""


class ProblemLine(Problem, frozen=True, kw_only=True):
    """Why one of many files has no answer; the others may have theirs."""

    id: str
    """As in an AnswerLine."""
    index: int
    retry_after_s: int | None
    """So many seconds until it is worth to try again, where it ever is."""


def answer_of(classified: Classified, request_id: str) -> Answer:
    """What is told of ``classified`` to whoever made the request with this id."""
    result = classified.result
    return Answer(
        model=ModelName(result.model, result.version),
        predictions=result.predictions,
        replica=result.replica,
        attempt=result.attempt,
        batch_size=result.batch_size,
        request_id=request_id,
        warnings=classified.picture.warnings,
        cache=classified.cache,
        timing_ms=classified.timing_ms,
    )
