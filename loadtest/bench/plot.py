"""Plots as SVG: panels of lines or bars beside each other, readable in light and in dark.

A few rectangles and lines need no plotting library, which would be larger than the service.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10
from typing import Final

COLOURS: Final = ("#0a7d5a", "#d9822b", "#4a6fd4", "#9b4dca", "#7a7a7a", "#c0392b")
WIDTH: Final = 380
HEIGHT: Final = 260
LEFT: Final = 52
RIGHT: Final = 14
TOP: Final = 34
BOTTOM: Final = 44
LEGEND: Final = 26
STYLE: Final = """
text{font:11px system-ui,sans-serif;fill:#333}.title{font-size:13px;font-weight:600}
.grid{stroke:#8884;stroke-width:1}
@media (prefers-color-scheme:dark){svg{background:#16181b}text{fill:#ddd}}
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: a value of each series at each of the same points."""

    title: str
    points: Sequence[str]
    """Names of the points along the x axis."""
    series: Mapping[str, Sequence[float | None]]
    x: str = ""
    """What the points are."""
    lines: bool = True
    """Joined values; else bars in groups."""
    dashed: Sequence[str] = field(default_factory=tuple)
    """Series that are predicted, not measured."""
    logarithmic: bool = False
    across: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Where the values of each series lie along the x axis, which has numbers then and not
    ``points``. For lines."""


def svg(panels: Sequence[Panel]) -> str:
    """The panels beside each other, under one legend."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}
    width, height = WIDTH * len(panels), HEIGHT + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{STYLE}</style>'
    ]
    x = LEFT
    for name in names:
        parts.append(f'<rect x="{x}" y="8" width="11" height="11" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 16}" y="18">{escape(name)}</text>')
        x += 34 + 7 * len(name)
    for n, panel in enumerate(panels):
        parts.append(f'<g transform="translate({n * WIDTH},{LEGEND})">{_panel(panel, colours)}</g>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def _panel(panel: Panel, colours: Mapping[str, str]) -> str:
    values = [v for row in panel.series.values() for v in row if v is not None]
    axis = _Axis(values, logarithmic=panel.logarithmic)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [f'<text class="title" x="{LEFT}" y="22">{escape(panel.title)}</text>']
    for tick in axis.ticks:
        y = axis.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{tick:g}"
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    numbers = _Axis([v for row in panel.across.values() for v in row if v is not None])
    step = (right - LEFT) / max(1, len(panel.points))
    centres = [LEFT + step * (n + 0.5) for n in range(len(panel.points))]
    names = panel.points
    if panel.across:
        centres = [numbers.x(tick) for tick in numbers.ticks]
        names = [f"{tick:g}" for tick in numbers.ticks]
    for centre, point in zip(centres, names, strict=True):
        text = f'<text x="{centre:.1f}" y="{bottom + 16}" text-anchor="middle">'
        parts.append(f"{text}{escape(point)}</text>")
    middle = (LEFT + right) / 2
    text = f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">'
    parts.append(f"{text}{escape(panel.x)}</text>")
    bar = step * 0.8 / max(1, len(panel.series))
    for n, (name, row) in enumerate(panel.series.items()):
        xs: Sequence[float | None] = centres
        if panel.across:
            xs = [None if x is None else numbers.x(x) for x in panel.across[name]]
        pairs = zip(xs, row, strict=True)
        known = [(x, v) for x, v in pairs if x is not None and v is not None]
        if panel.lines:
            parts.append(_line(known, axis, colours[name], dashed=name in panel.dashed))
        else:
            shift = -step * 0.4 + n * bar
            parts += [_bar(x + shift, bar, v, axis, colours[name]) for x, v in known]
    return "\n".join(parts)


def _line(known: list[tuple[float, float]], axis: "_Axis", colour: str, *, dashed: bool) -> str:
    path = " ".join(f"{x:.1f},{axis.y(v):.1f}" for x, v in known)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{axis.y(v):.1f}" r="3" fill="{colour}"/>' for x, v in known
    )
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    return line + ("" if dashed else dots)


def _bar(x: float, width: float, value: float, axis: "_Axis", colour: str) -> str:
    top = axis.y(value)
    height = HEIGHT - BOTTOM - top
    return (
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width * 0.9:.1f}" height="{height:.1f}" '
        f'fill="{colour}"><title>{value:.4g}</title></rect>'
    )


class _Axis:
    """Where a value is between the bottom and the top of a panel, or its left and its right."""

    def __init__(self, values: Sequence[float], *, logarithmic: bool = False) -> None:
        self._logarithmic = logarithmic
        largest = max(values, default=1.0) or 1.0
        if logarithmic:
            least = min((v for v in values if v > 0), default=largest)
            self._low, high = floor(log10(least)), ceil(log10(largest))
            self._high = max(high, self._low + 1)
            self.ticks = [10.0**n for n in range(self._low, self._high + 1)]
        else:
            unit = 10 ** floor(log10(largest))
            step = next(s * unit for s in (0.2, 0.5, 1, 2, 5) if largest / (s * unit) <= 6)
            self._low, self._high = 0, step * ceil(largest / step)
            self.ticks = [step * n for n in range(ceil(largest / step) + 1)]

    def x(self, value: float) -> float:
        """In the panel's coordinates."""
        return LEFT + self._share(value) * (WIDTH - RIGHT - LEFT)

    def y(self, value: float) -> float:
        """In the panel's coordinates."""
        return (HEIGHT - BOTTOM) - self._share(value) * (HEIGHT - BOTTOM - TOP)

    def _share(self, value: float) -> float:
        place = log10(max(value, 10**self._low)) if self._logarithmic else value
        return (place - self._low) / (self._high - self._low)
