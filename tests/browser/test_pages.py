"""What a person sees: Chromium without JavaScript, against broker, replica and web as they are."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, ViewportSize, expect

from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

PHONE: Final[ViewportSize] = {"width": 360, "height": 740}


def percents(visit: Visit) -> list[float]:
    shown = visit.page.locator(".percent").all_inner_texts()
    return [float(re.sub(r"[\s%]", "", text)) for text in shown]


def test_a_photograph_is_named(visit: Visit, photographs: dict[Path, int]) -> None:
    zebra = next(path for path in photographs if "zebra" in path.name)
    visit.upload(zebra.read_bytes())
    page = visit.page
    expect(page.get_by_role("heading", level=1)).to_have_text("zebra")
    expect(page).to_have_title(re.compile("^zebra .* Sightline$"))
    expect(page.get_by_role("listitem")).to_have_count(3)
    assert page.locator(".label").first.inner_text().lower() == "zebra"
    best, *rest = percents(visit)
    assert 50 < best <= 100
    assert rest == sorted(rest, reverse=True)


def test_the_bars_are_as_long_as_the_numbers_say(visit: Visit, picture: bytes) -> None:
    visit.upload(picture)
    bars = visit.page.locator(".classes .bar").all()
    assert len(bars) == 3
    for bar, percent in zip(bars, percents(visit), strict=True):
        whole, filled = bar.bounding_box(), bar.locator("rect").bounding_box()
        assert whole is not None
        assert filled is not None
        assert filled["width"] == pytest.approx(whole["width"] * percent / 100, abs=1)


def test_the_picture_is_shown_in_its_proportions(visit: Visit, picture: bytes) -> None:
    visit.upload(picture)
    image = visit.page.get_by_role("img", name="The picture as it was given to the model")
    assert image.evaluate("image => [image.complete, image.naturalWidth]") == [True, 224]
    box = image.bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert box["width"] > 200


def test_it_is_told_where_the_time_went(visit: Visit, picture: bytes) -> None:
    visit.upload(picture)
    names = visit.page.locator("dt").all_inner_texts()
    values = [
        float(text.removesuffix("\N{NO-BREAK SPACE}ms"))
        for text in visit.page.locator("dd:not(.lane)").all_inner_texts()
    ]
    assert names == ["Decoding", "Queue", "Batch", "Inference", "In all"]
    *parts, total = values
    assert min(parts) >= 0
    assert 0 < sum(parts) <= total + 0.2, "each of them is rounded"


def test_another_picture_can_follow(visit: Visit, picture: bytes) -> None:
    visit.upload(picture)
    first = visit.page.get_by_role("heading", level=1).inner_text()
    white = io.BytesIO()
    Image.new("RGB", (300, 300), "white").save(white, "PNG")
    visit.upload(white.getvalue())
    assert visit.page.get_by_role("heading", level=1).inner_text() != first
    visit.page.get_by_role("link", name="Sightline").click()
    expect(visit.page.get_by_role("heading", level=1)).to_have_text("What is in the picture?")


@pytest.mark.parametrize(
    ("spoil", "wrong", "to_do"),
    [
        (lambda picture: picture[: len(picture) // 2], "damaged or incomplete", "save it again"),
        (lambda _: b"Dear diary,", "not a picture of a known format", "Send a JPEG, PNG"),
        (lambda picture: picture + bytes(21 << 20), "longer than 20 MiB", "Send a smaller file"),
    ],
    ids=["damaged", "text", "too-large"],
)
def test_a_bad_file_is_explained_and_another_can_be_chosen(
    visit: Visit, picture: bytes, spoil: Callable[[bytes], bytes], wrong: str, to_do: str
) -> None:
    visit.upload(spoil(picture))
    alert = visit.page.get_by_role("alert")
    expect(alert).to_contain_text(wrong)
    expect(alert).to_contain_text(to_do)
    visit.upload(picture)
    expect(visit.page.get_by_role("listitem")).to_have_count(3)


def test_nothing_chosen_is_noticed_before_anything_is_sent(visit: Visit) -> None:
    sent = len(visit.asked)
    visit.button.click()
    expect(visit.page.locator("input:invalid")).to_be_focused()
    assert len(visit.asked) == sent


def test_the_keyboard_is_enough(visit: Visit, picture: bytes) -> None:
    page = visit.page
    # From the beginning: a listener of the last moment can come after the dialog.
    page.on("filechooser", lambda dialog: dialog.set_files(visit.file(picture)))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Sightline")).to_be_focused()
    for _ in ("Status", "API", "the field"):
        page.keyboard.press("Tab")
    expect(visit.field).to_be_focused()
    assert visit.style("input[type=file]", "outline-style") == "solid"
    page.keyboard.press("Enter")
    expect(visit.field).to_have_value(re.compile("photo.jpg$"))
    page.keyboard.press("Tab")
    expect(visit.button).to_be_focused()
    assert visit.style(".upload button", "outline-style") == "solid"
    with page.expect_navigation(url="**/uploader"):
        page.keyboard.press("Enter")
    expect(page.get_by_role("listitem")).to_have_count(3)


def test_a_phone_needs_no_scrolling_sideways(visit: Visit, picture: bytes) -> None:
    page = visit.page
    page.set_viewport_size(PHONE)
    for step in (visit.home, lambda: visit.upload(b"GIF89a"), lambda: visit.upload(picture)):
        step()
        wide, seen = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen == PHONE["width"]
        box = visit.button.bounding_box()
        assert box is not None
        assert box["height"] >= 44, "too small for a thumb"


def test_whoever_likes_it_dark_gets_it_dark(visit: Visit, picture: bytes) -> None:
    visit.upload(picture)
    for is_dark in (False, True):
        visit.page.emulate_media(color_scheme="dark" if is_dark else "light")
        for behind, on_it in (("body", "h1"), (".card.result", "h1"), ("button", "button")):
            ground = luminance(visit.style(behind, "background-color"))
            ink = luminance(visit.style(on_it, "color"))
            assert contrast(ground, ink) >= 4.5, f"{on_it} on {behind}, {is_dark=}"
        assert (luminance(visit.style("body", "background-color")) < 0.1) == is_dark


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, as WCAG 2 defines it."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_what_a_screen_reader_needs_is_there(visit: Visit, picture: bytes) -> None:
    page = visit.page
    for step, title in (
        (visit.home, "Sightline"),
        (lambda: visit.upload(b"GIF89a"), "damaged"),
        (lambda: visit.upload(picture), "tripod"),
    ):
        step()
        assert title in page.title()
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.get_by_role("heading", level=1).count() == 1
        assert page.get_by_role("main").count() == 1
        assert page.locator("img:not([alt]), img[alt='']").count() == 0
        label = page.locator("label").inner_text()
        expect(visit.field).to_have_accessible_name(label)
        expect(visit.field).to_have_accessible_description(re.compile("^JPEG, PNG.* not stored"))


def test_a_breach_would_be_noticed(context: BrowserContext, address: str, tmp_path: Path) -> None:
    """All tests above end with `check`. Here it has something to find."""
    visit = Visit(context, address, tmp_path).home()
    visit.check()
    visit.page.evaluate("document.body.innerHTML = '<p style=\"color: red\">red</p>'")
    with pytest.raises(AssertionError, match="style-src"):
        visit.check()
    visit.complaints.clear()
    visit.page.evaluate("document.body.innerHTML = '<img src=\"http://192.0.2.1/spy.png\">'")
    with pytest.raises(AssertionError, match="img-src"):
        visit.check()
    visit.complaints.clear()
    with pytest.raises(AssertionError, match=r"spy\.png"):
        visit.check()
