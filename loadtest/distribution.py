"""The whole distribution of latencies: as HdrHistogram's text (.hgrm), and as a chart by percentile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

TICKS = 5
"""Steps for each halving of the distance to 100 %, as HdrHistogram's own tools have them."""
_COLOURS = ("#3b6ea5", "#c06000", "#2f8f4e", "#8a4fa3", "#b03050", "#607080")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720.0, 360.0, 75.0, 32.0, 45.0, 75.0


class Step(NamedTuple):
    """`at_most` of the values are at most `value`, which are `share` of all or more."""

    value: float
    share: float
    at_most: int


def steps(values: np.ndarray) -> list[Step]:
    """Of float64 [n], n > 0: the percentiles at HdrHistogram's steps, each of them a value that was measured."""
    ordered = np.sort(values)
    n, share = len(ordered), 0.0
    found: list[Step] = []
    while True:
        value = ordered[max(math.ceil(share * n - 1e-6), 1) - 1]
        count = int(np.searchsorted(ordered, value, side="right"))
        if count == n and found:
            return [*found, Step(float(ordered[-1]), 1.0, n)]
        found.append(Step(float(value), share, count))
        halvings = math.floor(math.log2(1 / (1 - share))) + 1
        share += 1 / (TICKS * 2**halvings)


def hgrm(values: np.ndarray) -> str:
    """The text that HdrHistogram's plotter reads, of float64 [n] ms; only a comment where n is 0.

    The values are exact, not those of a histogram's buckets.
    """
    values = values.astype(np.float64)
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    if len(values):
        *rising, last = steps(values)
        lines += [f"{s.value:12.3f} {s.share:2.12f} {s.at_most:10d} {1 / (1 - s.share):14.2f}" for s in rising]
        lines.append(f"{last.value:12.3f} {last.share:2.12f} {last.at_most:10d}")
    mean, spread, most = (values.mean(), values.std(), values.max()) if len(values) else (0.0, 0.0, 0.0)
    lines.append(f"#[Mean    = {mean:12.3f}, StdDeviation   = {spread:12.3f}]")
    lines.append(f"#[Max     = {most:12.3f}, Total count    = {len(values):12d}]")
    return "\n".join(lines) + "\n"


def chart(title: str, series: Sequence[tuple[str, np.ndarray]]) -> str:
    """An SVG group: latency (logarithmic) by percentile (logarithmic towards 100 %) of each named float64 [n] ms.

    A series of none is only named.
    """
    drawn = [(name, steps(values) if len(values) else []) for name, values in series]
    found = [step for _, rising in drawn for step in rising]
    parts = [f'<text x="10" y="25" font-weight="bold">{escape(title)}</text>']
    if found:
        low = math.floor(math.log10(max(min(step.value for step in found), 1e-3)))
        high = max(math.ceil(math.log10(max(step.value for step in found)) + 1e-9), low + 1)
        nines = max(1, math.ceil(math.log10(max(step.at_most for step in found))))
        parts += _axes(low, high, nines)
        for colour, (_, rising) in zip(_colours(len(drawn)), drawn, strict=True):
            if not rising:
                continue
            # the last step lies at infinity: it is drawn where the number of its values puts it
            points = [(min(_nines(s), math.log10(max(s.at_most, 1)), nines), s.value) for s in rising]
            path = "L".join(f"{_x(n, nines):.1f} {_y(value, low, high):.1f}" for n, value in points)
            parts.append(f'<path class="series" d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for place, (colour, (name, rising)) in enumerate(zip(_colours(len(drawn)), drawn, strict=True)):
        x, y = _LEFT + 165 * (place % 4), _HEIGHT - 24 + 16 * (place // 4)
        parts.append(f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="12" height="12" fill="{colour}"/>')
        label = name if rising else f"{name}: nothing came"
        parts.append(f'<text x="{x + 17:.0f}" y="{y:.0f}">{escape(label)}</text>')
    return "".join(parts)


def write_plot(charts: Sequence[str], path: Path) -> None:
    """One SVG of the charts, one below the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(f'<g transform="translate(0,{i * _HEIGHT:g})">{one}</g>' for i, one in enumerate(charts))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT * len(charts):g}" '
        f'font-family="sans-serif" font-size="14">{body}</svg>\n'
    )


def _axes(low: int, high: int, nines: int) -> list[str]:
    floor = _HEIGHT - _BOTTOM
    parts = []
    for power in range(low, high + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            if value > 10.0**high:
                break
            y = _y(value, low, high)
            parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{"#bbb" if factor == 1 else "#eee"}"/>')
            if factor == 1 or high - low < 3:
                parts.append(f'<text x="{_LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{value:g} ms</text>')
    for n in range(nines + 1):
        x = _x(n, nines)
        name = f"{100 * (1 - 10.0**-n):.{max(0, n - 2)}f}%"
        parts.append(f'<path d="M{x:.1f} {_TOP}V{floor}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 20}" text-anchor="middle">{name}</text>')
    return parts


def _nines(step: Step) -> float:
    return -math.log10(1 - step.share) if step.share < 1 else math.inf


def _x(nines: float, most: int) -> float:
    return _LEFT + nines / most * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, low: int, high: int) -> float:
    floor = _HEIGHT - _BOTTOM
    return floor - (math.log10(max(value, 10.0**low)) - low) / (high - low) * (floor - _TOP)


def _colours(n: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(n)]
