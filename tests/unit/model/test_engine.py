"""Which engine a forest gets, what forcing one means, and calling one without Python."""

from __future__ import annotations

import subprocess
import sys

import numba
import numpy as np
import pytest

from fraudsdk import _simd
from fraudsdk._native import call_float32
from fraudsdk._simd import address_of
from fraudsdk.errors import ConfigurationError
from fraudsdk.model import block_layout, engine
from fraudsdk.model.artefact import load_artefact
from fraudsdk.model.blocks import build_blocks
from fraudsdk.model.engine import ENGINES, TableEngine, available_engines
from fraudsdk.model.forest import Tree, build_tables

BASE = np.float32(-2.25)


@numba.njit("void(float32[:, ::1], int64, int64, float32[::1])", nogil=True)
def score_without_python(rows, function, tables, out):
    """What a fused kernel does: call the forest of any engine by its address, for rows of its own."""
    for k in range(rows.shape[0]):
        out[k] = call_float32(function, address_of(rows) + 4 * rows.shape[1] * k, tables)


def tables_of(n_features, *, depth, n_trees, make_tree, categorical=False):
    """A forest of random trees on `n_features` features, each of them numeric, or as `make_tree` has it."""
    rng = np.random.default_rng(n_features)
    trees = []
    for _ in range(n_trees):
        tree = make_tree(rng, depth=depth, categorical=categorical)
        if not categorical:
            inner = tree.left >= 0
            tree.feature[inner] = rng.integers(0, n_features, int(inner.sum()))
        trees.append(tree)
    return build_tables(trees, n_features=n_features, base_margin=BASE), trees


@pytest.mark.parametrize("name", available_engines())
def test_a_forced_engine_is_the_one_that_scores(artefact, name):
    assert name == load_artefact(artefact, engine=name).engine


def test_the_first_engine_that_the_cpu_has_is_chosen(artefact):
    assert available_engines()[0] == load_artefact(artefact).engine


def test_an_engine_that_does_not_exist_is_refused(artefact):
    with pytest.raises(ConfigurationError, match="engine must be one of avx512, avx2, portable, was 'gpu'"):
        load_artefact(artefact, engine="gpu")


@pytest.mark.parametrize("name", ["avx512", "avx2"])
def test_an_engine_that_the_cpu_lacks_is_refused_by_what_it_lacks(artefact, monkeypatch, name):
    monkeypatch.setattr(_simd, "host_has", {"sse2", "popcnt", "bmi2"}.issuperset)

    with pytest.raises(ConfigurationError, match=r"lacks avx"):
        load_artefact(artefact, engine=name)
    assert ("portable",) == available_engines()
    assert "portable" == load_artefact(artefact).engine


