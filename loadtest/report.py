"""A load test as a page to keep: ``python -m loadtest.report PREFIX``.

Out of the tables that Locust writes with ``--csv PREFIX --csv-full-history`` come ``PREFIX.md``,
what each kind of request got, and ``PREFIX.svg``, how it went over time. Locust's own page shows
the same and more, to be clicked through; it is a megabyte of script, nothing to keep in a tree.
Locust writes the tables once a second, so what was answered in the last one may be missing.
"""

import csv
import sys
from itertools import pairwise
from pathlib import Path
from typing import Final

from loadtest.bench.plot import Panel, svg

SMOOTH: Final = 5
"""Rows of the history, which come once a second, that a point of the plot is the mean of."""
ALL: Final = "Aggregated"

Row = dict[str, str]


def main() -> int:
    """Writes both files. Returns the exit status: 0, or 2 if there are no tables."""
    if len(sys.argv) != 2:
        print("usage: python -m loadtest.report PREFIX", file=sys.stderr)
        return 2
    prefix = sys.argv[1]
    try:
        stats, history = _rows(f"{prefix}_stats.csv"), _rows(f"{prefix}_stats_history.csv")
    except OSError as error:
        print(f"load: there is no report: {error}", file=sys.stderr)
        return 2
    drawing = Path(f"{prefix}.svg")
    drawing.write_text(plot(history))
    Path(f"{prefix}.md").write_text(f"{table(stats)}\n\n![over time]({drawing.name})\n")
    return 0


def _rows(path: str) -> list[Row]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def table(stats: list[Row]) -> str:
    """What each kind of request got, in Markdown; times in milliseconds, all kinds in the end."""
    lines = [
        "| request | sent | failed | a second | p50 | p95 | p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in stats:
        name = "all" if row["Name"] == ALL else f"{row['Type']} {row['Name']}"
        lines.append(
            f"| {name} | {row['Request Count']} | {row['Failure Count']} "
            f"| {float(row['Requests/s']):.1f} | {row['50%']} | {row['95%']} | {row['99%']} |"
        )
    return "\n".join(lines)


def plot(history: list[Row]) -> str:
    """How many users there were, what they asked and how long it took them, over time, as SVG."""
    rows = [row for row in history if row["Name"] == ALL][::SMOOTH]
    at = [int(row["Timestamp"]) for row in rows]
    seconds = [float(moment - at[0]) for moment in at]
    sent = [int(row["Total Request Count"]) for row in rows]
    rates = [
        (after - before) / (end - begin)
        for (before, after), (begin, end) in zip(pairwise(sent), pairwise(at), strict=True)
    ]
    crowd: dict[str, list[float | None]] = {
        "users": [float(row["User Count"]) for row in rows[1:]],
        "requests a second": [*rates],
    }
    times = {"p50": [_ms(row["50%"]) for row in rows], "p95": [_ms(row["95%"]) for row in rows]}
    return svg(
        [
            Panel(
                "users, and requests a second",
                [],
                crowd,
                "seconds",
                across=dict.fromkeys(crowd, seconds[1:]),
            ),
            Panel(
                "ms from request to answer, of the last 10 s",
                [],
                times,
                "seconds",
                across=dict.fromkeys(times, seconds),
            ),
        ]
    )


def _ms(cell: str) -> float | None:
    """Locust's N/A is for a moment without requests."""
    return None if cell == "N/A" else float(cell)


if __name__ == "__main__":
    sys.exit(main())
