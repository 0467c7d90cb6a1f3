"""Charts as inline SVG: lines over time, a timeline, horizontal bars, a histogram on a logarithmic axis.

Colours are the page's CSS variables (`--ink`, `--muted`, `--grid`, `--card`, `--c1` …), so that one chart
serves a light and a dark page. Every chart fills its container's width; a value appears when the pointer is
over its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import pairwise

import numpy as np

Format = Callable[[float], str]
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 16.0, 14.0, 44.0


@dataclass(frozen=True)
class Series:
    """One line: `values` [n], None where there is none; `colour` is a CSS variable's name."""

    name: str
    values: Sequence[float | None]
    colour: str = "c1"
    area: bool = False


@dataclass(frozen=True)
class _Frame:
    """The plot's area in a picture of `width` × `height`, and its two scales."""

    width: float
    height: float
    x0: float
    x1: float
    y0: float
    y1: float
    left: float = _LEFT

    def x(self, value: float) -> float:
        span = self.x1 - self.x0 or 1.0
        return self.left + (value - self.x0) / span * (self.width - self.left - _RIGHT)

    def y(self, value: float) -> float:
        span = self.y1 - self.y0 or 1.0
        return self.height - _BOTTOM - (value - self.y0) / span * (self.height - _TOP - _BOTTOM)

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM


def line_chart(
    times_ms: Sequence[int],
    series: Sequence[Series],
    *,
    y_label: str,
    x_label: str = "",
    form: Format = "{:.2f}".format,
    width: float = 560,
    height: float = 250,
    reference: tuple[float, str] | None = None,
    marks: Sequence[tuple[int, str]] = (),
    span: tuple[int, int] | None = None,
) -> str:
    """Lines over `times_ms` [n], months on the x axis. reference: a dashed line at a value, and its name.

    marks: moments (ms) to point out, with what happened. span: (first, last) of the x axis; None = of the times.
    """
    values = [v for s in series for v in s.values if v is not None]
    if not values or not times_ms:
        return _nothing(width, height)
    low, high = min(values), max(values)
    if reference:
        low, high = min(low, reference[0]), max(high, reference[0])
    ticks = nice_ticks(low, high)
    first, last = span or (times_ms[0], times_ms[-1])
    frame = _Frame(width, height, first, last, ticks[0], ticks[-1])
    parts = [_y_axis(frame, ticks, form, y_label), _months(frame, first, last, x_label)]
    parts += [_moment(frame, at, hint) for at, hint in marks if first <= at <= last]
    parts += [_line(frame, times_ms, s) for s in series]
    if reference:
        y, right = frame.y(reference[0]), width - _RIGHT
        parts.append(_rule("ref", _LEFT, y, right, y))
        parts.append(_text("reftext", right, y - 6, reference[1], "end"))
    parts.append(_hover(frame, times_ms, series, form))
    return _svg(width, height, parts)


@dataclass(frozen=True)
class Lane:
    """A row of a timeline: what happened at which moments (ms), each with a hint."""

    name: str
    moments: Sequence[tuple[int, str]]
    colour: str = "c1"


def timeline(
    lanes: Sequence[Lane], span: tuple[int, int], *, width: float = 1140, row: float = 34, names: float = 120
) -> str:
    """One row a lane, a dot a moment, months on the x axis. span: (first, last), ms."""
    if not any(lane.moments for lane in lanes):
        return _nothing(width, 120)
    frame = _Frame(width, row * len(lanes) + _TOP + _BOTTOM, span[0], span[1], 0.0, 1.0, names)
    parts = [_months(frame, span[0], span[1], "")]
    for place, lane in enumerate(lanes):
        y = _TOP + row * (place + 0.5)
        parts.append(_rule("grid", names, y, width - _RIGHT, y))
        parts.append(_text("name", names - 14, y + 4, lane.name, "end"))
        parts += [
            _dot(frame.x(at), y, lane.colour, 5.5, f"{_day(at)}: {hint}")
            for at, hint in lane.moments
            if span[0] <= at <= span[1]
        ]
    return _svg(width, frame.height, parts)


