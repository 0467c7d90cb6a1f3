"""The payments features in plain Python, the way one writes them by hand: a dict of users, lists of panes.

The same definition as the engine's (values as of just before the event, whole panes of event time, oldest
first), no code shared with it.
"""

from __future__ import annotations

NAN = float("nan")
WINDOWS = ((300_000, 12), (3_600_000, 24))
"""(pane in ms, panes): 1 h of 5 min, 24 h of 1 h."""
WITHIN_MS = 30 * 86_400_000
FEATURES = ("amount", "since_last", "count_1h", "count_24h", "sum_1h", "sum_24h", "mean_1h", "mean_24h")
"""The order of the model's inputs."""


class User:
    """A user's panes and last payment."""

    __slots__ = ("counts", "last_ms", "newest", "sums")

    def __init__(self) -> None:
        self.last_ms: int | None = None
        self.newest = [-(10**9)] * len(WINDOWS)
        self.counts = [[0] * panes for _, panes in WINDOWS]
        self.sums = [[0.0] * panes for _, panes in WINDOWS]

    def score_then_add(self, amount: float, time_ms: int) -> list[float]:
        """The eight features of a payment, which is then added."""
        values = [amount, NAN, NAN, NAN, NAN, NAN, NAN, NAN]
        if self.last_ms is not None and time_ms - self.last_ms <= WITHIN_MS:
            values[1] = (time_ms - self.last_ms) / 1000
        self.last_ms = time_ms
        for w, (pane_ms, panes) in enumerate(WINDOWS):
            pane, counts, sums = time_ms // pane_ms, self.counts[w], self.sums[w]
            ahead = pane - self.newest[w]
            if ahead > 0:
                self.newest[w] = pane
                shift = min(ahead, panes)
                del counts[:shift], sums[:shift]
                counts.extend([0] * shift)
                sums.extend([0.0] * shift)
                ahead = 0
            if ahead <= -panes:
                continue  # late for this window: no value, not added
            count, total = sum(counts), sum(sums)
            values[2 + w], values[4 + w] = count, total
            if count:
                values[6 + w] = total / count
            counts[ahead - 1] += 1
            sums[ahead - 1] += amount
        return values
