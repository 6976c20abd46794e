"""
Contributions = what XGBoost's ``pred_contribs`` and `shap.TreeExplainer` compute, over every kind of forest.

Where the two stop telling the truth (XGBoost's float32 recursion on deep trees, its 0 / 0 where no training row came), a
definition written for obviousness speaks: Shapley values of the conditional expectations of a tree, in double precision.
"""

from __future__ import annotations

import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.compiler.compile import compile_model
from fraudsdk.compiler.shap_oracle import BoosterExplainer
from fraudsdk.compiler.validate import validate_model
from fraudsdk.model.artefact import load_artefact
from fraudsdk.model.explainer import ShapExplainer
from fraudsdk.model.forest import Tree
from fraudsdk.model.shap_tables import build_shap_tables

xgboost = pytest.importorskip("xgboost")
pytest.importorskip("treelite")

SEED = 20261124
N_FEATURES = 14
CATEGORICAL = {12: 5, 13: 60}  # feature -> number of codes in training
LOGISTIC = {"objective": "binary:logistic", "base_score": 0.5}


@dataclass(frozen=True)
class Case:
    """One kind of forest."""

    parameters: dict[str, Any]
    n_trees: int = 20
    missing: float = 0.1
    categorical: bool = False
    n_features: int = N_FEATURES
    rows: int = 200


CASES = {
    **{f"depth {d}": Case({**LOGISTIC, "max_depth": d, "eta": 0.1}) for d in (1, 2, 3, 5, 6, 7, 8, 9, 12)},
    "one tree": Case({**LOGISTIC, "max_depth": 4}, n_trees=1),
    "sixteen trees": Case({**LOGISTIC, "max_depth": 4}, n_trees=16),
    "seventeen trees": Case({**LOGISTIC, "max_depth": 4}, n_trees=17),
    "600 trees": Case({**LOGISTIC, "max_depth": 6, "eta": 0.05}, n_trees=600, rows=100),
    "trees of one leaf": Case({**LOGISTIC, "gamma": 1e9}, n_trees=9),
    "trees of one leaf among others": Case({**LOGISTIC, "max_depth": 3, "gamma": 25.0}, n_trees=120),
    "leaf-wise, deep": Case({**LOGISTIC, "max_depth": 0, "max_leaves": 64, "grow_policy": "lossguide", "eta": 0.1}),
    "pruned nodes in the file": Case({**LOGISTIC, "tree_method": "exact", "gamma": 2.0, "max_depth": 5}),
    "few features, often repeated": Case({**LOGISTIC, "max_depth": 8, "eta": 0.1}, n_features=2),
    "one feature, always repeated": Case({**LOGISTIC, "max_depth": 7, "eta": 0.1}, n_features=1),
    "categories, one against the rest": Case({**LOGISTIC, "max_cat_to_onehot": 100}, categorical=True),
    "categories, sets": Case({**LOGISTIC, "max_cat_to_onehot": 2}, categorical=True),
    "most values missing": Case({**LOGISTIC, "max_depth": 6}, missing=0.8),
    "base score of a rare event": Case(
        {"objective": "binary:logistic", "base_score": 1e-4, "min_child_weight": 0.0, "reg_lambda": 10.0}
    ),
    "large numbers that cancel": Case(
        {"objective": "binary:logistic", "base_score": 0.9999, "min_child_weight": 0.0, "reg_lambda": 10.0}
    ),
    "weighted positives": Case({**LOGISTIC, "scale_pos_weight": 5.0, "base_score": 0.017, "max_delta_step": 0.5}),
    "parallel trees": Case({**LOGISTIC, "num_parallel_tree": 4, "subsample": 0.6, "max_depth": 5}, n_trees=5),
    "more features than a table of registers holds": Case({**LOGISTIC, "max_depth": 5}, n_features=200),
}


