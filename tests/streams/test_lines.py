"""Lines from columns: as one would lay them out by hand, however long each value is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.lines import ITEMS, ROWS, Column, lines, pieces, plain

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.floats(allow_nan=False) | st.integers(-(10**15), 10**15) | st.none()


def by_hand(fixed: Sequence[bytes], holes: Sequence[int], columns: Sequence[Sequence[bytes]], n: int) -> list[bytes]:
    values = [iter(column) for column in columns]
    found = []
    for _ in range(n):
        parts = [b""] * (2 * len(holes) + 1)
        parts[::2] = fixed
        parts[1::2] = [next(values[hole]) for hole in holes]
        found.append(b"".join(parts))
    return found


@given(st.data(), st.integers(0, 600), st.sampled_from([0, 0, 3, 5000]))
def test_every_line_is_laid_out_as_by_hand(data: st.DataObject, n: int, long: int) -> None:
    """`long`: by how much some ids are longer than the others."""
    some = data.draw(st.lists(texts, min_size=1, max_size=5))
    ids = [some[row % len(some)] + "x" * (long if row % 97 == 13 else 0) for row in range(n)]
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
    given_pairs = [pairs[row % len(pairs)] for row in range(n)]
    flags = [b"true" if row % 3 else b'{"a":[]}' for row in range(n)]
    fixed = [b'{"id":', b',"a":', b',"b":', b',"both":', b',"flag":', b"}"]
    holes = [0, 1, 1, 2, 3]
    found = lines(
        fixed,
        holes,
        [
            Column(orjson.dumps(ids), ITEMS),
            Column(orjson.dumps(given_pairs), ITEMS),
            Column(orjson.dumps(given_pairs), ROWS),
            pieces(flags),
        ],
        n,
    )
    columns = [
        [orjson.dumps(text) for text in ids],
        [orjson.dumps(number) for number in itertools.chain(*given_pairs)],
        [orjson.dumps(pair) for pair in given_pairs],
        flags,
    ]
    assert found == by_hand(fixed, holes, columns, n)


def test_a_line_without_holes_and_one_without_text() -> None:
    assert lines([b"{}"], [], [], 3) == [b"{}"] * 3
    assert lines([b"", b""], [0], [pieces([b"1", b"22"])], 2) == [b"1", b"22"]


def test_as_many_fixed_texts_as_holes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 holes need 3 fixed texts, not 2"):
        lines([b"", b""], [0, 0], [pieces([b"1"])], 1)


@pytest.mark.parametrize("odd", ['"', "\\", "\n", "\x00", "\x1f", "\x7f", "ü"])
def test_what_json_would_escape_is_not_plain(odd: str) -> None:
    assert plain(pieces([b"user-1", b"", b" ~"]), 3)
    assert not plain(pieces([b"user-1", f"a{odd}b".encode()]), 2)
