"""
Tables of explanations: built from a validated model, and tried against the booster before they are written.

`fraudsdk.compiler.shap_oracle` is what they are tried against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.compiler.probes import Edges, probe_rows
from fraudsdk.compiler.reference import as_dmatrix, booster_margins
from fraudsdk.compiler.validate import ValidatedModel
from fraudsdk.errors import CertificateError
from fraudsdk.model.explainer import ShapExplainer
from fraudsdk.model.forest import Float32Array, Tree
from fraudsdk.model.shap_tables import Int32Array, build_shap_tables

# XGBoost takes 10 to 25 ms for each.  Tests compare thousands; these are to find a model file whose covers mean something else.
N_ROWS: Final = 8
TOLERANCE: Final = 1e-4
# XGBoost's recursion divides by what it multiplied before, in float32, and loses digits with every feature of a path: 5e-6 at
# depth 19, 1e-3 at 28, over 100 at 47 (ADR 0009).  Beyond this depth only expected margins are compared.
MAX_DEPTH_COMPARED: Final = 16


def shap_tables_of(model: ValidatedModel, trees: Sequence[Tree], base_margin: np.float32) -> Int32Array:
    """
    Tables of a model's explanations.

    Raises
    ------
    InvalidModelError
        Its covers (sum_hessian) are no weights of training rows.
    """
    covers = [tree.sum_hessian[tree.order] for tree in model.trees]
    return build_shap_tables(trees, covers, n_features=model.n_features, base_margin=float(base_margin))


def check_contributions(
    tables: Int32Array, booster: Any, model: ValidatedModel, trees: list[Tree], *, seed: int
) -> None:
    """
    Compare contributions with ``pred_contribs`` on a few random rows.

    Where no training row came to some node there is nothing to compare with: XGBoost divides zero by zero there and stops, or
    returns NaN.  Contributions must then add up all the same.

    Raises
    ------
    CertificateError
        They differ by more than `TOLERANCE`, of one or of the largest contribution.
    ExplanationError
        They do not add up.
    """
    rows = _random_rows(trees, model.n_features, seed)
    ours = ShapExplainer(tables, lambda some: booster_margins(booster, some)).contributions(rows)
    if any((tree.sum_hessian[tree.order] == 0).any() for tree in model.trees):
        return
    theirs = np.asarray(booster.predict(as_dmatrix(booster, rows), pred_contribs=True), np.float64)
    if max(tree.depth() for tree in trees) > MAX_DEPTH_COMPARED:
        ours, theirs = ours[:, -1:], theirs[:, -1:]
    apart = float(np.abs(ours - theirs).max())
    if not apart <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
        raise CertificateError(
            f"contributions differ from XGBoost's pred_contribs by {apart:.3g}; nothing was written: please report the model"
        )


def _random_rows(trees: list[Tree], n_features: int, seed: int) -> Float32Array:
    _, rows = next(iter(probe_rows(Edges.of(trees, n_features), seed)))
    some: npt.NDArray[np.float32] = np.ascontiguousarray(rows[:N_ROWS])
    return some
