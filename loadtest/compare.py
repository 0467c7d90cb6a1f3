"""Two revisions of the worker in turns, on one broker: `make bench-compare REV=main~3`.

    python -m loadtest.compare REV [--records N] [--rounds N] [--guarantee at_least_once] [--json]

The worker of REV runs from a git worktree of it, that of the working tree as it stands; each is measured by the bench
of the working tree, with the packages that are installed now.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from loadtest.bench import Bench
from loadtest.ground import deploy
from loadtest.measure import Measured
from loadtest.report import machine
from loadtest.systems import PIPELINE, System, Task, weir
from streams.errors import UsageError, WeirError
from streams.loading import load_pipeline

COLUMNS = ("round", "REV records/s", "now records/s", "ratio", "REV CPU µs", "now CPU µs", "ratio")
REV, NOW = "weir-rev", "weir-now"
_ROOT = Path(__file__).resolve().parents[1]


class Spread(NamedTuple):
    """Of the rounds' ratios."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Comparison:
    """`rev`: the revision's commit; `dirty`: whether the working tree differs from its own commit `now`.

    before, after: of REV and of the working tree, round by round.
    """

    rev: str
    now: str
    dirty: bool
    before: tuple[Measured, ...]
    after: tuple[Measured, ...]

    def ratios(self, name: str) -> list[float]:
        """The working tree's by REV's, round by round."""
        return [getattr(a, name) / getattr(b, name) for a, b in zip(self.after, self.before, strict=True)]

    def spread(self, name: str) -> Spread:
        found = self.ratios(name)
        return Spread(statistics.median(found), min(found), max(found))

    def as_json(self) -> dict[str, Any]:
        """{"rev", "now", "dirty", "rounds": [{"rev", "now", "ratio"}], "median", "ratio", "machine"}."""
        rounds = [
            {
                "rev": _rounded(before._asdict()),
                "now": _rounded(after._asdict()),
                "ratio": {name: round(self.ratios(name)[i], 4) for name in Measured._fields},
            }
            for i, (before, after) in enumerate(zip(self.before, self.after, strict=True))
        ]
        return {
            "mode": "compare",
            "rev": self.rev,
            "now": self.now,
            "dirty": self.dirty,
            "rounds": rounds,
            "median": {"rev": _rounded(_medians(self.before)), "now": _rounded(_medians(self.after))},
            "ratio": {name: _rounded(self.spread(name)._asdict(), 4) for name in Measured._fields},
            "machine": machine(),
        }

    def as_rows(self) -> list[tuple[str, ...]]:
        """Rows under COLUMNS: the rounds, and the medians."""
        speed, cpu = self.ratios("records_per_s"), self.ratios("cpu_us_per_record")
        rows = [
            (str(i), f"{b.records_per_s:,.0f}", f"{a.records_per_s:,.0f}", f"{speed[i - 1]:.3f}",
             f"{b.cpu_us_per_record:.2f}", f"{a.cpu_us_per_record:.2f}", f"{cpu[i - 1]:.3f}")
            for i, (b, a) in enumerate(zip(self.before, self.after, strict=True), 1)
        ]  # fmt: skip
        before, after = _medians(self.before), _medians(self.after)
        middle = (
            f"{before['records_per_s']:,.0f}", f"{after['records_per_s']:,.0f}", f"{statistics.median(speed):.3f}",
            f"{before['cpu_us_per_record']:.2f}", f"{after['cpu_us_per_record']:.2f}", f"{statistics.median(cpu):.3f}",
        )  # fmt: skip
        return [*rows, ("median", *middle)]

    def summary(self) -> str:
        """What changed, with its spread."""
        speed, cpu = self.spread("records_per_s"), self.spread("cpu_us_per_record")
        return (
            f"{self.now[:10]}{' with changes' if self.dirty else ''} against {self.rev[:10]}: "
            f"records/s × {speed.median:.3f} ({speed.lowest:.3f} to {speed.highest:.3f}), "
            f"CPU a record × {cpu.median:.3f} ({cpu.lowest:.3f} to {cpu.highest:.3f})"
        )


def run(
    rev: str,
    say: Callable[[str], None],
    *,
    records: int = 800_000,
    rounds: int = 4,
    partitions: int = 4,
    guarantee: str = "at_least_once",
    broker: str | None = None,
) -> Comparison:
    """REV, working tree, REV, working tree …: `rounds` of each. UsageError for a revision that git does not know."""
    with worktree(rev) as tree:
        commit = _git("-C", str(tree), "rev-parse", "HEAD")
        systems = tuple(
            System(name, partial(_worker, code, spec_hash(code), guarantee))
            for name, code in ((REV, tree), (NOW, _ROOT))
        )
        found = Bench(records, rounds, partitions, systems, broker).measured(say)
    return Comparison(
        commit, _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain")), tuple(found[REV]), tuple(found[NOW])
    )


@contextmanager
def worktree(rev: str) -> Iterator[Path]:
    """A worktree of the revision in a folder of its own, gone on exit."""
    with tempfile.TemporaryDirectory(prefix="weir-compare-") as folder:
        tree = Path(folder) / "tree"
        commit = _git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


@contextmanager
def _worker(
    code: Path, features: str, guarantee: str, task: Task
) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """The worker of `code`, with a champion for its `features`, a spec hash; its data folder is its own."""
    deploy(task.broker, task.model, load_pipeline(PIPELINE), features)
    work = task.work / (REV if code != _ROOT else NOW)
    work.mkdir(exist_ok=True)
    with weir(guarantee, task._replace(work=work), code) as processes:
        yield processes


def spec_hash(code: Path) -> str:
    """Of the payments pipeline's features, as the code in that folder says it. WeirError where it has no such pipeline,
    or other code than that in the folder would run.
    """
    script = (
        "import streams, streams.loading as loading;"
        f"print(streams.__file__); print(loading.load_pipeline({PIPELINE!r}).spec.hash)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WeirError(f"{code}: the payments pipeline does not load: {done.stderr.strip().splitlines()[-1]}")
    file, found = done.stdout.split()
    if not Path(file).resolve().is_relative_to(code.resolve()):
        raise WeirError(f"{code}: Python takes {file} instead")
    return found


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UsageError(f"git {' '.join(arguments)}: {said[-1] if said else 'there is no such revision'}")
    return done.stdout.strip()


def _medians(rounds: Sequence[Measured]) -> dict[str, float]:
    return dict(zip(Measured._fields, map(statistics.median, zip(*rounds, strict=True)), strict=True))


def _rounded(values: dict[str, float], digits: int = 2) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    from streams.cli.output import progress, table

    parser = argparse.ArgumentParser(description="Compare the worker of a git revision with that of the working tree.")
    parser.add_argument("rev", metavar="REV", help="a commit, branch or tag")
    parser.add_argument("--records", type=int, default=800_000)
    parser.add_argument("--rounds", type=int, default=4, help="of each, in turns")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--guarantee", choices=("at_least_once", "exactly_once"), default="at_least_once")
    parser.add_argument("--broker", help="host:port of a Kafka to use; default: one is fetched and started")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = vars(parser.parse_args(arguments))
    as_json = given.pop("json")
    try:
        found = run(given.pop("rev"), progress, **given)
    except WeirError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(json.dumps(found.as_json()) if as_json else f"{table(COLUMNS, found.as_rows())}\n{found.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
