"""What is seen in a file without a model: as it is, and as it would be for one."""

import base64
import io

import pytest
from flask.testing import FlaskClient
from PIL import Image, ImageCms
from services.web.tests.test_api import REFUSALS, file, form, kind_of

from webapp.testing import FakeModel

INSPECT = "/api/v1/inspect"


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


GREY = Image.radial_gradient("L").resize((60, 40))
RGB = GREY.convert("RGB")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
STILL = {"frames": 1, "orientation": 1, "has_alpha": False, "has_profile": False}
PICTURES = {
    "photo": (saved(RGB, "JPEG"), {"format": "JPEG", "mode": "RGB"}),
    "turned": (
        saved(RGB, "JPEG", exif=turned(6)),
        {"format": "JPEG", "mode": "RGB", "orientation": 6, "width": 40, "height": 60},
    ),
    "print": (saved(RGB.convert("CMYK"), "JPEG"), {"format": "JPEG", "mode": "CMYK"}),
    "16 bits": (saved(GREY.convert("I;16"), "PNG"), {"format": "PNG", "mode": "I;16"}),
    "profile": (
        saved(RGB, "PNG", icc_profile=PROFILE),
        {"format": "PNG", "mode": "RGB", "has_profile": True},
    ),
    "transparent": (
        saved(Image.new("RGBA", (60, 40), (9, 9, 9, 9)), "PNG"),
        {"format": "PNG", "mode": "RGBA", "has_alpha": True},
    ),
    "animation": (
        saved(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90), GREY.rotate(180)]),
        {"format": "GIF", "frames": 3},
    ),
    "moving": (
        saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)]),
        {"format": "WEBP", "mode": "RGB", "frames": 2},
    ),
}


@pytest.mark.parametrize(("data", "expected"), PICTURES.values(), ids=PICTURES.keys())
def test_a_picture_is_described(
    http: FlaskClient, data: bytes, expected: dict[str, object]
) -> None:
    seen = http.post(INSPECT, data=data, headers={"X-Request-Id": "i-1"}).get_json()
    assert list(seen) == [
        *("format", "bytes", "width", "height", "mode", "has_alpha", "has_profile", "orientation"),
        *("frames", "model", "warnings", "request_id"),
    ]
    told = {"bytes": len(data), "width": 60, "height": 40, **STILL, **expected}
    assert {name: seen[name] for name in told} == told
    assert (seen["model"], seen["request_id"]) == ({"name": "fake", "version": "1"}, "i-1")
    classified = http.post("/api/v1/classify", data=data).get_json()
    assert seen["warnings"] == classified["warnings"]


def test_warnings_are_those_of_an_answer(http: FlaskClient) -> None:
    animation = PICTURES["animation"][0]
    assert (
        "first frame of an animation" in http.post(INSPECT, data=animation).get_json()["warnings"]
    )
    tiny = saved(RGB.resize((10, 10)), "PNG")
    assert "answers may be poor" in http.post(INSPECT, data=tiny).get_json()["warnings"][0]


def test_it_is_taken_in_a_form_and_in_json_too(http: FlaskClient, photo: bytes) -> None:
    for sent in (form(file(photo)), {"json": {"image": base64.b64encode(photo).decode()}}):
        response = http.post(INSPECT, **sent)
        assert (response.status_code, response.get_json()["bytes"]) == (200, len(photo))


@pytest.mark.parametrize(
    "kind", ["empty body", "text", "truncated JPEG", "one pixel", "many pixels", "long body"]
)
def test_what_cannot_be_classified_is_refused_alike(
    http: FlaskClient, request: pytest.FixtureRequest, kind: str
) -> None:
    sent, status, problem = REFUSALS[kind]
    response = http.post(INSPECT, **sent(request))
    assert (response.status_code, kind_of(response)) == (status, problem)


def test_only_one_at_a_time_and_of_models_there_are(http: FlaskClient, photo: bytes) -> None:
    response = http.post(INSPECT, **form(file(photo), file(photo)))
    assert (response.status_code, kind_of(response)) == (400, "bad-request")
    assert http.post(f"{INSPECT}?model=nix", data=photo).status_code == 404


def test_no_model_is_asked(http: FlaskClient, fake: FakeModel, photo: bytes) -> None:
    fake.replicas = ()
    assert http.post(INSPECT, data=photo).status_code == 200
    assert fake.requests == []
