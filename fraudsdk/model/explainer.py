"""Exact SHAP contributions: the port that the scorer asks, and the explainer that every compiled model has."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fraudsdk import _simd
from fraudsdk._jit import warm_up
from fraudsdk._simd_shap import PERMUTES
from fraudsdk.errors import ExplanationError
from fraudsdk.model import shap_layout
from fraudsdk.model.shap_tables import Int32Array, aligned, expected_margin, quadrature_rules

Margins = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


class Explainer(Protocol):
    """
    Says what each feature adds to a margin.

    Implementations are called from several threads at once, off the hot path: only for decisions that need reasons.
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


def shap_kernels() -> Any:
    """Module of the kernel that explains on this CPU, warm."""
    module = importlib.import_module(f"fraudsdk.model.shap_{'avx512' if _simd.supports(PERMUTES) else 'portable'}")
    warm_up(f"{module.__name__}.")
    return module


class _Scratch(threading.local):
    """One thread's memory to work in, written anew by every call."""

    def __init__(self, n_floats: int) -> None:
        self.floats = aligned(n_floats, np.float32)


class ShapExplainer:
    """
    `Explainer` by the model's own tables.  Thread-safe; the tables are never written to.

    Parameters
    ----------
    tables : int32[n_words]
        As `fraudsdk.model.shap_tables.read_shap` returns them.
    margins : callable
        Rows -> their margins, which contributions must add up to.  It refuses rows of another length or type.
    """

    def __init__(self, tables: Int32Array, margins: Margins) -> None:
        self._tables = tables
        self._margins = margins
        self._explain = shap_kernels().contributions
        self._rules = quadrature_rules()
        self._n_columns = int(tables[shap_layout.N_FEATURES]) + 1
        self._scratch = _Scratch(
            shap_layout.scratch_floats(
                int(tables[shap_layout.MAX_GROUP_PLACES]), int(tables[shap_layout.MAX_CHUNK_PLACES])
            )
        )

    @property
    def expected_margin(self) -> float:
        """Expected margin over the training rows: the last column of every answer."""
        return expected_margin(self._tables)

    def contributions(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """
        As `Explainer.contributions`; every row is checked against its margin.

        Raises
        ------
        SchemaMismatchError
            The rows have another length or type.
        ExplanationError
            Contributions do not add up to the margin, to 1e-5 of the largest number involved, and of 1 where all are smaller.
        """
        rows = np.require(rows, requirements=("C", "W", "A"))
        margins = self._margins(rows)
        out = np.empty((len(rows), self._n_columns), np.float64)
        failed = self._explain(rows, margins, self._tables, self._rules, self._scratch.floats, out)
        if failed >= 0:
            raise ExplanationError(
                f"contributions of row {failed} add up to {out[failed].sum():.9g}, its margin is {float(margins[failed]):.9g}; "
                "compile the model again, and report it if that does not help"
            )
        return out