def make_rows(n: int, case: Case, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, case.n_features)).astype(np.float32)
    if case.n_features == N_FEATURES:
        rows[:, 1] = np.exp(4 * rows[:, 1])
        rows[:, 2] = rng.integers(0, 6, n)
        rows[:, 3] = rng.choice(np.array([-0.0, 0.0, 1e-45, -1e-45, 1.0], np.float32), n)
        for feature, n_codes in CATEGORICAL.items():
            rows[:, feature] = rng.integers(0, n_codes, n)
    rows[rng.random(rows.shape) < case.missing] = np.nan
    return rows


def dmatrix(rows: np.ndarray, case: Case, labels: np.ndarray | None = None) -> Any:
    types = ["c" if case.categorical and feature in CATEGORICAL else "q" for feature in range(case.n_features)]
    return xgboost.DMatrix(rows, labels, feature_types=types, enable_categorical=True, nthread=1)


def train(case: Case) -> Any:
    rows = make_rows(3_000, case, SEED)
    known = np.nan_to_num(rows)
    signal = known[:, 0] * known[:, min(4, case.n_features - 1)] + known[:, 5:10].sum(axis=1) * 0.5
    if case.categorical:
        signal = signal + 2 * (known[:, 13] % 7 == 3)
    labels = (signal + np.random.default_rng(SEED).normal(size=len(rows)) > 0.7).astype(np.float32)
    return xgboost.train({**case.parameters, "nthread": 1}, dmatrix(rows, case, labels), case.n_trees)


@pytest.mark.parametrize("name", CASES)
def test_contributions_are_the_boosters(name, tmp_path):
    case = CASES[name]
    booster = train(case)
    compile_model(bytes(booster.save_raw("ubj")), tmp_path / "made", name="x", version="1", created_at="2026-11-24")
    model = load_artefact(tmp_path / "made")
    rows = make_rows(case.rows, case, SEED + 1)
    rows[0] = np.nan
    expected = booster.predict(dmatrix(rows, case), pred_contribs=True)

    ours = model.contributions(rows)

    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    alone = np.concatenate([model.contributions(row[np.newaxis]) for row in rows[:20]])
    assert ours[:20].tobytes() == alone.tobytes()
    # Something must be there to be compared.
    assert name == "trees of one leaf" or np.abs(expected[:, :-1]).max() > 0.01


@pytest.mark.parametrize("name", ["depth 6", "few features, often repeated", "most values missing"])
def test_contributions_are_those_of_the_shap_library(name, tmp_path):
    shap = pytest.importorskip("shap")
    case = CASES[name]
    booster = train(case)
    compile_model(bytes(booster.save_raw("ubj")), tmp_path / "made", name="x", version="1", created_at="2026-11-24")
    rows = make_rows(100, case, SEED + 2)
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")

    ours = load_artefact(tmp_path / "made").contributions(rows)

    np.testing.assert_allclose(ours[:, :-1], explainer.shap_values(rows), rtol=0, atol=1e-4)


def test_sixteen_threads_explain_as_one_does(tmp_path):
    case = CASES["depth 6"]
    data = bytes(train(case).save_raw("ubj"))
    compile_model(data, tmp_path / "made", name="x", version="1", created_at="2026-11-24")
    model = load_artefact(tmp_path / "made")
    rows = make_rows(400, case, SEED + 6)
    expected = model.contributions(rows).tobytes()

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: expected == model.contributions(rows).tobytes(), range(64)))


def test_infinities_are_explained_as_the_largest_floats(tmp_path):
    case = CASES["depth 6"]
    data = bytes(train(case).save_raw("ubj"))
    compile_model(data, tmp_path / "made", name="x", version="1", created_at="2026-11-24")
    rows = make_rows(60, case, SEED + 3)
    rows[::2, 0], rows[1::2, 4], rows[::3, 5] = np.inf, -np.inf, np.inf

    ours = load_artefact(tmp_path / "made").contributions(rows)

    np.testing.assert_allclose(ours, BoosterExplainer(data).contributions(rows), rtol=0, atol=1e-4)


