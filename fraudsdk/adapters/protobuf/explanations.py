"""An explanation as a message and back, bit for bit."""

from __future__ import annotations

import math

from fraudsdk.adapters.protobuf._generated import explanation_pb2 as pb
from fraudsdk.adapters.protobuf.decisions import OUTCOME_NUMBERS, OUTCOMES
from fraudsdk.domain.explanation import Counterfactual, Explanation, FeatureContribution


def explanation_message(explanation: Explanation) -> pb.Explanation:
    """An explanation as a message; what is NaN, and a bound that is infinite, is absent."""
    change = explanation.counterfactual
    return pb.Explanation(
        transaction_id=explanation.transaction_id,
        model_version=explanation.model_version,
        margin=explanation.margin,
        base_margin=explanation.base_margin,
        score=explanation.score,
        features=[_feature_message(feature) for feature in explanation.features],
        counterfactual=None if change is None else _change_message(change),
        state_age_us=explanation.state_age_us,
    )


def explanation_of(message: pb.Explanation) -> Explanation:
    """A message as the explanation that it was made of."""
    return Explanation(
        transaction_id=message.transaction_id,
        model_version=message.model_version,
        margin=message.margin,
        base_margin=message.base_margin,
        score=message.score,
        features=tuple(_feature_of(feature) for feature in message.features),
        counterfactual=_change_of(message.counterfactual) if message.HasField("counterfactual") else None,
        state_age_us=message.state_age_us if message.HasField("state_age_us") else None,
    )


def _feature_message(feature: FeatureContribution) -> pb.FeatureContribution:
    return pb.FeatureContribution(
        name=feature.name,
        description=feature.description,
        value=_finite(feature.value),
        contribution=feature.contribution,
        entity=feature.entity,
        known=feature.known,
        age_us=feature.age_us,
        exact=feature.exact,
    )


def _feature_of(message: pb.FeatureContribution) -> FeatureContribution:
    return FeatureContribution(
        name=message.name,
        description=message.description,
        value=message.value if message.HasField("value") else math.nan,
        contribution=message.contribution,
        entity=message.entity,
        known=message.known,
        age_us=message.age_us if message.HasField("age_us") else None,
        exact=message.exact,
    )


def _change_message(change: Counterfactual) -> pb.Counterfactual:
    return pb.Counterfactual(
        feature=change.feature,
        description=change.description,
        value=_finite(change.value),
        changed_to=_finite(change.changed_to),
        low=_finite(change.low),
        high=_finite(change.high),
        n_cuts=change.n_cuts,
        was=OUTCOME_NUMBERS[change.was],
        becomes=OUTCOME_NUMBERS[change.becomes],
        margin=change.margin,
        score=change.score,
    )


def _change_of(message: pb.Counterfactual) -> Counterfactual:
    return Counterfactual(
        feature=message.feature,
        description=message.description,
        value=message.value if message.HasField("value") else math.nan,
        changed_to=message.changed_to if message.HasField("changed_to") else math.nan,
        low=message.low if message.HasField("low") else -math.inf,
        high=message.high if message.HasField("high") else math.inf,
        n_cuts=message.n_cuts,
        was=OUTCOMES[message.was],
        becomes=OUTCOMES[message.becomes],
        margin=message.margin,
        score=message.score,
    )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
