"""The status page: what is drawn, while replicas, and the broker itself, come and go."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import Visit
from tests.conftest import Processes, Service, classify, eventually

pytestmark = pytest.mark.browser


class Watched(Service):
    """A service with replicas that need no model, and somebody who looks at its status."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes, MODEL_ENGINE="simulated")

    def visit(self, context: BrowserContext, files: Path) -> Visit:
        visit = Visit(context, f"http://127.0.0.1:{self.port}", files)
        visit.page.goto(f"http://127.0.0.1:{self.port}/status")
        return visit


@pytest.fixture
def watched(processes: Processes) -> Watched:
    service = Watched(processes)
    service.start(replicas=1)
    return service


def test_a_replica_joins_and_leaves_before_ones_eyes(
    watched: Watched, processes: Processes, scripted: BrowserContext, tmp_path: Path
) -> None:
    page = watched.visit(scripted, tmp_path).page
    drawn = page.locator(".node.replica:not(.left)")
    rows = page.get_by_role("region", name="Replicas").locator("tbody tr")
    expect(drawn).to_have_count(1)
    expect(page.locator(".live")).to_have_text("Live: one replica.")
    name, process = watched.start_replica()
    expect(drawn).to_have_count(2)
    expect(rows).to_have_count(2)
    expect(page.locator(".live")).to_have_text("Live: 2 replicas.")
    expect(page.get_by_role("region", name="Where requests are")).to_contain_text(
        f":{process.pid}:"
    )
    processes.stop(name)
    expect(page.locator(".node.left")).to_contain_text("has left")
    expect(page.locator(".node.left")).to_contain_text(f":{process.pid}:")
    expect(rows).to_have_count(1)
    expect(page.locator(".node.left")).to_have_count(0)
    expect(drawn).to_have_count(1)


def test_what_was_done_is_counted_and_drawn(
    watched: Watched, scripted: BrowserContext, tmp_path: Path, picture: bytes
) -> None:
    visit = watched.visit(scripted, tmp_path)
    page = visit.page
    expect(page.locator(".graph")).to_have_count(4)
    for _ in range(7):
        assert classify(watched.port, picture).status == 200
    table = page.get_by_role("region", name="Models")
    answered = table.locator("tbody td").nth(2)
    expect(answered).to_have_text("7")
    expect(page.get_by_role("img", name="Batch sizes: 7 in 1")).to_be_visible()
    expect(page.get_by_role("img", name="Time in broker and replica: half within")).to_be_visible()
    expect(page.get_by_role("img", name="Web, broker and 1 replicas")).to_be_visible()
    expect(page.locator(".node.web")).to_have_text(re.compile(r"^Web(?!0\.0 )\d+\.\d /s answered"))
    page.set_viewport_size({"width": 360, "height": 740})
    eventually(lambda: page.locator(".drawing svg").evaluate("svg => svg.clientWidth") < 360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    visit.check()


def test_without_a_broker_the_page_says_so_and_goes_on(
    watched: Watched, processes: Processes, scripted: BrowserContext, tmp_path: Path
) -> None:
    live = watched.visit(scripted, tmp_path).page.locator(".live")
    expect(live).to_have_text("Live: one replica.")
    processes.stop("broker")
    expect(live).to_have_text("No model is running at the moment")
    watched.start_broker()
    expect(live).to_have_text("Live: one replica.")
    processes.stop("web")
    expect(live).to_have_text("The service cannot be reached.")


def test_without_javascript_it_is_a_table(
    watched: Watched, context: BrowserContext, tmp_path: Path
) -> None:
    visit = watched.visit(context, tmp_path)
    rows = visit.page.get_by_role("region", name="Replicas").locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(visit.page.locator(".drawing")).to_be_hidden()
    watched.start_replica()
    watched.await_replicas(2)

    def both_are_there() -> bool:
        visit.page.get_by_role("link", name="Look again").click()
        return rows.count() == 2

    eventually(both_are_there)
    visit.check()
