"""
Compiled = booster, bit for bit.

Over a million rows and over every kind of forest that the compiler accepts, the margins of the compiled model are the
float32 bits of ``Booster.predict(output_margin=True)``: in a batch, alone, on sixteen threads, and by every engine of this CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fraudsdk.compiler.compile import compile_model
from fraudsdk.compiler.reference import empty_forest_margin
from fraudsdk.compiler.validate import validate_model
from fraudsdk.model.artefact import CompiledModel, load_artefact
from fraudsdk.model.engine import TableEngine, available_engines
from fraudsdk.model.forest import build_tables
from fraudsdk.model.shap_tables import numeric_cuts, read_shap

xgboost = pytest.importorskip("xgboost")
pytest.importorskip("treelite")

SEED = 20261123
N_FEATURES = 14
CATEGORICAL = {12: 5, 13: 60}  # feature -> number of codes in training
ROWS_PER_MODEL = 80_000
ROWS_ALONE = 4_000


@dataclass(frozen=True)
class Case:
    """One kind of forest."""

    parameters: dict[str, Any]
    n_trees: int = 50
    missing: float = 0.1
    categorical: bool = False
    rows: int = ROWS_PER_MODEL
    check: Callable[[CompiledModel], bool] = field(default=lambda model: True)


def deeper_than(depth: int) -> Callable[[CompiledModel], bool]:
    return lambda model: model.manifest.depth > depth


def most_thresholds_over(n: int) -> Callable[[CompiledModel], bool]:
    """Whether some feature of the forest has more than `n` distinct thresholds."""

    def check(model: CompiledModel) -> bool:
        return max(cuts.size for cuts in numeric_cuts(read_shap(model.read("shap.bin"))).values()) > n

    return check


LOGISTIC = {"objective": "binary:logistic", "base_score": 0.5}
# Let a tree split where the base score is sure of the answer and every hessian is close to zero, and not too far at once.
SURE = {"min_child_weight": 0.0, "reg_lambda": 10.0}

CASES = {
    "depth 3, 100 trees": Case({**LOGISTIC, "max_depth": 3}, n_trees=100),
    "depth 6, 300 trees": Case({**LOGISTIC, "max_depth": 6, "eta": 0.05}, n_trees=300, rows=100_000),
    "depth 8": Case({**LOGISTIC, "max_depth": 8}),
    "leaf-wise, 64 leaves, deep": Case(
        {**LOGISTIC, "max_depth": 0, "max_leaves": 64, "grow_policy": "lossguide", "min_child_weight": 0},
        check=lambda model: model.manifest.depth > 10,
    ),
    "one tree": Case({**LOGISTIC, "max_depth": 4}, n_trees=1),
    "trees of one leaf": Case({**LOGISTIC, "gamma": 1e9}, n_trees=9, check=lambda model: model.manifest.depth == 0),
    "stumps": Case({**LOGISTIC, "max_depth": 1}, n_trees=33, check=lambda model: model.manifest.depth == 1),
    "pruned nodes in the file": Case({**LOGISTIC, "tree_method": "exact", "gamma": 2.0, "max_depth": 5}, n_trees=20),
    "categories, one against the rest": Case({**LOGISTIC, "max_cat_to_onehot": 100}, categorical=True),
    "categories, sets": Case({**LOGISTIC, "max_cat_to_onehot": 2}, categorical=True),
    "categories, trees of two blocks": Case({**LOGISTIC, "max_depth": 8}, categorical=True, rows=30_000),
    "categories, deep": Case(
        {**LOGISTIC, "max_depth": 13, "min_child_weight": 0, "max_cat_to_onehot": 4},
        n_trees=20,
        categorical=True,
        rows=30_000,
        check=deeper_than(9),
    ),
    "most values missing": Case({**LOGISTIC, "max_depth": 6}, missing=0.8),
    "base score estimated from the data": Case({"objective": "binary:logistic", "max_depth": 4}),
    "base score of a rare event": Case({"objective": "binary:logistic", "base_score": 1e-6, **SURE}),
    "base score of a certain one": Case({"objective": "binary:logistic", "base_score": 0.9999, **SURE}),
    "weighted positives": Case({**LOGISTIC, "scale_pos_weight": 5.0, "base_score": 0.017, "max_delta_step": 0.5}),
    "raw margins": Case({"objective": "binary:logitraw", "max_depth": 5}),
    "regression to a probability": Case({"objective": "reg:logistic", "base_score": 0.3}),
    "depth 12": Case({**LOGISTIC, "max_depth": 12, "min_child_weight": 0}, n_trees=20, check=deeper_than(9)),
    "more thresholds than a byte can count": Case(
        {**LOGISTIC, "tree_method": "exact", "max_depth": 8}, n_trees=150, check=most_thresholds_over(254)
    ),
    "parallel trees": Case({**LOGISTIC, "num_parallel_tree": 4, "subsample": 0.6, "max_depth": 5}, n_trees=10),
}


def make_rows(n: int, missing: float, seed: int) -> np.ndarray:
    """Numbers of several scales, some with few distinct values, and two columns of codes, a few of them unseen."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    rows[:, 1] = np.exp(4 * rows[:, 1])
    rows[:, 2] = rng.integers(0, 6, n)
    rows[:, 3] = rng.choice(np.array([-0.0, 0.0, 1e-45, -1e-45, 1.0], np.float32), n)
    for feature, n_codes in CATEGORICAL.items():
        rows[:, feature] = rng.integers(0, n_codes, n)
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows


