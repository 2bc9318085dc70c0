"""Hostile bytes at every parser: ``python -m tests.fuzz [SECONDS] [TARGET ...]``.

A target is a module ``services/*/tests/fuzz_*.py`` that knows nothing of how it is driven. The
tests run it over its seeds; `__main__` runs every target in a process of its own, in which `drive`
has libFuzzer (through atheris) search for bytes that it does not stand, guided by coverage.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

ROOT: Final = Path(__file__).parents[2]


class Target(Protocol):
    """What such a module has."""

    def seeds(self) -> Iterator[bytes]:
        """Inputs to begin with, from which the others are made."""

    def check(self, data: bytes) -> None:
        """Raises whatever must not be raised by any ``data``, AssertionError for a wrong answer."""

    def refine(self, data: bytes, seed: int) -> bytes:
        """``data``, made by blind changes, as something that gets further in: a checksum made
        right, a value instead of a byte changed."""


def names() -> list[str]:
    """The targets, without the folder and the prefix."""
    return sorted(path.stem.removeprefix("fuzz_") for path in _files())


def load(name: str) -> Target:
    """The target called ``name``."""
    [file] = [path for path in _files() if path.stem == f"fuzz_{name}"]
    return cast(Target, import_module(".".join(file.relative_to(ROOT).with_suffix("").parts)))


def _files() -> list[Path]:
    return list(ROOT.glob("services/*/tests/fuzz_*.py"))
