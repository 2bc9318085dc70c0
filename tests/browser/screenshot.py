"""Takes the pictures of the pages that README shows, into docs/images.

.venv/bin/python -m tests.browser.screenshot

On them are the embedded bundle's golden pictures, which everybody may publish (its bundle.json says
whose they are). README asks the API about the same coffee.
"""

import contextlib
import io
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, ViewportSize, expect

from tests.browser.chromium import chromium
from tests.conftest import ROOT, Processes, Service, classify

GOLDEN: Final = ROOT / "services/model/modelserver/bundles/efficientnet-lite0/golden"
IMAGES: Final = ROOT / "docs" / "images"
MAX_BYTES: Final = 150_000
DESK: Final[ViewportSize] = {"width": 840, "height": 840}
"""CSS pixels. README's column is hardly wider, so the text keeps its size there."""
PHONE: Final[ViewportSize] = {"width": 360, "height": 740}
SCALE: Final = 1.5
MARGIN: Final = 24
BUSY_MS: Final = 45_000
"""How long there is work to be seen on the status page."""


def main() -> None:
    """Serve, look, write."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as logs, contextlib.closing(Processes(Path(logs))) as parts:
        service = Service(parts)
        service.start(replicas=2)
        with chromium() as browser:
            address = f"http://127.0.0.1:{service.port}"
            _keep("result", _result(browser, address))
            _keep("phone", _phone(browser, address))
            with _busy(service.port):
                _keep("status", _status(browser, address))


def _result(browser: Browser, address: str) -> bytes:
    with browser.new_context(
        viewport=DESK, device_scale_factor=SCALE, color_scheme="light", reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.goto(address)
        # The first pictures are slower than all that follow, and times are shown.
        for _ in range(6):
            page.locator(".clear").evaluate("button => button.click()")
            page.locator("#file").set_input_files(GOLDEN / "coffee.png")
            expect(page.locator(".share")).to_be_visible()
        page.locator("summary").click()
        page.mouse.move(0, 0)
        return _down_to(page, ".item")


def _phone(browser: Browser, address: str) -> bytes:
    with browser.new_context(
        viewport=PHONE,
        device_scale_factor=SCALE,
        color_scheme="dark",
        reduced_motion="reduce",
        has_touch=True,
        is_mobile=True,
    ) as context:
        page = context.new_page()
        page.goto(address)
        cat = FilePayload(name="cat.png", mimeType="image/png", buffer=_golden("chelsea"))
        half = FilePayload(
            name="half of a cup.png", mimeType="image/png", buffer=_golden("coffee")[:-20_000]
        )
        page.locator("#file").set_input_files([cat, half])
        expect(page.locator(".share")).to_have_count(1)
        expect(page.locator(".failed")).to_have_count(1)
        return _down_to(page, ".item:last-child")


def _status(browser: Browser, address: str) -> bytes:
    with browser.new_context(
        viewport={"width": 1000, "height": 840}, color_scheme="light", reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.goto(f"{address}/status")
        page.wait_for_timeout(BUSY_MS)
        return _down_to(page, ".graphs")


def _golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.png").read_bytes()


@contextlib.contextmanager
def _busy(port: int) -> Iterator[None]:
    """A few clients that ask one picture after the other."""
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            classify(port, _golden("coffee"))

    clients = [threading.Thread(target=ask) for _ in range(12)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        enough.set()
        for client in clients:
            client.join()


def _down_to(page: Page, last: str) -> bytes:
    """The page from its top to the end of an element."""
    box = page.locator(last).bounding_box()
    size = page.viewport_size
    if box is None or size is None:
        raise SystemExit(f"{last} is not shown.")
    # Not by full_page: that takes a phone's touch screen away for the moment.
    height = round(box["y"] + box["height"] + MARGIN)
    page.set_viewport_size({"width": size["width"], "height": height})
    return page.screenshot()


def _keep(name: str, png: bytes) -> None:
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    length = len(small.getvalue())
    if length > MAX_BYTES:
        raise SystemExit(f"{name}: {length} bytes are too many for a README, over {MAX_BYTES}.")
    path = IMAGES / f"{name}.png"
    path.write_bytes(small.getvalue())
    print(f"{path.relative_to(ROOT)}: {length} bytes")


if __name__ == "__main__":
    main()