def bar_chart(
    bars: Sequence[tuple[str, float, float]],
    *,
    x_label: str,
    form: Format = "{:.3f}".format,
    width: float = 560,
    row: float = 22,
    names: float = 210,
) -> str:
    """Horizontal bars of (name, value, spread), the spread as a whisker."""
    if not bars:
        return _nothing(width, 120)
    height = row * len(bars) + 48
    ticks = nice_ticks(min(0.0, *(v for _, v, _ in bars)), max(v + s for _, v, s in bars), 4)

    def x(value: float) -> float:
        return names + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (width - names - 64)

    bottom = row * len(bars) + 6
    parts = [_rule("grid", x(t), 4, x(t), bottom) + _text("tick", x(t), bottom + 16, f"{t:g}", "middle") for t in ticks]
    parts.append(_text("label", (names + width - 64) / 2, bottom + 36, x_label, "middle"))
    for i, (name, value, spread) in enumerate(bars):
        y = 4 + i * row + row / 2
        left, right = sorted((x(0), x(value)))
        parts += [
            '<g class="bar">',
            _text("name", names - 8, y + 4, name, "end"),
            _box("", left, y - row * 0.34, max(right - left, 1), row * 0.68, "c1"),
            _rule("whisker", x(value - spread), y, x(value + spread), y),
            _text("value", x(max(value + spread, 0.0)) + 6, y + 4, form(value)),
            "</g>",
        ]
    return _svg(width, height, parts)


def histogram(
    values: np.ndarray,
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    form: Format = "{:g}".format,
    width: float = 560,
    height: float = 250,
) -> str:
    """How `values` > 0 are spread, over a logarithmic axis; `marks`: values to point out, and their names."""
    found = values[np.isfinite(values) & (values > 0)]
    if not len(found):
        return _nothing(width, height)
    low, high = math.log10(float(np.quantile(found, 0.001))), math.log10(float(found.max()))
    low, high = math.floor(low * 4) / 4, math.ceil(high * 4 + 1e-9) / 4
    bins = max(8, round((high - low) * 16))
    counts, edges = np.histogram(np.log10(found), bins=bins, range=(low, high))
    share = counts / len(found)
    ticks = nice_ticks(0.0, float(share.max()), 4)
    frame = _Frame(width, height, low, high, 0.0, ticks[-1])
    parts = [_y_axis(frame, ticks, lambda v: f"{v * 100:g}%", y_label)]
    for tick in _log_ticks(low, high):
        x = frame.x(math.log10(tick))
        parts.append(_rule("axis", x, frame.bottom, x, frame.bottom + 4))
        parts.append(_text("tick", x, frame.bottom + 18, form(tick), "middle"))
    parts.append(_text("label", (_LEFT + width - _RIGHT) / 2, height - 6, x_label, "middle"))
    for value, left, right in zip(share, edges[:-1], edges[1:], strict=True):
        x, y = frame.x(left), frame.y(value)
        hint = f"{form(_round2(10**left))} to {form(_round2(10**right))}: {value * 100:.1f}%"
        wide = max(frame.x(right) - x - 1, 0.5)
        parts.append(_box("bin", x + 0.5, y, wide, frame.bottom - y, "c1", hint))
    for i, (mark, name) in enumerate(marks):
        x = frame.x(min(max(math.log10(mark), low), high))
        side, anchor = (-5, "end") if x > width * 0.75 else (5, "start")
        parts.append(_rule("mark", x, _TOP, x, frame.bottom))
        parts.append(_text("marktext", x + side, _TOP + 10 + 15 * i, name, anchor))
    return _svg(width, height, parts)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values that enclose [low, high], roughly `about` of them."""
    if high - low < 1e-12:
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    raw = (high - low) / max(about - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    factors = (1, 2, 5) if high - low < 3 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [f * 10.0**p for p in powers for f in factors if low <= math.log10(f * 10.0**p) <= high]


def _y_axis(frame: _Frame, ticks: Sequence[float], form: Format, label: str) -> str:
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        parts.append(_rule("grid", _LEFT, y, frame.width - _RIGHT, y))
        parts.append(_text("tick", _LEFT - 8, y + 4, form(tick), "end"))
    turned = f'<g transform="translate(11 {(_TOP + frame.bottom) / 2:.1f}) rotate(-90)">'
    return "".join([*parts, turned, _text("label", 0, 0, label, "middle"), "</g>"])


def _months(frame: _Frame, first_ms: int, last_ms: int, label: str) -> str:
    """Ticks at the first of each month that the axis covers, named where there is room."""
    start = datetime.fromtimestamp(first_ms / 1000, UTC)
    months = []
    year, month = start.year, start.month
    while (at := datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000) <= last_ms:
        if at >= first_ms:
            months.append((at, datetime(year, month, 1, tzinfo=UTC)))
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    y = frame.bottom
    parts = [_rule("axis", frame.left, y, frame.width - _RIGHT, y)]
    for at, day in months:
        x = frame.x(at)
        parts.append(_rule("axis", x, y, x, y + 4) + _text("tick", x, y + 18, f"{day:%b}", "middle"))
    middle = (frame.left + frame.width - _RIGHT) / 2
    return "".join([*parts, _text("label", middle, frame.height - 6, label or f"{start.year}", "middle")])


def _line(frame: _Frame, times_ms: Sequence[int], series: Series) -> str:
    """A path with gaps where values are missing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for time_ms, value in zip(times_ms, series.values, strict=True):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((frame.x(time_ms), frame.y(value)))
    parts = []
    for run in filter(None, runs):
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
        if series.area:
            closed = f"M{path}L{run[-1][0]:.1f} {frame.bottom:.1f}L{run[0][0]:.1f} {frame.bottom:.1f}Z"
            parts.append(f'<path class="area" d="{closed}" style="fill:var(--{series.colour})"/>')
        parts.append(f'<path class="line" d="M{path}" style="stroke:var(--{series.colour})"/>')
    return "".join(parts)


