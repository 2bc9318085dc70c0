"""Takes the picture of a real result that README shows: docs/result.png.

.venv/bin/python -m tests.browser.screenshot [PHOTO]

Without PHOTO it is the embedded bundle's golden coffee, which everybody may publish: Rachel
Michetti took it and gave up her rights (CC0). README asks the API about the same file.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.chromium import chromium
from tests.conftest import ROOT, Processes, Service

COFFEE = ROOT / "services/model/modelserver/bundles/efficientnet-lite0/golden/coffee.png"
RESULT = ROOT / "docs" / "result.png"
MAX_BYTES = 200_000
WIDTH = 840
"""CSS pixels. README's column is hardly wider, so the text keeps its size there."""
SCALE = 1.5
MARGIN = 16


def main() -> None:
    """Serve, upload, take the picture, write it small."""
    parser = argparse.ArgumentParser(
        prog="screenshot", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photo", nargs="?", type=Path, default=COFFEE, metavar="PHOTO")
    photo = parser.parse_args().photo
    with tempfile.TemporaryDirectory() as logs, contextlib.closing(Processes(Path(logs))) as parts:
        service = Service(parts)
        service.start(replicas=1)
        small = _in_few_colours(_shot(service.port, photo))
    if len(small) > MAX_BYTES:
        raise SystemExit(f"{len(small)} bytes are too many for a README: at most {MAX_BYTES}.")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_bytes(small)
    print(f"{RESULT.relative_to(ROOT)}: {len(small)} bytes")


def _shot(port: int, photo: Path) -> bytes:
    with chromium() as browser:
        page = browser.new_page(
            java_script_enabled=False,
            viewport={"width": WIDTH, "height": WIDTH},
            device_scale_factor=SCALE,
            color_scheme="light",
        )
        # The first pictures are slower than all that follow, and times are shown.
        for _ in range(5):
            page.goto(f"http://127.0.0.1:{port}/")
            page.get_by_label("Your picture").set_input_files(photo)
            page.get_by_role("button", name="Classify").click()
            result = page.get_by_role("article")
            result.wait_for()
        box = result.bounding_box()
        if box is None:
            raise SystemExit("The result is not shown.")
        height = box["y"] + box["height"] + MARGIN
        return page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height})


def _in_few_colours(png: bytes) -> bytes:
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    main()
