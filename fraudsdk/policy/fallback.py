"""
What is decided when the full answer is not to be had: no model, a failed stage, or a deadline that passed.

The ladder is the one of an ordinary decision with the score band replaced by a written choice: lists first, then rules
(the policy's own and the fallback's), then the first segment whose condition holds, then the default.  Fail-open is
APPROVE, fail-closed is DECLINE, and a segment may choose differently from the rest.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from fraudsdk.domain.decision import Outcome
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.policy.expression import Condition
from fraudsdk.policy.rules import Rule, parsed
from fraudsdk.policy.values import declared_names


@dataclass(frozen=True, slots=True)
class Segment:
    """
    A part of the traffic that fails its own way.

    Attributes
    ----------
    name : str
        For the operator.
    when : str
        A condition; only transaction fields are sure to be known.
    outcome : Outcome
        APPROVE to fail open, DECLINE to fail closed, or what is between.
    """

    name: str
    when: str
    outcome: Outcome

    def parsed(self) -> Condition:
        """Read the condition, naming the segment in errors."""
        return Condition.parse(self.when, where=f"fallback segment {self.name!r}")


@dataclass(frozen=True, slots=True)
class FallbackSpec:
    """
    The declared fallback.

    Attributes
    ----------
    default : Outcome
        Where no segment's condition holds.
    segments : tuple of Segment
        The first one that holds counts.
    rules : tuple of Rule
        Considered together with the policy's own rules, in one order of priority.
    """

    default: Outcome = Outcome.REVIEW
    segments: tuple[Segment, ...] = ()
    rules: tuple[Rule, ...] = ()


_DEFAULT_SEGMENTS: Final = (
    Segment(
        "small_domestic_card_present",
        "card_present and merchant_country == card_country and amount <= 25",
        Outcome.APPROVE,
    ),
)

# One feature per rule, so that a feature set without it loses that rule and no other.
_DEFAULT_RULES: Final = (
    Rule("fallback_card_declines", "card_declined_1h >= 5", Outcome.DECLINE, reason="DCL01"),
    Rule("fallback_user_declines", "user_declined_1h >= 5", Outcome.DECLINE, reason="DCL01"),
    Rule("fallback_card_burst", "card_count_5m >= 10", Outcome.DECLINE, reason="VEL02"),
    Rule("fallback_user_burst", "user_count_5m >= 10", Outcome.DECLINE, reason="VEL01"),
    Rule("fallback_travel", "user_impossible_travel > 0", Outcome.STEP_UP, reason="GEO01"),
    Rule(
        "fallback_abroad_remote",
        "merchant_country != card_country and not card_present and amount >= 250",
        Outcome.STEP_UP,
        reason="GEO02",
    ),
)


def default_fallback(
    schema: FeatureSchema, custom_numbers: Collection[str] = (), custom_categories: Collection[str] = ()
) -> FallbackSpec:
    """
    The fallback of a policy that declares none: REVIEW, stricter on plain signs of attack, open for small local payments.

    Rules about features that `schema` does not have are left out.
    """
    names = declared_names(schema, custom_numbers, custom_categories).keys()
    rules = tuple(rule for rule in _DEFAULT_RULES if parsed(rule).names <= names)
    return FallbackSpec(Outcome.REVIEW, _DEFAULT_SEGMENTS, rules)
