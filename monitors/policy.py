"""When a new model is trained: the policy, as a fold over blocks and drifts.

The fold is pure and deterministic: the same blocks and drifts give the same events, ids included, so that after a
crash it is made anew from the blocks there are.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass

from monitors.block import Block
from monitors.loop import Drift, Range, Reason, RetrainEvent, event_id

DAY_MS = 86_400_000


def matches(pattern: str, signal: str) -> bool:
    """Whether `pattern`, in which `*` stands for any part, is the name of `signal`."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), signal, re.DOTALL) is not None


@dataclass(frozen=True)
class Policy:
    """When a retrain event comes. Times in ms of event time.

    on: signals whose drifts count, `*` stands for any part of a name.
    min_labels: labelled rows since the last event (or since the beginning) that there must be.
    cooldown_ms: after an event there is none for so long. max_age_ms: an event comes when there was none for so long;
    every_ms: and at each multiple of this since 1970. budget: events within any 24 hours at most.
    """

    on: tuple[str, ...] = ("*",)
    min_labels: int = 1000
    cooldown_ms: int = 0
    max_age_ms: int | None = None
    every_ms: int | None = None
    budget: int = 1

    def counts(self, drift: Drift) -> bool:
        return any(matches(pattern, drift.signal) for pattern in self.on)


class RetrainFold:
    """Blocks, in the order of their numbers, with the drifts that each brought → retrain events.

    A cause gives one event, and a block at most one; of several causes the first of no champion, drift, age, schedule
    is named. An event answers every cause that was open by then. Causes that come during the cooldown, beyond the
    budget or with too few new labels wait. A manual event counts for all of this.

    pipeline, spec_hash: of the pipeline whose events these are.
    """

    def __init__(self, pipeline: str, spec_hash: str, policy: Policy) -> None:
        self._pipeline = pipeline
        self._spec_hash = spec_hash
        self._policy = policy
        self._number: int | None = None
        self._first = 0
        self._end = 0
        self._predictions = 0
        self._labels = 0
        self._ends: list[int] = []
        """Ends of the blocks since the last event, and beside them how many labels there were by then."""
        self._counts: list[int] = []
        self._base = 0
        """Labels that there were at the last event."""
        self._unscored = False
        self._born: int | None = None
        """Start of the first block that a model scored."""
        self._drifts: dict[str, Drift] = {}
        self._answered: set[str] = set()
        self._due: int | None = None
        self._last: int | None = None
        self._recent: deque[int] = deque()

    def update(
        self, block: Block, drifts: Iterable[Drift] = (), published: Container[str] | None = None
    ) -> list[RetrainEvent]:
        """The events, one or none, that `block` brings. A block that is not newer than the last changes nothing.

        published: where blocks of the past are folded again, the ids of the events that came of them then. With another
        policy they would have brought others: these never were, and what would have caused them stays open.
        """
        if self._number is not None and block.number <= self._number:
            return []
        self._count(block)
        for drift in drifts:
            if self._policy.counts(drift) and drift.id not in self._answered:
                self._drifts[drift.id] = drift
        reason = self._reason()
        if reason is None or not self._may():
            return []
        found = tuple(self._drifts) if reason == "drift" else ()
        event = self._event(reason, found or (block.number,), found)
        if published is not None and event.id not in published:
            return []
        self._answer(event)
        return [event]

    def manual(self, time: int) -> RetrainEvent:
        """The event that asks for a new model now, of what is known by now. It counts once `requested` has it.

        time: when it was asked, ms.
        """
        return self._event("manual", (time,), (), time)

    def requested(self, event: RetrainEvent) -> None:
        """Takes account of an event that was not raised here; one that was changes nothing.

        It counts from the end of its range, so that it does not matter how many blocks have come since.
        """
        if self._last is None or event.range.to > self._last:
            self._answer(event)

    def _count(self, block: Block) -> None:
        if self._number is None:
            self._first = self._end = block.start
        self._number = block.number
        self._predictions += block.predictions
        self._labels += block.labels.n
        self._ends.append(block.end)
        self._counts.append(self._labels)
        if block.predictions:  # a block without any says nothing of the champion
            self._unscored = block.unscored >= block.predictions
            if self._born is None and not self._unscored:
                self._born = block.start
        every = self._policy.every_ms
        if every is not None and self._end // every != block.end // every:
            self._due = block.end
        self._end = block.end

    def _reason(self) -> Reason | None:
        if self._unscored:
            return "no_champion"
        if self._drifts:
            return "drift"
        since = self._born if self._last is None else self._last
        if self._policy.max_age_ms is not None and since is not None and self._end - since >= self._policy.max_age_ms:
            return "max_age"
        return None if self._due is None else "schedule"

    def _may(self) -> bool:
        """Whether cooldown, budget and labels allow an event."""
        if self._labels - self._base < self._policy.min_labels:
            return False
        if self._last is not None and self._end - self._last < self._policy.cooldown_ms:
            return False
        while self._recent and self._end - self._recent[0] >= DAY_MS:
            self._recent.popleft()
        return len(self._recent) < self._policy.budget

    def _event(
        self, reason: Reason, cause: tuple[object, ...], drifts: tuple[str, ...], time: int | None = None
    ) -> RetrainEvent:
        return RetrainEvent(
            id=event_id("retrain", self._pipeline, reason, *cause),
            pipeline=self._pipeline,
            time=self._end if time is None else time,
            reason=reason,
            range=Range(start=self._first, to=self._end),
            labels=self._labels,
            new_labels=self._labels - self._base,
            coverage=min(1.0, self._labels / self._predictions) if self._predictions else 0.0,
            spec_hash=self._spec_hash,
            drifts=drifts,
            policy=asdict(self._policy) | {"on": list(self._policy.on)},
        )

    def _answer(self, event: RetrainEvent) -> None:
        """What was open at the end of the event's range is answered by it."""
        at = event.range.to
        place = bisect_right(self._ends, at)
        if place:
            self._base = self._counts[place - 1]
            del self._ends[:place], self._counts[:place]
        answered = [drift.id for drift in self._drifts.values() if drift.time <= at]
        for id in answered:
            del self._drifts[id]
        self._answered.update(answered, event.drifts)
        if self._due is not None and self._due <= at:
            self._due = None
        self._last = at
        self._recent.append(at)
