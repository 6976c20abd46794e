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
