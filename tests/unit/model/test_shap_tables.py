"""The tables of explanations: what is built can be read again, and what was edited is refused before a kernel reads it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.errors import InvalidModelError
from fraudsdk.model import shap_layout as layout
from fraudsdk.model import shap_tables
from fraudsdk.model.explainer import shap_kernels
from fraudsdk.model.forest import Tree
from fraudsdk.model.shap_tables import (
    MAGIC,
    aligned,
    build_shap_tables,
    check_shap_tables,
    expected_margin,
    numeric_cuts,
    quadrature_rules,
    read_shap,
    require_forest,
    write_shap,
)

N_FEATURES = 7


def covers_of(tree, rng):
    """Weights as training rows would give them: a parent's is the sum of its children's."""
    cover = np.zeros(tree.left.size, np.float64)
    for node in range(tree.left.size - 1, -1, -1):
        left = tree.left[node]
        cover[node] = rng.uniform(0.5, 20) if left < 0 else cover[left] + cover[left + 1]
    return cover.astype(np.float32)


def forest(make_tree, seed=3, n_trees=40, depth=5):
    rng = np.random.default_rng(seed)
    trees = [make_tree(rng, depth=int(rng.integers(0, depth + 1)), categorical=k % 2 == 0) for k in range(n_trees)]
    return trees, [covers_of(tree, rng) for tree in trees]


@pytest.fixture
def words(make_tree):
    return build_shap_tables(*forest(make_tree), n_features=N_FEATURES, base_margin=-1.5)


def explained(words, rows):
    out = np.empty((len(rows), N_FEATURES + 1))
    floats = aligned(
        layout.scratch_floats(int(words[layout.MAX_GROUP_PLACES]), int(words[layout.MAX_CHUNK_PLACES])), np.float32
    )
    shap_kernels().contributions(rows, np.zeros(len(rows), np.float32), words, quadrature_rules(), floats, out)
    return out


def test_a_file_is_read_as_it_was_written(words):
    again = read_shap(write_shap(words))

    assert words.tobytes() == again.tobytes()
    assert 0 == again.ctypes.data % 64


def test_the_expected_margin_is_the_mean_over_the_training_rows(make_tree):
    trees, covers = forest(make_tree, n_trees=5)
    expected = -1.5 + sum(
        float(np.average(tree.value[tree.left < 0], weights=cover[tree.left < 0].astype(np.float64)))
        for tree, cover in zip(trees, covers, strict=True)
    )

    words = build_shap_tables(trees, covers, n_features=N_FEATURES, base_margin=-1.5)

    assert expected == pytest.approx(expected_margin(words), rel=1e-6)


def test_cuts_are_the_thresholds_of_the_forest(make_tree):
    trees, covers = forest(make_tree)
    expected: dict[int, set[float]] = {}
    for tree in trees:
        for node in np.flatnonzero(tree.left >= 0).tolist():
            if node not in tree.categories:
                expected.setdefault(int(tree.feature[node]), set()).add(float(tree.threshold[node]))

    words = build_shap_tables(trees, covers, n_features=N_FEATURES, base_margin=0.0)

    assert {f: sorted(cuts) for f, cuts in expected.items()} == {f: c.tolist() for f, c in numeric_cuts(words).items()}


@pytest.mark.parametrize("n_points", [1, 2, 3, 4, 5, 8, 13, 32])
def test_a_rule_integrates_polynomials_of_twice_its_points_exactly(n_points):
    at = n_points * layout.RULE_FLOATS
    rules = quadrature_rules().astype(np.float64)
    blocks = rules[at + 1 : at + 1 + int(rules[at]) * layout.BLOCK_FLOATS].reshape(-1, 4, layout.BLOCK_POINTS)
    u, odds, steepness, weights = (blocks[:, k].ravel() for k in range(4))

    for degree in range(2 * n_points):
        assert 1 / (degree + 1) == pytest.approx(float(weights @ u**degree), rel=2e-6)
    np.testing.assert_allclose(odds, u / (1 - u), rtol=1e-4)
    np.testing.assert_allclose(steepness, 1 / (u * (1 - u)), rtol=1e-4)


def test_tables_of_another_forest_are_refused(words):
    with pytest.raises(InvalidModelError, match=r"\(7, 40\), the manifest says \(7, 41\)"):
        require_forest(words, n_features=7, n_trees=41)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cover: np.where(np.arange(cover.size) == 1, -cover, cover), "below zero"),
        (lambda cover: np.where(np.arange(cover.size) == 0, 2 * cover, cover), "do not add up"),
        (lambda cover: np.full_like(cover, np.nan), "below zero"),
    ],
)
def test_covers_that_are_no_weights_are_refused(make_tree, change, reason):
    rng = np.random.default_rng(1)
    tree = make_tree(rng, depth=3)

    with pytest.raises(InvalidModelError, match=reason):
        build_shap_tables([tree], [change(covers_of(tree, rng))], n_features=N_FEATURES, base_margin=0.0)


# --- hostile tables ---------------------------------------------------------------------------------------------------


def header(word, value):
    def change(words):
        words[word] = value

    return change


def first(part, value, offset=0):
    def change(words):
        words[int(words[part]) + offset] = value

    return change


def last(part, count, width, value, offset=0):
    def change(words):
        words[int(words[part]) + (int(words[count]) - 1) * width + offset] = value

    return change


def float_bits(value):
    return int(np.float32(value).view(np.int32))


EDITS = {
    "another format": (header(layout.FORMAT, 9), "format"),
    "no features": (header(layout.N_FEATURES, 0), "number of features"),
    "fewer features": (header(layout.N_FEATURES, 3), "misplace|words|does not exist"),
    "a negative number of places": (header(layout.N_PLACES, -1), "number of places"),
    "more places than there are": (header(layout.N_PLACES, 10_000), "misplace"),
    "more groups than trees": (header(layout.N_GROUPS, 1_000), "number of groups"),
    "places elsewhere": (header(layout.PLACES_AT, 2**30), "misplace"),
    "terms elsewhere": (header(layout.TERMS_AT, 0), "misplace"),
    "more scratch than groups need": (header(layout.MAX_GROUP_PLACES, 2**30), "largest group"),
    "less scratch than groups need": (header(layout.MAX_GROUP_PLACES, 1), "largest group"),
    "less scratch than chunks need": (header(layout.MAX_CHUNK_PLACES, 1), "largest chunk"),
    "an expected margin of NaN": (header(layout.EXPECTED + 1, 0x7FF80000), "expected margin"),
    "a group that begins later": (first(layout.GROUPS_AT, 1), "do not follow"),
    "a group of a billion places": (first(layout.GROUPS_AT, 10**9, layout.GROUP_PLACES), "do not follow"),
    "leaves of another group": (first(layout.GROUPS_AT, 3, layout.FIRST_LEAF), "do not follow"),
    "no points": (first(layout.GROUPS_AT, 0, layout.POINTS), "number of points"),
    "a thousand points": (first(layout.GROUPS_AT, 1_000, layout.POINTS), "number of points"),
    "a place of no known kind": (first(layout.PLACES_AT, 3), "no known kind"),
    "a place of a negative kind": (first(layout.PLACES_AT, -2), "no known kind"),
    "a child far away": (first(layout.PLACES_AT, 10**6, layout.FIRST_CHILD), "outside its group"),
    "a child before its parent": (first(layout.PLACES_AT, 0, layout.FIRST_CHILD), "before its parent"),
    "a negative child": (first(layout.PLACES_AT, -1, layout.SECOND_CHILD), "outside its group"),
    "one child twice": (first(layout.PLACES_AT, 1, layout.SECOND_CHILD), "has no parent, or two"),
    "a leaf far away": (
        last(layout.PLACES_AT, layout.N_PLACES, layout.PLACE_WORDS, 10**6, layout.SECOND_CHILD),
        "outside its group",
    ),
    "a feature far beyond the row": (first(layout.FEATURES_AT, 4_000), "does not exist"),
    "a negative feature": (first(layout.FEATURES_AT, -1), "does not exist"),
    "a threshold of NaN": (first(layout.THRESHOLDS_AT, float_bits(np.nan)), "threshold is NaN"),
    "a share above one": (first(layout.SHARES_AT, float_bits(1.5)), "shares"),
    "a share of NaN": (first(layout.SHARES_AT, float_bits(np.nan)), "shares"),
    "a negative reach": (first(layout.REACHES_AT, float_bits(-0.5)), "reaches"),
    "a leaf of infinity": (first(layout.LEAVES_AT, float_bits(np.inf)), "leaf is not finite"),
    "a chunk without groups": (first(layout.CHUNKS_AT, 0, layout.END_GROUP), "do not follow"),
    "a chunk of other places": (first(layout.CHUNKS_AT, 5, layout.CHUNK_PLACE), "other places"),
    "a run before the terms": (first(layout.RUNS_AT, -1), "runs"),
    "a run beyond the terms": (first(layout.RUNS_AT, 10**6, N_FEATURES), "runs"),
    "a term before its chunk": (first(layout.TERMS_AT, -1), "outside its chunk"),
    "a term beyond its chunk": (first(layout.TERMS_AT, 10**7), "outside its chunk"),
    "a categorical cell elsewhere": (first(layout.CATEGORICAL_AT, 10**6), "must ascend"),
    "a categorical cell of another feature": (first(layout.CATEGORICAL_AT, 0, layout.CELL_FEATURE), "another feature"),
    "a set before the sets": (first(layout.CATEGORICAL_AT, -1, layout.SET_AT), "outside the sets"),
    "a set beyond the sets": (first(layout.CATEGORICAL_AT, 10**6, layout.SET_AT), "outside the sets"),
    "a set of a billion categories": (first(layout.CATEGORICAL_AT, 10**9, layout.SET_SIZE), "outside the sets"),
    "a chunk that skips its categorical cells": (
        first(layout.CHUNKS_AT, 1, layout.FIRST_CATEGORICAL),
        "categorical cells",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_tables_are_refused_before_a_kernel_reads_them(name, words):
    change, reason = EDITS[name]
    change(words)

    with pytest.raises(InvalidModelError, match=reason):
        check_shap_tables(words)


def test_tables_that_want_more_scratch_than_any_forest_needs_are_refused(words, monkeypatch):
    monkeypatch.setattr(shap_tables, "MAX_GROUP_PLACES", int(words[layout.MAX_GROUP_PLACES]) - 1)

    with pytest.raises(InvalidModelError, match="largest group must be 0 to"):
        check_shap_tables(words)


def test_a_term_counted_twice_is_refused(words):
    at = int(words[layout.TERMS_AT])
    words[at + 1] = words[at]

    with pytest.raises(InvalidModelError, match=r"counted twice|another feature"):
        check_shap_tables(words)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "not an explanation file"),
        (lambda data: b"PK\x03\x04" + data, "not an explanation file"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[: len(MAGIC) + 8], "inside their header"),
        (lambda data: data[:-400], "must have"),
        (lambda data: data + b"\0" * 4, "must have"),
    ],
)
def test_a_damaged_file_is_refused(words, damage, reason):
    with pytest.raises(InvalidModelError, match=reason):
        read_shap(damage(write_shap(words)))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_file_with_flipped_bits_is_refused_or_is_still_safe_to_read(make_tree, data):
    file = bytearray(
        write_shap(build_shap_tables(*forest(make_tree, n_trees=5, depth=4), n_features=N_FEATURES, base_margin=0.0))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        words = read_shap(bytes(file))
    except InvalidModelError:
        return

    # Wrong they may be, and then they do not add up; but no wild read, and no loop without end.
    assert (1, N_FEATURES + 1) == explained(words, np.full((1, N_FEATURES), 2.0, np.float32)).shape


def test_cuts_of_many_features_are_found_in_one_sort(monkeypatch, make_tree):
    """
    A load waits for it: with one pass over all cells for each feature it took 0.7 s for 2,000 trees on 4,000 features.
    """
    words = build_shap_tables(*forest(make_tree), n_features=N_FEATURES, base_margin=0.0)
    sorts = []
    lexsort = np.lexsort
    monkeypatch.setattr(np, "lexsort", lambda keys: sorts.append(len(keys[0])) or lexsort(keys))
    monkeypatch.setattr(np, "unique", lambda *_, **__: pytest.fail("one pass for each feature"))

    cuts = numeric_cuts(words)

    assert len(cuts) > 1
    assert 1 == len(sorts)


def test_a_forest_without_numeric_tests_has_no_cuts():
    leaf = Tree(
        left=np.full(1, -1, np.int32),
        feature=np.zeros(1, np.int32),
        threshold=np.zeros(1, np.float32),
        value=np.full(1, 0.5, np.float32),
        default_left=np.zeros(1, np.bool_),
    )

    assert {} == numeric_cuts(build_shap_tables([leaf], [np.ones(1, np.float32)], n_features=1, base_margin=0.0))
