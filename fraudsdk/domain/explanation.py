"""Why a transaction has the margin it has: an `Explanation`, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass

from fraudsdk.domain.decision import Outcome


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
class Counterfactual:
    """
    The smallest change of one feature after which the score would lie in another band.

    Every value that one feature can take is considered, and none that two take together.  Lists and rules are not asked: it
    speaks of the model.  `fraudsdk.model.counterfactual` says what is smallest.

    Attributes
    ----------
    feature, description : str
        Of the feature that changes.
    value : float
        As the model read it.
    changed_to : float
        The nearest value that does it.
    low, high : float
        All values from `low` on and below `high` do it too; infinite where there is no bound.
    n_cuts : int
        Thresholds of the forest on this feature between the two values.
    was, becomes : Outcome
        Of the score's band, before and after.
    margin, score : float
        After the change.
    """

    feature: str
    description: str
    value: float
    changed_to: float
    low: float
    high: float
    n_cuts: int
    was: Outcome
    becomes: Outcome
    margin: float
    score: float


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
    counterfactual : Counterfactual or None
        The smallest change that would have brought a milder band or, for an approval, a stricter one; None where no change
        of one feature does.
    state_age_us : int or None
        What other processes know of the entities is of so long ago, microseconds of the wall; None where state is not shared.
        What this process saw itself counts at once.
    """

    transaction_id: str
    model_version: str
    margin: float
    base_margin: float
    score: float
    features: tuple[FeatureContribution, ...]
    counterfactual: Counterfactual | None = None
    state_age_us: int | None = None
