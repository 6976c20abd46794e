from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fraudsdk.errors import ConfigurationError
from fraudsdk.training.matrix import TrainingMatrix


def test_taking_rows_takes_every_column(matrix: TrainingMatrix):
    part = matrix.take(np.array([3, 5, 8]))

    assert 3 == len(part)
    assert np.array_equal(matrix.rows[[3, 5, 8]], part.rows, equal_nan=True)
    assert np.array_equal(matrix.label[[3, 5, 8]], part.label)
    assert np.array_equal(matrix.segments["channel"][[3, 5, 8]], part.segments["channel"])
    assert part.rows.flags.c_contiguous


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("rows", np.zeros((6_000, 3), np.float32), "float32[n, 4]"),
        ("rows", np.zeros((6_000, 4), np.float64), "float64"),
        ("rows", np.asfortranarray(np.zeros((6_000, 4), np.float32)), "C-contiguous"),
        ("rows", np.full((6_000, 4), np.inf, np.float32), "'amount' holds an infinity"),
        ("label", np.zeros(6_000, np.int64), "int8[6000]"),
        ("label", np.zeros(5_999, np.int8), "(5999,)"),
        ("label", np.full(6_000, 2, np.int8), "was 2 in row 0"),
        ("event_time_us", np.arange(6_000, 0, -1), "went back in row 1"),
        ("card_key", np.zeros(6_000, np.uint64), "uint64"),
        ("segments", {"channel": np.zeros(6_000)}, "segment 'channel'"),
    ],
)
def test_a_column_that_does_not_fit_is_named(matrix: TrainingMatrix, column: str, value: object, says: str):
    with pytest.raises(ConfigurationError) as caught:
        replace(matrix, **{column: value})

    assert says in str(caught.value)
