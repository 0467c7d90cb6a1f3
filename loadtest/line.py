"""An SVG of one value over time, with a mark at each moment that may explain it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from monitors.svg import nice_ticks

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720.0, 320.0, 60.0, 20.0, 45.0, 45.0


def write_line(path: Path, title: str, points: Sequence[tuple[float, float]], marks: Sequence[float] = ()) -> None:
    """`points`: (minutes, value), at least one; the y axis begins at 0. marks: minutes."""
    ticks = nice_ticks(0.0, 1.1 * max(value for _, value in points))
    minutes = nice_ticks(0.0, max(minute for minute, _ in points))
    floor = _HEIGHT - _BOTTOM

    def x(minute: float) -> float:
        return _LEFT + minute / minutes[-1] * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return floor - value / ticks[-1] * (floor - _TOP)

    parts = [f'<text x="10" y="25" font-weight="bold">{escape(title)}</text>']
    for tick in ticks:
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 5:.1f}" text-anchor="end">{tick:g}</text>')
    parts += [f'<text x="{x(m):.1f}" y="{floor + 20}" text-anchor="middle">{m:g} min</text>' for m in minutes]
    parts += [f'<path d="M{x(m):.1f} {floor}v-6" stroke="#c06000"/>' for m in marks]
    line = "L".join(f"{x(minute):.1f} {y(value):.1f}" for minute, value in points)
    parts.append(f'<path d="M{line}" fill="none" stroke="#3b6ea5" stroke-width="2"/>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'font-family="sans-serif" font-size="14">{"".join(parts)}</svg>\n'
    )
