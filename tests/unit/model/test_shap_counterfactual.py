"""The smallest change of one feature that moves a verdict, against a search that tries everything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.model import counterfactual
from fraudsdk.model.counterfactual import ChangeSearch
from fraudsdk.model.shap_tables import build_shap_tables, numeric_cuts

N_FEATURES = 7


def forest(make_tree, seed, n_trees=6, depth=4):
    rng = np.random.default_rng(seed)
    trees = [make_tree(rng, depth=depth, categorical=k % 2 == 0) for k in range(n_trees)]
    covers = []
    for tree in trees:
        cover = np.zeros(tree.left.size, np.float32)
        for node in range(tree.left.size - 1, -1, -1):
            left = tree.left[node]
            cover[node] = 1.0 if left < 0 else cover[left] + cover[left + 1]
        covers.append(cover)
    return trees, build_shap_tables(trees, covers, n_features=N_FEATURES, base_margin=0.0)


def searcher(trees, tables, twin):
    return ChangeSearch(tables, lambda rows: np.array([twin(trees, row, np.float32(0)) for row in rows], np.float32))


def changed(row, feature, value):
    other = row.copy()
    other[feature] = value
    return other


def everything(row, cuts):
    """(cuts crossed, feature, value) of every value at or right below a cut, and of every value between two."""
    for feature, own in cuts.items():
        value = row[feature]
        if np.isnan(value):
            continue
        edges = [np.float32(-np.inf), *own, np.float32(np.inf)]
        tried = {
            *own,
            *np.nextafter(own, np.float32(-np.inf)),
            *((a + b) / 2 for a, b in itertools.pairwise(own)),
        }
        tried |= set(edges)
        for other in tried:
            crossed = int(sum((value < cut) != (other < cut) for cut in own))
            if crossed:
                yield crossed, feature, other


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), up=st.booleans())
def test_nothing_smaller_moves_the_verdict(make_tree, make_rows, twin, seed, up):
    trees, tables = forest(make_tree, seed)
    row = make_rows(np.random.default_rng(seed + 1), 1)[0]
    margin = float(twin(trees, row, np.float32(0)))
    aim = margin + (0.8 if up else -0.8)

    def moved(other):
        return other >= aim if up else other <= aim

    cuts = numeric_cuts(tables)
    possible = [
        crossed
        for crossed, feature, value in everything(row, cuts)
        if moved(float(twin(trees, changed(row, feature, value), np.float32(0))))
    ]

    change = searcher(trees, tables, twin).smallest(row, moved)

    if change is None:
        assert not possible
        return
    assert min(possible) == change.n_cuts
    assert change.margin == float(twin(trees, changed(row, change.feature, np.float32(change.value)), np.float32(0)))
    assert moved(change.margin)
    # It is the nearest of its kind: one float less, and the verdict stays.
    back = np.nextafter(np.float32(change.value), row[change.feature])
    crossed_back = sum((back < cut) != (row[change.feature] < cut) for cut in cuts[change.feature])
    assert crossed_back < change.n_cuts


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_all_values_between_low_and_high_move_it_and_no_wider_range_does(make_tree, make_rows, twin, seed):
    trees, tables = forest(make_tree, seed)
    row = make_rows(np.random.default_rng(seed + 1), 1)[0]
    aim = float(twin(trees, row, np.float32(0))) - 0.5

    def margin_at(value):
        return float(twin(trees, changed(row, change.feature, np.float32(value)), np.float32(0)))

    change = searcher(trees, tables, twin).smallest(row, lambda other: other <= aim)

    if change is None:
        return
    assert change.low <= change.value < change.high
    within = [c for c in numeric_cuts(tables)[change.feature].tolist() if change.low <= c < change.high]
    within += [change.low, float(np.nextafter(np.float32(change.high), np.float32(-np.inf)))]
    assert all(margin_at(value) <= aim for value in within)
    # On the far side it ends where the verdict comes back.
    falls = change.value < row[change.feature]
    far = float(np.nextafter(np.float32(change.low), np.float32(-np.inf))) if falls else change.high
    assert math.isinf(change.low if falls else change.high) or margin_at(far) > aim


def test_equally_near_the_shorter_way_wins(make_tree, twin):
    # Given two features, each one cut away: the second much closer, measured by its own span
    from fraudsdk.model.forest import Tree

    def stump(feature, threshold, low):
        return Tree(
            left=np.array([1, -1, -1], np.int32),
            feature=np.array([feature, 0, 0], np.int32),
            threshold=np.array([threshold, 0, 0], np.float32),
            value=np.array([0, low, 1], np.float32),
            default_left=np.zeros(3, np.bool_),
        )

    trees = [stump(0, 1.0, -1.0), stump(0, 5.0, 1.0), stump(1, 100.0, -1.0), stump(1, 900.0, 1.0)]
    cover = [np.array([2, 1, 1], np.float32)] * 4
    tables = build_shap_tables(trees, cover, n_features=2, base_margin=0.0)
    row = np.array([3.0, 140.0], np.float32)  # half of the span above the cut, and a twentieth

    change = searcher(trees, tables, twin).smallest(row, lambda margin: margin < 3.0)

    assert (1, 1, float(np.nextafter(np.float32(100), np.float32(0)))) == (change.feature, change.n_cuts, change.value)
    assert (-math.inf, 100.0) == (change.low, change.high)


def test_features_to_be_left_alone_are(make_tree, make_rows, twin):
    trees, tables = forest(make_tree, 3)
    row = np.zeros(N_FEATURES, np.float32)
    search = searcher(trees, tables, twin)
    aim = float(twin(trees, row, np.float32(0))) - 0.3
    first = search.smallest(row, lambda margin: margin <= aim)
    assert first is not None

    second = search.smallest(row, lambda margin: margin <= aim, leave={first.feature})

    assert second is None or second.feature != first.feature
    assert search.smallest(row, lambda margin: margin <= aim, leave=range(N_FEATURES)) is None


def test_a_missing_value_stays_missing(make_tree, twin):
    trees, tables = forest(make_tree, 3)

    assert searcher(trees, tables, twin).smallest(np.full(N_FEATURES, np.nan, np.float32), lambda margin: True) is None


def test_the_search_is_bounded_and_takes_the_nearest_first(make_tree, twin, monkeypatch):
    _, tables = forest(make_tree, 4, n_trees=30)
    tried = []
    search = ChangeSearch(tables, lambda rows: tried.append(len(rows)) or np.zeros(len(rows), np.float32))
    monkeypatch.setattr(counterfactual, "MAX_TRIED", 20)

    assert search.smallest(np.zeros(N_FEATURES, np.float32), lambda margin: False) is None
    assert 20 == sum(tried)


def test_a_forest_without_splits_has_nothing_to_change(make_tree, twin):
    tree = make_tree(np.random.default_rng(0), depth=0)
    tables = build_shap_tables([tree], [np.ones(1, np.float32)], n_features=N_FEATURES, base_margin=0.0)

    assert searcher([tree], tables, twin).smallest(np.zeros(N_FEATURES, np.float32), lambda margin: True) is None


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_value_can_become_finite(make_tree, twin, value):
    trees, tables = forest(make_tree, 3)
    row = np.full(N_FEATURES, value, np.float32)

    change = searcher(trees, tables, twin).smallest(row, lambda margin: True)

    assert 1 == change.n_cuts and math.isfinite(change.value)
