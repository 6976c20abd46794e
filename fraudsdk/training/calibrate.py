"""
From margins to probabilities: fits a monotone calibration on validation rows and says why it chose that one.

Three candidates, simplest first: the model's own sigmoid, Platt's two parameters, isotonic knots.  A later one is taken
only when it lowers the log loss on cards it was not fitted on by more than that gain's own standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraudsdk.model.calibration import Calibration
from fraudsdk.training.extras import need

Floats = NDArray[np.float64]

_FRAUDS_MIN = 20
"""Fewer frauds than this cannot tell one calibration from another."""

_N_PARTS = 5
_KNOTS_MAX = 256
_LOG_SLOPE_MAX = 10.0
"""Keeps a line search that strays from overflowing."""


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """
    A calibration and the evidence for it.

    Attributes
    ----------
    calibration : Calibration
        What production will apply.
    chosen : str
        ``"identity"``, ``"platt"`` or ``"isotonic"``.
    log_loss : dict of str to float
        Of each candidate, on cards it was not fitted on; empty when there were too few frauds to compare.
    """

    calibration: Calibration
    chosen: str
    log_loss: dict[str, float]


def fit_calibration(
    margin: Floats, label: NDArray[np.int8], card_key: NDArray[np.int64], *, seed: int = 7
) -> CalibrationFit:
    """
    Choose and fit a calibration.

    Parameters
    ----------
    margin : float64[n]
        Log-odds of rows the trees were not fitted on.
    label : int8[n]
        0 or 1.
    card_key : int64[n]
        A card's rows stay on one side of the comparison.
    seed : int
        Of the division of cards.
    """
    if min(np.count_nonzero(label == 1), np.count_nonzero(label == 0)) < _FRAUDS_MIN:
        return CalibrationFit(Calibration.identity(), "identity", {})
    part = _parts(card_key, seed)
    losses = {name: _held_out_losses(fit, margin, label, part) for name, fit in _CANDIDATES.items()}
    chosen = "identity"
    for name in ("platt", "isotonic"):
        gain = losses[chosen] - losses[name]
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            chosen = name
    return CalibrationFit(
        _CANDIDATES[chosen](margin, label), chosen, {name: float(loss.mean()) for name, loss in losses.items()}
    )


def _fit_identity(margin: Floats, label: NDArray[np.int8]) -> Calibration:
    return Calibration.identity()


def _fit_platt(margin: Floats, label: NDArray[np.int8]) -> Calibration:
    target = _smoothed(label)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        log_slope, offset = np.clip(parameters[0], -_LOG_SLOPE_MAX, _LOG_SLOPE_MAX), parameters[1]
        log_odds = np.exp(log_slope) * margin + offset
        error = _sigmoid(log_odds) - target
        value = np.mean(np.logaddexp(0.0, log_odds) - target * log_odds)
        return float(value), np.array([np.mean(error * np.exp(log_slope) * margin), np.mean(error)])

    # The slope is fitted by its logarithm: a model that ranks backwards must not come out turned round.
    log_slope, offset = need("scipy.optimize").minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return Calibration.platt(np.exp(np.clip(log_slope, -_LOG_SLOPE_MAX, _LOG_SLOPE_MAX)), offset)


def _fit_isotonic(margin: Floats, label: NDArray[np.int8]) -> Calibration:
    # Equal margins must get one probability, so they enter as one point with their mean.
    points, point_of, n_rows = np.unique(margin, return_inverse=True, return_counts=True)
    target = np.bincount(point_of, weights=_smoothed(label)) / n_rows
    fitted = need("sklearn.isotonic").isotonic_regression(target, sample_weight=n_rows.astype(np.float64))
    # One knot in the middle of each step: lines between the middles keep the order that steps would flatten.
    block = np.cumsum(np.diff(fitted, prepend=fitted[0]) > 0)
    weight = np.bincount(block, weights=n_rows)
    knots = np.bincount(block, weights=n_rows * points) / weight
    probability = np.bincount(block, weights=n_rows * fitted) / weight
    if len(knots) > _KNOTS_MAX:
        kept = np.unique(np.linspace(0, len(knots) - 1, _KNOTS_MAX).astype(np.int64))
        knots, probability = knots[kept], probability[kept]
    # Averaging equal numbers may leave them an ulp apart, in either direction.
    return Calibration.piecewise(knots.tolist(), np.maximum.accumulate(probability).tolist())


_CANDIDATES: dict[str, Callable[[Floats, NDArray[np.int8]], Calibration]] = {
    "identity": _fit_identity,
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
}


def _held_out_losses(
    fit: Callable[[Floats, NDArray[np.int8]], Calibration],
    margin: Floats,
    label: NDArray[np.int8],
    part: NDArray[np.int64],
) -> Floats:
    losses = []
    for i in range(_N_PARTS):
        held_out = part == i
        probability = fit(margin[~held_out], label[~held_out]).probabilities_of(margin[held_out])
        # A saturated sigmoid that is wrong once must cost much, not everything.
        probability = np.clip(probability, 1e-15, 1 - 1e-15)
        losses.append(-np.mean(np.where(label[held_out] == 1, np.log(probability), np.log1p(-probability))))
    return np.array(losses)


def _parts(card_key: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Divide cards over the parts evenly; rows without a card, or of too few cards, go one by one."""
    generator = np.random.default_rng(seed)
    keys, card = np.unique(card_key, return_inverse=True)
    part = (generator.permutation(len(keys)) % _N_PARTS)[card]
    absent = (card_key == 0) | (len(keys) < _N_PARTS)
    part[absent] = generator.permutation(int(absent.sum())) % _N_PARTS
    return part.astype(np.int64)


def _smoothed(label: NDArray[np.int8]) -> Floats:
    """
    Targets a little off 0 and 1, so that no finite sample promises certainty.

    Source
    ------
    J. C. Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2.
    """
    n_frauds, n_genuine = np.count_nonzero(label == 1), np.count_nonzero(label == 0)
    return np.where(label == 1, (n_frauds + 1) / (n_frauds + 2), 1 / (n_genuine + 2))


def _sigmoid(log_odds: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -log_odds))
