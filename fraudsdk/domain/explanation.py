"""Why a transaction has the margin it has: an `Explanation`, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureContribution:
    """
    What one feature adds to the margin, and where its value came from.

    Attributes
    ----------
    name, description : str
    value : float
        As the model read it; NaN = missing.
    contribution : float
        Exact SHAP contribution, log-odds.
    entity : str
        Entity whose memory the value came from; empty for what the transaction says itself.
    known : bool
        That entity had been seen before.
    age_us : int or None
        Event time since it was last seen, microseconds.
    exact : bool
        False where the value is bounded rather than exact (tiles or a sketch answered).
    """

    name: str
    description: str
    value: float
    contribution: float
    entity: str
    known: bool
    age_us: int | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    The margin of one transaction, taken apart.

    Attributes
    ----------
    transaction_id : str
    model_version : str
    margin : float
        Log-odds; equals `base_margin` plus the contributions, to rounding.
    base_margin : float
        Expected margin of the model.
    score : float
        Calibrated probability.
    features : tuple of FeatureContribution
        Weightiest first.
    """

    transaction_id: str
    model_version: str
    margin: float
    base_margin: float
    score: float
    features: tuple[FeatureContribution, ...]
