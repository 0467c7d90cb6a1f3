"""Two revisions of the worker in turns: which code runs, and what is made of the rounds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from loadtest import compare
from loadtest.compare import Comparison, Spread, spec_hash, worktree
from loadtest.kafka import KafkaCluster
from loadtest.measure import Measured
from loadtest.systems import PIPELINE
from streams.errors import UsageError, WeirError
from streams.loading import load_pipeline

FOUND = Comparison(
    "a" * 40,
    "b" * 40,
    True,
    (Measured(100_000.0, 10.0, 300.0), Measured(80_000.0, 12.0, 310.0), Measured(100_000.0, 10.0, 300.0)),
    (Measured(110_000.0, 9.0, 300.0), Measured(96_000.0, 9.0, 300.0), Measured(100_000.0, 10.0, 300.0)),
)


def test_ratios_are_taken_round_by_round_with_their_spread() -> None:
    assert FOUND.ratios("records_per_s") == pytest.approx([1.1, 1.2, 1.0])
    assert FOUND.spread("records_per_s") == pytest.approx(Spread(1.1, 1.0, 1.2))
    assert FOUND.summary() == (
        "bbbbbbbbbb with changes against aaaaaaaaaa: records/s × 1.100 (1.000 to 1.200), "
        "CPU a record × 0.900 (0.750 to 1.000)"
    )


def test_the_report_has_the_rounds_the_medians_and_the_ratios() -> None:
    report = FOUND.as_json()
    assert report["rounds"][1]["ratio"] == {"records_per_s": 1.2, "cpu_us_per_record": 0.75, "peak_rss_mb": 0.9677}
    assert report["median"]["now"]["records_per_s"] == 100_000.0
    assert report["ratio"]["cpu_us_per_record"] == {"median": 0.9, "lowest": 0.75, "highest": 1.0}
    assert (report["rev"], report["now"], report["dirty"]) == ("a" * 40, "b" * 40, True)
    *rounds, median = FOUND.as_rows()
    assert rounds[1] == ("2", "80,000", "96,000", "1.200", "12.00", "9.00", "0.750")
    assert median == ("median", "100,000", "100,000", "1.100", "10.00", "9.00", "0.900")
    assert len(median) == len(compare.COLUMNS)


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *named, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first commit of a repository with the packages as they are now; its working tree is what is compared."""
    root, repository = Path(compare.__file__).parents[1], tmp_path / "repository"
    for package in ("streams", "features", "models", "monitors", "loadtest", "examples"):
        shutil.copytree(root / package, repository / package, ignore=shutil.ignore_patterns("__pycache__"))
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "as it is")
    monkeypatch.setattr(compare, "_ROOT", repository)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # the kernels of another folder would be compiled anew
    return git(repository, "rev-parse", "HEAD")


def test_a_revision_is_a_worktree_whose_code_is_what_runs_and_it_is_gone_afterwards(revision: str) -> None:
    with worktree(revision) as tree:
        assert (tree / "streams" / "worker.py").is_file()
        assert spec_hash(tree) == load_pipeline(PIPELINE).spec.hash
        pipeline = tree / "examples" / "payments" / "pipeline.py"
        pipeline.write_text(pipeline.read_text().replace('user.count("1h", "24h")', 'user.count("1h", "6h")'))
        assert spec_hash(tree) != load_pipeline(PIPELINE).spec.hash
        pipeline.write_text("broken = ")
        with pytest.raises(WeirError, match="the payments pipeline does not load"):
            spec_hash(tree)
    assert not tree.exists()
    assert str(tree) not in git(compare._ROOT, "worktree", "list")


def test_what_is_no_revision_is_wrong_use(revision: str) -> None:
    for rev in ("no-such-revision", "--all", ""):
        with pytest.raises(UsageError, match="git rev-parse"), worktree(rev):
            pass


@pytest.mark.integration
@pytest.mark.slow
def test_both_revisions_score_the_same_topic_in_turns(kafka: KafkaCluster, revision: str) -> None:
    changed = compare._ROOT / "examples" / "payments" / "pipeline.py"  # other features need another champion
    changed.write_text(changed.read_text().replace('user.count("1h", "24h")', 'user.count("1h", "6h")'))
    said: list[str] = []
    found = compare.run(revision, said.append, records=3000, rounds=1, broker=kafka.address)
    assert (found.rev, found.now, found.dirty) == (revision, revision, True)
    assert found.before[0].records_per_s > 0
    assert found.after[0].cpu_us_per_record > 0
    assert [line.split()[4] for line in said if line.startswith("round 1 of 1")] == ["weir-rev", "weir-now"]
