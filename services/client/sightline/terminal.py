"""What a person sees: names made harmless, a table row by row, and a bar while it takes time."""

import sys
from collections.abc import Iterable, Sequence
from shutil import get_terminal_size
from typing import Final, TextIO

BAR: Final = 24
"""Characters."""


def printable(text: str) -> str:
    """``text`` without anything that a terminal would obey: names come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """``rows`` as lines in which columns stand below each other; numbers to the right."""
    table = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if is_number(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def is_number(cell: str) -> bool:
    """Whether ``cell`` begins with a digit and is no name that does."""
    return cell[:1].isdigit() and all(c in "0123456789.,/ %" for c in cell)


class Progress:
    """A bar in the last line of a terminal; nothing at all where there is none."""

    def __init__(self, total: int, stream: TextIO = sys.stderr) -> None:
        self._total = total
        self._stream = stream
        self._shown = stream.isatty() and total > 1

    def show(self, done: int, failed: int) -> None:
        """So many are through, so many of them without success."""
        if not self._shown:
            return
        full = BAR * done // self._total
        line = f"[{'#' * full}{'.' * (BAR - full)}] {done} of {self._total}"
        line += f", {failed} failed" if failed else ""
        self._stream.write(f"\r\x1b[K{line[: get_terminal_size().columns - 1]}")
        self._stream.flush()

    def hide(self) -> None:
        """Make room for another line."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
