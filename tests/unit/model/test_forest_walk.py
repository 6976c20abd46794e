"""The walk gives the bits of its naive twin, whatever the shape of the forest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.model.engine import TableEngine, available_engines
from fraudsdk.model.forest import build_tables, read_forest, write_forest


@pytest.fixture(params=available_engines(), scope="module")
def engine_name(request):
    return request.param


def both_ways(name, trees, rows, base_margin):
    """Margins of rows one at a time, and of all at once."""
    tables = read_forest(write_forest(build_tables(trees, n_features=rows.shape[1], base_margin=base_margin)))
    engine = TableEngine(tables, name)
    batch = np.empty(len(rows), np.float32)
    engine.margins(rows, batch)
    return np.array([engine.margin(row) for row in rows], np.float32), batch


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_trees=st.integers(1, 20),
    depth=st.integers(0, 10),
    categorical=st.booleans(),
    n_rows=st.sampled_from([1, 7, 8, 9, 64, 65, 130]),
)
def test_random_forests_give_the_bits_of_the_twin(
    engine_name, make_tree, make_rows, twin, seed, n_trees, depth, categorical, n_rows
):
    rng = np.random.default_rng(seed)
    trees = [make_tree(rng, depth=depth, categorical=categorical) for _ in range(n_trees)]
    rows = make_rows(rng, n_rows)
    base = np.float32(rng.normal())

    expected = np.array([twin(trees, row, base) for row in rows], np.float32)
    alone, batch = both_ways(engine_name, trees, rows, base)

    assert expected.tobytes() == alone.tobytes()
    assert expected.tobytes() == batch.tobytes()


@pytest.mark.parametrize("depth", [9, 16, 33, 64])
def test_deep_and_shallow_trees_side_by_side(engine_name, make_tree, make_rows, twin, depth):
    rng = np.random.default_rng(depth)
    trees = [make_tree(rng, depth=depth, chain=True, categorical=k % 2 == 0) for k in range(9)]
    trees += [make_tree(rng, depth=1), make_tree(rng, depth=0)]
    rows = make_rows(rng, 100)

    expected = np.array([twin(trees, row, np.float32(1)) for row in rows], np.float32)
    alone, batch = both_ways(engine_name, trees, rows, np.float32(1))

    assert expected.tobytes() == alone.tobytes()
    assert expected.tobytes() == batch.tobytes()


def test_the_trees_that_fill_up_a_group_do_not_turn_minus_zero_into_zero(engine_name, make_tree, make_rows):
    # XGBoost's base margin for a base score of 0.5 is -0.0.
    tree = make_tree(np.random.default_rng(0), depth=0)
    tree.value[0] = -0.0
    alone, batch = both_ways(engine_name, [tree], make_rows(np.random.default_rng(0), 3), np.float32(-0.0))

    assert np.signbit(alone).all()
    assert np.signbit(batch).all()


def test_rows_are_left_unchanged(engine_name, tables, make_rows):
    rows = make_rows(np.random.default_rng(2), 20)
    before = rows.tobytes()

    engine = TableEngine(tables, engine_name)
    engine.margins(rows, np.empty(20, np.float32))
    engine.margin(rows[0])

    assert before == rows.tobytes()


def test_no_rows_are_no_margins(engine_name, tables):
    out = np.empty(0, np.float32)
    TableEngine(tables, engine_name).margins(np.empty((0, 7), np.float32), out)

    assert 0 == out.size
