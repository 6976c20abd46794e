"""
Tables of explanations: built from a validated model, and tried against the booster before they are written.

`fraudsdk.compiler.shap_oracle` is what they are tried against.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.compiler.probes import Edges, probe_rows
from fraudsdk.compiler.reference import as_dmatrix, booster_margins
from fraudsdk.compiler.validate import ValidatedModel
from fraudsdk.errors import CertificateError, InvalidModelError
from fraudsdk.model.explainer import ShapExplainer
from fraudsdk.model.forest import Float32Array, Tree
from fraudsdk.model.shap_tables import Int32Array, build_shap_tables

# XGBoost takes 10 to 25 ms for each.  Tests compare thousands; these are to find a model file whose covers mean something else.
N_ROWS: Final = 8
TOLERANCE: Final = 1e-4
# XGBoost's recursion divides by what it multiplied before, in float32, and loses digits with every feature of a path: 5e-6 at
# depth 19, 1e-3 at 28, over 100 at 47 (ADR 0009).  Beyond this depth only expected margins are compared.
MAX_DEPTH_COMPARED: Final = 16
# Stretches of rounds that XGBoost can explain, where it cannot explain all: each is a booster of its own.
MAX_PARTS: Final = 64


def shap_tables_of(model: ValidatedModel, trees: Sequence[Tree], base_margin: np.float32) -> Int32Array:
    """
    Tables of a model's explanations.

    Raises
    ------
    InvalidModelError
        Its covers (sum_hessian) are no weights of training rows.
    """
    covers = _covers(model)
    for number, (tree, cover) in enumerate(zip(trees, covers, strict=True)):
        # Every row of the training goes through the root: XGBoost splits nothing that no row came to.
        if tree.left.size > 1 and cover[0] == 0:
            raise InvalidModelError(
                f"tree {number} is split, and the cover of its root (sum_hessian) is 0: it cannot be explained; train it on rows "
                "with weights above 0"
            )
    return build_shap_tables(trees, covers, n_features=model.n_features, base_margin=float(base_margin))


def check_contributions(
    tables: Int32Array, booster: Any, model: ValidatedModel, trees: list[Tree], *, base_margin: np.float32, seed: int
) -> None:
    """
    Compare contributions with ``pred_contribs`` on a few random rows.

    Where no training row came to some node of a tree there is nothing to compare with: XGBoost divides zero by zero there and
    stops, or returns NaN.  Rounds of such trees are left out of the comparison; the contributions of all must add up.

    Raises
    ------
    CertificateError
        They differ by more than `TOLERANCE`, of one or of the largest contribution.
    ExplanationError
        They do not add up.
    """
    rows = _random_rows(trees, model.n_features, seed)
    ours = ShapExplainer(tables, lambda some: booster_margins(booster, some)).contributions(rows)
    covers = _covers(model)
    reached = np.array([bool((cover > 0).all()) for cover in covers])
    comparable = np.array([reached[first:end].all() for first, end in itertools.pairwise(model.round_ends)])
    comparable &= np.cumsum(np.diff(comparable, prepend=False) & comparable) <= MAX_PARTS
    compared = np.flatnonzero(np.repeat(comparable, np.diff(model.round_ends))).tolist()
    if not compared:
        return
    parts = [booster]
    if len(compared) < len(trees):
        parts = _cut(booster, comparable)
        some_tables = build_shap_tables(
            [trees[k] for k in compared],
            [covers[k] for k in compared],
            n_features=model.n_features,
            base_margin=float(base_margin),
        )
        ours = ShapExplainer(some_tables, lambda some: _margins_of(parts, some, base_margin)).contributions(rows)
    theirs = _contributions_of(parts, rows, base_margin)
    if max(trees[k].depth() for k in compared) > MAX_DEPTH_COMPARED:
        ours, theirs = ours[:, -1:], theirs[:, -1:]
    apart = float(np.abs(ours - theirs).max())
    if not apart <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
        raise CertificateError(
            f"contributions differ from XGBoost's pred_contribs by {apart:.3g}; nothing was written: please report the model"
        )


def _margins_of(parts: Sequence[Any], rows: Float32Array, base_margin: np.float32) -> Float32Array:
    """Margins of a booster that was cut; each part starts from the base margin."""
    total: npt.NDArray[np.float64] = np.sum([booster_margins(part, rows) for part in parts], axis=0, dtype=np.float64)
    total -= (len(parts) - 1) * float(base_margin)
    return total.astype(np.float32)


def _contributions_of(parts: Sequence[Any], rows: Float32Array, base_margin: np.float32) -> npt.NDArray[np.float64]:
    """The same for ``pred_contribs``."""
    total: npt.NDArray[np.float64] = np.sum(
        [part.predict(as_dmatrix(part, rows), pred_contribs=True) for part in parts], axis=0, dtype=np.float64
    )
    total[:, -1] -= (len(parts) - 1) * float(base_margin)
    return total


def _covers(model: ValidatedModel) -> list[Float32Array]:
    return [tree.sum_hessian[tree.order] for tree in model.trees]


def _cut(booster: Any, kept: npt.NDArray[np.bool_]) -> list[Any]:
    """The rounds that are kept, as boosters: one can be cut, and nothing taken out of its middle."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], kept, [False]))))
    parts = [booster[first:end] for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
    for part in parts:
        part.set_param({"nthread": 1})
    return parts


def _random_rows(trees: list[Tree], n_features: int, seed: int) -> Float32Array:
    _, rows = next(iter(probe_rows(Edges.of(trees, n_features), seed)))
    some: npt.NDArray[np.float32] = np.ascontiguousarray(rows[:N_ROWS])
    return some
