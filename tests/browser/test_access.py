"""Whether everybody can use the pages, as far as axe-core can tell; it is injected by the test."""

from collections.abc import Iterator
from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

BAD: Final = ("serious", "critical")


def grave(visit: Visit) -> Iterator[str]:
    """What axe-core finds that keeps somebody from using the page as it is now."""
    for found in Axe().run(visit.page).response["violations"]:
        if found["impact"] in BAD:
            yield f"{found['id']}: {[node['html'] for node in found['nodes']]}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(
    guest: Visit, picture: bytes, scheme: Literal["light", "dark"]
) -> None:
    page = guest.page
    # Without it, colours are judged in the middle of a transition.
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert list(grave(guest)) == []
    guest.choose(guest.file(picture), guest.file(b"GIF89a", "bad.gif"))
    expect(page.locator(".failed")).to_be_visible()
    expect(page.locator(".share")).to_be_visible()
    page.locator("summary:visible").click()
    assert list(grave(guest)) == []
    page.get_by_role("link", name="Status").click()
    expect(page.locator(".node.replica")).to_have_count(1)
    assert list(grave(guest)) == []
    page.get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The API")
    assert list(grave(guest)) == []


def test_a_barrier_would_be_noticed(guest: Visit) -> None:
    guest.page.evaluate("document.querySelector('main').append(new Image())")
    assert any(found.startswith("image-alt") for found in grave(guest))


def test_what_happens_is_heard(guest: Visit, picture: bytes) -> None:
    said = guest.page.get_by_role("status")
    guest.choose(guest.file(picture))
    expect(said).to_contain_text("tripod")
    guest.page.get_by_role("button", name="Clear").click()
    guest.choose(guest.file(b"GIF89a"))
    expect(said).to_contain_text("damaged")
    guest.choose(guest.file(picture))
    expect(said).to_have_text("2 pictures, 1 failed.")
