"""The API's description: valid, complete, and no more than there is."""

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from services.web.tests.test_archives import zipped

from webapp import errors, openapi
from webapp.api import Query
from webapp.errors import WebError

DESCRIBED = ("/api/", "/healthz", "/readyz")


@pytest.mark.parametrize("keyed", [False, True])
def test_it_is_valid(keyed: bool) -> None:
    OpenAPIV31SpecValidator(openapi.document(keyed=keyed)).validate()


def test_it_is_what_the_service_gives(http: FlaskClient) -> None:
    response = http.get("/api/openapi.json")
    assert response.mimetype == "application/json"
    assert response.get_json() == openapi.document(keyed=False)


def test_it_has_every_route_for_programs_and_no_other(app: Flask) -> None:
    routes = {
        (rule.rule, method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(DESCRIBED)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {
        (path, method)
        for path, operations in openapi.document(keyed=False)["paths"].items()
        for method in operations
    }
    assert described == routes


def test_keys_are_told_of_only_where_they_are_asked_for() -> None:
    document = openapi.document(keyed=False)
    assert "securitySchemes" not in document["components"]
    assert all("401" not in operation["responses"] for operation in operations(document))


def test_the_bounds_are_those_that_are_kept(http: FlaskClient) -> None:
    document = openapi.document(keyed=False)
    parameters = {p["name"]: p for p in document["paths"]["/api/v1/classify"]["post"]["parameters"]}
    assert list(parameters) == list(Query.__struct_fields__)
    schema = parameters["top_k"]["schema"]
    for value, kind in (
        (schema["minimum"] - 1, "bad-request"),
        (schema["minimum"], "empty"),
        (schema["maximum"], "empty"),
        (schema["maximum"] + 1, "bad-request"),
    ):
        problem = http.post(f"/api/v1/classify?top_k={value}").get_json()
        assert problem["type"] == f"urn:sightline:problem:{kind}"


def test_every_line_is_as_described(http: FlaskClient, photo: bytes) -> None:
    document = openapi.document(keyed=False)
    answers = document["paths"]["/api/v1/classify"]["post"]["responses"]["200"]["content"]
    described = answers["application/x-ndjson"]["schema"] | {"components": document["components"]}
    body = zipped({"a.jpg": photo, "b.txt": b"text", "c.jpg": photo[:1000]})
    lines = http.post("/api/v1/classify", data=body).get_data().splitlines()
    assert len(lines) == 3
    for line in lines:
        OAS31Validator(described).validate(json.loads(line))


def test_every_kind_of_problem_is_described_somewhere() -> None:
    described = " ".join(
        response["description"]
        for operation in operations(openapi.document(keyed=True))
        for response in operation["responses"].values()
    )
    elsewhere = {
        errors.SenderLeft,
        errors.HttpRefused,
        errors.ImageRefused,
        errors.ModelError,
        errors.UnknownCoding,  # Of the inference protocol, which has a specification of its own.
        # Only who sends a file straight to the broker gets it; the kind is that of others, too.
        errors.PictureRefused,
    }
    for error in subclasses(WebError) - elsewhere:
        assert f"({error.kind})" in described, error
    for _, kind, _ in errors.IMAGE_REFUSALS.values():
        assert f"({kind})" in described


def operations(document: openapi.Document) -> list[dict[str, Any]]:
    return [o for operations in document["paths"].values() for o in operations.values()]


def subclasses(kind: type[WebError]) -> set[type[WebError]]:
    return {kind}.union(*(subclasses(below) for below in kind.__subclasses__()))
