"""A browser in front of the whole service, both of them real, both started once a module."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
)

from tests.browser.chromium import NoChromium, chromium
from tests.conftest import Processes, Service

# Where two cores have a browser, a service and an inference to run, five seconds are soon over.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # No longer than a module: while it lives, no other test could run an asyncio loop.
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(chromium())
        except NoChromium as error:
            pytest.skip(f"no Chromium: {error}")
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the service is, with one replica of the embedded model behind it."""
    with contextlib.closing(Processes(tmp_path_factory.mktemp("logs"))) as processes:
        service = Service(processes)
        service.start(replicas=1)
        yield f"http://127.0.0.1:{service.port}"


ANSWERS = ("/uploader", "/api/v1/status")
"""What may fail, because a test has it fail."""
IN_MEMORY = ("data", "blob")


class Visit:
    """One person at the page, and everything that their browser complains of or asks for."""

    def __init__(self, context: BrowserContext, address: str, files: Path) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._address = address
        self._files = files
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._count)

    def home(self) -> "Visit":
        self.page.goto(f"{self._address}/")
        return self

    @property
    def field(self) -> Locator:
        return self.page.locator("input[name=file]")

    @property
    def button(self) -> Locator:
        return self.page.get_by_role("button", name="Classify")

    def upload(self, picture: bytes, name: str = "photo.jpg") -> "Visit":
        """Choose a file of this content and send it."""
        self.field.set_input_files(self.file(picture, name))
        with self.page.expect_navigation(url="**/uploader"):
            self.button.click()
        return self

    @property
    def items(self) -> Locator:
        """What the script shows of each picture."""
        return self.page.locator(".item")

    def choose(self, *paths: Path) -> "Visit":
        """Choose files where the script takes them."""
        self.field.set_input_files(paths)
        return self

    def file(self, content: bytes, name: str = "photo.jpg") -> Path:
        """A file on this person's disk."""
        path = self._files / name
        path.write_bytes(content)
        return path

    def style(self, selector: str, name: str) -> str:
        """What one property of an element came to."""
        return str(
            self.page.locator(selector).evaluate(
                "(element, name) => getComputedStyle(element).getPropertyValue(name)", name
            )
        )

    def _note(self, message: ConsoleMessage) -> None:
        # That an answer has an error status is told as an error, too; the tests look at what the
        # page makes of it.
        failed = message.text.startswith("Failed to load resource")
        if failed and message.location["url"].removeprefix(self._address) in ANSWERS:
            return
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _count(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in IN_MEMORY:
            self.asked.append(request.url)

    def check(self) -> None:
        """Nothing was complained of, and nothing asked of anybody but the service."""
        assert self.complaints == []
        assert self.asked
        assert [url for url in self.asked if not url.startswith(f"{self._address}/")] == []


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile without JavaScript."""
    with browser.new_context(java_script_enabled=False, locale="en-GB") as fresh:
        fresh.set_default_timeout(15_000)
        yield fresh


@pytest.fixture
def scripted(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile with JavaScript."""
    with browser.new_context(locale="en-GB") as fresh:
        fresh.set_default_timeout(15_000)
        yield fresh


@pytest.fixture
def guest(scripted: BrowserContext, address: str, tmp_path: Path) -> Iterator[Visit]:
    """As `visit`, of a person whose browser runs the page's script."""
    opened = Visit(scripted, address, tmp_path).home()
    yield opened
    opened.check()


@pytest.fixture
def visit(context: BrowserContext, address: str, tmp_path: Path) -> Iterator[Visit]:
    """A person who has opened the page. No complaint of the browser is accepted at the end."""
    opened = Visit(context, address, tmp_path).home()
    yield opened
    opened.check()