def test_codes_that_were_never_seen_are_explained_like_the_booster(tmp_path):
    case = CASES["categories, sets"]
    booster = train(case)
    compile_model(bytes(booster.save_raw("ubj")), tmp_path / "made", name="x", version="1", created_at="2026-11-24")
    rows = make_rows(100, case, SEED + 4)
    rows[:, 13] = np.resize(np.array([-1, 59, 60, 61, 1.5, 500, 2.0**24, 1e30, np.nan], np.float32), 100)

    ours = load_artefact(tmp_path / "made").contributions(rows)

    np.testing.assert_allclose(ours, booster.predict(dmatrix(rows, case), pred_contribs=True), rtol=0, atol=1e-4)


# --- the definition ---------------------------------------------------------------------------------------------------


def goes_left(tree: Tree, node: int, value: np.float32) -> bool:
    if np.isnan(value):
        return bool(tree.default_left[node])
    if node in tree.categories:
        return bool(value < 0 or value >= 2**24 or int(value) not in tree.categories[node])
    return bool(value < tree.threshold[node])


def expectation(tree: Tree, cover: np.ndarray, row: np.ndarray, known: frozenset[int], node: int = 0) -> float:
    """Expected leaf if only the features in `known` are: the row's way at their splits, the training rows' at others."""
    if tree.left[node] < 0:
        return float(tree.value[node])
    left, right = int(tree.left[node]), int(tree.left[node]) + 1
    feature = int(tree.feature[node])
    if feature in known:
        return expectation(tree, cover, row, known, left if goes_left(tree, node, row[feature]) else right)
    both = float(cover[left]) + float(cover[right])
    share = 0.5 if both == 0 else float(cover[left]) / both
    return share * expectation(tree, cover, row, known, left) + (1 - share) * expectation(
        tree, cover, row, known, right
    )


def shapley(tree: Tree, cover: np.ndarray, row: np.ndarray) -> np.ndarray:
    used = sorted({int(f) for f in tree.feature[tree.left >= 0]})
    phi = np.zeros(len(row) + 1)
    phi[-1] = expectation(tree, cover, row, frozenset())
    n = len(used)
    for feature in used:
        others = [f for f in used if f != feature]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - 1 - size) / math.factorial(n)
            for some in itertools.combinations(others, size):
                with_it = expectation(tree, cover, row, frozenset((*some, feature)))
                phi[feature] += weight * (with_it - expectation(tree, cover, row, frozenset(some)))
    return phi


def random_tree(
    rng: np.random.Generator, depth: int, n_features: int, *, chain: bool, empty: float
) -> tuple[Tree, np.ndarray]:
    """A random tree with its covers, a share of them zero; categorical on the last feature."""
    left, feature, threshold, value, default_left, cover = [-1], [0], [0.0], [0.0], [False], [100.0]
    categories: dict[int, np.ndarray] = {}
    level = [0]
    for at_depth in range(depth + 1):
        following: list[int] = []
        for k, node in enumerate(level):
            if at_depth == depth or not (k == 0 if chain else at_depth == 0 or rng.random() < 0.8):
                value[node] = float(rng.normal())
                continue
            left[node] = len(left)
            feature[node] = int(rng.integers(0, n_features))
            default_left[node] = bool(rng.random() < 0.5)
            if feature[node] == n_features - 1:
                categories[node] = np.sort(rng.choice(40, int(rng.integers(1, 40)), replace=False)).astype(np.int32)
            else:
                threshold[node] = float(np.float32(rng.normal()))
            share = 0.0 if rng.random() < empty else float(rng.uniform(0.05, 0.95))
            share = 1.0 - share if rng.random() < 0.5 else share
            for column, pair in (
                (left, (-1, -1)),
                (feature, (0, 0)),
                (threshold, (0.0, 0.0)),
                (value, (0.0, 0.0)),
                (default_left, (False, False)),
                (cover, (share * cover[node], (1.0 - share) * cover[node])),
            ):
                column.extend(pair)  # type: ignore[arg-type]
            following += [left[node], left[node] + 1]
        level = following
    tree = Tree(
        left=np.array(left, np.int32),
        feature=np.array(feature, np.int32),
        threshold=np.array(threshold, np.float32),
        value=np.array(value, np.float32),
        default_left=np.array(default_left, np.bool_),
        categories=categories,
    )
    return tree, np.array(cover, np.float32)


