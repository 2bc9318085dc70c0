"""What the page's script adds: Chromium with JavaScript, against the service as it is."""

import base64
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, FilePayload, Locator, ViewportSize, expect

from tests.browser.conftest import Visit
from tests.conftest import Processes, Service, classify, eventually
from webapp.apikeys import new_api_key

pytestmark = pytest.mark.browser

PHONE: Final[ViewportSize] = {"width": 360, "height": 740}
MAY_DIFFER: Final = 2
"""Of a hundred photographs that are scaled in the browser."""

_EVENT = """([kind, files]) => {
  const carried = new DataTransfer();
  for (const {name, text} of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    carried.items.add(new File([bytes], name, {type: "image/png"}));
  }
  const event = kind === "paste"
    ? new ClipboardEvent("paste", {clipboardData: carried, bubbles: true, cancelable: true})
    : new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true});
  return document.body.dispatchEvent(event);
}"""

_SCALED = """async (text) => {
  const {scaled} = await import("/static/scale.js");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const file = new File([bytes], "photo.jpg", {type: "image/jpeg"});
  const smaller = new Uint8Array(await (await scaled(file)).arrayBuffer());
  let letters = "";
  for (const byte of smaller) letters += String.fromCharCode(byte);
  return btoa(letters);
}"""


def happen(visit: Visit, kind: str, pictures: Iterable[bytes]) -> bool:
    """Have the body of the page meet an event with files. Whether the browser may do as usual."""
    files = [
        {"name": f"{number}.png", "text": base64.b64encode(picture).decode()}
        for number, picture in enumerate(pictures)
    ]
    return bool(visit.page.evaluate(_EVENT, [kind, files]))


def scaled(visit: Visit, photo: bytes) -> bytes:
    """What the script makes of a photograph for a slow connection."""
    text = base64.b64encode(photo).decode()
    return base64.b64decode(visit.page.evaluate(_SCALED, text))


