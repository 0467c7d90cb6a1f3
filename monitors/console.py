"""A live view of a run in the terminal; where there is no terminal, a line now and then."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_EVERY_S = 5.0
_NOTES = 8
_WIDTH = 92


@dataclass
class View:
    """What is shown. Rates are per second, latencies in seconds; None = not known yet.

    done: share of the run, 0 to 1. history: numbers by name to draw as small curves, oldest first.
    loop: what the retraining loop does, in a word or two; without it, nothing of the loop is shown. champion: the
    version that serves; drifts, retrains, promotions: how many there were.
    """

    title: str
    phase: str = ""
    date: str = ""
    done: float = 0.0
    rate: float | None = None
    lag: int | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None
    auc: float | None = None
    predictions: int = 0
    unscored: int = 0
    labels: int = 0
    dead_letters: int = 0
    duplicated: int = 0
    history: dict[str, Sequence[float]] = field(default_factory=dict)
    loop: str = ""
    champion: str | None = None
    drifts: int = 0
    retrains: int = 0
    promotions: int = 0


class LiveView:
    """Shows a View until the context ends; `update` as often as wanted, it draws a few times a second."""

    def __init__(self, view: View, console: Console | None = None) -> None:
        self.view = view
        self._console = console or Console(stderr=True)
        self._notes: deque[tuple[str, str]] = deque(maxlen=_NOTES)
        self._started = self._printed = time.monotonic()
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=5, transient=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """An event of note: kept in view, or printed at once where there is no terminal."""
        self._notes.append((self._clock(), text))
        if not self._live:
            self._console.print(f"{self._clock()}  {text}", highlight=False, markup=False, soft_wrap=True)

    def update(self) -> None:
        """The view has changed."""
        now = time.monotonic()
        if not self._live and now - self._printed >= _PLAIN_EVERY_S:
            self._printed = now
            self._console.print(f"{self._clock()}  {plain(self.view)}", highlight=False, markup=False, soft_wrap=True)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def _draw(self) -> RenderableType:
        return draw(self.view, self._clock(), tuple(self._notes))


def draw(view: View, clock: str, notes: Sequence[tuple[str, str]]) -> RenderableType:
    """The view as a panel."""
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    head.add_row(Text(view.phase, style="bold cyan"), Text(f"{view.date}   {clock}", style="dim"))
    numbers = Table.grid(expand=True, padding=(0, 1))
    for _ in range(5):
        numbers.add_column(justify="left", ratio=1)
    numbers.add_row(
        _number("events/s", _count(view.rate), "green"),
        _number("lag", _count(view.lag)),
        _number("latency p50", _seconds(view.latency_p50)),
        _number("latency p99", _seconds(view.latency_p99)),
        _number("rolling AUC", "–" if view.auc is None else f"{view.auc:.3f}", "magenta"),
    )
    numbers.add_row()
    numbers.add_row(
        _number("predictions", _count(view.predictions)),
        _number("unscored", _count(view.unscored)),
        _number("labels", _count(view.labels)),
        _number("dead letters", _count(view.dead_letters), "red" if view.dead_letters else ""),
        _number("duplicated", _count(view.duplicated), "red" if view.duplicated else ""),
    )
    if view.loop:
        numbers.add_row()
        numbers.add_row(
            _number("loop", view.loop, "cyan"),
            _number("champion", view.champion or "–"),
            _number("drifts", _count(view.drifts)),
            _number("retrain events", _count(view.retrains)),
            _number("promotions", _count(view.promotions), "green" if view.promotions else ""),
        )
    parts: list[RenderableType] = [
        head,
        ProgressBar(total=1.0, completed=view.done, width=None, complete_style="cyan", finished_style="green"),
        Text(),
        numbers,
    ]
    curves = Table.grid(padding=(0, 2))
    for name, values in view.history.items():
        if len(values) > 1:
            ends = f"{_short(min(values))} … {_short(max(values))}"
            curves.add_row(Text(name, style="dim"), Text(curve(values, 56), style="cyan"), Text(ends, style="dim"))
    if curves.row_count:
        parts += [Text(), curves]
    if notes:
        parts.append(Text())
        parts += [Text.assemble((f"{at:>6}  ", "dim"), text) for at, text in notes]
    return Panel(Group(*parts), title=view.title, title_align="left", border_style="cyan", width=_WIDTH, padding=(1, 2))


def plain(view: View) -> str:
    """The view on one line."""
    parts = [view.phase, view.date, f"{view.done:.0%}", f"{view.predictions:,} predictions"]
    if view.rate is not None:
        parts.append(f"{view.rate:,.0f} events/s")
    if view.lag is not None:
        parts.append(f"lag {view.lag:,}")
    if view.latency_p50 is not None:
        parts.append(f"p50 {_seconds(view.latency_p50)}")
    if view.auc is not None:
        parts.append(f"AUC {view.auc:.3f}")
    if view.loop:
        parts.append(f"champion {view.champion or '–'}, {view.loop}")
    return "  ".join(filter(None, parts))


def curve(values: Sequence[float], width: int) -> str:
    """`values` as blocks, the latest `width` of them, from their least to their greatest."""
    shown = list(values)[-width:]
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in shown)


def _number(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name}\n", "dim"), (value, f"bold {style}".strip()))


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
