"""Every answer that is not a result, and why it was given.

Rules:
- One tree of exceptions. Whatever is raised anywhere becomes a WebError before it is shown,
  and a WebError holds all that is shown: on a page and in JSON it says the same.
- ``detail`` says what is wrong with this request, ``remedy`` what would be accepted.
- A 4xx is the sender's to change, a 5xx is not. A 503 always says when to try again.
- ``kind`` is for programs: it never changes, while the words may.
"""

from math import ceil
from typing import Final

from werkzeug.exceptions import HTTPException, MethodNotAllowed

import imaging
from wire import Failure, FailureCode


class WebError(Exception):
    """Something on our side broke in a way nobody thought of."""

    status = 500
    kind = "internal"
    title = "Something broke here"
    remedy = "The request itself may be fine. If it fails again, tell us its id."
    retry_after_s: int | None = None
    allow: tuple[str, ...] = ()
    """For 405 only: the methods that this path does take."""

    def __init__(self, detail: str, remedy: str = "", *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy or self.remedy
        self.retry_after_s = retry_after_s or self.retry_after_s


class BadRequest(WebError):
    """The request lacks something or has it in the wrong form."""

    status = 400
    kind = "bad-request"
    title = "The request is not complete"


class UploadTooLarge(WebError):
    """The body is longer than we read."""

    status = 413
    kind = "too-large"
    title = "The upload is too large"


def upload_too_large(limit_bytes: int) -> UploadTooLarge:
    """For what is longer than ``limit_bytes``, whichever way it came."""
    return UploadTooLarge(
        f"The upload is longer than {limit_bytes / 2**20:.3g} MiB.",
        "Send a smaller file; the picture is scaled down in any case.",
    )


class TooManyPictures(WebError):
    """More files in one request than we take."""

    status = 413
    kind = "too-many-pictures"
    title = "Too many pictures in one request"
    remedy = "Send at most 256 pictures at once."


class ArchiveRefused(WebError):
    """An archive, or a file in it, cannot be unpacked."""

    status = 422
    kind = "archive-refused"
    title = "This cannot be unpacked"


class UnknownCoding(WebError):
    """The body is compressed in a way that we cannot undo."""

    status = 415
    kind = "unknown-coding"
    title = "The body is compressed in an unknown way"

    def __init__(self, coding: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"The Content-Encoding {coding!r} is not known.",
            f"Use {' or '.join(known)}, or none.",
        )


class TooSlow(WebError):
    """The request took too long to arrive."""

    status = 408
    kind = "too-slow"
    title = "The upload is too slow"
    remedy = "Try again with a better connection, or send a smaller picture."

    def __init__(self) -> None:
        super().__init__("Nearly nothing of it arrived for ten seconds.")


class TooManyAtOnce(WebError):
    """One client has more connections open than it may."""

    status = 429
    kind = "too-many-at-once"
    title = "Too many requests at once"
    retry_after_s = 1

    def __init__(self, allowed: int) -> None:
        super().__init__(
            f"Your address has {allowed} connections open, and may not have more.",
            "Use a connection for one picture after the other.",
        )


class HeadTooLong(WebError):
    """The request's path and headers are longer than we read."""

    status = 431
    kind = "head-too-long"
    title = "The request's head is too long"
    remedy = "Send a shorter path and fewer or shorter headers."

    def __init__(self) -> None:
        super().__init__("The path and the headers together have more than 32 KiB.")


class NoRoom(WebError):
    """Uploads that are under way take all the memory there is for them."""

    status = 503
    kind = "no-room"
    title = "Too many uploads at the moment"
    remedy = "Try again in a moment."
    retry_after_s = 1


class Unauthorised(WebError):
    """The API asks for a key, and none of its own was given."""

    status = 401
    kind = "unauthorised"
    title = "This needs an API key"
    remedy = "Send it as a header: Authorization: Bearer <your key>."

    def __init__(self, detail: str, *, challenge: str = "Bearer") -> None:
        """``challenge``: how it may be sent; for Basic a browser asks its user."""
        super().__init__(detail)
        self.challenge = challenge
        if challenge == "Basic":
            self.remedy = "Load the page again and give the key as the password, with any name."


class SenderLeft(WebError):
    """Nobody waits for this answer any longer, so nobody will read it; it is for the log."""

    status = 499  # As nginx calls it; there is no number of the standard's for it.
    kind = "sender-left"
    title = "The sender left before the answer"


class HttpRefused(WebError):
    """Flask refused the request before any code of ours saw it."""

    remedy = "The page is at /, the API takes pictures at POST /api/v1/classify."

    def __init__(self, error: HTTPException) -> None:
        super().__init__(error.description or error.name)
        self.status = error.code or 500
        self.title = error.name
        self.kind = error.name.lower().replace(" ", "-")
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            self.allow = tuple(sorted(error.valid_methods))
            self.remedy = f"Use {' or '.join(self.allow)}."


IMAGE_REFUSALS: Final[dict[type[imaging.ImageError], tuple[int, str, str]]] = {
    imaging.Empty: (400, "empty", "There is no picture"),
    imaging.TooLarge: (413, "too-large", "The picture is too large"),
    imaging.NotAnImage: (415, "not-an-image", "This is not a picture we can read"),
    imaging.TooSmall: (422, "too-small", "The picture is too small"),
    imaging.Damaged: (422, "damaged", "The picture is damaged"),
    imaging.TooExpensive: (422, "too-expensive", "The picture takes too much to decode"),
}


class ImageRefused(WebError):
    """The file is not a picture that can be classified."""

    def __init__(self, error: imaging.ImageError) -> None:
        super().__init__(error.detail, error.remedy)
        self.status, self.kind, self.title = IMAGE_REFUSALS.get(
            type(error), (422, "unusable-image", "The picture cannot be used")
        )


class ModelError(WebError):
    """There is no result from a model."""


class Overloaded(ModelError):
    """More is waiting already than can be done in time."""

    status = 503
    kind = "overloaded"
    title = "Too many pictures at the moment"
    remedy = "Try again in a moment."
    retry_after_s = 1


class Unavailable(ModelError):
    """No broker or no replica was there until the deadline."""

    status = 503
    kind = "unavailable"
    title = "No model is running at the moment"
    remedy = "Try again in a few seconds."
    retry_after_s = 2


class DeadlineExceeded(ModelError):
    """Replicas are alive but did not finish in time."""

    status = 504
    kind = "deadline-exceeded"
    title = "The model took too long"
    remedy = "Try again when less is going on."


class StaleContract(ModelError):
    """The pixels were made for a version of the model that has been replaced since."""

    status = 503
    kind = "stale-contract"
    title = "The model is being replaced"
    remedy = "Try again in a moment."
    retry_after_s = 1


class UnknownModel(ModelError):
    """No model of that name is served."""

    status = 404
    kind = "unknown-model"
    title = "There is no such model"
    remedy = "Leave the model out to use the first one."


class Poisoned(ModelError):
    """Replicas died of this very picture, so it is not tried again."""

    status = 422
    kind = "poisoned"
    title = "The model cannot take this picture"
    remedy = "Send another picture, or this one saved anew."


class PictureRefused(ModelError):
    """A replica, which was given the file itself, could not decode it; its words say why and what
    would help."""

    status = 422
    kind = "unusable-image"
    title = "The picture cannot be used"
    remedy = ""


class EngineFailed(ModelError):
    """The model failed on this batch and lives on."""

    status = 502
    kind = "engine-failed"
    title = "The model failed on this picture"
    remedy = "Try again, or send another picture."


class ProtocolError(ModelError):
    """Web and broker do not understand each other: a bug, or two versions that do not fit."""

    status = 502
    kind = "protocol-error"
    title = "Two parts of the service do not understand each other"


FAILURES: Final[dict[FailureCode, type[ModelError]]] = {
    FailureCode.OVERLOADED: Overloaded,
    FailureCode.UNAVAILABLE: Unavailable,
    FailureCode.DEADLINE: DeadlineExceeded,
    FailureCode.STALE_CONTRACT: StaleContract,
    FailureCode.UNKNOWN_MODEL: UnknownModel,
    FailureCode.BAD_PAYLOAD: ProtocolError,
    FailureCode.POISONED: Poisoned,
    FailureCode.ENGINE: EngineFailed,
}


def from_failure(failure: Failure) -> ModelError:
    """The exception for the broker's ``failure``, with its words and its waiting time."""
    retry_after_s = None
    if failure.retry_after_ms is not None:
        retry_after_s = max(1, ceil(failure.retry_after_ms / 1000))
    return FAILURES[failure.code](failure.message, retry_after_s=retry_after_s)


def from_exception(error: Exception) -> WebError:
    """``error`` as the WebError that is shown for it. An unforeseen one shows nothing of itself."""
    match error:
        case WebError():
            return error
        case imaging.Busy():
            return Overloaded("Too many pictures are waiting to be decoded.")
        case imaging.ImageError():
            return ImageRefused(error)
        case HTTPException():
            return HttpRefused(error)
        case _:
            return WebError("The service met an error it does not know.")
