"""The booster, as the truth that native code is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fraudsdk.compiler.validate import ValidatedModel
from fraudsdk.compiler.vendors import vendor
from fraudsdk.errors import InvalidModelError


def load_booster(data: bytes) -> Any:
    """
    A booster of validated bytes.

    Raises
    ------
    InvalidModelError
        XGBoost refuses what the validator passed.
    """
    xgboost = vendor("xgboost")
    try:
        booster = xgboost.Booster()
        booster.load_model(bytearray(data))
        booster.set_param({"nthread": 1})
    except xgboost.core.XGBoostError as error:
        raise InvalidModelError(f"XGBoost cannot read the model: {_first_line(error)}; save it again") from error
    return booster


def empty_forest_margin(model: ValidatedModel) -> np.float32:
    """
    The margin that leaves are added to.

    Asked of XGBoost, with the base score and no trees: its float32 logarithm differs from numpy's and from Treelite's
    double in the last bit, and every score would inherit that bit.
    """
    xgboost = vendor("xgboost")
    row = xgboost.DMatrix(np.zeros((1, 1), np.float32), label=[0.0])
    parameters = {"objective": model.objective, "base_score": float(model.base_score), "verbosity": 0}
    booster = xgboost.train(parameters, row, num_boost_round=0)
    return np.float32(booster.predict(row, output_margin=True)[0])


def booster_margins(booster: Any, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``Booster.predict(output_margin=True)``."""
    margins: npt.NDArray[np.float32] = booster.predict(as_dmatrix(booster, rows), output_margin=True)
    return margins


def inplace_margins(booster: Any, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``Booster.inplace_predict``, which takes the infinities that a DMatrix refuses."""
    margins: npt.NDArray[np.float32] = booster.inplace_predict(rows, predict_type="margin", validate_features=False)
    return margins


def as_dmatrix(booster: Any, rows: npt.NDArray[np.float32]) -> Any:
    """Rows with the booster's own feature names and types."""
    # One thread: with more, an explanation of one row waited 31 ms for the pool on a busy machine instead of 0.25 ms.
    return vendor("xgboost").DMatrix(
        rows,
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
        nthread=1,
    )


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
