"""The scenarios that there are, and the table of what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.system import Grounds


@dataclass
class Row:
    """What came of a scenario. stall_s: the longest time in which some partition had no new prediction.

    aborted: predictions and dead letters that only a reader of uncommitted records sees.
    degraded: predictions marked as made without the store, whose features are not compared.
    problems: what makes it fail; notes: what else is worth saying.
    """

    fault: str
    count: int = 0
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    disordered: int = 0
    mismatched: int = 0
    wrong_scores: int = 0
    aborted: int = 0
    degraded: int = 0
    stall_s: float = 0.0
    p99_s: float = 0.0
    took_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def inconclusive(self) -> bool:
        """Whether nothing is wrong but that the faults hit nothing, or that something took longer than was waited."""
        return bool(self.problems) and all(problem.startswith(("vacuous", "not in ")) for problem in self.problems)

    @property
    def harm(self) -> int:
        """Events lost, duplicated, out of order or with other values."""
        return self.lost + self.duplicated + self.disordered + self.mismatched + self.wrong_scores

    def judge(self, *, aborts: bool, degraded: bool = False) -> Row:
        """Turns what was counted into problems.

        aborts: whether an open transaction must have been hit. degraded: whether there must be marked predictions; else
        there may be none.
        """
        for what in ("lost", "duplicated", "disordered", "mismatched", "wrong_scores"):
            if number := getattr(self, what):
                self.problems.append(f"{number} {what.replace('_', ' ')}")
        if aborts and not self.aborted:
            self.problems.append("vacuous: no open transaction was hit")
        if degraded and not self.degraded:
            self.problems.append("vacuous: no prediction was made without the store")
        if self.degraded and not degraded:
            self.problems.append(f"{self.degraded} predictions are marked as degraded")
        return self

    def must_fail(self) -> Row:
        """For a run with a protection off: harm is what it must show."""
        harm = [p for p in self.problems if not p.startswith("vacuous")]
        if self.harm:
            self.notes.append("fails, as it must: " + "; ".join(harm))
            self.problems = []
        else:
            self.problems = ["vacuous: the protection was off, and nothing was noticed"]
        return self

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True)
class Scenario:
    """A fault to be survived: `run(grounds, count)` does it `count` times (or for as many seconds).

    alone: it hurts what scenarios share, so no other runs beside it. lasts: seconds of the short form, about.
    """

    name: str
    fault: str
    short: int
    long: int
    run: Callable[[Grounds, int], Row]
    alone: bool = False
    lasts: int = 30


def scenario(
    name: str, fault: str, *, short: int, long: int, alone: bool = False, lasts: int = 30
) -> Callable[[Callable[..., Row]], Scenario]:
    """Makes a scenario of a function. fault: as the table names it; short, long: how often it is done."""
    return lambda run: Scenario(name, fault, short, long, run, alone, lasts)


_HEAD = ("fault", "count", "lost", "duplicated", "order violations", "feature mismatches", "aborted records", "stall s")


def render(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with their notes and problems below."""
    cells = [
        (
            r.fault,
            r.count,
            r.lost,
            r.duplicated,
            r.disordered,
            r.mismatched + r.wrong_scores,
            r.aborted,
            f"{r.stall_s:.1f}",
        )
        for r in rows
    ]
    lines = ["| " + " | ".join((*_HEAD, "passed")) + " |", "|" + "---|" * (len(_HEAD) + 1)]
    for row, cell in zip(rows, cells, strict=True):
        lines.append("| " + " | ".join(map(str, (*cell, "yes" if row.ok else "NO"))) + " |")
    for row in rows:
        lines += [f"{row.fault}: {text}" for text in (*row.problems, *row.notes)]
    return "\n".join(lines)