def train(case: Case) -> Any:
    rows = make_rows(6_000, case.missing, SEED)
    rng = np.random.default_rng(SEED)
    known = np.nan_to_num(rows)
    signal = (
        known[:, 0] * known[:, 4]
        + np.log1p(known[:, 1]) * 0.3
        + (known[:, 13] % 7 == 3)
        + known[:, 5:10].sum(axis=1) * 0.3
    )
    labels = (signal + rng.normal(size=len(rows)) > 1.5).astype(np.float32)
    # One thread: on a busy machine XGBoost's threads wait for each other a hundred times longer than they work.
    return xgboost.train({**case.parameters, "nthread": 1}, dmatrix(rows, case, labels), case.n_trees)


def dmatrix(rows: np.ndarray, case: Case, labels: np.ndarray | None = None) -> Any:
    types = ["c" if case.categorical and feature in CATEGORICAL else "q" for feature in range(N_FEATURES)]
    return xgboost.DMatrix(rows, labels, feature_types=types, enable_categorical=True)


def as_online(rows: np.ndarray, seed: int) -> np.ndarray:
    """What training rows never hold: unseen, negative and fractional codes, and rows with nothing known."""
    rng = np.random.default_rng(seed)
    rows = rows.copy()
    for feature, n_codes in CATEGORICAL.items():
        odd = rng.random(len(rows)) < 0.1
        rows[odd, feature] = rng.choice(
            np.array([-1, -0.5, n_codes, n_codes + 500, 1.5, 2.0**24, 1e30], np.float32), int(odd.sum())
        )
    rows[:10] = np.nan
    return rows


