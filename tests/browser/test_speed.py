"""A first visit, timed: what is loaded, and how long from a dropped photograph to its classes.

The limits asserted are generous, since CI has other things to do; the numbers printed are what the
promises are about, on an idle machine: 100 ms and 60 KB for the page, 150 ms for the photograph.
A tab takes most of its own start after it is there, so a visit begins once that is over, as it does
for a person who has to type the address.
"""

import base64
import http.server
import io
import math
import os
import threading
from collections.abc import Iterator
from statistics import median
from typing import Final

import pytest
from PIL import Image
from playwright.sync_api import Browser

from loadtest.bench.usage import cpu_seconds, tree
from tests.conftest import eventually

pytestmark = pytest.mark.browser

PAGE_BYTES: Final = 60_000
PAGE_MS: Final = 1000
BARS_MS: Final = 1500
PHOTO_BYTES: Final = 110_000
VISITS: Final = 9
REST_S: Final = 0.1
REST_CPU_S: Final = 0.02
"""Two ticks of the clock by which processes' time is counted; heartbeats never stop."""
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

_EMPTY: Final = {
    "/": (
        "text/html",
        b'<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="a.css">'
        b'<script type="module" src="a.js"></script><p>A page with nothing on it.',
    ),
    "/a.css": ("text/css", b"p { margin: 0 }"),
    "/a.js": ("text/javascript", b"0"),
}


class _Empty(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        media, body = _EMPTY[self.path]
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def empty() -> Iterator[str]:
    """The address of a page with a style and a script and nothing in them: what a browser on this
    machine takes for any page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class AtRest:
    """Whether browser and service computed for next to nothing since they were asked about last."""

    def __init__(self) -> None:
        self._before = -math.inf

    def __call__(self) -> bool:
        before, self._before = self._before, sum(cpu_seconds(tree(os.getpid())).values())
        return self._before - before <= REST_CPU_S


@pytest.mark.parametrize("path", ["/", "/status"])
def test_a_page_is_small_and_soon_there(
    browser: Browser, address: str, empty: str, path: str
) -> None:
    times: dict[str, list[float]] = {f"{address}{path}": [], empty: []}
    sizes = []
    for _ in range(VISITS):
        for url, took in times.items():
            with browser.new_context() as fresh:
                page = fresh.new_page()
                eventually(AtRest(), every_s=REST_S)
                page.goto(url)
                loaded, size, parts = page.evaluate(_LOADED)
                assert parts >= 3, "the page, its style and its script"
                took.append(loaded)
                if url != empty:
                    sizes.append(size)
    ours, nothing = map(median, times.values())
    print(
        f"{path}: {max(sizes)} bytes, loaded in {ours:.0f} ms (p50 of {VISITS}); "
        f"an empty page in {nothing:.0f} ms"
    )
    assert max(sizes) < PAGE_BYTES
    assert ours < PAGE_MS


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
