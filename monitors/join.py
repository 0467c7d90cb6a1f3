"""Predictions meet their labels by id, in either order, within a time. In memory: a restart forgets it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from monitors.predictions import Prediction


class Label(NamedTuple):
    """The truth about an event: `id` is that of the scored event, `time` when it was known (ms)."""

    id: str
    time: int
    value: float


class Joined(NamedTuple):
    """A prediction with its label; None where no label came in time."""

    prediction: Prediction
    label: Label | None


@dataclass
class JoinCounts:
    """matched counts predictions, all others but `missing` count labels."""

    matched: int = 0
    late: int = 0
    duplicate: int = 0
    unmatched: int = 0
    missing: int = 0


class LabelJoin:
    """Joins each prediction with the first label of its id.

    A label counts if its time is at most `within_ms` after the prediction's event time; a later one is
    `late`. What finds no partner is kept until the other side has passed that time (`expire`), so memory is
    bounded by what happens in `within_ms`. Labels are kept that long in any case: two records may carry one
    id, and a label may come twice.
    """

    def __init__(self, within_ms: int) -> None:
        self._within = within_ms
        self._predictions: dict[str, list[Prediction]] = {}
        self._labels: dict[str, Label] = {}
        self._used: set[str] = set()
        self._prediction_times: deque[tuple[int, str]] = deque()
        self._label_times: deque[tuple[int, str]] = deque()
        self._waiting = 0
        self.counts = JoinCounts()

    @property
    def pending(self) -> tuple[int, int]:
        """How many predictions wait for a label, how many labels for a prediction."""
        return self._waiting, len(self._labels) - len(self._used)

    def predictions(self, found: Iterable[Prediction]) -> list[Joined]:
        """Takes predictions in; returns those whose label is here already."""
        joined = []
        for prediction in found:
            label = self._labels.get(prediction.id)
            if label is not None and self._fits(prediction, label):
                joined.append(Joined(prediction, label))
                continue
            self._predictions.setdefault(prediction.id, []).append(prediction)
            self._prediction_times.append((prediction.time, prediction.id))
            self._waiting += 1
        return joined

    def labels(self, found: Iterable[Label]) -> list[Joined]:
        """Takes labels in; returns the predictions that were waiting for them."""
        joined: list[Joined] = []
        for label in found:
            if label.id in self._labels:
                self.counts.duplicate += 1
                continue
            self._labels[label.id] = label
            self._label_times.append((label.time, label.id))
            waiting = self._predictions.pop(label.id, None)
            if waiting is not None:
                fit = [p for p in waiting if self._fits(p, label)]
                joined += [Joined(p, label) for p in fit]
                self._waiting -= len(fit)
                if len(fit) < len(waiting):
                    self._predictions[label.id] = [p for p in waiting if p not in fit]
        return joined

    def expire(self, *, predicted_ms: int, labelled_ms: int) -> list[Joined]:
        """Gives up what can find no partner any more; returns the predictions that stay without a label.

        predicted_ms, labelled_ms: event times up to which all predictions, all labels have been taken in.
        """
        missing: list[Joined] = []
        times = self._prediction_times
        while times and times[0][0] + self._within < labelled_ms:
            missing += self._give_up(*times.popleft())
        times = self._label_times
        while times and times[0][0] + self._within < predicted_ms:
            _, name = times.popleft()
            del self._labels[name]
            if name in self._used:
                self._used.remove(name)
            else:
                self.counts.unmatched += 1
        return missing

    def finish(self) -> list[Joined]:
        """Gives everything up that waits: nothing more will come."""
        return self.expire(predicted_ms=2**63, labelled_ms=2**63)

    def _fits(self, prediction: Prediction, label: Label) -> bool:
        first = label.id not in self._used
        self._used.add(label.id)
        if label.time - prediction.time > self._within:
            self.counts.late += first
            return False
        self.counts.matched += 1
        return True

    def _give_up(self, time: int, name: str) -> Sequence[Joined]:
        waiting = self._predictions.get(name, [])
        gone = [p for p in waiting if p.time == time]
        if not gone:
            return ()  # it was matched
        rest = [p for p in waiting if p.time != time]
        if rest:
            self._predictions[name] = rest
        else:
            del self._predictions[name]
        self._waiting -= len(gone)
        self.counts.missing += len(gone)
        return [Joined(p, None) for p in gone]
