"""Whether this process traces: a Tracer where a collector is named, and nothing at all elsewhere.

Rules:
- The settings are OpenTelemetry's own variables; what is not decided here its SDK reads itself.
- Without a collector no package of OpenTelemetry is imported.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from telemetry.spans import Tracer

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN: Final = "http/protobuf"


class TracingError(ValueError):
    """Traces cannot be sent as the settings want it; the message is one sentence."""


def collector(env: Mapping[str, str]) -> str:
    """Where spans go, empty for nowhere.

    Raises:
        TracingError: It is spoken to in a way that this service does not know.
    """
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    if env.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return ""
    endpoint = _first(env, ENDPOINTS)
    protocol = _first(env, PROTOCOLS)
    if endpoint and protocol not in ("", SPOKEN):
        raise TracingError(
            f"Spans go out as {SPOKEN}, and OTEL_EXPORTER_OTLP_PROTOCOL says {protocol!r}."
        )
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise TracingError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT cannot be {endpoint!r}: it is no http(s) URL."
        )
    return endpoint


def start(service: str, env: Mapping[str, str]) -> "Tracer | None":
    """A Tracer for the process, which is to be called ``service`` unless ``env`` has another name;
    None where no collector is named. To be called after the last fork.

    Raises:
        TracingError: As `collector`.
    """
    endpoint = collector(env)
    if not endpoint:
        return None
    from telemetry.spans import Tracer

    return Tracer(service, endpoint)


@contextmanager
def tracer(service: str, env: Mapping[str, str]) -> Iterator["Tracer | None"]:
    """The same, for as long as it is needed."""
    started = start(service, env)
    try:
        yield started
    finally:
        if started is not None:
            started.close()


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((env[name].strip() for name in names if env.get(name, "").strip()), "")
