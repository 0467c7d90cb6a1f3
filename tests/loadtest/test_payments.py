"""The synthetic payments and their model are the same every time, and fit the pipeline that reads them."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import onnxruntime
import pytest

from examples.payments import model
from examples.payments.generate import BLOCK, Payments
from examples.payments.pipeline import Payment, pipeline


def test_one_seed_gives_the_same_payments_every_time() -> None:
    assert list(Payments(seed=3).records(2000)) == list(Payments(seed=3).records(2000))


def test_another_seed_gives_other_payments() -> None:
    assert list(Payments(seed=3).records(10)) != list(Payments(seed=4).records(10))


def test_the_first_payments_do_not_depend_on_how_many_follow() -> None:
    assert list(Payments().records(100)) == list(Payments().records(BLOCK + 10))[:100]


def test_payments_are_events_of_the_pipeline_in_event_time_order_keyed_by_user() -> None:
    n = BLOCK + 1000
    records = list(Payments(users=50, start_ms=1_000).records(n))
    events = msgspec.json.decode(b"[" + b",".join(r.value for r in records) + b"]", type=list[Payment])
    assert [e.ts for e in events] == [r.time_ms for r in records]
    assert [e.user_id.encode() for e in events] == [r.key for r in records]
    assert all(before.ts <= after.ts for before, after in pairwise(events))
    assert events[0].ts >= 1_000
    assert len({e.payment_id for e in events}) == n
    assert len({e.user_id for e in events}) == 50
    assert min(e.amount for e in events) > 0


def test_the_rate_is_that_of_event_time() -> None:
    records = list(Payments(rate=100).records(10_000))
    assert records[-1].time_ms - records[0].time_ms == pytest.approx(100_000, rel=0.05)


def test_the_model_takes_the_pipelines_features_in_their_order() -> None:
    assert pipeline.spec.names == model.FEATURES


def test_one_seed_gives_the_same_model_file() -> None:
    assert model.build().SerializeToString(deterministic=True) == model.build().SerializeToString(
        deterministic=True
    )


def test_the_model_scores_missing_and_extreme_features_between_0_and_1() -> None:
    session = onnxruntime.InferenceSession(model.build().SerializeToString())
    rows = np.array([[45, 500, 7, 120, 320, 5400, 45, 45]] * 4, np.float32)
    rows[1, 1], rows[2], rows[3] = np.nan, np.nan, 1e30
    (scores,) = session.run(["score"], {"features": rows})
    assert scores.shape == (4,)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[2] == scores[0]