@pytest.mark.skipif("avx2" not in available_engines(), reason="the CPU has no AVX2")
def test_a_cpu_without_vectors_gets_no_vector_kernel(artefact, plain_cpu):
    # LLVM would end the process.
    program = f"""{plain_cpu}
import sys
from fraudsdk.model.artefact import load_artefact
model = load_artefact({str(artefact)!r})
print(model.engine, "fraudsdk.model.avx512" in sys.modules, "fraudsdk.model.avx2" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )

    assert "portable False False" == done.stdout.strip()


def test_forests_whose_rows_take_many_registers_are_walked(make_tree, monkeypatch):
    monkeypatch.setattr(engine, "available_engines", lambda: ("avx512", "avx2", "portable"))
    few, _ = tables_of(100, depth=6, n_trees=20, make_tree=make_tree)
    many, _ = tables_of(1_000, depth=6, n_trees=200, make_tree=make_tree)

    assert "avx512" == engine._chosen(few)[0]
    assert "portable" == engine._chosen(many)[0]


def test_a_forest_too_large_for_blocks_is_walked_and_refuses_to_be_forced(make_tree, monkeypatch):
    tables, _ = tables_of(100, depth=6, n_trees=20, make_tree=make_tree)
    monkeypatch.setattr(engine.build_blocks.__globals__["layout"], "ROW_BYTES", 0)

    with pytest.raises(ConfigurationError, match="choose the portable engine"):
        build_blocks(tables)
    assert "portable" == TableEngine(tables).name


@pytest.mark.parametrize(
    ("n_features", "depth", "n_trees", "shape", "pairs"),
    [
        (100, 6, 20, block_layout.ONE_BLOCK, 1),
        (128, 6, 60, block_layout.ONE_BLOCK, 1),
        (129, 6, 200, block_layout.ONE_BLOCK, 2),
        (1_100, 6, 200, block_layout.ONE_BLOCK, 9),
        (4_096, 4, 1_500, block_layout.ONE_BLOCK, None),
        (5, 6, 60, block_layout.ONE_BLOCK, 1),  # some 400 cuts per feature
        (1, 6, 1_000, block_layout.ONE_BLOCK, 1),  # over 10,000 cuts: a search tree of four levels, some 50 columns
        (40, 7, 30, block_layout.TWO_BLOCKS, 1),
        (40, 8, 30, block_layout.TWO_BLOCKS, 1),
        (300, 9, 30, block_layout.TWO_BLOCKS, 3),
        (60, 13, 9, block_layout.CHAINED, 1),
        (300, 10, 12, block_layout.CHAINED, None),
    ],
)
def test_every_shape_gives_the_bits_of_the_twin(make_tree, twin, n_features, depth, n_trees, shape, pairs):
    tables, trees = tables_of(n_features, depth=depth, n_trees=n_trees, make_tree=make_tree)
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(9, n_features)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    header = build_blocks(tables)[: 8 * block_layout.HEADER_WORDS].view(np.int64)

    expected = np.array([twin(trees, row, BASE) for row in rows], np.float32)
    for name in available_engines():
        scorer = TableEngine(tables, name)
        batch = np.empty(len(rows), np.float32)
        scorer.margins(rows, batch)

        assert expected.tobytes() == batch.tobytes(), name
        assert expected.tolist() == [scorer.margin(row) for row in rows], name
    assert shape == header[block_layout.SHAPE]
    assert pairs in (None, header[block_layout.N_PAIRS])


# What a category may arrive as: known, between two, in no set, unknown, negative, the largest that XGBoost knows, huge, missing.
CATEGORIES = np.array(
    [
        0,
        1,
        1.9,
        2,
        31,
        32,
        39,
        40,
        41,
        42,
        63,
        64,
        500,
        65_536,
        -1,
        -0.0,
        -0.5,
        2.0**24 - 1,
        2.0**24,
        2.0**31,
        3e38,
        np.nan,
    ]
    + [np.inf, -np.inf],
    np.float32,
)


@pytest.mark.parametrize(
    ("n_numeric", "depth", "n_trees", "shape", "kind"),
    [
        (0, 6, 60, block_layout.ONE_BLOCK, block_layout.MIXED),
        (5, 1, 9, block_layout.ONE_BLOCK, block_layout.MIXED),
        (5, 6, 150, block_layout.ONE_BLOCK, block_layout.MIXED),
        (300, 6, 40, block_layout.ONE_BLOCK, block_layout.GENERAL),
        (5, 7, 70, block_layout.TWO_BLOCKS, block_layout.MIXED),
        (5, 9, 17, block_layout.TWO_BLOCKS, block_layout.MIXED),
        (300, 8, 17, block_layout.TWO_BLOCKS, block_layout.GENERAL),
        (5, 13, 9, block_layout.CHAINED, block_layout.MIXED),
        (300, 12, 9, block_layout.CHAINED, block_layout.GENERAL),
    ],
)
@pytest.mark.parametrize("n_categories", [(3,), (40, 3, 64, 65, 1)])
def test_categories_of_every_sort_lead_where_the_twin_goes(
    make_tree, twin, n_numeric, depth, n_trees, shape, kind, n_categories
):
    rng = np.random.default_rng(depth)
    trees = [
        with_categories(rng, make_tree(rng, depth=depth, categorical=False), n_numeric, n_categories)
        for _ in range(n_trees)
    ]
    tables = build_tables(trees, n_features=n_numeric + len(n_categories), base_margin=BASE)
    rows = rng.normal(size=(48, n_numeric + len(n_categories))).astype(np.float32)
    rows[:, n_numeric:] = rng.choice(CATEGORIES, (48, len(n_categories)))
    rows[: CATEGORIES.size, n_numeric] = CATEGORIES
    header = build_blocks(tables)[: 8 * block_layout.HEADER_WORDS].view(np.int64)

    expected = [twin(trees, row, BASE) for row in rows]

    for name in available_engines():
        scorer = TableEngine(tables, name)
        batch = np.empty(len(rows), np.float32)
        scorer.margins(rows, batch)
        assert expected == batch.tolist(), name
        assert expected == [scorer.margin(row) for row in rows], name
    assert (shape, kind) == (header[block_layout.SHAPE], header[block_layout.KIND])


def with_categories(rng, tree, n_numeric, n_categories):
    """The tree on `n_numeric` features, with categorical tests, of the features after these, at about half of its nodes."""
    tree.feature[:] = 0
    inner = np.flatnonzero(tree.left >= 0)
    if n_numeric:
        tree.feature[inner] = rng.integers(0, n_numeric, inner.size)
    for node in inner.tolist():
        if n_numeric and rng.random() < 0.5:
            continue
        which = int(rng.integers(len(n_categories)))
        n = n_categories[which]
        tree.feature[node], tree.threshold[node] = n_numeric + which, 0.0
        # The last category at times, so that the feature has all of them.
        members = {int(rng.integers(n)), *rng.choice(n, int(rng.integers(n)), replace=False).tolist()}
        tree.categories[node] = np.array(sorted(members), np.int32)
    return tree


def test_a_rank_of_every_cut_of_a_column_decides_no_category(make_tree, twin):
    """Lanes of categorical tests look at the first column too: no rank of it may reach what they are given to reach."""
    rng = np.random.default_rng(4)
    n_cuts = 600
    trees = [stump(0, np.float32(k), default_left=k % 2 == 0) for k in range(n_cuts)]
    trees += [with_categories(rng, make_tree(rng, depth=5, categorical=False), 0, (4,)) for _ in range(5)]
    for tree in trees[n_cuts:]:
        tree.feature[tree.left >= 0] = 1
    tables = build_tables(trees, n_features=2, base_margin=BASE)

    for name in available_engines():
        scorer = TableEngine(tables, name)
        for first in (-1.0, 100.0, 251.0, 252.0, 253.0, 254.0, 255.0, 508.0, 599.0, 1e9, np.inf, np.nan):
            for category in (0.0, 3.0, 4.0, np.nan):
                row = np.array([first, category], np.float32)
                assert twin(trees, row, BASE) == scorer.margin(row), (name, first, category)


def stump(feature, threshold, *, default_left):
    return Tree(
        left=np.array([1, -1, -1], np.int32),
        feature=np.array([feature, 0, 0], np.int32),
        threshold=np.array([threshold, 0, 0], np.float32),
        value=np.array([0, 0.25, -0.5], np.float32),
        default_left=np.array([default_left, False, False], np.bool_),
    )


def test_deep_forests_with_categories_are_chained_where_the_cpu_has_avx2_alone(make_tree, monkeypatch):
    monkeypatch.setattr(engine, "available_engines", lambda: ("avx2", "portable"))
    numeric, _ = tables_of(20, depth=11, n_trees=5, make_tree=make_tree)
    mixed, _ = tables_of(7, depth=11, n_trees=5, make_tree=make_tree, categorical=True)

    assert "portable" == engine._chosen(numeric)[0]
    assert "avx2" == engine._chosen(mixed)[0]


def test_five_thousand_trees(make_tree, twin):
    tables, trees = tables_of(90, depth=5, n_trees=5_000, make_tree=make_tree)
    rows = np.random.default_rng(3).normal(size=(3, 90)).astype(np.float32)
    rows[0, ::3] = np.nan

    expected = [twin(trees, row, BASE) for row in rows]

    for name in available_engines():
        assert expected == [TableEngine(tables, name).margin(row) for row in rows], name


@pytest.mark.parametrize("name", available_engines())
@pytest.mark.parametrize("around", [-1, 0, 1])
def test_values_at_and_beside_every_threshold(make_tree, name, around):
    """Thresholds themselves, a denormal and both zeros among them, and the floats next to them."""
    thresholds = np.array([-3.0e38, -1.5, -1e-45, -0.0, 0.0, 1e-45, 1.5, 3.0e38], np.float32)
    features = np.arange(thresholds.size, dtype=np.int32) % 2
    trees = [
        Tree(
            left=np.array([1, -1, -1], np.int32),
            feature=np.array([feature, 0, 0], np.int32),
            threshold=np.array([threshold, 0, 0], np.float32),
            value=np.array([0, 2**k, -(2**k)], np.float32),
            default_left=np.array([k % 2, 0, 0], np.bool_),
        )
        for k, (feature, threshold) in enumerate(zip(features, thresholds, strict=True))
    ]
    scorer = TableEngine(build_tables(trees, n_features=2, base_margin=np.float32(0)), name)
    values = thresholds if around == 0 else np.nextafter(thresholds, np.float32(np.inf * around))
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0], np.float32)

    for value in np.concatenate((values, special)):
        expected = sum(
            2**k if (k % 2 if np.isnan(value) else value < threshold) else -(2**k)
            for k, threshold in enumerate(thresholds)
        )

        assert expected == scorer.margin(np.full(2, value, np.float32))


@pytest.mark.parametrize("name", ENGINES)
def test_a_kernel_calls_the_forest_by_its_address(artefact, make_rows, name):
    if name not in available_engines():
        pytest.skip(f"the CPU has no {name}")
    model = load_artefact(artefact, engine=name)
    rows = make_rows(np.random.default_rng(5), 40)
    out = np.empty(40, np.float32)

    function, tables = model.native
    score_without_python(rows, function, tables, out)

    assert model.margins(rows).tobytes() == out.tobytes()


def test_tables_cannot_be_written_to(artefact):
    # Given a process that writes to a model's tables
    program = f"""
import ctypes
from fraudsdk.model.artefact import load_artefact
model = load_artefact({str(artefact)!r})
ctypes.memset(model.native[1], 255, 1)
"""
    # When it does, then it dies there and then
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, env={"PYTHONPATH": ":".join(sys.path)}
    )

    assert done.returncode < 0
