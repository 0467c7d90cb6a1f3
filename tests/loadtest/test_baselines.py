"""The baselines do the work that they are compared on: the same features and scores, each by its own code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from confluent_kafka import Consumer

from examples.payments import model
from examples.payments.generate import Payments, produce
from loadtest.baselines.loop_compiled import Payment, Users
from loadtest.baselines.panes import WINDOWS, User
from loadtest.kafka import KafkaCluster

HOUR_MS = 3_600_000
N = 2000


def payments(n: int = N) -> list[Payment]:
    """Of 40 users over 60 hours, now and then one that is hours late or follows after a long silence."""
    draw = np.random.default_rng(1)
    times = draw.exponential(60 * HOUR_MS / n, n).cumsum().astype(np.int64) + 1_735_689_600_000
    times[::17] -= draw.integers(0, 30 * HOUR_MS, len(times[::17]))
    times[n - 50 :] += 40 * 24 * HOUR_MS
    users, amounts = draw.integers(0, 40, n).tolist(), draw.lognormal(3, 1, n).tolist()
    return [
        Payment(f"p{i}", f"u{user}", amount, ts)
        for i, (user, amount, ts) in enumerate(zip(users, amounts, times.tolist(), strict=True))
    ]


def brute_force(events: list[Payment]) -> np.ndarray:
    """float32 [n, 8]: for each payment, a walk over all the user's payments that arrived before it."""
    earlier: defaultdict[str, list[Payment]] = defaultdict(list)
    rows = []
    for e in events:
        known = earlier[e.user_id]
        gap = e.ts - known[-1].ts if known else None
        counts, sums, means = [], [], []
        for pane_ms, panes in WINDOWS:
            # panes:  … [h - n] ( h - n + 1 … h ]   h = newest pane seen, or the payment's own
            head = max([k.ts // pane_ms for k in known] + [e.ts // pane_ms])
            late = e.ts // pane_ms <= head - panes
            inside = [k.amount for k in known if _counted(k, known, pane_ms, panes) > head - panes]
            counts.append(np.nan if late else len(inside))
            sums.append(np.nan if late else sum(inside))
            means.append(np.nan if late or not inside else sum(inside) / len(inside))
        since = np.nan if gap is None or gap > 30 * 24 * HOUR_MS else gap / 1000
        rows.append([e.amount, since, *counts, *sums, *means])
        known.append(e)
    return np.array(rows, np.float32)


def _counted(event: Payment, known: list[Payment], pane_ms: int, panes: int) -> int:
    """The pane that `event` was added to; if it was late, and so never added, one of long ago."""
    before = known[: known.index(event)]
    head = max([k.ts // pane_ms for k in before] + [event.ts // pane_ms])
    pane = event.ts // pane_ms
    return pane if pane > head - panes else -(10**9)


def test_both_hand_written_features_are_those_of_a_walk_over_all_payments() -> None:
    events = payments(1200)
    expected = brute_force(events)
    users: defaultdict[str, User] = defaultdict(User)
    plain = np.array([users[e.user_id].score_then_add(e.amount, e.ts) for e in events], np.float32)
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    np.testing.assert_allclose(Users().features(events), expected, rtol=1e-6)
    assert np.isnan(expected[:, 2]).any(), "no late payment among them: the test shows less than it says"


def test_the_compiled_loop_grows_with_its_users_and_does_not_care_for_batches() -> None:
    events, small = payments(), Users(capacity=4)
    in_parts = np.concatenate([small.features(events[:700]), small.features(events[700:])])
    np.testing.assert_array_equal(in_parts, Users().features(events))


@pytest.mark.integration
def test_the_baselines_give_every_payment_one_prediction_and_agree_on_its_score(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    source = f"payments-{uuid4().hex}"
    kafka.create_topics(source)
    produce(kafka.address, source, Payments(users=100).records(N))
    onnx = model.write(tmp_path / "m.onnx")
    outputs = {
        name: run(kafka, name, source, onnx) for name in ("stock_faust", "loop_python", "loop_compiled")
    }
    faust, python, compiled = outputs.values()
    assert len(python) == N
    assert faust.keys() == python.keys() == compiled.keys()
    for key, prediction in python.items():
        assert faust[key]["features"] == prediction["features"]
        for other in (faust, compiled):
            assert other[key]["score"] == pytest.approx(prediction["score"], rel=1e-5)


def run(kafka: KafkaCluster, name: str, source: str, onnx: Path) -> dict[str, dict[str, object]]:
    """Runs a baseline over the whole topic; its predictions by id."""
    output = f"{name}-{uuid4().hex}"
    kafka.create_topics(output)
    arguments = {"broker": kafka.address, "input": source, "output": output, "group": output, "model": onnx}
    options = [text for option, value in arguments.items() for text in (f"--{option}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", f"loadtest.baselines.{name}", *options, "--records", str(N)],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    report = json.loads(done.stdout)
    assert report.keys() == {"records", "records_per_s", "cpu_us_per_record", "peak_rss_mb"}
    assert report["records"] == N
    consumer = Consumer(
        {"bootstrap.servers": kafka.address, "group.id": f"reader-{output}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([output])
    values = [m.value() or b"" for m in consumer.consume(N, 20)]
    consumer.close()
    found = {p["id"]: p for p in map(json.loads, values)}
    assert len(found) == len(values)
    return found
