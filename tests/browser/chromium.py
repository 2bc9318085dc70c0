"""The Chromium of this machine, driven by Playwright. None is downloaded."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Final

from playwright.sync_api import Browser, sync_playwright

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")

_ARGUMENTS: Final = (
    "--no-sandbox",  # It refuses to run as root otherwise, as containers do.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever it still looks for elsewhere, it does not find.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class NoChromium(Exception):
    """There is none on the search path."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser with a fresh profile.

    Raises:
        NoChromium: There is none on the search path.
    """
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        raise NoChromium(f"none of {', '.join(_NAMES)} is on the search path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
