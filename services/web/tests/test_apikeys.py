"""API keys: asked for where they are wanted, and kept by nobody but their owners."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from imaging import DecoderPool
from webapp.apikeys import new_api_key, read_api_keys
from webapp.app import create_app
from webapp.client import ModelClient
from webapp.config import Config, ConfigError

Ask = Callable[..., int]


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key that the file at ``tmp_path / "keys"`` lets in, beside another one."""
    key, line = new_api_key("a program")
    (tmp_path / "keys").write_text(f"# ours\n\n{new_api_key('another')[1]}\n{line}\n")
    return key


@pytest.fixture
def http(key: str, tmp_path: Path, client: ModelClient, decoders: DecoderPool) -> FlaskClient:
    assert key
    config = Config(api_keys_file=str(tmp_path / "keys"))
    return create_app(config, client, decoders).test_client()


def test_with_its_key_a_program_is_served(http: FlaskClient, key: str, photo: bytes) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    assert http.post("/api/v1/classify", data=photo, headers=headers).status_code == 200
    assert http.get("/api/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic {key}", "{key}"]
)
def test_without_it_nobody_is(http: FlaskClient, key: str, photo: bytes, given: str) -> None:
    headers = {"Authorization": given.format(key=key)} if given else {}
    answer = http.post("/api/v1/classify", data=photo, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Sightline"'
    assert answer.json is not None
    assert answer.json["type"] == "urn:sightline:problem:unauthorised"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2"),
        ("GET", "/v2/models/fake"),
        ("GET", "/v2/models/fake/ready"),
        ("GET", "/v2/healthy"),
        ("POST", "/v2/models/fake/infer"),
        ("POST", "/v2/repository/index"),
    ],
)
def test_clients_of_the_inference_protocol_are_asked(
    http: FlaskClient, key: str, method: str, path: str
) -> None:
    answer = http.open(path, method=method)
    assert answer.status_code == 401
    assert answer.json is not None
    assert "API key" in answer.json["error"]
    headers = {"Authorization": f"Bearer {key}"}
    assert http.open(path, method=method, headers=headers).status_code != 401


def test_a_browser_asks_its_user_for_the_key_of_the_status(http: FlaskClient, key: str) -> None:
    refused = http.get("/status")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="Sightline"'
    assert "give the key as the password" in refused.get_data(as_text=True)
    assert http.get("/status", auth=("anybody", key)).status_code == 200
    assert http.get("/api/v1/status", auth=("anybody", key)).status_code == 200
    assert http.get("/status", auth=(key, "anybody")).status_code == 401


def test_what_a_browser_sends_by_itself_may_only_look(
    http: FlaskClient, key: str, photo: bytes
) -> None:
    answer = http.post("/api/v1/classify", data=photo, auth=("anybody", key))
    assert answer.status_code == 401


def test_the_page_works_for_people_without_a_key(http: FlaskClient, photo: bytes) -> None:
    for accept in ("text/html", "application/json"):
        form = {"file": (io.BytesIO(photo), "photo.jpg")}
        answer = http.post("/uploader", data=form, headers={"Accept": accept})
        assert (answer.status_code, answer.mimetype) == (200, accept)


def test_every_operation_that_asks_for_one_says_so(http: FlaskClient) -> None:
    document = http.get("/api/openapi.json").get_json()
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            asked = http.open(path, method=method.upper()).status_code == 401
            assert asked == ("security" in operation) == ("401" in operation["responses"])


def test_whoever_reads_the_metrics_needs_one(http: FlaskClient, key: str) -> None:
    assert http.get("/metrics").status_code == 401
    given = {"Authorization": f"Bearer {key}"}
    assert http.get("/metrics", headers=given).status_code == 200


def test_people_and_the_platform_are_not_asked(http: FlaskClient) -> None:
    assert http.get("/").status_code == 200
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200
    assert http.get("/api/docs").status_code == 200
    assert http.get("/api/openapi.json").status_code == 200
    assert http.get("/v2/health/live").status_code == 200
    assert http.get("/v2/health/ready").status_code == 200


def test_a_key_is_known_by_its_hash_alone(key: str, tmp_path: Path) -> None:
    assert key not in (tmp_path / "keys").read_text()
    keys = read_api_keys(str(tmp_path / "keys"))
    assert keys is not None
    assert keys.owner(key) == "a program"
    assert keys.owner(key[:-1]) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no key"),
        ("# only words\n", "no key"),
        ("secret\n", "line 1"),
        ("0" * 64, "line 1"),
    ],
)
def test_a_file_that_lets_nobody_in_stops_the_start(
    tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_api_keys(str(tmp_path / "keys"))


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WEB_API_KEYS_FILE"):
        read_api_keys(str(tmp_path / "none"))
