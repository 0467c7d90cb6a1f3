"""What can be declared to be watched, and what is said of what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from monitors.detectors import DETECTORS
from monitors.predictions import Kinds
from monitors.watch import DEFAULT_WATCHES, Watch, WatchError, watched

KINDS: Kinds = {"amount": "number", "city": "category"}


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_has_settings_that_need_no_word(name: str) -> None:
    watch = Watch("errors" if "rate" in DETECTORS[name].takes else "score", detector=name)
    again = Watch(*watch.signals, detector=name, **watch.parameters)
    assert again == watch
    assert again.parameters == watch.parameters


@pytest.mark.parametrize(
    ("signals", "more", "said"),
    [
        ((), {}, "without signals"),
        (("scor",), {}, "'scor': did you mean 'score'"),
        (("amount",), {}, "there is no such one"),
        ((7,), {}, "signals=7"),
        (("score",), {"detector": "adwn"}, "did you mean 'adwin'"),
        (("score",), {"detector": None}, "detector=None"),
        (("score",), {"detector": "psi", "treshold": 1}, "treshold is no setting of psi: did you mean 'threshold'"),
        (("score",), {"detector": "psi", "threshold": 0}, "threshold=0: give a number above 0"),
        (("score",), {"detector": "psi", "threshold": float("nan")}, "threshold=nan"),
        (("score",), {"detector": "psi", "threshold": True}, "threshold=True"),
        (("score",), {"detector": "ks", "threshold": 1}, "above 0 and below 1"),
        (("score",), {"detector": "psi", "classes": 1}, "classes=1: give a whole number of 2 to 100"),
        (("score",), {"detector": "psi", "window": 10}, "window=10: give a multiple of step=7"),
        (("score",), {"detector": "psi", "window": 35}, "at least twice window=35"),
        (("score",), {"detector": "psi", "reference": "yesterday"}, 'give "sliding" or "training"'),
        (("score",), {"detector": "adwin", "delta": 1}, "delta=1"),
        (("score",), {"detector": "adwin", "learn": 7}, "learn=7: give a multiple of step=7"),
        (("score",), {"detector": "kswin", "window": 20}, "at least twice recent=14"),
        (("score",), {"confirm": 0}, "confirm=0: give a whole number from 1 on"),
        (("score",), {"warm_up": -1}, "warm_up=-1"),
        (("score",), {"cooldown": 1.5}, "cooldown=1.5"),
        (("score",), {"min_events": "many"}, "min_events='many'"),
        (("loss",), {"detector": "psi"}, "cannot take loss; these can: shift"),
        (("score",), {"detector": "ddm"}, "cannot take score"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name_and_the_mend(signals: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(WatchError, match="watch") as refused:
        Watch(*signals, **more)
    assert said in str(refused.value)


def test_a_pattern_stands_for_all_signals_that_the_detector_takes() -> None:
    assert list(watched([Watch("*", detector="psi")], KINDS)) == [
        (signal, "psi")
        for signal in ("score", "label", "errors", "feature.amount", "feature.city", "null.amount", "null.city")
    ]
    assert list(watched([Watch("feature.*", detector="ks")], KINDS)) == [("feature.amount", "ks")]
    assert list(watched([Watch("feature.*", detector="ks")], {})) == []


def test_a_later_watch_takes_the_place_of_an_earlier_one_of_the_same_detector() -> None:
    own, other = Watch("feature.amount", detector="psi", threshold=0.5), Watch("feature.amount", detector="ks")
    found = watched([Watch("feature.*", detector="psi"), own, other], KINDS)
    assert found["feature.amount", "psi"] is own
    assert found["feature.amount", "ks"] is other
    assert found["feature.city", "psi"].settings == Watch("score", detector="psi").settings


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        (Watch("feature.amont", detector="psi"), "did you mean 'feature.amount'"),
        (Watch("null.amont"), "did you mean 'null.amount'"),
        (Watch("feature.city", detector="ks"), "cannot take feature.city, a category; these can: psi"),
    ],
)
def test_a_watch_that_does_not_fit_the_features_is_refused(watch: Watch, said: str) -> None:
    with pytest.raises(WatchError, match="watch") as refused:
        watched([watch], KINDS)
    assert said in str(refused.value)


def test_the_defaults_watch_scores_features_nulls_labels_and_loss() -> None:
    assert {signal for signal, _ in watched(DEFAULT_WATCHES, KINDS)} == {
        *("score", "label", "loss", "feature.amount", "feature.city", "null.amount", "null.city")
    }