def best(item: Locator) -> Locator:
    return item.locator(".label").first


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg_of(picture: bytes, width: int, **options: Any) -> bytes:
    """A picture as a camera of so many pixels would have taken it."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    return encoded(image.resize((width, width * image.height // image.width)), **options)


def test_a_chosen_picture_becomes_bars(guest: Visit, picture: bytes) -> None:
    guest.choose(guest.file(picture, "mine.png"))
    item = guest.items
    expect(best(item)).to_have_text("tripod")
    expect(item.locator(".percent")).to_have_count(3)
    expect(item.locator(".name")).to_have_text("mine.png")
    expect(item.locator("progress")).to_be_hidden()
    expect(guest.page.locator(".said")).to_have_text(re.compile(r"^tripod, \d+ percent\.$"))
    expect(guest.page.get_by_role("button", name="Classify")).to_be_hidden()


def test_the_picture_is_shown_out_of_memory_that_is_given_back(
    guest: Visit, picture: bytes
) -> None:
    guest.choose(guest.file(picture))
    image = guest.items.locator("img")
    expect(image).to_be_visible()
    assert urlsplit(str(image.get_attribute("src"))).scheme == "blob"
    again = "url => new Promise(d => { const i = new Image(); i.onload = () => d(true); i.onerror = () => d(false); i.src = url; })"  # noqa: E501
    assert guest.page.evaluate(again, image.get_attribute("src")) is False
    guest.complaints.clear()  # Of the address that leads nowhere any more.


def test_dropped_and_pasted_ones_too(guest: Visit, picture: bytes) -> None:
    happen(guest, "dragenter", [picture])
    expect(guest.page.locator("body")).to_have_class("dragging")
    assert not happen(guest, "dragover", [picture]), "the browser would open the file"
    assert not happen(guest, "drop", [picture, picture])
    expect(guest.page.locator("body")).not_to_have_class("dragging")
    expect(guest.items.locator(".percent")).to_have_count(6)
    happen(guest, "paste", [picture])
    expect(guest.items.locator(".percent")).to_have_count(9)
    expect(guest.page.get_by_role("heading", level=2)).to_have_text("3 pictures")


def test_text_that_is_dropped_or_pasted_is_left_alone(guest: Visit) -> None:
    assert happen(guest, "dragover", [])
    assert happen(guest, "drop", [])
    assert happen(guest, "paste", [])
    expect(guest.items).to_have_count(0)


@pytest.mark.timeout(120)
def test_of_a_hundred_photographs_three_damaged_ones_fail_alone(
    guest: Visit, address: str, photographs: dict[Path, int]
) -> None:
    good = list(photographs)
    whole = good[0].read_bytes()
    bad = {
        "half.jpg": (whole[: len(whole) // 2], "damaged or incomplete"),
        "diary.jpg": (b"Dear diary,", "not a picture of a known format"),
        "pixel.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), "1 x 1 pixels"),
    }
    files = [*good[:50], *(guest.file(data, name) for name, (data, _) in bad.items()), *good[50:]]
    guest.choose(*files)
    title = guest.page.get_by_role("heading", level=2)
    expect(title).to_have_text("103 pictures, 3 failed", timeout=60_000)
    for name, (_, words) in bad.items():
        failed = guest.page.locator(".failed", has_text=name)
        expect(failed).to_contain_text(words)
        expect(failed.locator(".remedy")).not_to_be_empty()
        expect(failed.get_by_role("button", name="Retry")).to_have_count(0)
    named = {
        item["name"]: item["best"]
        for item in guest.page.evaluate(
            """() => [...document.querySelectorAll(".item:not(.failed)")].map((item) => ({
                 name: item.querySelector(".name").textContent,
                 best: item.querySelector(".label").textContent }))"""
        )
    }
    port = int(address.rpartition(":")[2])
    for path in good:
        said = classify(port, path.read_bytes()).json["predictions"][0]["label"]
        assert named[path.name] == said


def test_a_receipt_says_where_the_time_went(guest: Visit, picture: bytes) -> None:
    guest.choose(guest.file(picture))
    guest.items.locator("summary").click()
    names = guest.items.locator("dt").all_inner_texts()
    assert names == ["Upload", "Decoding", "Queue", "Batch", "Inference", "In between"]
    spent = [
        float(words.removesuffix("\N{NO-BREAK SPACE}ms"))
        for words in guest.items.locator("dd:not(.lane)").all_inner_texts()
    ]
    in_all = guest.items.locator("summary").inner_text()
    total = float(in_all.removesuffix(" in all").removesuffix("\N{NO-BREAK SPACE}ms"))
    assert min(spent) >= 0
    assert sum(spent) == pytest.approx(total, abs=1)
    lanes = [lane.bounding_box() for lane in guest.items.locator(".lane rect").all()]
    lefts = [lane["x"] for lane in lanes if lane]
    assert lefts == sorted(lefts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: encoded(image, exif=orientation(6)), "rotated by its EXIF tag"),
        (
            lambda image: encoded(
                image, "GIF", save_all=True, append_images=[Image.new("RGB", image.size, "red")]
            ),
            "first frame of an animation",
        ),
        (lambda image: encoded(image.resize((40, 60))), "only 40 px wide, answers may be poor"),
    ],
    ids=["turned", "animated", "tiny"],
)
def test_what_was_done_to_a_picture_is_said(
    guest: Visit, picture: bytes, change: Callable[[Image.Image], bytes], words: str
) -> None:
    guest.choose(guest.file(change(Image.open(io.BytesIO(picture)).convert("RGB"))))
    expect(guest.items.locator(".warning")).to_have_text(words)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def test_a_link_holds_the_classes_and_no_picture(
    guest: Visit, picture: bytes, scripted: BrowserContext
) -> None:
    guest.choose(guest.file(picture))
    expect(best(guest.items)).to_have_text("tripod")
    shown = guest.items.locator(".percent").all_inner_texts()
    guest.page.wait_for_url("**/#tripod=*")
    other = scripted.new_page()
    other.goto(guest.page.url)
    item = other.locator(".item")
    expect(best(item)).to_have_text("tripod")
    assert item.locator(".percent").all_inner_texts() == shown
    expect(item.locator("img")).to_be_hidden()
    expect(item).to_contain_text("The picture itself is stored nowhere")
    item.get_by_role("button", name="Remove").click()
    expect(other.locator(".item")).to_have_count(0)
    assert urlsplit(other.url).fragment == ""


@pytest.mark.parametrize(
    ("fragment", "shown"),
    [
        ("%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E=50", 1),
        ("a=1&b=2&c=3&d=4&e=5&f=6&g=7", 5),
        ("main", 0),
        ("a=1e9&b=-1&c=NaN&=5&d=", 0),
    ],
)
def test_a_link_that_somebody_made_up_does_no_harm(
    guest: Visit, address: str, fragment: str, shown: int
) -> None:
    guest.page.goto(f"{address}/#{fragment}")
    guest.page.reload()
    expect(guest.page.locator(".item .percent")).to_have_count(shown)
    expect(guest.page.locator("ol img[src]")).to_have_count(0)


def test_the_keyboard_is_enough(guest: Visit, picture: bytes) -> None:
    page = guest.page
    page.on(
        "filechooser", lambda dialog: dialog.set_files([file(picture, "1"), file(picture, "2")])
    )
    for _ in ("Sightline", "Status", "API", "the field"):
        page.keyboard.press("Tab")
    expect(guest.field).to_be_focused()
    assert guest.style(".upload label[for]", "outline-style") == "solid"
    page.keyboard.press("Enter")
    expect(guest.items).to_have_count(2)
    expect(guest.items.locator(".share")).to_have_count(2)
    page.get_by_role("button", name="Remove 1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove 2")).to_be_focused()
    page.keyboard.press("Enter")
    expect(guest.items).to_have_count(0)
    expect(guest.field).to_be_focused()
    expect(page.locator(".results")).to_be_hidden()


def file(content: bytes, name: str) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def test_a_phone_has_a_camera_and_needs_no_scrolling_sideways(
    browser: Browser, address: str, tmp_path: Path, picture: bytes
) -> None:
    with browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        visit = Visit(phone, address, tmp_path).home()
        camera = visit.page.get_by_label("Take a photo")
        expect(visit.page.get_by_text("Take a photo")).to_be_visible()
        assert camera.get_attribute("capture") == "environment"
        camera.set_input_files(file(picture, "a name without any place to break " * 3))
        expect(visit.items.locator(".share")).to_be_visible()
        visit.items.locator("summary").click()
        visit.choose(visit.file(b"GIF89a"))
        expect(visit.page.locator(".failed .remedy")).to_be_visible()
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        assert wide == PHONE["width"]
        for target in visit.page.locator(".upload label, .remove, .clear").all():
            box = target.bounding_box()
            assert box is not None
            # The browser tells the difference of two 32-bit floats: 44 may be 43.99998.
            assert round(min(box["width"], box["height"]), 2) >= 44, "too small for a thumb"
        visit.check()


def test_what_may_pass_can_be_tried_again(
    processes: Processes, scripted: BrowserContext, tmp_path: Path, picture: bytes
) -> None:
    """No replica is there, then one; at last not even the web tier."""
    service = Service(processes)
    service.start_broker()
    service.start_web(WEB_DEADLINE_MS="2000")
    eventually(service.is_up)
    visit = Visit(scripted, f"http://127.0.0.1:{service.port}", tmp_path).home()
    visit.choose(visit.file(picture), visit.file(picture, "second.png"))
    failed = visit.page.locator(".failed")
    expect(failed).to_have_count(2)
    expect(failed.first).to_contain_text("No model is running at the moment")
    first = failed.first.get_by_role("button", name="Retry")
    expect(first).to_be_disabled()
    expect(first).to_have_text(re.compile(r"^Retry in \d s$"))
    service.start_replica(MODEL_ENGINE="simulated")
    service.await_replicas(1)
    expect(first).to_be_enabled()
    first.click()
    expect(failed).to_have_count(1)
    expect(visit.items.first.locator(".percent")).to_have_count(3)
    processes.stop("web")
    failed.get_by_role("button", name="Retry").click()
    expect(failed).to_contain_text("The service cannot be reached")
    expect(failed.get_by_role("button", name="Retry")).to_be_enabled()


def test_where_the_api_asks_for_keys_the_page_does_not_and_the_status_does(
    processes: Processes, browser: Browser, tmp_path: Path, picture: bytes
) -> None:
    key, known = new_api_key("an operator")
    (tmp_path / "keys").write_text(known + "\n")
    service = Service(processes)
    service.start_broker()
    service.start_replica(MODEL_ENGINE="simulated")
    service.start_web(WEB_API_KEYS_FILE=str(tmp_path / "keys"))
    service.await_replicas(1)
    address = f"http://127.0.0.1:{service.port}"
    with browser.new_context() as stranger:
        visit = Visit(stranger, address, tmp_path).home()
        visit.choose(visit.file(picture))
        expect(visit.items.locator(".percent")).to_have_count(3)
        visit.check()
    with browser.new_context(http_credentials={"username": "me", "password": key}) as operator:
        page = operator.new_page()
        page.goto(f"{address}/status")
        expect(page.locator(".live")).to_have_text("Live: one replica.")


def test_a_large_photograph_is_scaled_for_a_slow_connection_only(
    guest: Visit, scripted: BrowserContext, picture: bytes
) -> None:
    photo = jpeg_of(picture, 3200, quality=95)
    assert len(photo) > 500_000
    guest.choose(guest.file(photo, "fast.jpg"))
    expect(best(guest.items.first)).to_have_text("tripod")
    expect(guest.items.first.locator(".warning")).to_have_count(0)
    wire = scripted.new_cdp_session(guest.page)
    slow = {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 150_000}
    wire.send("Network.emulateNetworkConditions", slow)
    guest.choose(guest.file(photo, "slow.jpg"))
    expect(best(guest.items.first)).to_have_text("tripod")
    expect(guest.items.first.locator(".warning")).to_contain_text("scaled down in your browser")
    assert guest.items.first.locator(".name").inner_text() == "slow.jpg"


def test_a_photograph_that_gets_no_smaller_is_sent_however_slow_it_is(
    guest: Visit, scripted: BrowserContext, picture: bytes
) -> None:
    """The script gives its upload up for a smaller one, and there is none."""
    photo = jpeg_of(picture, 2000, quality=95)
    assert scaled(guest, photo) == photo
    wire = scripted.new_cdp_session(guest.page)
    rate = len(photo) / 6
    slow = {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": rate}
    wire.send("Network.emulateNetworkConditions", slow)
    guest.choose(guest.file(photo, "slow.jpg"))
    expect(best(guest.items.first)).to_have_text("tripod", timeout=30_000)
    expect(guest.items.first.locator(".warning")).to_have_count(0)


def test_what_is_scaled_is_upright_and_large_enough(guest: Visit, picture: bytes) -> None:
    small = Image.open(io.BytesIO(scaled(guest, jpeg_of(picture, 3000, exif=orientation(6)))))
    assert small.format == "JPEG"
    assert min(small.size) == 1500
    assert small.getexif().get(0x0112, 1) == 1
    upright = Image.open(io.BytesIO(picture)).convert("L").rotate(-90, expand=True)
    there, here = (
        image.convert("L").resize((8, 8), Image.Resampling.BOX) for image in (small, upright)
    )
    assert max(abs(a - b) for a, b in zip(there.tobytes(), here.tobytes(), strict=True)) < 12
    already = jpeg_of(picture, 2900)
    assert scaled(guest, already) == already
    assert scaled(guest, b"no picture") == b"no picture"


def test_fine_lines_do_not_become_coarse_ones(guest: Visit) -> None:
    """Lines of one pixel are grey from afar; a filter that skips pixels makes stripes of them."""
    lines = Image.new("L", (2, 1))
    lines.putdata([0, 255])
    striped = Image.new("L", (3000, 3000))
    for x in range(0, 3000, 2):
        striped.paste(lines, (x, 0))
    striped = striped.crop((0, 0, 3000, 1)).resize((3000, 3000), Image.Resampling.NEAREST)
    small = Image.open(io.BytesIO(scaled(guest, encoded(striped.convert("RGB"), quality=95))))
    shades = small.convert("L").crop((50, 50, 700, 700)).tobytes()
    assert max(shades) - min(shades) < 24


@pytest.mark.timeout(400)
def test_scaled_photographs_show_the_same(
    guest: Visit, address: str, photographs: dict[Path, int]
) -> None:
    """Each enlarged to the 3000 pixels at the short side that phones make of 12 megapixels.

    Logits in int8 have 256 values, so two classes can be exactly even; then both are the top one.
    """
    port = int(address.rpartition(":")[2])

    def top(photo: bytes) -> set[str]:
        first, *others = classify(port, photo, "?top_k=3").json["predictions"]
        even = [other for other in others if other["probability"] == first["probability"]]
        return {prediction["label"] for prediction in (first, *even)}

    same = 0
    for path in photographs:
        image = Image.open(path).convert("RGB")
        width, height = (round(3000 * long / min(image.size)) for long in image.size)
        photo = encoded(image.resize((width, height)), quality=90)
        smaller = scaled(guest, photo)
        assert len(smaller) < len(photo)
        same += not top(photo).isdisjoint(top(smaller))
    print(f"the same top class for {same} of {len(photographs)} photographs that were scaled")
    assert same >= len(photographs) - MAY_DIFFER
