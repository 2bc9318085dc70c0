"""Puts the web tier together."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from imaging import DecoderPool
from imaging.pool import TIMEOUT_S
from webapp import api, envelope, inference, openapi, pages
from webapp.apikeys import read_api_keys
from webapp.classifier import Classifier
from webapp.client import ModelClient
from webapp.config import Config
from webapp.many import Many
from webapp.metrics import PATH, Metrics
from webapp.status import Watch
from webapp.uploads import InMemoryRequest, Limits

if TYPE_CHECKING:
    from telemetry.spans import Tracer

CLASSIFIER = "classifier"
"""Where ``app.extensions`` holds the Classifier, for whoever starts and stops the process."""
TRACER = "tracer"
"""And where the Tracer, None where nothing is traced."""
METRICS = "metrics"
"""Where it holds the Metrics, for whoever answers without the application."""


class App(Flask):
    """Flask, for requests that stay in memory and functions that are no coroutines."""

    request_class = InMemoryRequest

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Called by Flask for each function of a request, which it would look into every time."""
        return func


def create_app(
    config: Config,
    client: ModelClient | None = None,
    decoders: DecoderPool | None = None,
    tracer: "Tracer | None" = None,
) -> Flask:
    """The web tier as a WSGI application. Nothing is opened or started before the first use.

    Args:
        config: The settings.
        client: The way to the broker; made from ``config`` if left out.
        decoders: Where pictures are decoded; made from ``config`` if left out.
        tracer: Is told what goes on in which request.
    """
    client = client or ModelClient(config.broker, config.keys())
    metrics = Metrics()
    classifier = Classifier(config, client, decoders or _decoders(config), metrics, tracer)
    watch = Watch(client)
    app = App("webapp")
    # The first length that is too much: at this one, reading stops.
    app.config["MAX_CONTENT_LENGTH"] = config.max_upload_bytes + 1
    # A picture sent as a plain form field is missing as a file, and not too large.
    app.config["MAX_FORM_MEMORY_SIZE"] = None
    app.extensions[CLASSIFIER] = classifier
    app.extensions[METRICS] = metrics
    app.extensions[TRACER] = tracer
    envelope.install(app, metrics, tracer)
    if keys := read_api_keys(config.api_keys_file):
        keys.guard(app)
    description = openapi.document(keyed=keys is not None)
    app.register_blueprint(pages.blueprint(classifier, watch, description))
    many = Many(config.deadline_ms, metrics)
    app.register_blueprint(
        api.blueprint(classifier, watch, many, Limits.of(config), msgspec.json.encode(description))
    )
    app.add_url_rule(
        PATH, view_func=lambda: Response(metrics.text(), content_type=CONTENT_TYPE_PLAIN_0_0_4)
    )
    app.register_blueprint(inference.blueprint(classifier, config))
    return app


def _decoders(config: Config) -> DecoderPool:
    # A picture is given up well before its request: only then is it known that the picture was
    # at fault, and not that too little time was left for it.
    return DecoderPool(config.decoders, timeout_s=min(TIMEOUT_S, config.deadline_ms / 2000))
