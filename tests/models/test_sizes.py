"""What a model is really asked for."""

from __future__ import annotations

import pytest

from models.sizes import asked


@pytest.mark.parametrize(
    ("rows", "wanted"), [(0, 0), (1, 64), (64, 64), (65, 256), (4096, 4096), (4097, 4160), (8192, 8192)]
)
def test_rows_are_cut_at_the_largest_size_and_the_rest_is_padded(rows: int, wanted: int) -> None:
    assert asked(rows) == wanted