def bits(margins: np.ndarray) -> np.ndarray:
    return np.asarray(margins, np.float32).view(np.int32)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Each case trained and compiled once."""
    made: dict[str, tuple[Any, CompiledModel]] = {}

    def get(name: str) -> tuple[Any, CompiledModel]:
        if name not in made:
            booster = train(CASES[name])
            out = tmp_path_factory.mktemp("models") / "compiled"
            source = bytes(booster.save_raw("json" if len(made) % 2 else "ubj"))
            compile_model(source, out, name="parity", version="1", created_at="2026-11-23T10:00:00Z")
            made[name] = booster, load_artefact(out)
        return made[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_margins_are_the_boosters_bits(name, compiled):
    case = CASES[name]
    booster, model = compiled(name)
    rows = as_online(make_rows(case.rows, case.missing, SEED + 1), SEED + 2)

    expected = bits(booster.predict(dmatrix(rows, case), output_margin=True))

    assert case.check(model)
    for engine in available_engines():
        forced = load_artefact(model.source_path, engine=engine)
        assert np.array_equal(expected, bits(forced.margins(rows))), engine
        assert np.array_equal(expected[:ROWS_ALONE], bits([forced.margin(row) for row in rows[:ROWS_ALONE]])), engine
    # The trees must differ between rows, or equality would say little.
    assert name in ("trees of one leaf", "one tree") or np.unique(expected).size > 20


def test_over_a_million_rows_are_compared():
    assert sum(case.rows for case in CASES.values()) >= 1_000_000


@pytest.mark.parametrize("n_features", [150, 1_100])
def test_forests_on_many_features_give_the_boosters_bits(n_features):
    # Not through `compile_model`: to certify rows as long as these takes longer than to train on them.
    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(1_000, n_features)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    labels = (rng.random(len(rows)) < 0.3).astype(np.float32)  # noise: every split finds another feature
    booster = xgboost.train({**LOGISTIC, "max_depth": 6, "nthread": 1}, xgboost.DMatrix(rows, labels), 60)
    validated = validate_model(bytes(booster.save_raw("ubj")))
    tables = build_tables(
        [tree.as_tree() for tree in validated.trees],
        n_features=n_features,
        base_margin=empty_forest_margin(validated),
    )

    expected = booster.predict(xgboost.DMatrix(rows), output_margin=True)

    for name in available_engines():
        engine = TableEngine(tables, name)
        margins = np.empty(len(rows), np.float32)
        engine.margins(rows, margins)
        assert np.array_equal(bits(expected), bits(margins)), name
        assert np.array_equal(bits(expected[:200]), bits([engine.margin(row) for row in rows[:200]])), name


@pytest.mark.parametrize("name", ["categories, sets", "leaf-wise, 64 leaves, deep"])
def test_a_walk_written_for_obviousness_agrees(name, compiled):
    """An oracle that shares nothing with XGBoost's predictor or ours, infinities included."""
    booster, model = compiled(name)
    rows = as_online(make_rows(300, 0.2, SEED + 3), SEED + 4)
    rows[::5, 0] = np.inf
    rows[1::5, 0] = -np.inf
    rows[::7, 13] = np.inf

    expected = [twin_margin(json.loads(booster.save_raw("json")), row, model.manifest.base_margin) for row in rows]

    for engine in available_engines():
        assert np.array_equal(bits(expected), bits(load_artefact(model.source_path, engine=engine).margins(rows))), (
            engine
        )


def test_sixteen_threads_give_the_bits_of_one(compiled):
    _, model = compiled("categories, sets")
    rows = make_rows(2_000, 0.1, SEED + 5)
    expected = bits(model.margins(rows))

    def score(worker: int) -> bool:
        alone = bits([model.margin(row) for row in rows])
        return np.array_equal(expected, alone) and np.array_equal(expected, bits(model.margins(rows)))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(score, range(32)))


def test_json_and_ubjson_compile_to_one_forest(compiled, tmp_path):
    booster, _ = compiled("depth 3, 100 trees")
    for form in ("json", "ubj"):
        compile_model(bytes(booster.save_raw(form)), tmp_path / form, name="x", version="1", created_at="2026-11-23")

    assert (tmp_path / "json" / "forest.bin").read_bytes() == (tmp_path / "ubj" / "forest.bin").read_bytes()


def test_the_base_score_of_older_versions_means_the_same(compiled, tmp_path):
    # XGBoost 3 writes "[1.7E-2]", older versions "1.7E-2".
    booster, model = compiled("weighted positives")
    document = json.loads(booster.save_raw("json"))
    settings = document["learner"]["learner_model_param"]
    settings["base_score"] = settings["base_score"].strip("[]")
    compile_model(json.dumps(document).encode(), tmp_path / "old", name="x", version="1", created_at="2026-11-23")

    assert load_artefact(tmp_path / "old").manifest.base_margin == model.manifest.base_margin


def twin_margin(document: dict[str, Any], row: np.ndarray, base_margin: float) -> np.float32:
    total = np.float32(base_margin)
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        node = 0
        while tree["left_children"][node] != -1:
            left = goes_left(tree, node, row[tree["split_indices"][node]])
            node = tree["left_children" if left else "right_children"][node]
        total = np.float32(total + np.float32(tree["split_conditions"][node]))
    return total


def goes_left(tree: dict[str, Any], node: int, value: np.float32) -> bool:
    if np.isnan(value):
        return bool(tree["default_left"][node])
    if not tree["split_type"][node]:
        return bool(value < np.float32(tree["split_conditions"][node]))
    k = tree["categories_nodes"].index(node)
    begin = tree["categories_segments"][k]
    members = tree["categories"][begin : begin + tree["categories_sizes"][k]]
    return bool(value < 0 or value >= 2**24 or int(value) not in members)
