"""The port through which exact SHAP contributions reach the scorer, whoever computes them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Explainer(Protocol):
    """
    Says what each feature adds to a margin.

    Implementations are called from several threads at once, off the hot path: only for decisions that need reasons.  A package
    announces one as an entry point of the group ``fraudsdk.explainers``, a callable that takes the booster's bytes: they
    have been verified, which the file may no longer match.
    """

    def contributions(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """
        Exact path-dependent SHAP contributions.

        Parameters
        ----------
        rows : float32[n, n_features]
            As the model reads them; left unchanged.

        Returns
        -------
        float64[n, n_features + 1]
            Log-odds per feature, in row order; the last column is the expected margin.  A row adds up to its margin, to
            rounding.
        """
        ...
