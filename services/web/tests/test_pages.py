"""The pages: what a browser without JavaScript gets."""

import html
import io
import re

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from imaging import DecoderPool
from webapp.testing import CONTRACT, predictions


def upload(http: FlaskClient, picture: bytes, name: str = "photo.jpg") -> TestResponse:
    return http.post("/uploader", data={"file": (io.BytesIO(picture), name)})


def test_the_form_posts_a_file_to_the_uploader(http: FlaskClient) -> None:
    page = http.get("/").get_data(as_text=True)
    assert re.search(
        r'<form[^>]* action="/uploader" method="post" enctype="multipart/form-data"', page
    )
    assert re.search(r'<label for="file">', page)
    assert re.search(r'<input id="file" name="file" type="file"', page)
    assert "<script" not in page


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


def test_the_stylesheet_is_ours(http: FlaskClient) -> None:
    page = http.get("/").get_data(as_text=True)
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == [
        "data:,",
        "/static/style.css",
        "/",
        "/api/docs",
    ]
    with http.get("/static/style.css") as style:
        assert style.mimetype == "text/css"
        assert "url(" not in style.get_data(as_text=True)


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
        *("data:,", "/static/style.css", "/", "/api/openapi.json")
    }
    assert "<script" not in page
    assert "style=" not in page
