"""What every answer carries, whichever route made it.

Rules:
- Every answer has an id, its timing and the security headers, and is stored by nobody but for
  the stylesheet.
- Every error has one shape: a problem document (RFC 9457) where programs ask, a page that says
  the same where people do. Only the inference protocol under /v2 has a shape of its own.
- What brings a picture is a span where there is a tracer, and all that is done for it a part of it.
"""

import logging
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from flask import Flask, Response, g, render_template, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

from webapp.classifier import TimingMs
from webapp.errors import Unauthorised, WebError, from_exception
from webapp.ids import new_id
from webapp.metrics import NO_ROUTE, PATH, Metrics
from webapp.presence import arrived
from webapp.sharing import Cache
from wire import log_fields

if TYPE_CHECKING:
    from telemetry.spans import Span, Tracer

HEADERS: Final = {
    # A picture that a person chose is shown out of the browser's own memory, which is blob:.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

JSON: Final = "application/json"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

logger = logging.getLogger("webapp")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as programs see it: RFC 9457, with ``remedy`` added."""

    type: str
    """``urn:sightline:problem:`` and the error's kind."""
    title: str
    status: int
    detail: str
    remedy: str
    instance: str
    """The id of the request."""


class InferenceProblem(msgspec.Struct, frozen=True):
    """An error as the Open Inference Protocol has it."""

    error: str
    """What is wrong, and what would be accepted."""


def answer(body: msgspec.Struct, *, status: int = 200, media: str = JSON) -> Response:
    """``body`` as JSON."""
    return Response(msgspec.json.encode(body) + b"\n", status, content_type=media)


def problem(error: WebError, request_id: str) -> bytes:
    """``error`` as JSON, for whoever made the request with this id."""
    return msgspec.json.encode(problem_of(error, request_id)) + b"\n"


def problem_of(error: WebError, request_id: str) -> Problem:
    """What is said of ``error`` to whoever made the request with this id."""
    return Problem(
        type=f"urn:sightline:problem:{error.kind}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        remedy=error.remedy,
        instance=request_id,
    )


def note_timing(timing_ms: TimingMs, cache: Cache) -> None:
    """Has the answer to the request that is being handled carry both in a header."""
    about = g._get_current_object()
    about.timing_ms = msgspec.structs.asdict(timing_ms)
    about.cache = cache


def install(app: Flask, metrics: Metrics, tracer: "Tracer | None" = None) -> None:
    """Puts the envelope around every answer of ``app``, and counts it."""
    app.before_request(_open)
    app.after_request(partial(_count, metrics))
    app.after_request(_seal)
    app.register_error_handler(Exception, _refuse)
    if tracer is not None:
        app.before_request(partial(_begin_span, tracer))
        app.after_request(_end_span)


def _open() -> None:
    about, headers = g._get_current_object(), request.headers
    about.began = arrived()
    given = headers.get("X-Request-Id", "")
    about.traceparent = _valid_traceparent(headers.get("traceparent", ""))
    about.request_id = given if _REQUEST_ID.fullmatch(given) else new_id()


def _begin_span(tracer: "Tracer") -> None:
    rule = request.url_rule
    if rule is None or request.method != "POST":
        return  # Probes and whoever looks at a page would bury the pictures.
    g.span = tracer.begin(
        f"POST {rule.rule}",
        g.traceparent,
        since=g.began,
        kind="server",
        attributes={
            "http.request.method": "POST",
            "http.route": rule.rule,
            "url.path": request.path,
            "url.scheme": request.scheme,
            "sightline.request_id": g.request_id,
        },
    )
    g.traceparent = g.span.traceparent


def _end_span(response: Response) -> Response:
    span: Span | None = g.get("span")
    if span is not None:
        span.tell({"http.response.status_code": response.status_code})
        if response.status_code >= 500:
            span.fail(str(response.status_code), g.get("refusal", ""))
        # Many pictures are answered while the answer goes out.
        response.call_on_close(span.end)
    return response


def _valid_traceparent(given: str) -> str:
    """``given`` as it was, without what a version to come may add; nothing for an invalid one, as
    W3C Trace Context asks for (3.2.2 and 4.3)."""
    known, beyond = given[:55], given[55:]
    if not _TRACEPARENT.fullmatch(known):
        return ""
    return "" if beyond and (known.startswith("00") or beyond[0] != "-") else known


def _refuse(error: Exception) -> Response | HTTPException:
    if isinstance(error, HTTPException) and error.code is not None and error.code < 400:
        return error  # A redirect is raised, too.
    shown = from_exception(error)
    if type(shown) is WebError:
        logger.exception("request %s met an unforeseen error", g.request_id, extra=_log_fields())
    elif logger.isEnabledFor(logging.DEBUG):
        text = "request %s is refused with %d: %s"
        logger.debug(text, g.request_id, shown.status, shown.detail, extra=_log_fields())
    g.refusal = shown.detail
    response = _shown(shown)
    if shown.retry_after_s is not None:
        response.headers["Retry-After"] = str(shown.retry_after_s)
    if isinstance(shown, Unauthorised):
        response.headers["WWW-Authenticate"] = f'{shown.challenge} realm="Sightline"'
    if shown.allow:
        response.headers["Allow"] = ", ".join(shown.allow)
    return response


def _log_fields() -> dict[str, str]:
    return log_fields(g.request_id, g.traceparent or msgspec.UNSET)


def _shown(error: WebError) -> Response:
    if f"{request.path}/".startswith("/v2/"):
        return answer(InferenceProblem(f"{error.detail} {error.remedy}"), status=error.status)
    return _problem(error) if _asked_by_program() else _page(error)


def wants_json() -> bool:
    """Whether whoever sent the request that is being handled prefers JSON to a page."""
    return request.accept_mimetypes.best_match(("text/html", "application/json")) == JSON


def _asked_by_program() -> bool:
    if request_ctx.url_adapter is None:
        return True  # The Host header is no name: no browser sends such, and no page can link.
    if request.path.startswith("/api/") or request.path in ("/healthz", "/readyz", PATH):
        return True
    return wants_json()


def _problem(error: WebError) -> Response:
    media = "application/problem+json"
    return Response(problem(error, g.request_id), error.status, content_type=media)


def _page(error: WebError) -> Response:
    page = render_template("error.html", error=error, request_id=g.request_id)
    return Response(page, error.status)


def _count(metrics: Metrics, response: Response) -> Response:
    method, rule, began = request.method, request.url_rule, g.began
    route = rule.rule if rule else NO_ROUTE

    def answered() -> None:
        metrics.answered(method, route, response.status_code, time.monotonic() - began)

    # A file goes past what would be called at its end.
    if response.is_streamed and not response.direct_passthrough:
        response.call_on_close(answered)
    else:
        answered()
    return response


def _seal(response: Response) -> Response:
    about, headers = g._get_current_object(), response.headers
    timing_ms = about.get("timing_ms", {}) | {"total": (time.monotonic() - about.began) * 1000}
    metrics = [f"{name};dur={spent:.1f}" for name, spent in timing_ms.items()]
    if "cache" in about:
        metrics.append(f"cache;desc={about.cache}")
    headers.extend(HEADERS)
    headers.add("X-Request-Id", about.request_id)
    headers.add("Server-Timing", ", ".join(metrics))
    if request.endpoint != "static" or response.status_code >= 400:
        headers["Cache-Control"] = "no-store"
    return response
