"""Where Prometheus reads a process of this package: ``GET /metrics`` at a port of its own.

Rules:
- A thread of its own answers, one connection after the other, and gives none more than TIMEOUT_S:
  whoever reaches the port can make others wait there, but takes nothing from the process.
- It speaks to nobody but its collectors, and asks the network for no name but the one to bind.
"""

import contextlib
import logging
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from modelserver.config import ConfigError
from wire import Distribution

log = logging.getLogger("Scrape")

PATH: Final = "/metrics"
TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.1
"""How long stopping takes at most."""


@contextlib.contextmanager
def served(variable: str, address: str, *collectors: Collector) -> Iterator[int]:
    """What ``collectors`` and the process itself have to tell, at ``address`` (host:port, port 0
    for any that is free) for as long as the block lasts; nowhere for an empty one. Gives the port.

    A collector that raises TimeoutError fails the scrape, and Prometheus sees it.

    Raises:
        ConfigError: The address, which ``variable`` set, cannot be used.
    """
    if not address:
        yield 0
        return
    registry = CollectorRegistry()
    for collector in (*collectors, ProcessCollector(registry=None)):
        registry.register(collector)
    try:
        server = _Server(address, registry)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{variable} cannot be {address!r}: {error}.") from None
    thread = threading.Thread(
        target=server.serve_forever, args=(POLL_S,), name="scrape", daemon=True
    )
    with server:
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    measured: Distribution,
    unit: float = 1.0,
) -> None:
    """Another child of ``family``: what was ``measured``, each number times ``unit``."""
    bounds = [*(f"{bound * unit:g}" for bound in measured.bounds), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(measured.counts)), strict=True))
    family.add_metric(labels, buckets, measured.total * unit)


class _Server(socketserver.TCPServer):
    allow_reuse_address = True

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        host, _, port = address.rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        self.address_family, *_, (resolved, *_) = found[0]
        self.registry = registry
        super().__init__((str(resolved), int(port)), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("%s was not answered", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, f"There is only {PATH} here")
            return
        try:
            body = generate_latest(self.server.registry)
        except TimeoutError as error:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base's word
        log.debug(format, *args)
