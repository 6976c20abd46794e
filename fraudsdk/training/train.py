"""
Trains one model: boosted trees for rare positives, stopped on average precision, calibrated, with bands proposed.

Refuses to train where the figures would mean nothing: too few frauds, one class, no rows.  Same matrix, split,
parameters and XGBoost version give the same bytes.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.errors import ConfigurationError
from fraudsdk.model.calibration import Calibration
from fraudsdk.training import metrics
from fraudsdk.training.calibrate import fit_calibration
from fraudsdk.training.extras import need
from fraudsdk.training.matrix import DAY_US, TrainingMatrix
from fraudsdk.training.split import Split

Progress = Callable[[int, int, float], None]
"""Called after each round with the rounds done, the rounds at most, and the validation average precision (or NaN)."""

REVIEW_SCORE = 0.2
DECLINE_PRECISION = 0.9

_FRAUDS_MIN = 10
_ALERTS_MIN = 30
"""A precision measured on fewer alerts than this is luck."""

# XGBoost refuses these in feature names.
_FORBIDDEN_IN_NAMES = frozenset("[]<")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainParams:
    """
    XGBoost's parameters under XGBoost's names.

    The defaults were chosen on four validation folds of the Handbook's protocol.  `base_score` and `max_bin` are not
    XGBoost's own: its defaults (estimated base score, 256 bins) cost 0.06 to 0.10 of average precision there.

    Attributes
    ----------
    num_boost_round : int
        Trees at most.
    early_stopping_rounds : int or None
        Rounds without a better validation average precision before stopping; None = grow every tree.
    learning_rate, max_depth, min_child_weight, subsample, colsample_bytree, reg_lambda, gamma : float or int
        As in XGBoost.
    scale_pos_weight : float
        Weight of a fraud.  1 = as it is: a weight shifts every probability, and the ranking gained nothing from it.
    max_bin : int
        Thresholds a feature may be cut at.  Amounts and risks have their frauds in a thin tail that 256 bins merge.
    base_score : float
        Probability before the first tree.
    seed : int
        Of row and column sampling.
    nthread : int
        0 = all cores.
    """

    num_boost_round: int = 400
    early_stopping_rounds: int | None = 40
    learning_rate: float = 0.1
    max_depth: int = 6
    min_child_weight: float = 3.0
    subsample: float = 0.8
    colsample_bytree: float = 0.8
    reg_lambda: float = 1.0
    gamma: float = 0.0
    scale_pos_weight: float = 1.0
    max_bin: int = 4096
    base_score: float = 0.5
    seed: int = 7
    nthread: int = 0

    def __post_init__(self) -> None:
        stopping = 1 if self.early_stopping_rounds is None else self.early_stopping_rounds
        _require("num_boost_round", self.num_boost_round, 1, 5_000)
        _require("early_stopping_rounds", stopping, 1, 5_000)
        _require("learning_rate", self.learning_rate, 1e-4, 1.0)
        _require("max_depth", self.max_depth, 1, 16)
        _require("min_child_weight", self.min_child_weight, 0.0, 1e9)
        _require("subsample", self.subsample, 0.01, 1.0)
        _require("colsample_bytree", self.colsample_bytree, 0.01, 1.0)
        _require("reg_lambda", self.reg_lambda, 0.0, 1e9)
        _require("gamma", self.gamma, 0.0, 1e9)
        _require("scale_pos_weight", self.scale_pos_weight, 1e-3, 1e6)
        _require("max_bin", self.max_bin, 2, 65_535)
        _require("base_score", self.base_score, 1e-6, 1.0 - 1e-6)
        _require("seed", self.seed, 0, 2**31 - 1)
        _require("nthread", self.nthread, 0, 1_024)

    def to_xgboost(self) -> dict[str, Any]:
        """The ``params`` of `xgboost.train`; the number of rounds is an argument of its own."""
        params = asdict(self)
        del params["num_boost_round"], params["early_stopping_rounds"]
        stated = {"objective": "binary:logistic", "tree_method": "hist", "disable_default_eval_metric": 1}
        return {**params, **stated, "verbosity": 1}


@dataclass(frozen=True, slots=True, eq=False)
class FittedTrees:
    """
    A booster, trimmed to the trees it uses.

    Attributes
    ----------
    booster : bytes
        XGBoost's UBJ form.
    n_trees : int
        Trees in it.
    validation_history : tuple of float
        Validation average precision after each round, the discarded ones included; empty without validation.
    """

    booster: bytes
    n_trees: int
    validation_history: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """
    What training hands to compilation and to the reports.

    Attributes
    ----------
    booster : bytes
        XGBoost's UBJ form; every tree in it is used.
    n_trees : int
        Trees in it.
    schema : FeatureSchema
        What it was trained on.
    params : TrainParams
        How.
    calibration : dict
        Margin to probability, fitted on validation; see `fraudsdk.model.calibration.Calibration.from_dict`.
    bands : dict
        Proposed ``review`` and ``decline`` scores (``decline`` None where validation does not support one), with the
        precision and the alerts that speak for them.  A proposal: the policy's owner decides.
    metrics : dict
        Figures on train and validation, JSON-ready.
    validation_history : tuple of float
        Validation average precision after each round.
    versions : dict of str to str
        Libraries that made it.
    """

    booster: bytes
    n_trees: int
    schema: FeatureSchema
    params: TrainParams
    calibration: dict[str, Any]
    bands: dict[str, Any]
    metrics: dict[str, Any]
    validation_history: tuple[float, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def margins(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-odds of each row, by XGBoost."""
        return margins(self.booster, rows, self.schema)

    def scores(self, margin: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Calibrated probability of each margin."""
        return Calibration.from_dict(self.calibration).probabilities_of(margin.astype(np.float64))

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Exact SHAP values, float32[n, n_features + 1]; the last column is the base."""
        return contributions(self.booster, rows, self.schema)


def train(
    matrix: TrainingMatrix, split: Split, params: TrainParams | None = None, *, progress: Progress | None = None
) -> TrainedModel:
    """
    Fit on train, stop and calibrate on validation.  Test is not looked at.

    Parameters
    ----------
    matrix : TrainingMatrix
        Point-in-time rows.
    split : Split
        Of that matrix; its labels are those known at the time, which `matrix.label` is not.
    params : TrainParams or None
        None = the defaults.
    progress : callable or None
        See `Progress`; `progress_bar` gives one for a terminal.

    Raises
    ------
    ConfigurationError
        Too few frauds, one class, no rows, or a categorical column that holds no codes.

    Examples
    --------
    >>> with progress_bar("train") as progress:  # doctest: +SKIP
    ...     model = train(matrix, split_by_time(matrix), progress=progress)
    """
    params = TrainParams() if params is None else params
    if len(split.train) and split.train[-1] >= len(matrix):
        raise ConfigurationError(f"the split is of a longer matrix than these {len(matrix)} rows; split this matrix")
    _check_classes("validation", split.validation_label)
    train_rows, validation_rows = matrix.rows[split.train], matrix.rows[split.validation]
    trees = fit_trees(
        train_rows,
        split.train_label,
        matrix.schema,
        params,
        validation=(validation_rows, split.validation_label),
        progress=progress,
    )
    margin = margins(trees.booster, validation_rows, matrix.schema).astype(np.float64)
    cards = matrix.card_key[split.validation]
    fit = fit_calibration(margin, split.validation_label, cards, seed=params.seed)
    score = fit.calibration.probabilities_of(margin)
    days = np.unique(matrix.event_time_us[split.validation] // DAY_US)
    return TrainedModel(
        booster=trees.booster,
        n_trees=trees.n_trees,
        schema=matrix.schema,
        params=params,
        calibration=fit.calibration.to_dict(),
        bands=suggest_bands(split.validation_label, score, n_days=len(days)),
        metrics={
            "train": _train_figures(split),
            "validation": _validation_figures(split, margin, score),
            "calibration": {"chosen": fit.chosen, "held_out_log_loss": fit.log_loss},
            "n_trees": trees.n_trees,
            "rounds_run": len(trees.validation_history),
        },
        validation_history=trees.validation_history,
        versions=library_versions(),
    )


def fit_trees(
    rows: NDArray[np.float32],
    label: NDArray[np.int8],
    schema: FeatureSchema,
    params: TrainParams,
    *,
    validation: tuple[NDArray[np.float32], NDArray[np.int8]] | None = None,
    progress: Progress | None = None,
) -> FittedTrees:
    """
    Grow the trees and nothing else: no calibration, no split.  For protocols that bring their own, such as folds.

    Without `validation` every tree is grown, whatever `early_stopping_rounds` says.
    """
    xgboost = need("xgboost")
    _check_classes("train", label)
    _check_columns(rows, schema)
    columns = {**_columns(schema), "max_bin": params.max_bin, "nthread": params.nthread or None}
    train_matrix = xgboost.QuantileDMatrix(rows, label=label, **columns)
    callbacks = [] if progress is None else [_progress_callback(progress, params.num_boost_round)]
    evals = []
    if validation is not None:
        _check_columns(validation[0], schema)
        evals = [
            (xgboost.QuantileDMatrix(validation[0], label=validation[1], ref=train_matrix, **columns), "validation")
        ]
        if params.early_stopping_rounds is not None:
            callbacks.append(_early_stopping_callback(params.early_stopping_rounds))
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        params.to_xgboost(),
        train_matrix,
        num_boost_round=params.num_boost_round,
        evals=evals,
        custom_metric=_average_precision_metric if evals else None,
        evals_result=history,
        verbose_eval=False,
        callbacks=callbacks,
    )
    validation_history = tuple(history.get("validation", {}).get("average_precision", ()))
    if validation_history and params.early_stopping_rounds is not None:
        # Trees after the best round would be compiled and walked for nothing, and would change the margin.
        booster = booster[: booster.best_iteration + 1]
    return FittedTrees(bytes(booster.save_raw("ubj")), booster.num_boosted_rounds(), validation_history)


def margins(booster: bytes, rows: NDArray[np.float32], schema: FeatureSchema) -> NDArray[np.float32]:
    """Log-odds of each row, by XGBoost."""
    predicted = _load(booster).predict(_rows_for_xgboost(rows, schema), output_margin=True)
    return np.asarray(predicted, np.float32)


def contributions(booster: bytes, rows: NDArray[np.float32], schema: FeatureSchema) -> NDArray[np.float32]:
    """Exact SHAP values by XGBoost, float32[n, n_features + 1]; the last column is the base."""
    predicted = _load(booster).predict(_rows_for_xgboost(rows, schema), pred_contribs=True)
    return np.asarray(predicted, np.float32)


def suggest_bands(
    label: NDArray[np.int8],
    score: NDArray[np.float64],
    *,
    n_days: int,
    review: float = REVIEW_SCORE,
    decline_precision: float = DECLINE_PRECISION,
) -> dict[str, Any]:
    """
    Propose score bands from labelled, calibrated scores.

    Decline is the lowest score above `review` at and above which at least `decline_precision` of the transactions were
    frauds, measured on at least 30 of them; None where there is no such score.
    """
    curve = metrics.RankingCurve.of(label, score)
    alerts = curve.frauds + curve.genuine
    precise = (curve.frauds / alerts >= decline_precision) & (alerts >= _ALERTS_MIN) & (curve.threshold > review)
    decline = float(curve.threshold[np.flatnonzero(precise)[-1]]) if precise.any() else None
    bands: dict[str, Any] = {"review": review, "decline": decline, "decline_precision_target": decline_precision}
    for name, threshold in (("review", review), ("decline", decline)):
        if threshold is not None:
            point = metrics.at_threshold(curve, threshold, n_days)
            bands[f"{name}_precision"] = None if np.isnan(point.precision) else point.precision
            bands[f"{name}_recall"] = point.recall
            bands[f"{name}_alerts_per_day"] = point.alerts_per_day
    return bands


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """A progress bar on a terminal, and nothing in a pipe."""
    tqdm = need("tqdm")
    with tqdm.tqdm(desc=what, unit="tree", disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, rounds_max: int, validation: float) -> None:
            bar.total = rounds_max
            bar.set_postfix({} if np.isnan(validation) else {"average precision": f"{validation:.4f}"}, refresh=False)
            bar.update(done - bar.n)

        yield progress


def library_versions() -> dict[str, str]:
    """Versions that decide a model's bytes and figures."""
    versions = {"python": platform.python_version()}
    for distribution in ("fraudsdk", "xgboost", "scikit-learn", "numpy"):
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            versions[distribution] = "unknown"  # run from a source tree that was not installed
    return versions


def _average_precision_metric(predicted: NDArray[np.float32], data: Any) -> tuple[str, float]:
    # XGBoost's own "aucpr" interpolates between tied scores, and early trees tie thousands of rows: on the Handbook's
    # data it was off by up to 0.0095.
    return "average_precision", metrics.average_precision(
        data.get_label().astype(np.int8), predicted.astype(np.float64)
    )


def _early_stopping_callback(rounds: int) -> Any:
    return need("xgboost").callback.EarlyStopping(
        rounds=rounds, metric_name="average_precision", data_name="validation", maximize=True
    )


def _progress_callback(progress: Progress, rounds_max: int) -> Any:
    class Report(need("xgboost").callback.TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
            log = evals_log.get("validation", {}).get("average_precision", [float("nan")])
            progress(epoch + 1, rounds_max, float(log[-1]))
            return False

    return Report()


def _load(booster: bytes) -> Any:
    loaded = need("xgboost").Booster()
    loaded.load_model(bytearray(booster))
    return loaded


def _rows_for_xgboost(rows: NDArray[np.float32], schema: FeatureSchema) -> Any:
    return need("xgboost").DMatrix(rows, **_columns(schema))


def _columns(schema: FeatureSchema) -> dict[str, Any]:
    kinds = ["c" if feature.categorical else "float" for feature in schema.features]
    return {"feature_names": list(schema.names), "feature_types": kinds, "enable_categorical": "c" in kinds}


def _train_figures(split: Split) -> dict[str, Any]:
    return {
        "n": len(split.train),
        "n_frauds": int(split.train_label.sum()),
        "n_excluded": split.n_train_excluded,
        "n_late_frauds": split.n_late_frauds,
        "unlabelled": split.unlabelled.value,
        "horizon_days": split.horizon_us / DAY_US,
    }


def _validation_figures(split: Split, margin: NDArray[np.float64], score: NDArray[np.float64]) -> dict[str, Any]:
    label = split.validation_label
    uncalibrated = Calibration.identity().probabilities_of(margin)
    return {
        "n": len(label),
        "n_frauds": int(label.sum()),
        "n_excluded": split.n_validation_excluded,
        "auc": metrics.roc_auc(label, margin),
        "average_precision": metrics.average_precision(label, margin),
        "expected_calibration_error": metrics.expected_calibration_error(metrics.reliability(label, score)),
        "expected_calibration_error_uncalibrated": metrics.expected_calibration_error(
            metrics.reliability(label, uncalibrated)
        ),
    }


def _check_classes(where: str, label: NDArray[np.int8]) -> None:
    n_frauds, n_genuine = int(np.count_nonzero(label == 1)), int(np.count_nonzero(label == 0))
    if min(n_frauds, n_genuine) < _FRAUDS_MIN:
        raise ConfigurationError(
            f"{where} holds {n_frauds} frauds and {n_genuine} genuine transactions of known label, at least "
            f"{_FRAUDS_MIN} of each are needed; give more data, a longer interval, or check how labels are mapped"
        )


def _check_columns(rows: NDArray[np.float32], schema: FeatureSchema) -> None:
    for position, feature in enumerate(schema.features):
        if _FORBIDDEN_IN_NAMES & set(feature.name):
            raise ConfigurationError(f"feature {feature.name!r} must not hold any of [ ] <; rename the feature")
        if not feature.categorical:
            continue
        code = rows[:, position]
        code = code[~np.isnan(code)]
        if ((code < 0) | (code != np.floor(code))).any():
            raise ConfigurationError(
                f"categorical feature {feature.name!r} must hold whole codes >= 0, held "
                f"{float(code[(code < 0) | (code != np.floor(code))][0])}; encode it with the vocabulary"
            )


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{name} must be {low} to {high}, was {value}; correct the training parameters")
