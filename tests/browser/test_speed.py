"""A first visit, timed: what is loaded, and how long from a dropped photograph to its classes.

The limits asserted are generous, since CI has other things to do; the numbers printed are what the
promises are about, on an idle machine: 100 ms and 60 KB for the page, 150 ms for the photograph.
"""

import base64
import io
from statistics import median
from typing import Final

import pytest
from PIL import Image
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

PAGE_BYTES: Final = 60_000
PAGE_MS: Final = 1000
BARS_MS: Final = 1500
PHOTO_BYTES: Final = 110_000
VISITS: Final = 9
DROPS: Final = 15

_LOADED = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const all = [page, ...performance.getEntriesByType("resource")];
  return [page.loadEventEnd, all.reduce((sum, one) => sum + one.transferSize, 0), all.length];
}"""

_DROP = """(text) => new Promise((done) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], "photo.jpg", {type: "image/jpeg"}));
  const list = document.querySelector(".results > ol");
  const began = performance.now();
  const watch = new MutationObserver(() => {
    if (!list.querySelector(".item:first-child .classes li")) return;
    watch.disconnect();
    // Two frames later they have been painted.
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
  });
  watch.observe(list, {childList: true, subtree: true});
  document.body.dispatchEvent(
    new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true}));
})"""


@pytest.mark.parametrize("path", ["/", "/status"])
def test_a_page_is_small_and_soon_there(browser: Browser, address: str, path: str) -> None:
    times, sizes = [], []
    for _ in range(VISITS):
        with browser.new_context() as fresh:
            page = fresh.new_page()
            page.goto(f"{address}{path}")
            took, size, parts = page.evaluate(_LOADED)
            assert parts >= 3, "the page, its style and its script"
            times.append(took)
            sizes.append(size)
    print(f"{path}: {max(sizes)} bytes, loaded in {median(times):.0f} ms (p50 of {VISITS})")
    assert max(sizes) < PAGE_BYTES
    assert median(times) < PAGE_MS


def test_from_drop_to_bars(browser: Browser, address: str, picture: bytes) -> None:
    photo = photograph(picture)
    text = base64.b64encode(photo).decode()
    with browser.new_context() as fresh:
        page = fresh.new_page()
        page.goto(address)
        times = []
        for _ in range(DROPS):
            times.append(page.evaluate(_DROP, text))
            page.get_by_role("button", name="Clear").click()
    print(f"from drop to bars, {len(photo)} bytes: {median(times):.0f} ms (p50 of {DROPS})")
    assert median(times) < BARS_MS


def photograph(picture: bytes) -> bytes:
    """A JPEG of about PHOTO_BYTES."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").resize((1000, 1000))
    for quality in range(30, 100):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if len(file.getvalue()) >= PHOTO_BYTES:
            break
    return file.getvalue()
