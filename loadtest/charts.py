"""What benches draw: bars and lines as SVG, side by side and one below another in one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from monitors.svg import nice_ticks

WIDTH = 720.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 65.0, 25.0, 45.0, 45.0
_BLUE, _ORANGE = "#3b6ea5", "#c06000"


class Chart(NamedTuple):
    """A picture of `width` × `height`."""

    body: str
    height: float
    width: float = WIDTH


def bars(title: str, rows: Sequence[tuple[str, float, str]], names: float = 130.0) -> Chart:
    """A horizontal bar for each (name, value, text of the value); names: the room for the names."""
    longest = max((value for _, value, _ in rows), default=1.0) or 1.0
    parts = [_title(title)]
    for i, (name, value, label) in enumerate(rows):
        y, width = 40 + 30 * i, max(1.0, (WIDTH - 110 - names) * value / longest)
        parts.append(
            f'<text x="{names - 10:g}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{names:g}" y="{y}" width="{width:.1f}" height="22" fill="{_BLUE}"/>'
            f'<text x="{names + 6 + width:.1f}" y="{y + 16}">{escape(label)}</text>'
        )
    return Chart("".join(parts), 60 + 30 * len(rows))


def over_time(
    title: str, points: Sequence[tuple[float, float]], unit: str, marks: Sequence[tuple[float, str]] = ()
) -> Chart:
    """A line through (time in `unit`, value), at least one; the y axis begins at 0. marks: moments that may explain
    it, and their names.
    """
    last = max(1e-9, *(time for time, _ in points), *(time for time, _ in marks))
    times = nice_ticks(0.0, last)
    frame = _Frame(0.0, times[-1], WIDTH, nice_ticks(0.0, 1.1 * max(1e-9, *(value for _, value in points))))
    parts = [_title(title), frame.grid()]
    parts += [frame.x_label(time, f"{time:g} {unit}") for time in times]
    for i, (time, name) in enumerate(marks):
        x = frame.x(time)
        if name:
            side, anchor = (-5, "end") if x > WIDTH / 2 else (5, "start")
            parts.append(f'<path d="M{x:.1f} {frame.floor}V{_TOP}" stroke="{_ORANGE}" stroke-dasharray="4 3"/>')
            y = _TOP + 14 + 18 * (i % 2)
            parts.append(f'<text x="{x + side:.1f}" y="{y:g}" text-anchor="{anchor}">{escape(name)}</text>')
        else:
            parts.append(f'<path d="M{x:.1f} {frame.floor}v-6" stroke="{_ORANGE}"/>')
    parts.append(frame.line(points))
    return Chart("".join(parts), frame.height)


def over_sizes(title: str, points: Sequence[tuple[float, float, str]], width: float = WIDTH / 2) -> Chart:
    """A line through (size > 0, value, name of the size), over a logarithmic axis; a dot for each. y begins at 0."""
    sizes = [math.log10(size) for size, _, _ in points]
    spare = 0.06 * (max(sizes) - min(sizes)) or 0.5
    ticks = nice_ticks(0.0, 1.1 * max(1e-9, *(value for _, value, _ in points)))
    frame = _Frame(min(sizes) - spare, max(sizes) + spare, width, ticks)
    parts = [_title(title), frame.grid()]
    drawn = sorted((math.log10(size), value, name) for size, value, name in points)
    parts.append(frame.line([(size, value) for size, value, _ in drawn]))
    free = 0.0
    for size, value, name in drawn:
        x, half = frame.x(size), 4.5 * len(name)
        parts.append(f'<circle cx="{x:.1f}" cy="{frame.y(value):.1f}" r="4" fill="{_BLUE}"/>')
        parts.append(frame.x_label(size, name, lower=x - half < free))  # or they would collide
        free = x + half
    return Chart("".join(parts), frame.height, width)


def write(path: Path, rows: Sequence[Sequence[Chart]]) -> None:
    """An SVG of the charts: each row's side by side, the rows below one another."""
    parts, y = [], 0.0
    for row in rows:
        x = 0.0
        for chart in row:
            parts.append(f'<g transform="translate({x:g},{y:g})">{chart.body}</g>')
            x += chart.width
        y += max(chart.height for chart in row)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {y:g}" '
        f'font-family="sans-serif" font-size="14">{"".join(parts)}</svg>\n'
    )


class _Frame(NamedTuple):
    """The area of a line: x from `first` to `last`, y from 0 to the last tick."""

    first: float
    last: float
    width: float
    ticks: Sequence[float]
    height: float = 320.0

    @property
    def floor(self) -> float:
        return self.height - _BOTTOM

    def x(self, value: float) -> float:
        return _LEFT + (value - self.first) / (self.last - self.first) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.floor - value / self.ticks[-1] * (self.floor - _TOP)

    def grid(self) -> str:
        return "".join(
            f'<path d="M{_LEFT} {self.y(tick):.1f}H{self.width - _RIGHT:g}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 8}" y="{self.y(tick) + 5:.1f}" text-anchor="end">{_short(tick)}</text>'
            for tick in self.ticks
        )

    def x_label(self, value: float, text: str, *, lower: bool = False) -> str:
        y = self.floor + (36 if lower else 20)
        return f'<text x="{self.x(value):.1f}" y="{y:g}" text-anchor="middle">{escape(text)}</text>'

    def line(self, points: Sequence[tuple[float, float]]) -> str:
        path = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        return f'<path d="M{path}" fill="none" stroke="{_BLUE}" stroke-width="2"/>'


def _title(text: str) -> str:
    return f'<text x="10" y="25" font-weight="bold">{escape(text)}</text>'


def _short(value: float) -> str:
    """A tick: 120k for 120,000."""
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
