"""What the demo counts while it runs, and the report and summary that it makes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from examples.flights.data import month_start
from examples.flights.loop import Loop
from examples.flights.sending import SAMPLE
from features.spec import Category
from models.runner import Runner
from monitors.join import Joined
from monitors.performance import (
    Importance,
    RollingAuc,
    Week,
    auc,
    by_week,
    log_loss,
    permutation_importance,
)
from monitors.predictions import Prediction
from monitors.report import ReportData, Tile
from streams.pipeline import Pipeline

IMPORTANCE_SAMPLE = 40  # one labelled, scored prediction of this many


@dataclass
class Tally:
    """Fed by the monitor. Only predictions with a score and a label count for how good the models are.

    scores: of the version that was served; firsts: of the first version that ever was, on the same events; it goes on
    as a shadow. NaN where it gave none.
    """

    times: list[int] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    first_version: str | None = None
    arrived_at: dict[tuple[int, int], float] = field(default_factory=dict)
    sample: list[Joined] = field(default_factory=list)
    rolling: RollingAuc | None = None

    def on_predictions(self, predictions: Sequence[Prediction]) -> None:
        now = time.time()
        for prediction in predictions:
            if prediction.source.offset % SAMPLE == 0:
                self.arrived_at[prediction.place] = now
            if self.first_version is None:
                self.first_version = prediction.version

    def on_joined(self, joined: Sequence[Joined]) -> None:
        first = len(self.times)
        for row in joined:
            score = row.prediction.score
            if row.label is None or not isinstance(score, float):
                continue
            if len(self.times) % IMPORTANCE_SAMPLE == 0:
                self.sample.append(row)
            self.times.append(row.prediction.time)
            self.labels.append(row.label.value)
            self.scores.append(score)
            self.firsts.append(self._first(row.prediction, score))
        if self.rolling is not None:
            self.rolling.update(self.labels[first:], self.scores[first:])

    def _first(self, prediction: Prediction, score: float) -> float:
        if prediction.version == self.first_version:
            return score
        found = (prediction.shadows or {}).get(self.first_version or "")
        return found if isinstance(found, float) else float("nan")

    def latencies(self, sent_at: Mapping[tuple[int, int], float], latest: int | None = None) -> np.ndarray:
        """Seconds from sending to arrival of the sampled requests, the `latest` arrived or all."""
        places = list(self.arrived_at.items())[-latest if latest else 0 :]
        return np.array([at - sent_at[place] for place, at in places if place in sent_at])

    def scored(self) -> Scored:
        """What there is by now, in the order of time."""
        times = np.array(self.times, dtype=np.int64)
        order = np.argsort(times, kind="stable")
        columns = (np.array(values, dtype=np.float64) for values in (self.labels, self.scores, self.firsts))
        return Scored(times[order], *(column[order] for column in columns))

    def importance(self, pipeline: Pipeline, model: Path) -> list[Importance]:
        """Of the deployed model, on the sample."""
        matrix = feature_matrix(pipeline, [row.prediction for row in self.sample])
        labels = np.array([row.label.value for row in self.sample if row.label is not None])
        runner = Runner(model.read_bytes(), pipeline.spec.names, output=pipeline.output)
        try:
            return permutation_importance(runner.run, matrix, labels, pipeline.spec.names)
        finally:
            runner.release()


def feature_matrix(pipeline: Pipeline, predictions: Sequence[Prediction]) -> np.ndarray:
    """The model's inputs float32 [n, d] of predictions, from the features that they logged."""
    columns = []
    for feature in pipeline.spec.features:
        values = [getattr(prediction.features, feature.name) for prediction in predictions]
        if isinstance(feature, Category):
            columns.append(feature.encoding.encode(values))
        else:
            columns.append(np.array(values, dtype=np.float32))
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Scored:
    """Events with a label that were scored: times int64 [n], ms; labels, live (the served version's scores) and first
    (the first version's, NaN = none) float64 [n].
    """

    times: np.ndarray
    labels: np.ndarray
    live: np.ndarray
    first: np.ndarray

    def since(self, time_ms: int) -> Scored:
        """Those from `time_ms` on that both have scored."""
        rows = (self.times >= time_ms) & np.isfinite(self.live) & np.isfinite(self.first)
        return Scored(self.times[rows], self.labels[rows], self.live[rows], self.first[rows])


