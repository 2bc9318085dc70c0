"""What documents point at is there: links, anchors, paths, modules and names."""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.documents import (
    DOCUMENTS,
    MADE,
    PACKAGES,
    SERVICES,
    anchors,
    each_document,
    name,
    prose,
    section,
    spans,
    text,
)

MEDIA = {"application", "image", "multipart", "text"}
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_there_are_documents_to_test() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= set(map(name, DOCUMENTS))
    assert {"wire", "web", "model"} <= set(PACKAGES) == {folder.name for folder in SERVICES}
    assert all((folder / "README.md").exists() for folder in SERVICES)


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert file.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


def test_every_document_can_be_found_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        reached.add(document)
        for target in _LINK.findall(prose(document)):
            file = (document.parent / target.partition("#")[0]).resolve()
            if file in DOCUMENTS and file not in reached:
                ahead.append(file)
    assert set(map(name, DOCUMENTS)) == set(map(name, reached))


@each_document
def test_every_path_exists(document: Path) -> None:
    for span in spans(document):
        if not re.fullmatch(r"\.?\w[\w.-]*(/[\w.-]+)+/?", span) or span.split("/")[0] in MEDIA:
            continue
        if span.split("/")[0] in MADE:
            continue
        places = [document.parent, ROOT, *SERVICES]
        assert any((place / span).exists() for place in places), span


@each_document
def test_every_dotted_name_exists(document: Path) -> None:
    for span in spans(document):
        if re.fullmatch(rf"({'|'.join(PACKAGES.values())})(\.\w+)+", span):
            parent, _, last = span.rpartition(".")
            assert is_module(span) or hasattr(importlib.import_module(parent), last), span


def is_module(dotted: str) -> bool:
    """Whether there is such a module. Its package is imported, itself it is not."""
    try:
        return find_spec(dotted) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("service", PACKAGES)
def test_the_table_of_modules_names_modules(service: str) -> None:
    table = re.search(
        r"^\| (?:start reading at|module) \|.*\n\|[-|]+\n((?:\|.*\n)+)",
        text(ROOT / "services" / service / "README.md"),
        re.MULTILINE,
    )
    assert table is not None
    named = [
        module
        for row in table[1].splitlines()
        for module in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]
    folder = ROOT / "services" / service / PACKAGES[service]
    for module in named:
        assert (folder / f"{module}.py").exists() or (folder / module / "__init__.py").exists()


def test_every_row_of_the_failure_table_names_a_test_that_there_is() -> None:
    table = section(ROOT / "ARCHITECTURE.md", "What happens when something dies")
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 10
    tests = {
        name
        for folder in (ROOT / "tests", *(service / "tests" for service in SERVICES))
        for file in folder.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    for row in rows:
        assert row[-2].strip().strip("`") in tests, row[1]
