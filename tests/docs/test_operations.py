"""The operator's handbook knows every alert, every error that is ours, and words of real logs."""

import re
from functools import cache

import pytest

from modelserver.engine_threads import NO_MEMORY_STATUS
from modelserver.replica import HANG_STATUS
from modelserver.supervisor import CONFIG_STATUS
from tests.conftest import ROOT
from tests.docs.documents import SERVICES, commands, manifests, section, text
from webapp.errors import WebError

HANDBOOK = ROOT / "docs/operations.md"
PARTS = ["Felt", "Look", "Do", "Over"]
"""What every alert's section says, in this order."""
OURS_TO_MEND = {408, 429, 401}
"""Statuses below 500 of which an operator hears all the same."""


def alerts() -> dict[str, str]:
    """The severity of each alert that Prometheus has rules for."""
    return {
        rule["alert"]: rule["labels"]["severity"]
        for file in sorted((ROOT / "deploy/prometheus").glob("*.y*ml"))
        for tree in manifests(file)
        for group in tree.get("groups", ())
        for rule in group["rules"]
        if "alert" in rule
    }


def entries() -> dict[str, str]:
    """The sections about alerts."""
    pieces = re.split(r"^### (.+)\n", section(HANDBOOK, "Alerts"), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert sorted(entries()) == sorted(alerts())
    for alert, severity in alerts().items():
        assert entries()[alert].strip().startswith(f"`{severity}`. "), alert


@pytest.mark.parametrize("alert", entries())
def test_the_section_of_an_alert_says_what_is_felt_and_done(alert: str) -> None:
    assert re.findall(r"^- \*\*(\w+)\*\*: ", entries()[alert], re.MULTILINE) == PARTS


def errors(kind: type[WebError] = WebError) -> set[type[WebError]]:
    return {kind, *(error for child in kind.__subclasses__() for error in errors(child))}


def test_every_error_that_is_ours_is_in_the_table_of_symptoms() -> None:
    rows = section(HANDBOOK, "By symptom")
    named = set(re.findall(r"^\| (\d{3} `[a-z-]+`)", rows, re.MULTILINE))
    there = {f"{error.status} `{error.kind}`" for error in errors()}
    assert named <= there
    ours = {
        f"{error.status} `{error.kind}`"
        for error in errors()
        if error.status >= 500 or error.status in OURS_TO_MEND
    }
    assert ours <= named


@cache
def code() -> str:
    """All that the services are made of."""
    return "\n".join(text(file) for folder in SERVICES for file in folder.glob("[!t]*/**/*.py"))


def test_the_lines_of_logs_are_in_the_code() -> None:
    rows = re.findall(
        r"^\| [a-z, ]+ \| `(.+?)` \|", section(HANDBOOK, "Lines to know"), re.MULTILINE
    )
    assert len(rows) >= 10
    for line in rows:
        # After a colon stands what the code puts together with it.
        for piece in re.split(r": ", line):
            assert piece in code(), line


def test_what_is_searched_for_in_logs_is_in_the_code() -> None:
    searched = [c.words[1] for c in commands(HANDBOOK) if c.program == "grep"]
    assert searched
    for words in searched:
        assert words in code() or re.fullmatch(r"[0-9a-f]{8}", words), words


def test_the_exit_statuses_are_those_of_the_code() -> None:
    table = section(HANDBOOK, "Where to look first")
    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert statuses == {0, HANG_STATUS, NO_MEMORY_STATUS, CONFIG_STATUS, 137}
