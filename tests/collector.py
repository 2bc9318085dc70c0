"""A collector of OpenTelemetry for tests: it takes spans over HTTP and keeps them."""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wired
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, slots=True)
class Told:
    """A span as it came; ids are hexadecimal, times nanoseconds since 1970."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    """Empty for one that begins a trace."""
    kind: str
    began: int
    ended: int
    failed: bool
    attributes: dict[str, str | int | float]


class Collector:
    """Listens at a port of this machine for as long as it is entered."""

    def __init__(self, port: int = 0) -> None:
        self._spans: list[Told] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 - self is the collector
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                self._spans += _spans(ExportTraceServiceRequest.FromString(body))
                handler.send_response(200)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(handler, *_: object) -> None:  # noqa: N805
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def settings(self) -> dict[str, str]:
        """For a process that is to send its spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def spans(self) -> list[Told]:
        """All that have come, in the order in which they began."""
        return sorted(self._spans, key=lambda span: span.began)

    def of(self, trace: str) -> list[Told]:
        """Those of one trace."""
        return [span for span in self.spans() if span.trace == trace]


def _spans(request: ExportTraceServiceRequest) -> list[Told]:
    return [
        Told(
            service=str(_attributes(resource.resource.attributes)["service.name"]),
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            kind=Wired.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
            began=span.start_time_unix_nano,
            ended=span.end_time_unix_nano,
            failed=span.status.code == Status.STATUS_CODE_ERROR,
            attributes=_attributes(span.attributes),
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _attributes(given: "list[KeyValue]") -> dict[str, str | int | float]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in given}
