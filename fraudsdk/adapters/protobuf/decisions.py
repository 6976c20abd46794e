"""A decision as a message and back, bit for bit, and how far down the ladder it was made."""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from fraudsdk.adapters.protobuf._generated import decision_pb2 as pb
from fraudsdk.domain.decision import Decision, Outcome, Reason


class Rung(Enum):
    """How much of the full answer a decision is; the numbers are those of the message."""

    FULL = pb.RUNG_FULL
    WITHOUT_REASONS = pb.RUNG_WITHOUT_REASONS
    RULES_ONLY = pb.RUNG_RULES_ONLY
    DEFAULT = pb.RUNG_DEFAULT


OUTCOME_NUMBERS: Final = {
    Outcome.APPROVE: pb.OUTCOME_APPROVE,
    Outcome.REVIEW: pb.OUTCOME_REVIEW,
    Outcome.STEP_UP: pb.OUTCOME_STEP_UP,
    Outcome.DECLINE: pb.OUTCOME_DECLINE,
}
OUTCOMES: Final = {number: outcome for outcome, number in OUTCOME_NUMBERS.items()}


def rung_of(decision: Decision) -> Rung:
    """
    How far down the ladder a decision was made.

    State that could not be kept makes a decision `degraded` and is no rung: what was decided is all there is to decide.
    """
    if decision.decided_by == "fallback":
        # The policy's own fallback gives a reason for whatever is no approval; only the one without a policy has none.
        is_last = decision.outcome is Outcome.REVIEW and not decision.reasons
        return Rung.DEFAULT if is_last else Rung.RULES_ONLY
    if decision.degraded_because is not None and decision.degraded_because.startswith("explanation:"):
        return Rung.WITHOUT_REASONS
    return Rung.FULL


def decision_message(decision: Decision) -> pb.Decision:
    """A decision as a message; what is NaN is absent."""
    return pb.Decision(
        transaction_id=decision.transaction_id,
        outcome=OUTCOME_NUMBERS[decision.outcome],
        score=_known(decision.score),
        margin=_known(decision.margin),
        model_version=decision.model_version,
        decided_by=decision.decided_by,
        rung=rung_of(decision).value,
        reasons=[_reason_message(reason) for reason in decision.reasons],
        degraded=decision.degraded,
        degraded_because=decision.degraded_because,
        duplicate=decision.duplicate,
    )


def decision_of(message: pb.Decision) -> Decision:
    """
    A message as the decision that it was made of.

    An outcome of a later version of the contract is a REVIEW: somebody must look at what this version cannot name.
    """
    return Decision(
        transaction_id=message.transaction_id,
        outcome=OUTCOMES.get(message.outcome, Outcome.REVIEW),
        score=message.score if message.HasField("score") else math.nan,
        margin=message.margin if message.HasField("margin") else math.nan,
        reasons=tuple(_reason_of(reason) for reason in message.reasons),
        model_version=message.model_version,
        decided_by=message.decided_by,
        degraded=message.degraded,
        degraded_because=message.degraded_because if message.HasField("degraded_because") else None,
        duplicate=message.duplicate,
    )


def _reason_message(reason: Reason) -> pb.Reason:
    return pb.Reason(
        code=reason.code,
        text=reason.text,
        customer_text=reason.customer_text,
        feature=reason.feature,
        value=None if reason.value is None else _known(reason.value),
        contribution=reason.contribution,
    )


def _reason_of(message: pb.Reason) -> Reason:
    has_feature = message.HasField("feature")
    missing = math.nan if has_feature else None
    return Reason(
        code=message.code,
        text=message.text,
        customer_text=message.customer_text,
        feature=message.feature if has_feature else None,
        value=message.value if message.HasField("value") else missing,
        contribution=message.contribution if message.HasField("contribution") else None,
    )


def _known(number: float) -> float | None:
    return None if number != number else number
