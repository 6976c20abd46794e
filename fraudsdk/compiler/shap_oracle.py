"""Exact SHAP contributions from the booster itself, and the oracle for whatever computes them faster."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fraudsdk.compiler.reference import as_dmatrix, load_booster
from fraudsdk.compiler.validate import validate_model
from fraudsdk.errors import ModelNotFoundError, SchemaMismatchError


class BoosterExplainer:
    """
    `fraudsdk.model.explainer.Explainer` by XGBoost's ``pred_contribs``.  Thread-safe; one explanation at a time.

    Parameters
    ----------
    source : bytes or Path
        A booster, such as ``CompiledModel.read("model.ubj")``, or a file of one.  It is validated first; only bytes that were
        read and verified in one go are sure to be the artefact's.

    Raises
    ------
    ModelNotFoundError
        No such file.
    InvalidModelError
        It is refused.
    """

    def __init__(self, source: bytes | Path | str) -> None:
        data = source if isinstance(source, bytes) else _read(Path(source))
        self._n_features = validate_model(data).n_features
        self._booster = load_booster(data)
        # One row is not worth a thread pool: it makes a call slower, and takes cores from scoring.
        self._booster.set_param({"nthread": 1})
        self._lock = threading.Lock()

    def contributions(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """
        Log-odds per feature; the last column is the expected margin.

        Raises
        ------
        SchemaMismatchError
            The rows have another length.
        """
        if rows.ndim != 2 or rows.shape[1] != self._n_features:
            raise SchemaMismatchError(
                f"the booster explains rows of {self._n_features} features, was given shape {list(rows.shape)}; build rows with "
                "the feature set that it was trained on"
            )
        # A DMatrix refuses infinities.  The largest float takes every branch that infinity takes.
        limit = np.finfo(np.float32).max
        finite = np.clip(np.asarray(rows, np.float32), -limit, limit)
        with self._lock:
            shap = self._booster.predict(as_dmatrix(self._booster, finite), pred_contribs=True)
        return np.asarray(shap, np.float64)


def contributions(source: bytes | Path | str, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Contributions of `rows`, for scripts that explain once; see `BoosterExplainer`."""
    return BoosterExplainer(source).contributions(rows)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no booster at {path}; compile the model again") from error
