"""Reading predictions, and knowing which source records came before."""

from __future__ import annotations

import random

import msgspec
import pytest

from monitors.predictions import SeenOffsets, prediction_decoder
from tests.monitors.records import KINDS, encoded, prediction


def test_a_prediction_is_decoded_with_its_features_as_attributes() -> None:
    found = prediction("a", 7, partition=2, offset=9, score=0.25, amount=None)
    assert (found.id, found.time, found.place, found.score) == ("a", 7, (2, 9), 0.25)
    assert (found.features.amount, found.features.city) == (None, "Rome")


def test_a_whole_number_is_a_float_where_a_number_is_expected() -> None:
    assert isinstance(prediction("a", amount=3, score=1).features.amount, float)
    assert isinstance(prediction("a", score=1).score, float)


def test_the_scores_of_shadows_are_read_whatever_their_shape() -> None:
    shadows = {"2": 0.25, "3": None, "4": [0.5, None]}
    assert prediction("a", shadows=shadows).shadows == shadows
    assert prediction_decoder(KINDS)(encoded("a").replace(b'"shadows":{},', b"")).shadows is None


def test_features_of_another_spec_are_ignored_and_missing_ones_are_none() -> None:
    decode = prediction_decoder({"other": "number"})
    assert decode(encoded("a")).features.other is None


def test_what_is_no_prediction_is_refused() -> None:
    decode = prediction_decoder(KINDS)
    for value in (b"", b"{}", b"[]", encoded("a").replace(b'"time":0', b'"time":"x"')):
        with pytest.raises(msgspec.MsgspecError):
            decode(value)


def test_an_offset_is_new_once() -> None:
    seen = SeenOffsets()
    assert seen.add([(0, 5), (0, 6), (1, 5), (0, 5)]) == [True, True, True, False]
    assert seen.add([(0, 3), (0, 9), (0, 6), (0, 8)]) == [True, True, False, True]
    assert seen.ends == {0: 10, 1: 6}


def test_it_agrees_with_a_set_while_offsets_stay_within_the_horizon() -> None:
    draw = random.Random(3)
    horizon = 64
    seen, known, end = SeenOffsets(horizon), set(), 0
    for _ in range(5000):
        offset = max(0, end + draw.randint(-horizon + 1, 5 if draw.random() < 0.99 else 200))
        if end and offset <= end - horizon:
            continue
        assert seen.add([(0, offset)]) == [offset not in known], offset
        known.add(offset)
        end = max(end, offset + 1)


def test_what_is_older_than_the_horizon_counts_as_seen() -> None:
    seen = SeenOffsets(10)
    seen.add([(0, 100)])
    assert seen.add([(0, 90), (0, 91)]) == [False, True]


def test_what_had_not_come_before_a_restart_is_new_after_it_and_all_else_is_not() -> None:
    seen = SeenOffsets(100)
    seen.add([(0, 5), (0, 9), (0, 7), (1, 3)])
    assert seen.gaps() == {0: [0, 1, 2, 3, 4, 6, 8], 1: [0, 1, 2]}
    assert seen.gaps(look=2) == {0: [8], 1: [2]}
    assert seen.gaps(most=1) == {0: [8], 1: [2]}
    again = SeenOffsets(100)
    again.restore(seen.ends, seen.gaps())
    found = again.add([(0, 4), (0, 5), (0, 6), (0, 8), (0, 6), (0, 10), (1, 2), (1, 3)])
    assert found == [True, False, True, True, False, True, True, False]
    assert again.gaps() == {0: [0, 1, 2, 3], 1: [0, 1]}
