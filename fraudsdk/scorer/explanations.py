"""Take a margin apart, and say what would have moved the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.decision import Outcome
from fraudsdk.domain.explanation import Counterfactual, Explanation, FeatureContribution
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.errors import ModelError
from fraudsdk.features.engine import Provenance
from fraudsdk.scorer.judge import Judge

# Time cannot be lived again, and its sines and cosines only change together: no counterfactual speaks of them.
_UNCHANGEABLE: Final = "calendar"

Row = npt.NDArray[np.float32]


def contributions(judge: Judge, row: Row) -> npt.NDArray[np.float64]:
    """
    What each feature adds to the margin of a row, base value last.

    Raises
    ------
    ModelError
        There is no model, or it carries no explanations.
    """
    if judge.model is None or judge.explainer is None:
        raise ModelError("nothing to explain with: open the scorer with a model that the present compiler made")
    parts: npt.NDArray[np.float64] = judge.explainer.contributions(row[np.newaxis, :])[0]
    return parts


def explanation(
    judge: Judge,
    schema: FeatureSchema,
    transaction_id: str,
    row: Row,
    provenance: Sequence[Provenance],
    state_age_us: int | None,
) -> Explanation:
    """
    Everything that can be said of a row's margin.

    Raises
    ------
    ModelError
        There is no model, or it carries no explanations.
    """
    parts = contributions(judge, row)
    assert judge.model is not None  # or it had no contributions
    margin = judge.model.margin(row)
    features = [
        FeatureContribution(
            info.name, info.description, float(value), float(weight), p.entity, p.known, p.age_us, p.exact
        )
        for info, value, weight, p in zip(schema.features, row, parts[:-1], provenance, strict=True)
    ]
    features.sort(key=lambda feature: -abs(feature.contribution))
    return Explanation(
        transaction_id=transaction_id,
        model_version=judge.version,
        margin=margin,
        base_margin=float(parts[-1]),
        score=judge.calibration.probability(margin),
        features=tuple(features),
        counterfactual=_counterfactual(judge, schema, row, margin),
        state_age_us=state_age_us,
    )


def _counterfactual(judge: Judge, schema: FeatureSchema, row: Row, margin: float) -> Counterfactual | None:
    def band_at(other: float) -> Outcome:
        return judge.policy.band_of(judge.calibration.probability(other))

    if judge.model is None or judge.model.changes is None:
        return None
    was = band_at(margin)
    approved = was is Outcome.APPROVE
    change = judge.model.changes.smallest(
        row,
        # Bands rise with the margin: what is milder than a refusal has a smaller one, what an approval fears a larger.
        lambda other: (other > margin) is approved and band_at(other) is not was,
        leave=frozenset(
            column
            for column, feature in enumerate(schema.features)
            if feature.categorical or feature.family == _UNCHANGEABLE
        ),
    )
    if change is None:
        return None
    feature = schema.features[change.feature]
    return Counterfactual(
        feature=feature.name,
        description=feature.description,
        value=float(row[change.feature]),
        changed_to=change.value,
        low=change.low,
        high=change.high,
        n_cuts=change.n_cuts,
        was=was,
        becomes=band_at(change.margin),
        margin=change.margin,
        score=judge.calibration.probability(change.margin),
    )
