"""Every document of the tree, read once and taken apart: prose, code in it, fences, commands.

Rules:
- Every Markdown file is read, but for those in hidden folders.
- A command is whatever stands in code and begins with a program's name. In a fence ``console`` only
  lines with a ``$`` are commands, the others are what they print.
- What a command runs inside a container is a command, too.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from tests.conftest import ROOT

MADE: Final = frozenset(line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines())
"""Folders that are no part of the tree: what is in them is made by a command."""
DOCUMENTS: Final = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]
    if path.relative_to(ROOT).parts[0] not in MADE
)
SERVICES: Final = sorted(ROOT.glob("services/*"))
NO_PACKAGE: Final = {"tests", "__pycache__"}
PACKAGES: Final = {
    folder.name: package.name
    for folder in SERVICES
    for package in sorted(folder.iterdir())
    if package.is_dir() and package.name.isidentifier() and package.name not in NO_PACKAGE
}
"""The folder of each service, and the package in it."""
DEPLOYED: Final = sorted(
    path
    for pattern in (
        "Makefile",
        ".ci/run",
        "docker-compose*.yml",
        "services/*/Dockerfile",
        "loadtest/Dockerfile",
        "deploy/**/*",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix not in (".md", ".png", ".pyc")
)
"""What runs the service, and says so in files that are no documents."""

_FENCE = re.compile(r"^( *)```(\w*).*?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_BETWEEN = {"|", "||", "&&", ";"}
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def name(path: Path) -> str:
    """As a test is called, and as a link would say it from the root."""
    return str(path.relative_to(ROOT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


class Fence(NamedTuple):
    """A block of code in a document."""

    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A program with its arguments, as a document has it."""

    variables: dict[str, str]
    """Those that are set for this command alone."""
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return Path(self.words[0]).name

    def __str__(self) -> str:
        return " ".join([*(f"{k}={v}" for k, v in self.variables.items()), *self.words])


@cache
def text(file: Path) -> str:
    return file.read_text()


@cache
def fences(document: Path) -> tuple[Fence, ...]:
    return tuple(Fence(match[2], match[3]) for match in _FENCE.finditer(text(document)))


@cache
def prose(document: Path) -> str:
    """A document without its fences."""
    return _FENCE.sub("", text(document))


@cache
def spans(document: Path) -> tuple[str, ...]:
    return tuple(_SPAN.findall(prose(document)))


@cache
def anchors(document: Path) -> frozenset[str]:
    """What a link may name after ``#``, as GitHub makes it out of the headings."""
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ +(.+?) *$", prose(document), re.MULTILINE)
    )


@cache
def section(document: Path, heading: str) -> str:
    """What stands under ``heading`` of the second level."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text(document), re.DOTALL | re.MULTILINE
    )
    assert found is not None, f"{name(document)} has no section {heading!r}"
    return found[1]


@cache
def commands(document: Path) -> tuple[Command, ...]:
    """Everything in code that may be a command."""
    lines = [line for fence in fences(document) for line in _lines(fence)]
    return tuple(command for line in [*lines, *spans(document)] for command in parsed(line))


def _lines(fence: Fence) -> list[str]:
    lines = fence.text.replace("\\\n", "").splitlines()
    if fence.language == "console":
        return [line for line in lines if line.lstrip().startswith("$ ")]
    return lines


def parsed(line: str) -> Iterator[Command]:
    """The commands of one line, without its comment."""
    try:
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    except ValueError:  # An apostrophe: words of some other language.
        return
    while words:
        end = next((i for i, word in enumerate(words) if word in _BETWEEN), len(words))
        yield from _with_inner(words[:end])
        words = words[end + 1 :]


def _with_inner(words: Sequence[str]) -> Iterator[Command]:
    variables = {}
    while words and (match := _VARIABLE.fullmatch(words[0])):
        variables[match[1]] = match[2]
        words = words[1:]
    if not words:
        return
    yield Command(variables, tuple(words))
    if Path(words[0]).name in ("docker", "kubectl") and "exec" in words:
        rest = words[words.index("exec") + 1 :]
        rest = rest[rest.index("--") + 1 :] if "--" in rest else rest
        for start, word in enumerate(rest):
            if Path(word).name in ("python", "sightline", "curl"):
                yield from _with_inner(rest[start:])
                return


@cache
def manifests(file: Path) -> tuple[Any, ...]:
    """The documents of a YAML file."""
    return tuple(part for part in yaml.safe_load_all(text(file)) if part is not None)