def margin_of(tree: Tree, row: np.ndarray) -> float:
    node = 0
    while tree.left[node] >= 0:
        node = int(tree.left[node]) + (not goes_left(tree, node, row[tree.feature[node]]))
    return float(tree.value[node])


def random_row(rng: np.random.Generator, n_features: int) -> np.ndarray:
    row = rng.normal(size=n_features).astype(np.float32)
    row[-1] = rng.integers(-1, 45)
    odd = rng.random(n_features) < 0.25
    row[odd] = rng.choice(np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38], np.float32), int(odd.sum()))
    return row


def explainer_of(trees: list[Tree], covers: list[np.ndarray], n_features: int, base: float) -> ShapExplainer:
    tables = build_shap_tables(trees, covers, n_features=n_features, base_margin=base)
    return ShapExplainer(
        tables, lambda rows: np.array([base + sum(margin_of(t, row) for t in trees) for row in rows], np.float32)
    )


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32), n_trees=st.integers(1, 20), depth=st.integers(0, 6), empty=st.sampled_from([0.0, 0.3])
)
def test_contributions_are_shapley_values_of_conditional_expectations(seed, n_trees, depth, empty):
    rng = np.random.default_rng(seed)
    n_features = int(rng.integers(1, 6))
    made = [
        random_tree(rng, int(rng.integers(0, depth + 1)), n_features, chain=False, empty=empty) for _ in range(n_trees)
    ]
    row = random_row(rng, n_features)
    expected = sum(shapley(tree, cover, row) for tree, cover in made)
    expected[-1] += 0.25

    ours = explainer_of([t for t, _ in made], [c for _, c in made], n_features, 0.25).contributions(row[np.newaxis])[0]

    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("depth", [10, 17, 33, 64])
@pytest.mark.parametrize("n_features", [3, 9])
def test_trees_of_any_depth_are_explained(depth, n_features):
    rng = np.random.default_rng(depth * n_features)
    made = [random_tree(rng, depth, n_features, chain=True, empty=0.0) for _ in range(5)]
    row = random_row(rng, n_features)
    expected = sum(shapley(tree, cover, row) for tree, cover in made)

    ours = explainer_of([t for t, _ in made], [c for _, c in made], n_features, 0.0).contributions(row[np.newaxis])[0]

    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("depth", [20, 64])
def test_paths_of_many_features_need_many_points(depth):
    """A path of 64 features has 2**64 coalitions; what can be checked is that it adds up, in every row."""
    rng = np.random.default_rng(depth)
    made = [random_tree(rng, depth, 90, chain=True, empty=0.0) for _ in range(20)]
    rows = np.stack([random_row(rng, 90) for _ in range(20)])

    ours = explainer_of([t for t, _ in made], [c for _, c in made], 90, -2.0).contributions(rows)

    assert np.isfinite(ours).all()


def test_where_no_training_row_came_xgboost_stops_and_we_go_by_the_definition(tmp_path):
    # Given a booster whose first split sent all training rows to the right
    case = CASES["depth 3"]
    document = json.loads(train(case).save_raw("json"))
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    empty = [tree["left_children"][0]]
    for node in empty:
        tree["sum_hessian"][node] = 0.0
        empty += [child for child in (tree["left_children"][node], tree["right_children"][node]) if child != -1]
    assert len(empty) > 2
    tree["sum_hessian"][0] = tree["sum_hessian"][tree["right_children"][0]]
    data = json.dumps(document).encode()
    compile_model(data, tmp_path / "made", name="x", version="1", created_at="2026-11-24")
    rows = make_rows(20, case, SEED + 5)
    model = validate_model(data)
    made = [(tree.as_tree(), tree.sum_hessian[tree.order]) for tree in model.trees]
    expected = np.array([sum(shapley(tree, cover, row) for tree, cover in made) for row in rows])

    ours = load_artefact(tmp_path / "made").contributions(rows)

    with pytest.raises(xgboost.core.XGBoostError, match="must have zero weight"):
        BoosterExplainer(data).contributions(rows)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
