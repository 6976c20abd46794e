"""What a certificate tries is all that matters of a forest, in bounded time."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from fraudsdk.compiler.compile import compile_model
from fraudsdk.compiler.probes import FAMILY_CELLS, MAX_CODES, Edges, probe_rows
from fraudsdk.model.artefact import load_artefact

xgboost = pytest.importorskip("xgboost")

ODD_CODES = (-1.0, -0.5, 0.5, 2.0**24, 1e9, 1e30)


def edges(n_features, *, thresholds=(), n_categories=None):
    return Edges(
        n_features=n_features,
        features=np.array([feature for feature, _ in thresholds], np.int32),
        thresholds=np.array([threshold for _, threshold in thresholds], np.float32),
        n_categories=n_categories or {},
    )


def rows_of(edges, family):
    return np.concatenate([rows for name, rows in probe_rows(edges, seed=1) if family in name])


@pytest.mark.parametrize("n_features", [3, 2_000])
def test_every_code_of_every_feature_is_tried_with_codes_that_are_none(n_features):
    n_categories = dict.fromkeys(range(n_features), 30) | {1: 2}

    rows = rows_of(edges(n_features, n_categories=n_categories), "malformed")

    for feature in (0, 1, 2, n_features - 1):
        n = n_categories[feature]
        expected = {*range(n), *ODD_CODES, n - 0.5, n, n + 0.5, n + 40}
        assert {float(np.float32(code)) for code in expected} <= set(rows[:, feature].tolist())
        assert np.isnan(rows[:, feature]).any()


def test_the_last_of_many_codes_is_tried():
    rows = rows_of(edges(2, n_categories={1: 60_000}), "malformed")

    assert {0.0, 59_999.0, 60_000.0} <= set(rows[:, 1].tolist())
    assert MAX_CODES < np.unique(rows[:, 1]).size


@pytest.mark.parametrize("n_features", [3, 3_000])
def test_every_feature_is_tried_at_the_extremes(n_features):
    thresholds = [(feature, 0.5) for feature in range(n_features)]

    rows = rows_of(edges(n_features, thresholds=thresholds), "denormals")
    infinite = rows_of(edges(n_features, thresholds=thresholds), "infinities, ")

    limit = np.finfo(np.float32).max
    assert (rows == limit).any(axis=0).all()
    assert (rows == -limit).any(axis=0).all()
    assert np.isnan(rows).any(axis=0).all()
    assert np.isposinf(infinite).any(axis=0).all()
    assert np.isneginf(infinite).any(axis=0).all()


@pytest.mark.parametrize(
    "forest",
    [
        edges(4_096, n_categories=dict.fromkeys(range(4_096), 65_536)),
        edges(4_096, thresholds=[(k // 10, k % 10) for k in range(40_960)]),
        edges(300, n_categories=dict.fromkeys(range(300), 65_536)),
    ],
    ids=["many codes", "many thresholds", "many codes of some features"],
)
def test_no_family_of_rows_grows_with_the_square_of_the_features(forest):
    cells: dict[str, int] = {}
    for name, rows in probe_rows(forest, seed=1):
        cells[name] = cells.get(name, 0) + rows.size

    assert all(size <= 1.1 * FAMILY_CELLS for size in cells.values()), cells


def stumps_on_codes(n_features):
    """A tree of one categorical split for each of so many features of 60,001 codes, as no training makes them."""
    codes = np.array([[0.0], [60_000.0]] * 20, np.float32)
    data = xgboost.DMatrix(codes, codes[:, 0] > 0, feature_types=["c"], enable_categorical=True)
    parameters = {"objective": "binary:logistic", "base_score": 0.5, "max_depth": 1, "max_cat_to_onehot": 1}
    document = json.loads(xgboost.train({**parameters, "min_child_weight": 0, "nthread": 1}, data, 1).save_raw("json"))
    learner = document["learner"]
    forest = learner["gradient_booster"]["model"]
    stump = forest["trees"][0] | {"tree_param": forest["trees"][0]["tree_param"] | {"num_feature": str(n_features)}}
    forest["trees"] = [stump | {"id": k, "split_indices": [k, 0, 0]} for k in range(n_features)]
    forest["tree_info"] = [0] * n_features
    forest["iteration_indptr"] = list(range(n_features + 1))
    forest["gbtree_model_param"]["num_trees"] = str(n_features)
    learner["learner_model_param"]["num_feature"] = str(n_features)
    learner["feature_types"] = ["c"] * n_features
    learner["feature_names"] = []
    return json.dumps(document).encode()


def test_thousands_of_categorical_stumps_do_not_hold_a_compiler_up(tmp_path):
    # A megabyte that would have taken over an hour: 5,013 rows of 4,096 values for each of 4,096 features.
    source = stumps_on_codes(4_096)
    begin_s = time.monotonic()

    compile_model(source, tmp_path / "out", name="wide", version="1", created_at="2026-11-23")

    assert time.monotonic() - begin_s < 60
    assert 4_096 == load_artefact(tmp_path / "out").manifest.n_trees
