"""
Question   How long does the exact explanation of one row take, beside what computes the same numbers?
Workload   Forests of 100 x depth 6, 300 x 6 and 600 x 8 trained on 80 features, 5 % of the values missing; no row twice.
Timed      Processor time of the contributions of one row, base value and additivity check included; one thread, in turns.
Not timed  Loading; building each one's tables.
Compare    XGBoost's pred_contribs, shap.TreeExplainer.
Check      All agree to 1e-4, before anything is timed.
Gate       gates.toml: median over rounds of how many times our time a peer takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _models import MADE, SHAPES, Shelf, make_rows, train_xgboost
from _report import hold, report
from _turns import take_turns

ROUNDS = {"100x6": (10, 20), "300x6": (10, 20), "600x8": (7, 4)}
CHECKED = 20


@pytest.mark.parametrize("shape", ["100x6", pytest.param("300x6", marks=pytest.mark.quick), "600x8"])
def test_an_exact_explanation_is_faster_than_every_other(
    benchmark: Any, shape: str, shelf: Shelf, tmp_path: Path
) -> None:
    import shap
    import xgboost

    assert shape in SHAPES
    model = train_xgboost(shelf, shape)
    booster = xgboost.Booster(model_file=bytearray(model))
    booster.set_param({"nthread": 1})
    explainer = shap.TreeExplainer(booster)
    explain = _own(model, tmp_path)
    contestants = {
        "fraudsdk": explain,
        "XGBoost pred_contribs": lambda row: booster.predict(xgboost.DMatrix(row, nthread=1), pred_contribs=True),
        "shap.TreeExplainer": explainer.shap_values,
    }
    rows = make_rows(CHECKED, 13)
    expected = booster.predict(xgboost.DMatrix(rows), pred_contribs=True)
    for k in range(CHECKED):
        row = rows[k : k + 1]
        np.testing.assert_allclose(explain(row)[0], expected[k], atol=1e-4)
        np.testing.assert_allclose(explainer.shap_values(row)[0], expected[k, :-1], atol=1e-4)

    n_rounds, n_rows = ROUNDS[shape]
    rows = make_rows(n_rounds * n_rows, 14)
    work = [[rows[k : k + 1] for k in range(r, len(rows), n_rounds)] for r in range(n_rounds)]
    turns = take_turns(benchmark, contestants, work, clock=time.process_time_ns)

    question = f"exact SHAP, one row, {shape}"
    report(question, turns.figures())
    hold(question, turns.ratios())


def _own(model: bytes, directory: Path) -> Callable[[np.ndarray], np.ndarray]:
    from fraudsdk.compiler.compile import compile_model
    from fraudsdk.model.artefact import load_artefact

    compile_model(model, directory / "model", name="bench", **MADE)
    artefact = load_artefact(directory / "model")
    artefact.warm_up()
    return artefact.contributions
