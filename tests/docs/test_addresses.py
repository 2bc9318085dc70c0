"""Every URL, route and port in a document is one that something answers at."""

import re
from functools import cache
from pathlib import Path

import pytest
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, RequestRedirect

from modelserver.config import BrokerConfig
from tests.conftest import ROOT
from tests.docs.documents import (
    DEPLOYED,
    DOCUMENTS,
    Command,
    commands,
    each_document,
    spans,
    text,
)
from webapp.app import create_app
from webapp.config import Config

HERE = r"(?:127\.0\.0\.1|localhost|0\.0\.0\.0|web|broker|model|prometheus|grafana|load)"
_URL = re.compile(rf"http://{HERE}:(\d+)((?:/[^\s'\"`)>\]]*)?)")
_PORT = re.compile(rf"(?:(?<![-\w]){HERE}:|\b(?:port|tcp|PORT)[ =])(\d+)\b")
_ROUTE = re.compile(r"/(?:api|v2|healthz|readyz|metrics|status|uploader)\b[\w/<>.-]*")
METRICS_ONLY = {"9576", "9577"}
"""The ports of broker and replicas that answer to /metrics and to nothing else."""

COLLECTOR = "4318"
"""Where those who take OTLP over HTTP listen."""


@cache
def routes() -> Map:
    return create_app(Config()).url_map


def answers(path: str, method: str = "GET") -> bool:
    """Whether the web tier has a route for it."""
    filled = re.sub(r"<\w+>", "x", path.partition("?")[0].partition("#")[0])
    try:
        routes().bind("here").match(filled or "/", method)
    except RequestRedirect:
        return True
    except (NotFound, MethodNotAllowed):
        return False
    return True


def test_the_routes_of_the_readme_are_the_routes() -> None:
    there = {
        f"{method} {rule.rule}"
        for rule in routes().iter_rules()
        for method in rule.methods or ()
        if method in ("GET", "POST") and rule.endpoint != "static"
    }
    pattern = re.compile(r"(?:GET|POST) /\S*")
    assert set(filter(pattern.fullmatch, spans(ROOT / "services/web/README.md"))) == there
    for document in DOCUMENTS:
        assert set(filter(pattern.fullmatch, spans(document))) <= there


@each_document
def test_every_route_that_is_named_exists(document: Path) -> None:
    for span in spans(document):
        if _ROUTE.fullmatch(span):
            assert answers(span) or answers(span, "POST"), span


@each_document
def test_every_url_is_answered(document: Path) -> None:
    for port, path in _URL.findall(text(document)):
        if port in METRICS_ONLY:
            assert path == "/metrics", path
        elif port in web_ports():
            assert answers(path) or answers(path, "POST"), f"{port}{path}"


@each_document
def test_every_request_has_a_method_that_its_route_takes(document: Path) -> None:
    for command in commands(document):
        if command.program != "curl":
            continue
        for word in command.words:
            if (url := _URL.match(word)) and url[1] in web_ports():
                assert answers(url[2], method_of(command)), str(command)


def method_of(command: Command) -> str:
    """What curl would use."""
    for option in ("-X", "--request"):
        if option in command.words:
            return command.words[command.words.index(option) + 1]
    if {"-I", "--head"} & set(command.words):
        return "HEAD"
    sends = ("-d", "--data", "-F", "--form", "--json")
    return "POST" if any(word.startswith(sends) for word in command.words) else "GET"


@pytest.mark.parametrize(
    "slip", ["curl http://127.0.0.1:8000/api/v1/clasify", "curl http://127.0.0.1:8000/uploader"]
)
def test_a_slip_in_a_request_is_noticed(slip: str) -> None:
    url = _URL.search(slip)
    assert url is not None
    assert not answers(url[2])


@cache
def web_ports() -> frozenset[str]:
    """Where web listens: by default, and where documents choose to have it."""
    chosen = {port for file in DOCUMENTS for port in re.findall(r"\bPORT=(\d+)", text(file))}
    return frozenset({str(Config().port), *chosen})


@cache
def ports() -> frozenset[str]:
    """Every port that the code or a deployment uses."""
    config = BrokerConfig()
    listening = [config.frontend, config.backend, *(text(file) for file in DEPLOYED)]
    found = re.findall(r"(?::|[Pp]ort: ?)(\d{4,5})\b", "\n".join(listening))
    return frozenset(found) | web_ports() | {COLLECTOR}


@each_document
def test_every_port_that_is_named_is_used(document: Path) -> None:
    assert set(_PORT.findall(text(document))) <= ports()
