"""What every answer has in common, asserted over every route there is."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

EVERYWHERE = [
    ("GET", "/", 200),
    ("POST", "/uploader", 400),
    ("GET", "/uploader", 405),
    ("GET", "/status", 200),
    ("GET", "/static/style.css", 200),
    ("GET", "/static/nix.css", 404),
    ("GET", "/nix", 404),
    ("GET", "//nix", 308),
    ("POST", "/api/v1/classify", 400),
    ("GET", "/api/v1/classify", 405),
    ("POST", "/api/v1/inspect", 400),
    ("GET", "/api/v1/inspect", 405),
    ("GET", "/api/v1/models", 200),
    ("POST", "/api/v1/models", 405),
    ("GET", "/api/v1/status", 200),
    ("GET", "/api/v1/scale", 200),
    ("GET", "/api/openapi.json", 200),
    ("GET", "/api/docs", 200),
    ("GET", "/api/nix", 404),
    ("GET", "/healthz", 200),
    ("POST", "/healthz", 405),
    ("GET", "/readyz", 200),
    ("GET", "/metrics", 200),
    ("POST", "/metrics", 405),
    ("GET", "/v2", 200),
    ("POST", "/v2", 405),
    ("GET", "/v2/nix", 404),
    ("GET", "/v2/health/live", 200),
    ("GET", "/v2/health/ready", 200),
    ("GET", "/v2/models/fake", 200),
    ("GET", "/v2/models/nix", 404),
    ("GET", "/v2/models/fake/ready", 200),
    ("GET", "/v2/models/fake/config", 200),
    ("POST", "/v2/models/fake/infer", 400),
    ("GET", "/v2/models/fake/infer", 405),
    ("GET", "/v2/models/fake/versions/1", 200),
    ("GET", "/v2/models/fake/versions/1/ready", 200),
    ("GET", "/v2/models/fake/versions/1/config", 200),
    ("POST", "/v2/models/fake/versions/1/infer", 400),
    ("POST", "/v2/repository/index", 200),
]
ARGUMENTS = {"<path:filename>": "style.css", "<name>": "fake", "<version>": "1"}


def test_the_list_covers_every_route(app: Flask) -> None:
    listed = {path for _, path, _ in EVERYWHERE}
    for rule in app.url_map.iter_rules():
        path = rule.rule
        for argument, value in ARGUMENTS.items():
            path = path.replace(argument, value)
        assert path in listed


@pytest.mark.parametrize(("method", "path", "status"), EVERYWHERE)
def test_every_answer_has_its_headers(
    http: FlaskClient, method: str, path: str, status: int
) -> None:
    response = http.open(path, method=method, headers={"X-Request-Id": "a.B_c-1"}, buffered=True)
    assert response.status_code == status
    assert response.headers["X-Request-Id"] == "a.B_c-1"
    assert "total;dur=" in response.headers["Server-Timing"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Content-Security-Policy"].split("; ") == [
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    if (path, status) != ("/static/style.css", 200):
        assert response.headers["Cache-Control"] == "no-store"
    if status >= 400:
        assert_one_shape(
            response, for_program=path.startswith(("/api/", "/healthz", "/metrics")), path=path
        )


def assert_one_shape(response: TestResponse, *, for_program: bool, path: str = "") -> None:
    if path.startswith("/v2"):
        assert response.mimetype == "application/json"
        [(name, words)] = response.get_json().items()
        assert name == "error"
        assert words
    elif for_program:
        assert response.mimetype == "application/problem+json"
        problem = response.get_json()
        assert list(problem) == ["type", "title", "status", "detail", "remedy", "instance"]
        assert problem["status"] == response.status_code
        assert problem["instance"] == response.headers["X-Request-Id"]
        assert all(problem.values())
    else:
        assert response.mimetype == "text/html"
        page = response.get_data(as_text=True)
        assert response.headers["X-Request-Id"] in page
        assert f"Status {response.status_code}" in page
    if response.status_code == 405:
        assert "POST" in response.headers["Allow"] or "GET" in response.headers["Allow"]


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 65, "ä", "<script>"])
def test_an_id_that_could_do_harm_is_replaced(http: FlaskClient, given: str) -> None:
    response = http.get("/healthz", headers={"X-Request-Id": given})
    assert len(response.headers["X-Request-Id"]) == 32


def test_a_result_says_where_its_time_went(http: FlaskClient, photo: bytes) -> None:
    timing = http.post("/api/v1/classify", data=photo).headers["Server-Timing"]
    names = [part.split(";")[0] for part in timing.split(", ")]
    assert names == ["decode", "queue", "batch", "inference", "total", "cache"]


@pytest.mark.parametrize("path", ["/api/v1/classify", "/readyz", "/", "/v2"])
def test_an_unforeseen_error_shows_nothing_of_itself(
    app: Flask, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a secret")

    app.before_request(fail)
    response = app.test_client().get(path)
    assert response.status_code == 500
    assert "secret" not in response.get_data(as_text=True)
    assert "a secret" in caplog.text
    assert_one_shape(response, for_program=path != "/", path=path)


@pytest.mark.parametrize("path", ["/", "/uploader", "/api/v1/classify", "/nix", "/v2"])
def test_a_host_that_is_no_name_is_refused_without_a_page(http: FlaskClient, path: str) -> None:
    response = http.get(path, headers={"Host": "x" * 64})
    assert response.status_code == 400
    assert_one_shape(response, for_program=True, path=path)
