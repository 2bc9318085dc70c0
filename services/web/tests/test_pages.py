"""The pages: what a browser without JavaScript gets, and what their scripts are told."""

import html
import io
import re

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from imaging import DecoderPool
from webapp.testing import CONTRACT, FakeModel, predictions


def upload(http: FlaskClient, picture: bytes, name: str = "photo.jpg") -> TestResponse:
    return http.post("/uploader", data={"file": (io.BytesIO(picture), name)})


def test_the_form_posts_a_file_to_the_uploader(http: FlaskClient) -> None:
    page = http.get("/").get_data(as_text=True)
    assert re.search(
        r'<form[^>]* action="/uploader" method="post" enctype="multipart/form-data"', page
    )
    assert re.search(r'<label for="file">', page)
    assert re.search(r'<input id="file" name="file" type="file"', page)
    assert not re.search(r"<script(?! type=\"module\" src=)", page)
    assert "style=" not in page


def test_three_classes_are_shown_with_their_probabilities(
    http: FlaskClient, photo: bytes, decoders: DecoderPool
) -> None:
    response = upload(http, photo)
    assert response.status_code == 200
    page = html.unescape(response.get_data(as_text=True)).replace("\N{NO-BREAK SPACE}", " ")
    for prediction in predictions(decoders.prepare(photo, CONTRACT).pixels)[:3]:
        assert f'<span class="label">{prediction.label}</span>' in page
        assert f'<span class="percent">{prediction.probability * 100:.1f} %</span>' in page
        assert f'<rect width="{prediction.probability * 100:.2f}%"' in page
    assert page.count('class="percent"') == 3


def test_the_picture_is_shown_as_the_model_saw_it(http: FlaskClient, photo: bytes) -> None:
    page = upload(http, photo).get_data(as_text=True)
    assert '<img src="data:image/jpeg;base64,/9j/' in page
    assert "JPEG, 320&nbsp;\N{MULTIPLICATION SIGN}&nbsp;240" in page


def test_the_file_name_is_shown_nowhere(http: FlaskClient, photo: bytes) -> None:
    assert "evil" not in upload(http, photo, "../../evil<script>.jpg").get_data(as_text=True)


def test_a_form_without_the_field_is_explained(http: FlaskClient) -> None:
    response = http.post("/uploader", data={"image": (io.BytesIO(b"x"), "x")})
    assert response.status_code == 400
    assert "field called &#39;file&#39;" in response.get_data(as_text=True)


def test_no_file_chosen_is_explained(http: FlaskClient) -> None:
    response = upload(http, b"", name="")
    assert response.status_code == 400
    assert "No picture was chosen." in response.get_data(as_text=True)


def test_the_page_says_the_same_as_the_api(http: FlaskClient, one_pixel: bytes) -> None:
    problem = http.post("/api/v1/classify", data=one_pixel).get_json()
    response = upload(http, one_pixel)
    assert response.status_code == problem["status"]
    page = html.unescape(response.get_data(as_text=True))
    for said in ("title", "detail", "remedy"):
        assert problem[said] in page


@pytest.mark.parametrize(("path", "script"), [("/", "app.js"), ("/status", "status.js")])
def test_whatever_a_page_needs_is_ours(http: FlaskClient, path: str, script: str) -> None:
    page = http.get(path).get_data(as_text=True)
    found = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert found[:3] == ["data:,", "/static/style.css", f"/static/{script}"]
    assert set(found[3:]) <= {"/", "/status", "/api/docs", "/api/v1/status"}
    with http.get("/static/style.css") as style:
        assert style.mimetype == "text/css"
        assert "url(" not in style.get_data(as_text=True)
    with http.get(f"/static/{script}") as code:
        assert code.mimetype == "text/javascript"
        there = set(re.findall(r"https?://[^\"'` ]+", code.get_data(as_text=True)))
        assert there <= {"http://www.w3.org/2000/svg"}


def test_a_script_gets_what_the_api_would_say(http: FlaskClient, photo: bytes) -> None:
    told = http.post("/api/v1/classify?top_k=3", data=photo).get_json()
    form = {"file": (io.BytesIO(photo), "photo.jpg")}
    answer = http.post("/uploader", data=form, headers={"Accept": "application/json"})
    assert answer.mimetype == "application/json"
    shown = answer.get_json()
    assert list(shown) == list(told)
    assert shown["predictions"] == told["predictions"]


def test_a_script_gets_a_problem_as_the_api_would_say_it(
    http: FlaskClient, one_pixel: bytes
) -> None:
    form = {"file": (io.BytesIO(one_pixel), "photo.jpg")}
    answer = http.post("/uploader", data=form, headers={"Accept": "application/json"})
    assert answer.mimetype == "application/problem+json"
    told = http.post("/api/v1/classify", data=one_pixel).get_json()
    assert answer.get_json() | {"instance": ""} == told | {"instance": ""}


def test_the_status_can_be_read_without_javascript(http: FlaskClient, fake: FakeModel) -> None:
    fake.replicas = ("one", "two")
    page = http.get("/status").get_data(as_text=True)
    assert '<th scope="row">fake 1</th>' in page
    assert re.findall(r'<th scope="row">(one|two)</th>', page) == ["one", "two"]
    assert "0 of 1" in page
    assert '<noscript><p><a href="/status">Look again</a></p></noscript>' in page


def test_the_status_page_comes_even_without_a_broker(http: FlaskClient, fake: FakeModel) -> None:
    fake.silent = True
    answer = http.get("/status")
    assert answer.status_code == 200
    assert "The broker does not answer." in answer.get_data(as_text=True)


def test_the_api_is_described_on_a_page(http: FlaskClient) -> None:
    page = http.get("/api/docs").get_data(as_text=True)
    document = http.get("/api/openapi.json").get_json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}" in page
            assert operation["summary"] in page
            for status in operation["responses"]:
                assert f">{status}</th>" in page
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in page
        assert all(f"<code>{field}</code>" in page for field in schema["properties"])
    linked = re.findall(r'href="#([^"]+)"', page)
    assert linked
    assert all(f'id="{name}"' in page for name in linked)
    assert set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page)) == {
        *("data:,", "/static/style.css", "/", "/status", "/api/docs", "/api/openapi.json")
    }
    assert "<script" not in page
    assert "style=" not in page
