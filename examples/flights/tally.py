"""What the demo counts while it runs, and the report and summary that it makes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

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
    """Fed by the monitor. Only predictions with a score and a label count for how good the model is."""

    times: list[int] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    arrived_at: dict[tuple[int, int], float] = field(default_factory=dict)
    sample: list[Joined] = field(default_factory=list)
    rolling: RollingAuc | None = None

    def on_predictions(self, predictions: Sequence[Prediction]) -> None:
        now = time.time()
        for prediction in predictions:
            if prediction.source.offset % SAMPLE == 0:
                self.arrived_at[prediction.place] = now

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
        if self.rolling is not None:
            self.rolling.update(self.labels[first:], self.scores[first:])

    def latencies(self, sent_at: Mapping[tuple[int, int], float], latest: int | None = None) -> np.ndarray:
        """Seconds from sending to arrival of the sampled requests, the `latest` arrived or all."""
        places = list(self.arrived_at.items())[-latest if latest else 0 :]
        return np.array([at - sent_at[place] for place, at in places if place in sent_at])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """times int64, labels and scores float64 [n]."""
        return np.array(self.times, dtype=np.int64), np.array(self.labels), np.array(self.scores)

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
class Outcome:
    """A finished run. sent: events by stream; model: the training's report, None if nothing was scored."""

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
    model: Mapping[str, Any] | None
    latency_s: np.ndarray
    times: np.ndarray
    label_values: np.ndarray
    scores: np.ndarray
    importance: Sequence[Importance]

    @property
    def lost(self) -> int:
        """Requests that were sent and have no prediction."""
        return self.sent[0] - self.predictions

    @property
    def auc(self) -> float | None:
        return auc(self.label_values, self.scores)

    @property
    def log_loss(self) -> float | None:
        return log_loss(self.label_values, self.scores)

    @property
    def weeks(self) -> list[Week]:
        return by_week(self.times, self.label_values, self.scores, int(self.times[0])) if len(self.times) else []

    @property
    def events_per_s(self) -> float:
        """While the replay ran: training does not count."""
        return sum(self.sent) / self.replay_s

    def latency_ms(self, quantile: float) -> float | None:
        return float(np.quantile(self.latency_s, quantile)) * 1000 if len(self.latency_s) else None

    def as_json(self) -> dict[str, Any]:
        """The object that `weir demo --json` prints; the fields of the retraining loop are empty."""
        found_auc, found_loss = _rounded(self.auc, 4), _rounded(self.log_loss, 4)
        return {
            "events": sum(self.sent),
            "predictions": self.predictions,
            "unscored": self.unscored,
            "dead_letters": self.dead_letters,
            "labels": self.labels,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "duration_s": round(self.duration_s, 1),
            "events_per_s": round(self.events_per_s, 1),
            "latency_ms": {
                "p50": _rounded(self.latency_ms(0.5), 1),
                "p99": _rounded(self.latency_ms(0.99), 1),
            },
            "auc": {"first_model": found_auc, "live": found_auc},
            "log_loss": {"first_model": found_loss, "live": found_loss},
            "drift_events": 0,
            "retrain_events": 0,
            "promotions": [],
            "rejections": 0,
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
        if self.model is not None:
            trained = f"{self.model['model']} version {self.model['version']}, {self.model['rows']:,} events"
            rows += [
                ("Model", trained),
                ("AUC", _number(self.auc)),
                ("Log loss", _number(self.log_loss)),
            ]
        return rows

    def report(self, scored: str, trained: str) -> ReportData:
        """What report.html shows; `scored`, `trained`: the months in words, empty where nothing was scored."""
        what = f"Trained on {trained}, scored event by event on {scored}" if trained else "Nothing was scored"
        latency = (self.latency_ms(0.5), self.latency_ms(0.99))
        return ReportData(
            title="Will it arrive late? Flights from New York, 2013",
            subtitle=f"Asked two hours before departure. {what}.",
            outcome="more than 15 minutes late",
            tiles=[
                Tile("Predictions", f"{self.predictions:,}", "one a request"),
                Tile("Lost", f"{self.lost:,}", "of the replay", self.lost == 0),
                Tile("Duplicated", f"{self.duplicated:,}", "", self.duplicated == 0),
                Tile("AUC", _number(self.auc), scored),
                Tile("Log loss", _number(self.log_loss), scored),
                Tile("Events/s", f"{self.events_per_s:,.0f}", "while replaying"),
                Tile("Latency p50", _ms(latency[0]), "at full replay speed"),
                Tile("Latency p99", _ms(latency[1])),
            ],
            weeks=self.weeks,
            times=self.times,
            labels=self.label_values,
            scores=self.scores,
            importance=self.importance,
            latency_s=self.latency_s,
            latency_note=f"from the replay's sending to the prediction at the monitor, 1 request in {SAMPLE}",
            summary=self.summary(),
            overall_auc=self.auc,
            overall_log_loss=self.log_loss,
            notes=(
                "A flight counts as late when it arrives more than 15 minutes after its schedule. Cancelled"
                " and diverted flights get a prediction, but never a label.",
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
