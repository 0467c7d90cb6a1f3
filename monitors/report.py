"""The report of a run as one HTML file: no scripts, no network, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from monitors.performance import Importance, Week
from monitors.svg import Lane, Series, bar_chart, histogram, line_chart, timeline

_PAGE = Path(__file__).with_name("report.html")
DAY_MS = 24 * 3_600_000


@dataclass(frozen=True)
class Tile:
    """A number of the first row: `value` large, `label` above it, `hint` below."""

    label: str
    value: str
    hint: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Happening:
    """A step of the retraining loop. time: ms of event time; kind: a key of KINDS; what, why: in words."""

    time: int
    kind: str
    what: str
    why: str = ""


KINDS = {"drift": ("Drift", "c2"), "retrain": ("Retrain event", "c1"), "promotion": ("Promotion", "good"),
         "rejection": ("Rejection", "bad")}  # fmt: skip
"""Of happenings: what each is called, and its colour."""


@dataclass(frozen=True)
class ReportData:
    """What a report shows. An empty part is left out.

    weeks: of what was served; first_weeks: of the first model on the same events. times, labels, scores: of the scored
    events with labels, [n]. outcome: what a label of 1 means, in words. timeline: the loop's steps by time; span: first
    and last moment of the run, ms. latency_s: from sending to prediction, of a sample. summary: rows of the table at
    the end.
    """

    title: str
    subtitle: str
    outcome: str
    tiles: Sequence[Tile]
    weeks: Sequence[Week]
    times: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    importance: Sequence[Importance]
    latency_s: np.ndarray
    latency_note: str
    summary: Sequence[tuple[str, str]]
    first_weeks: Sequence[Week] = ()
    timeline: Sequence[Happening] = ()
    span: tuple[int, int] = (0, 0)
    notes: Sequence[str] = field(default_factory=tuple)


def render(data: ReportData) -> str:
    """The whole page."""
    cards = [*_weekly(data), _timeline(data), _year(data), _importance(data), _latency(data), _summary(data)]
    notes = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(data.title),
        subtitle=escape(data.subtitle),
        tiles="".join(map(_tile, data.tiles)),
        cards="".join(cards),
        notes=f'<section class="notes"><h2>How to read this</h2><ul>{notes}</ul></section>' if notes else "",
    )


def _weekly(data: ReportData) -> list[str]:
    if not data.weeks:
        return []
    times = [week.start_ms + int(3.5 * DAY_MS) for week in data.weeks]
    first = {week.start_ms: week for week in data.first_weeks}
    marks = [(h.time, f"{h.what} is promoted") for h in data.timeline if h.kind == "promotion"]
    found = []
    for name, field_, hint in (
        ("AUC", "auc", "higher is better; 0.5 is a coin toss"),
        ("Log loss", "log_loss", "lower is better"),
    ):
        series = [Series("live", [getattr(week, field_) for week in data.weeks], "c1")]
        if first:
            beside = [getattr(first.get(week.start_ms), field_, None) for week in data.weeks]
            series.insert(0, Series("first model", beside, "c3"))
        chart = line_chart(times, series, y_label=name, form="{:.3f}".format, marks=marks, height=300)
        said = f"{hint}; upright lines are promotions" if marks else hint
        found.append(_card(f"{name} by week", said, chart, legend=series if first else ()))
    return found


def _timeline(data: ReportData) -> str:
    if not data.timeline:
        return ""
    lanes = [
        Lane(
            name,
            [(h.time, f"{h.what} ({h.why})" if h.why else h.what) for h in data.timeline if h.kind == kind],
            colour,
        )
        for kind, (name, colour) in KINDS.items()
    ]
    rows = "".join(
        f"<tr><th>{day(h.time)}</th><td>{KINDS[h.kind][0]}</td><td>{escape(h.what)}</td><td>{escape(h.why)}</td></tr>"
        for h in data.timeline
    )
    log = f'<div class="scroll"><table class="log">{rows}</table></div>'
    return _card("The loop", "what drifted, what came of it", timeline(lanes, data.span) + log, wide=True)


def _year(data: ReportData) -> str:
    if not len(data.times):
        return ""
    days = data.times // DAY_MS
    found, place = np.unique(days, return_inverse=True)
    counts = np.bincount(place)
    scores, labels = (np.bincount(place, weights=values) / counts for values in (data.scores, data.labels))
    series = [
        Series(f"share {data.outcome}", labels.tolist(), "c3", area=True),
        Series("mean score", scores.tolist(), "c1"),
    ]
    chart = line_chart(
        (found * DAY_MS + DAY_MS // 2).tolist(),
        series,
        y_label="share of events a day",
        form=lambda v: f"{v * 100:.0f}%",
        width=1140,
        height=300,
    )
    return _card("Score and outcome over the year", "by day of the event", chart, legend=series, wide=True)


def _importance(data: ReportData) -> str:
    if not data.importance:
        return ""
    bars = [(item.name, item.loss, item.spread) for item in data.importance[:15]]
    chart = bar_chart(bars, x_label="AUC lost when the feature's values are shuffled")
    left_out = len(data.importance) - len(bars)
    hint = "by permutation, on a sample" + (f"; the first {len(bars)} of {len(data.importance)}" if left_out else "")
    return _card("Feature importance", hint, chart)


def _latency(data: ReportData) -> str:
    if not len(data.latency_s):
        return ""
    ms = data.latency_s * 1000
    marks = [(float(np.quantile(ms, q)), f"p{q * 100:g} {_ms(float(np.quantile(ms, q)))}") for q in (0.5, 0.99)]
    chart = histogram(ms, x_label="milliseconds (logarithmic)", y_label="share of events", marks=marks, height=378)
    return _card("Latency", data.latency_note, chart)


def _summary(data: ReportData) -> str:
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in data.summary)
    return _card("Summary", "", f"<table>{rows}</table>", wide=True)


def _card(title: str, hint: str, content: str, *, legend: Sequence[Series] = (), wide: bool = False) -> str:
    keys = "".join(f'<span><i style="background:var(--{s.colour})"></i>{escape(s.name)}</span>' for s in legend)
    return (
        f'<article class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>'
        + (f'<p class="hint">{escape(hint)}</p>' if hint else "")
        + (f'<p class="legend">{keys}</p>' if keys else "")
        + content
        + "</article>"
    )


def _tile(tile: Tile) -> str:
    state = {True: " good", False: " bad", None: ""}[tile.good]
    return (
        f'<div class="tile{state}"><span class="k">{escape(tile.label)}</span>'
        f'<span class="v">{escape(tile.value)}</span><span class="h">{escape(tile.hint)}</span></div>'
    )


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def day(time_ms: int) -> str:
    """ "3 Mar 2013" """
    at = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{at.day} {at:%b %Y}"
