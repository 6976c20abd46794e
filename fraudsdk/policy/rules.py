"""
Rules: a condition, and what must happen to a transaction for which it holds.

Rules are considered in falling priority, equal priorities in the order they were declared.  A rule that says ``at_least``
raises the outcome and never lowers it; the first one that says ``exactly`` settles the outcome for itself and everything
below it, the score band included.  So a higher priority always has the last word:

    priority 30   at_least DECLINE   holds    --> DECLINE
    priority 20   exactly APPROVE    holds    --> (would have been APPROVE)
    priority 10   at_least REVIEW    not considered
    band          DECLINE            not considered
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy.expression import Condition, Predicate

SEVERITY: Final = {outcome: severity for severity, outcome in enumerate(Outcome)}
MAX_RULES: Final = 1_000
_MAX_NAME_CHARACTERS: Final = 64


class Effect(Enum):
    """How a rule's outcome meets the one below it."""

    AT_LEAST = "at_least"
    EXACTLY = "exactly"


@dataclass(frozen=True, slots=True)
class Rule:
    """
    A condition and its consequence.

    Attributes
    ----------
    name : str
        Unique in a policy; appears as ``decided_by="rule:<name>"``.
    when : str
        A condition in the language of `fraudsdk.policy.expression`.
    then : Outcome
        What happens where the condition holds.
    effect : Effect
        ``AT_LEAST`` raises the outcome to `then`; ``EXACTLY`` sets it.
    priority : int
        Higher is considered first and has the last word.
    reason : str
        Code of the reason catalogue.
    text, customer_text : str or None
        Replace the catalogue's texts for this rule.
    override_allow : bool
        True: applies even where an allow list matched.
    """

    name: str
    when: str
    then: Outcome
    effect: Effect = Effect.AT_LEAST
    priority: int = 0
    reason: str = "RUL01"
    text: str | None = None
    customer_text: str | None = None
    override_allow: bool = False

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > _MAX_NAME_CHARACTERS or not self.name.replace("-", "_").isidentifier():
            raise ConfigurationError(
                f"a rule's name must be letters, digits, '_' and '-', at most {_MAX_NAME_CHARACTERS}, was {self.name!r}"
            )
        if self.effect is Effect.AT_LEAST and self.then is Outcome.APPROVE:
            raise ConfigurationError(
                f'rule {self.name!r} changes nothing: every outcome is at least APPROVE; say effect = "exactly"'
            )


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """
    A rule and the function that says whether it applies.

    Attributes
    ----------
    rule : Rule
        As declared.
    holds : callable
        Takes the tuple of values.
    reads_model : bool
        True when the condition mentions the score or the margin.
    """

    rule: Rule
    holds: Predicate
    reads_model: bool


def in_order(rules: Sequence[Rule]) -> list[Rule]:
    """
    Sort rules by falling priority.

    Raises
    ------
    ConfigurationError
        Two rules of one name, or too many.
    """
    if len(rules) > MAX_RULES:
        raise ConfigurationError(f"a policy has at most {MAX_RULES} rules, this one has {len(rules)}; use lists")
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"two rules are named {twice!r}; a decision could not say which one decided")
    return sorted(rules, key=lambda rule: -rule.priority)


def parsed(rule: Rule) -> Condition:
    """Read a rule's condition, naming the rule in errors."""
    return Condition.parse(rule.when, where=f"rule {rule.name!r}")


def considered(fired: Sequence[CompiledRule]) -> tuple[Sequence[CompiledRule], bool]:
    """
    Those of the rules that hold, in order, that the first ``exactly`` does not shut out; and whether there was one.
    """
    for index, compiled in enumerate(fired):
        if compiled.rule.effect is Effect.EXACTLY:
            return fired[: index + 1], True
    return fired, False


def settle(fired: Sequence[CompiledRule], below: Outcome) -> tuple[Outcome, Rule | None]:
    """
    What the rules that hold make of the outcome below them.

    Parameters
    ----------
    fired : sequence of CompiledRule
        Those that hold and are `considered`, in order.
    below : Outcome
        Of the score band, or of an allow list.

    Returns
    -------
    outcome : Outcome
    rule : Rule or None
        The rule that decided; None where the outcome below stands.
    """
    outcome, decider = below, None
    for compiled in reversed(fired):
        rule = compiled.rule
        # "Not less", so that of two rules with one outcome the one with the higher priority is said to have decided.
        raises = SEVERITY[rule.then] > SEVERITY[outcome] or (decider is not None and rule.then is outcome)
        if rule.effect is Effect.EXACTLY or raises:
            outcome, decider = rule.then, rule
    return outcome, decider
