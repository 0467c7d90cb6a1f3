"""Predictions meet their labels by id, in either order, within a time.

What waits lies in memory; `restore` takes up what an earlier process left in the store (monitors.join_store).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from monitors.predictions import Prediction


class Label(NamedTuple):
    """The truth about an event: `id` is that of the scored event, `time` when it was known (ms).

    partition: of the topic that it came in; within it, times rise.
    """

    id: str
    time: int
    value: float
    partition: int = 0


class Joined(NamedTuple):
    """A prediction with its label; None where no label came in time."""

    prediction: Prediction
    label: Label | None


@dataclass
class JoinCounts:
    """matched counts predictions, all others but `missing` count labels.

    duplicate: labels of an id that has one already; conflicting: those of them that say something else.
    """

    matched: int = 0
    late: int = 0
    duplicate: int = 0
    conflicting: int = 0
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
        self.within_ms = within_ms
        self._predictions: dict[str, list[Prediction]] = {}
        self._labels: dict[str, Label] = {}
        self._used: set[str] = set()
        # By partition, for there times rise, and what is given up does not depend on how partitions interleave.
        self._prediction_times: dict[int, deque[tuple[int, str]]] = {}
        self._label_times: dict[int, deque[tuple[int, str]]] = {}
        self._waiting = 0
        self.forgotten: list[str] = []
        """Ids whose labels have been forgotten since the caller last cleared it."""
        self.kept: list[Label] = []
        """Those of the labels last taken in that were the first of their ids."""
        self.told: list[tuple[str, int]] = []
        """Labels that `counts` counted beside matches, each with its event time, since the caller last cleared it."""
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
            else:
                self._wait(prediction)
        return joined

    def labels(self, found: Iterable[Label]) -> list[Joined]:
        """Takes labels in; returns the predictions that were waiting for them."""
        joined: list[Joined] = []
        self.kept = kept = []
        for label in found:
            name = label.id
            known = self._labels.get(name)
            if known is not None:
                self.counts.duplicate += 1
                self.told.append(("duplicate", label.time))
                if known.value != label.value:
                    self.counts.conflicting += 1
                    self.told.append(("conflicting", label.time))
                continue
            self._keep(label)
            kept.append(label)
            waiting = self._predictions.pop(name, None)
            if waiting is not None:
                fit = [Joined(p, label) for p in waiting if self._fits(p, label)]
                joined += fit
                self._waiting -= len(fit)
                if len(fit) < len(waiting):
                    gone = {row.prediction.place for row in fit}
                    self._predictions[name] = [p for p in waiting if p.place not in gone]
        return joined

    def expire(self, *, predicted_ms: int, labelled_ms: int) -> list[Joined]:
        """Gives up what can find no partner any more; returns the predictions that stay without a label.

        predicted_ms, labelled_ms: event times up to which all predictions, all labels have been taken in.
        """
        missing: list[Joined] = []
        for _, times in sorted(self._prediction_times.items()):
            while times and times[0][0] + self.within_ms < labelled_ms:
                missing += self._give_up(*times.popleft())
        for times in self._label_times.values():
            while times and times[0][0] + self.within_ms < predicted_ms:
                time, name = times.popleft()
                del self._labels[name]
                self.forgotten.append(name)
                if name in self._used:
                    self._used.remove(name)
                else:
                    self.counts.unmatched += 1
                    self.told.append(("unmatched", time + self.within_ms))
        return missing

    def finish(self) -> list[Joined]:
        """Gives everything up that waits: nothing more will come."""
        return self.expire(predicted_ms=2**63, labelled_ms=2**63)

    def restore(
        self, predictions: Iterable[Prediction], labels: Iterable[Label], used: Collection[str]
    ) -> list[Joined]:
        """Takes up what an earlier process left, without counting it; returns the pairs that it had not let go.

        labels, and predictions, each in the order in which they came; used: ids of labels that have met a prediction.
        """
        before = JoinCounts(**vars(self.counts))
        for label in labels:
            self._keep(label)
        self._used.update(name for name in used if name in self._labels)
        joined = self.predictions(predictions)
        self.counts = before
        self.told.clear()
        return joined

    def _wait(self, prediction: Prediction) -> None:
        self._predictions.setdefault(prediction.id, []).append(prediction)
        times = self._prediction_times.get(prediction.source.partition)
        if times is None:
            times = self._prediction_times[prediction.source.partition] = deque()
        times.append((prediction.time, prediction.id))
        self._waiting += 1

    def _keep(self, label: Label) -> None:
        self._labels[label.id] = label
        times = self._label_times.get(label.partition)
        if times is None:
            times = self._label_times[label.partition] = deque()
        times.append((label.time, label.id))

    def _fits(self, prediction: Prediction, label: Label) -> bool:
        first = label.id not in self._used
        self._used.add(label.id)
        if label.time - prediction.time > self.within_ms:
            if first:
                self.counts.late += 1
                self.told.append(("late", label.time))
            return False
        self.counts.matched += 1
        return True

    def _give_up(self, time: int, name: str) -> list[Joined]:
        waiting = self._predictions.get(name, [])
        gone = [p for p in waiting if p.time == time]
        if not gone:
            return []  # it was matched
        rest = [p for p in waiting if p.time != time]
        if rest:
            self._predictions[name] = rest
        else:
            del self._predictions[name]
        self._waiting -= len(gone)
        self.counts.missing += len(gone)
        return [Joined(p, None) for p in gone]
