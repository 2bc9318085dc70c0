"""Spans of a distributed trace, by OpenTelemetry. Nobody else imports it.

Rules:
- A request's place in a trace is a traceparent (W3C Trace Context), as text. Where it says that
  the trace is not sampled no span is made.
- Who ends a span puts it into a bounded queue and goes on; a thread sends what is there. While the
  collector is away spans are dropped, and the log says so once, and once when it is back.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Literal

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

FLUSH_S: Final = 2.0
"""How long the end of the process may wait for its last spans to be sent."""

JUMP_NS: Final = 50_000_000
"""When the wall clock was set by more than this, spans are of the new time."""

UNSAMPLED: Final = ("00", "02")
"""How the traceparent ends of a trace that is not sampled (W3C Trace Context level 2, 3.2.2.5)."""

Attributes = Mapping[str, str | int | float]
Kind = Literal["internal", "server", "client", "consumer"]

_KINDS: Final[dict[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
_propagator: Final = TraceContextTextMapPropagator()

log = logging.getLogger("Tracing")


class Span:
    """Something that goes on. Its times are seconds of ``time.monotonic()``."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: OtelSpan) -> None:
        self._span: Final = span
        context = span.get_span_context()
        self.traceparent: Final = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        )
        """For whoever does a part of it."""

    def tell(self, attributes: Attributes) -> None:
        """What is known of it by now."""
        self._span.set_attributes(attributes)

    def fail(self, kind: str, words: str = "") -> None:
        """It came to nothing: ``kind`` is one of a few, ``words`` are for a person."""
        self._span.set_attribute(ERROR_TYPE, kind)
        self._span.set_status(Status(StatusCode.ERROR, words))

    def end(self, until: float | None = None) -> None:
        """It is over, now or since ``until``."""
        self._span.end(_wall_clock.at(time.monotonic() if until is None else until))


class Tracer:
    """Makes the spans of one process and has them sent."""

    def __init__(self, service: str, endpoint: str) -> None:
        """``service`` is its name unless the environment has one; ``endpoint`` is for the log, the
        exporter reads its own settings."""
        named = {SERVICE_NAME: service, **OTELResourceDetector().detect().attributes}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        exporter = _Watched(OTLPSpanExporter(), endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sightline")
        log.info("%s sends spans to %s", service, endpoint)

    def begin(
        self,
        name: str,
        parent: str,
        *,
        since: float | None = None,
        kind: Kind = "internal",
        attributes: Attributes | None = None,
    ) -> Span:
        """A span that goes on now, begun now or at ``since``.

        ``parent`` is the traceparent of what it is a part of; with an empty one a trace begins.
        """
        span = self._tracer.start_span(
            name,
            context=_propagator.extract({"traceparent": parent}),
            kind=_KINDS[kind],
            attributes=attributes,
            start_time=_wall_clock.at(time.monotonic() if since is None else since),
        )
        return Span(span)

    @contextmanager
    def span(
        self,
        name: str,
        parent: str,
        *,
        kind: Kind = "internal",
        attributes: Attributes | None = None,
    ) -> Iterator[Span]:
        """A span for what is done within; it fails with what is raised there."""
        span = self.begin(name, parent, kind=kind, attributes=attributes)
        try:
            yield span
        except Exception as error:
            span.fail(type(error).__name__, str(error))
            raise
        finally:
            span.end()

    def record(
        self,
        name: str,
        parent: str,
        *,
        since: float,
        until: float,
        kind: Kind = "internal",
        attributes: Attributes | None = None,
        failure: tuple[str, str] | None = None,
    ) -> str:
        """A span for what is over; ``failure`` is as for `Span.fail`. Returns its traceparent, or
        ``parent`` where nobody keeps the trace: then this has to cost next to nothing."""
        if parent[53:] in UNSAMPLED:
            return parent
        span = self.begin(name, parent, since=since, kind=kind, attributes=attributes)
        if failure is not None:
            span.fail(*failure)
        span.end(until)
        return span.traceparent

    def close(self) -> None:
        """Send what is left, within FLUSH_S."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(FLUSH_S)


class _Watched(SpanExporter):
    """Tells when spans cease to arrive, and when they arrive again."""

    def __init__(self, exporter: OTLPSpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = False
        self._complaint = _Complaint()
        # The exporter complains at every try, the queue about every span.
        complaints = logging.getLogger(OTLPSpanExporter.__module__)
        complaints.addHandler(self._complaint)
        complaints.propagate = False
        logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._complaint.words = ""
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self._lost:
            text = "spans do not reach %s and are dropped until they do: %s"
            log.warning(text, self._endpoint, self._complaint.words)
        elif self._lost and not lost:
            log.info("spans reach %s again", self._endpoint)
        self._lost = lost
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Complaint(logging.Handler):
    """Keeps the first line, which has the reason; those that follow tell what was tried."""

    words = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words = self.words or record.getMessage()


class _WallClock:
    """What moments of ``time.monotonic()`` are called elsewhere. Nothing is decided by it."""

    def __init__(self) -> None:
        self._offset = 0

    def at(self, moment: float) -> int:
        """``moment`` in nanoseconds since 1970."""
        offset = time.time_ns() - time.monotonic_ns()
        # A thread may lose its turn between the two; only what is more than that is followed.
        if abs(offset - self._offset) > JUMP_NS:
            self._offset = offset
        return self._offset + round(moment * 1e9)


_wall_clock: Final = _WallClock()
