"""The demo: its numbers, its words, and a short run of the whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from examples.flights.data import Flights
from examples.flights.demo import span
from examples.flights.loop import Alert, Loop
from examples.flights.pipeline import pipeline
from examples.flights.tally import Outcome, Scored, Tally, feature_matrix
from monitors.join import Joined, Label
from monitors.predictions import Prediction, prediction_decoder
from monitors.report import render
from streams.loop_state import feature_kinds

ROOT = Path(__file__).parents[2]
OUTCOME = Outcome(
    months=(1, 12),
    sent=[10, 9, 8],
    predictions=10,
    unscored=4,
    dead_letters=0,
    labels=8,
    duplicated=1,
    duration_s=12.34,
    replay_s=9.0,
    training_s=2.0,
    restarts=1,
    loop=Loop(alerts=[Alert("champion", 0, "d1", "r1", "1"), Alert("rejected", 9, "r2", "r2", "2", ("worse",))]),
    latency_s=np.array([0.1, 0.2, 0.3]),
    scored=Scored(
        times=np.array([0, 1, 2, 3, 4]),
        labels=np.array([1.0, 0.0, 1.0, 0.0, 1.0]),
        live=np.array([0.0, 0.1, 0.9, 0.2, 0.15]),
        first=np.array([0.0, 0.1, 0.9, 0.2, 0.3]),
    ),
    compare_from=1,
    importance=[],
)


def predicted(
    offset: int,
    score: float | None,
    carrier: str | None = "B6",
    version: str | None = None,
    shadows: dict[str, float] | None = None,
) -> Prediction:
    decode = prediction_decoder(feature_kinds(pipeline))
    origin = {"topic": "flights.requests", "partition": 0, "offset": offset}
    features = {"carrier": carrier, "hour": 7}
    value = {"id": "a", "key": "JFK", "time": offset, "source": origin, "score": score, "features": features}
    nulls = dict.fromkeys(("model", "arm", "deployment"))
    return decode(json.dumps({**nulls, "version": version, "shadows": shadows, **value}).encode())


def test_the_json_has_every_field_that_is_promised() -> None:
    assert OUTCOME.as_json() == {
        "events": 27,
        "predictions": 10,
        "unscored": 4,
        "dead_letters": 0,
        "labels": 8,
        "lost": 0,
        "duplicated": 1,
        "duration_s": 12.3,
        "training_s": 2.0,
        "events_per_s": 3.0,
        "latency_ms": {"p50": 200.0, "p99": 298.0},
        "auc": {"first_model": 1.0, "live": 0.75},
        "log_loss": {"first_model": 0.4095, "live": 0.5827},
        "drift_events": 0,
        "retrain_events": 0,
        "promotions": [{"version": "1", "date": "1970-01-01", "retrain": "r1", "reason": None}],
        "rejections": 1,
        "rollbacks": 0,
        "drifts": [],
        "retrains": [],
    }


def test_what_was_never_scored_has_no_quality() -> None:
    nothing = np.empty(0)
    empty = replace(OUTCOME, scored=Scored(nothing, nothing, nothing, nothing), loop=Loop(), latency_s=nothing)
    found = empty.as_json()
    assert found["auc"] == {"first_model": None, "live": None}
    assert found["latency_ms"] == {"p50": None, "p99": None}
    assert json.dumps(found, allow_nan=False)
    assert "AUC" not in dict(empty.summary())
    assert "<h2>The loop</h2>" not in render(empty.report(""))


def test_the_models_are_compared_on_the_same_events() -> None:
    gap = replace(OUTCOME.scored, first=np.array([0.5, 0.1, 0.9, np.nan, 0.3]))
    one, both = replace(OUTCOME, scored=gap), replace(OUTCOME, scored=gap).compared
    assert both.times.tolist() == [1, 2, 4], "neither what came before, nor what one of them did not score"
    assert one.auc == (1.0, 1.0)
    assert [week.events for week in one.weeks(gap.live)] == [5]
    assert [week.events for week in one.weeks(gap.first)] == [4]


def test_the_report_shows_both_models_and_the_loop() -> None:
    page = render(OUTCOME.report("March to December"))
    assert "AUC, first model" in page
    assert "version 2" in page
    assert "worse" in page


def test_requests_without_a_prediction_are_lost() -> None:
    assert replace(OUTCOME, predictions=7).lost == 3


def test_only_what_is_scored_and_labelled_tells_how_good_the_model_is() -> None:
    tally = Tally()
    label = Label("a", 9, 1.0)
    tally.on_joined(
        [Joined(predicted(1, 0.7), label), Joined(predicted(2, None), label), Joined(predicted(3, 0.2), None)]
    )
    assert (tally.times, tally.labels, tally.scores) == ([1], [1.0], [0.7])


def test_the_first_model_is_scored_by_itself_and_later_by_its_shadow() -> None:
    tally = Tally()
    label = Label("a", 9, 1.0)
    served = predicted(1, 0.7, version="1")
    later = predicted(2, 0.9, version="2", shadows={"1": 0.6, "3": 0.1})
    without = predicted(3, 0.8, version="2")
    tally.on_predictions([predicted(0, None), served, later, without])
    tally.on_joined([Joined(prediction, label) for prediction in (later, served, without)])
    found = tally.scored()
    assert tally.first_version == "1"
    assert (found.times.tolist(), found.live.tolist()) == ([1, 2, 3], [0.7, 0.9, 0.8])
    np.testing.assert_array_equal(found.first, [0.7, 0.6, np.nan])


def test_latency_is_taken_of_the_requests_that_both_sides_sample() -> None:
    tally = Tally()
    before = time.time()
    tally.on_predictions([predicted(49, 0.5), predicted(50, 0.5), predicted(100, 0.5)])
    found = tally.latencies({(0, 50): before - 2.0, (0, 150): before})
    assert found == pytest.approx([2.0], abs=0.5)


def test_the_matrix_has_codes_for_categories_and_nan_for_what_is_missing() -> None:
    matrix = feature_matrix(pipeline, [predicted(0, 0.5), predicted(1, 0.5, None)])
    names = pipeline.spec.names
    assert matrix.dtype == np.float32
    assert matrix.shape == (2, len(names))
    assert matrix[:, names.index("carrier")].tolist() == [3.0, 16.0]
    assert matrix[:, names.index("hour")].tolist() == [7.0, 7.0]
    assert np.isnan(matrix[:, names.index("temp")]).all()


def test_months_are_named() -> None:
    assert span(1, 2) == "January and February"
    assert span(3, 12) == "March to December"
    assert span(5, 5) == "May"


def demo(tmp_path: Path, *arguments: str) -> list[str]:
    output = ["--output", str(tmp_path / "out")]
    return [sys.executable, "-m", "streams.cli", "demo", "--json", *output, *arguments]


@pytest.mark.slow
def test_a_month_begins_cold_and_its_first_model_scores_from_the_same_event_on_in_every_run(tmp_path: Path) -> None:
    arguments = demo(tmp_path, "--months", "1", "--keep")
    run = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["predictions"] == 27_004
    assert (found["lost"], found["duplicated"], found["dead_letters"]) == (0, 0, 0)
    (retrain,) = found["retrains"]
    assert retrain["reason"] == "no_champion"
    assert retrain["labels"] >= 20_000
    assert [(p["version"], p["retrain"], p["reason"]) for p in found["promotions"]] == [
        ("1", retrain["id"], "no_champion")
    ]
    since = int(datetime.fromisoformat(retrain["date"] + "T05:00+00:00").timestamp() * 1000)
    assert found["unscored"] == Flights(1, 1).requests_before(since)
    rows = pl.read_parquet(tmp_path / "out" / "data" / "archive" / "flights" / "*.parquet")
    assert rows.filter(pl.col("time") < since)["score"].null_count() == found["unscored"]
    assert set(rows.filter(pl.col("time") >= since)["version"]) == {"1"}
    assert "Traceback" not in run.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "logs", "report.html"]


@pytest.mark.slow
def test_ctrl_c_stops_every_process(tmp_path: Path) -> None:
    running = subprocess.Popen(
        demo(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_interruptible
    )
    deadline = time.monotonic() + 60
    while len(found := children(running.pid)) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(found) >= 5  # broker, Valkey, worker, replay, trainer
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert "Traceback" not in error
    assert [pid for pid in found if os.path.exists(f"/proc/{pid}")] == []


def test_wrong_months_are_wrong_use(tmp_path: Path) -> None:
    run = subprocess.run(demo(tmp_path, "--months", "9-3"), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stderr.strip() == "--months '9-3': months go from 1 to 12, the first one first"


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