@dataclass(frozen=True)
class Outcome:
    """A finished run. sent: events by stream; compare_from: from when on the models are compared, ms."""

    months: tuple[int, int]
    sent: Sequence[int]
    predictions: int
    unscored: int
    dead_letters: int
    labels: int
    duplicated: int
    duration_s: float
    replay_s: float
    training_s: float
    restarts: int
    loop: Loop
    latency_s: np.ndarray
    scored: Scored
    compare_from: int
    importance: Sequence[Importance]

    @property
    def lost(self) -> int:
        """Requests that were sent and have no prediction."""
        return self.sent[0] - self.predictions

    @cached_property
    def compared(self) -> Scored:
        return self.scored.since(self.compare_from)

    @cached_property
    def auc(self) -> tuple[float | None, float | None]:
        """Of the first model and live, on the events compared."""
        found = self.compared
        return auc(found.labels, found.first), auc(found.labels, found.live)

    @cached_property
    def log_loss(self) -> tuple[float | None, float | None]:
        found = self.compared
        return log_loss(found.labels, found.first), log_loss(found.labels, found.live)

    def weeks(self, scores: np.ndarray) -> list[Week]:
        """By week of the year, of scores [n] of `scored`; those that are NaN are left out."""
        there, scored = np.isfinite(scores), self.scored
        if not there.any():
            return []
        return by_week(scored.times[there], scored.labels[there], scores[there], month_start(self.months[0]))

    @property
    def events_per_s(self) -> float:
        """While the replay ran: training does not count."""
        return sum(self.sent) / self.replay_s

    def latency_ms(self, quantile: float) -> float | None:
        return float(np.quantile(self.latency_s, quantile)) * 1000 if len(self.latency_s) else None

    def as_json(self) -> dict[str, Any]:
        """The object that `weir demo --json` prints."""
        return {
            "events": sum(self.sent),
            "predictions": self.predictions,
            "unscored": self.unscored,
            "dead_letters": self.dead_letters,
            "labels": self.labels,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "duration_s": round(self.duration_s, 1),
            "training_s": round(self.training_s, 1),
            "events_per_s": round(self.events_per_s, 1),
            "latency_ms": {
                "p50": _rounded(self.latency_ms(0.5), 1),
                "p99": _rounded(self.latency_ms(0.99), 1),
            },
            "auc": dict(zip(("first_model", "live"), (_rounded(value, 4) for value in self.auc), strict=True)),
            "log_loss": dict(
                zip(("first_model", "live"), (_rounded(value, 4) for value in self.log_loss), strict=True)
            ),
            **self.loop.as_json(),
        }

    def summary(self) -> list[tuple[str, str]]:
        """Rows for people."""
        requests, departures, arrivals = self.sent
        parts = f"{requests:,} requests, {departures:,} departures, {arrivals:,} arrivals"
        rows = [
            ("Events", f"{sum(self.sent):,}: {parts}"),
            ("Predictions", f"{self.predictions:,}, of which {self.unscored:,} before there was a model"),
            ("Lost, duplicated", f"{self.lost:,}, {self.duplicated:,}"),
            ("Dead letters", f"{self.dead_letters:,}"),
            ("Labels joined", f"{self.labels:,}"),
            ("Rate", f"{self.events_per_s:,.0f} events/s while replaying"),
            ("Latency", f"p50 {_ms(self.latency_ms(0.5))}, p99 {_ms(self.latency_ms(0.99))}"),
            ("Duration", f"{self.duration_s:.0f} s, of which training {self.training_s:.0f} s"),
        ]
        if self.restarts:
            rows.append(("Worker restarts", f"{self.restarts}"))
        loop = self.loop
        rows += [
            ("Drifts, retrain events", f"{len(loop.drifts)}, {len(loop.retrains)}"),
            (
                "Promotions, rejections, rollbacks",
                f"{len(loop.promotions)}, {len(loop.of('rejected'))}, {len(loop.of('rolled_back'))}",
            ),
        ]
        if loop.champion is not None:
            rows.append(("Champion at the end", f"{loop.champion.model} version {loop.champion.version}"))
        if len(self.compared.times):
            rows += [
                ("AUC", f"live {_number(self.auc[1])}, first model {_number(self.auc[0])}"),
                ("Log loss", f"live {_number(self.log_loss[1])}, first model {_number(self.log_loss[0])}"),
            ]
        return rows

    def report(self, compared: str) -> ReportData:
        """What report.html shows; `compared`: the months in which the models are compared, in words."""
        latency = (self.latency_ms(0.5), self.latency_ms(0.99))
        first, live = self.auc
        better = None if first is None or live is None else live > first
        weeks, loop = self.weeks(self.scored.live), self.loop
        return ReportData(
            title="Will it arrive late? Flights from New York, 2013",
            subtitle="Asked two hours before departure. The loop trained every model, on what was known by then.",
            outcome="more than 15 minutes late",
            tiles=[
                Tile("Predictions", f"{self.predictions:,}", "one a request"),
                Tile("Lost", f"{self.lost:,}", "of the replay", self.lost == 0),
                Tile("Duplicated", f"{self.duplicated:,}", "", self.duplicated == 0),
                Tile("AUC, live", _number(live), compared, better),
                Tile("AUC, first model", _number(first), "the same events"),
                Tile("Log loss, live", _number(self.log_loss[1]), f"first model {_number(self.log_loss[0])}"),
                Tile("Models", f"{len(loop.promotions)}", f"of {len(loop.retrains)} retrain events"),
                Tile("Events/s", f"{self.events_per_s:,.0f}", "while replaying"),
                Tile("Latency p50", _ms(latency[0]), f"p99 {_ms(latency[1])}"),
            ],
            weeks=weeks,
            first_weeks=self.weeks(self.scored.first),
            timeline=loop.timeline(),
            span=(month_start(self.months[0]), month_start(self.months[1] + 1)),
            times=self.scored.times,
            labels=self.scored.labels,
            scores=self.scored.live,
            importance=self.importance,
            latency_s=self.latency_s,
            latency_note=f"from the replay's sending to the prediction at the monitor, 1 request in {SAMPLE}",
            summary=self.summary(),
            notes=(
                "A flight counts as late when it arrives more than 15 minutes after its schedule. Cancelled"
                " and diverted flights get a prediction, but never a label.",
                "The first model is trained as soon as there are labels enough, and goes on scoring beside its"
                " successors all year: both lines are of the same events. A successor scores beside the champion"
                " first, and takes its place when its log loss on the same labelled flights is not worse.",
                "The score is the probability that the model gave two hours before the scheduled departure,"
                " from the features known at that moment; the label came hours later.",
                "Latency includes waiting: the replay sends as fast as predictions come back, so queues are"
                " full. With --speed the replay keeps a pace, and latency is what the work takes.",
            ),
        )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