def _hover(frame: _Frame, times_ms: Sequence[int], series: Sequence[Series], form: Format) -> str:
    """One invisible column a point; the pointer over it shows the rule, the dots and the values."""
    xs = [frame.x(t) for t in times_ms]
    edges = [frame.x(frame.x0), *((a + b) / 2 for a, b in pairwise(xs)), frame.x(frame.x1)]
    parts = []
    for i, time_ms in enumerate(times_ms):
        known = [(s, v) for s in series if (v := s.values[i]) is not None]
        if not known:
            continue
        x = xs[i]
        lines = [_day(time_ms), *(f"{s.name}: {form(v)}" for s, v in known)]
        wide = 12 + 6.2 * max(map(len, lines))
        left = x - wide - 10 if x > frame.width * 0.6 else x + 10
        parts += [
            '<g class="slot">',
            _box("hit", edges[i], _TOP, max(edges[i + 1] - edges[i], 1), frame.bottom - _TOP),
            '<g class="tip">',
            _rule("rule", x, _TOP, x, frame.bottom),
            *(_dot(x, frame.y(v), s.colour) for s, v in known),
            _box("box", left, _TOP, wide, 15 * len(lines) + 8),
            *(_text("tiptext", left + 7, _TOP + 15 * n, line) for n, line in enumerate(lines, 1)),
            "</g></g>",
        ]
    return "".join(parts)


def _rule(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(name: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _moment(frame: _Frame, at: int, hint: str) -> str:
    x = frame.x(at)
    title = f"<title>{escape(f'{_day(at)}: {hint}')}</title>"
    return f'<line class="moment" x1="{x:.1f}" y1="{_TOP:.1f}" x2="{x:.1f}" y2="{frame.bottom:.1f}">{title}</line>'


def _dot(x: float, y: float, colour: str, radius: float = 3.5, hint: str = "") -> str:
    head = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" style="fill:var(--{colour})"'
    return f'{head} class="dot"><title>{escape(hint)}</title></circle>' if hint else f"{head}/>"


def _box(name: str, x: float, y: float, width: float, height: float, colour: str = "", hint: str = "") -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"'
    style = f' style="fill:var(--{colour})"' if colour else ""
    return f'<rect class="{name}" {size}{style}>' + (f"<title>{escape(hint)}</title>" if hint else "") + "</rect>"


def _nothing(width: float, height: float) -> str:
    return _svg(width, height, [_text("label", width / 2, height / 2, "nothing to show", "middle")])


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img">{"".join(parts)}</svg>'


def _day(time_ms: int) -> str:
    """ "3 Mar 2013" """
    at = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{at.day} {at:%b %Y}"


def _round2(value: float) -> float:
    return float(f"{value:.2g}")
