"""
From a score to a `Decision`.

What is higher up wins:

    block list                     DECLINE
    rules that override allow      on top of the allow list's APPROVE
    allow list                     APPROVE
    rules                          raise, or settle, the outcome below
    score band                     the calibrated score's outcome

`Policy.fallback` walks the same ladder with the band replaced by a declared choice, for when no score can be had.
Everything is checked and compiled when a `Policy` is made; deciding looks up, compares, and allocates little.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy.typing as npt

from fraudsdk.domain.decision import Decision, Outcome, Reason, approval
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.domain.transaction import Transaction
from fraudsdk.errors import FraudSDKError
from fraudsdk.policy.fallback import default_fallback
from fraudsdk.policy.lists import EntityList, ListHit, ListIndex, ListKind
from fraudsdk.policy.reasons import FALLBACK, MAX_REASONS, SCORE_ALONE, FeatureReasons, ReasonCatalogue
from fraudsdk.policy.rules import SEVERITY, CompiledRule, Rule, considered, in_order, parsed, settle
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.policy.values import Row, ValueLayout, major_units

Explain = Callable[[], npt.ArrayLike]

_NO_MODEL: Final = "none"
_MODEL_NAMES: Final = frozenset({"score", "margin"})
_MAX_BECAUSE_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class _Verdict:
    """An outcome, who decided it, what lists and rules say for it, and whether the model had a part in it."""

    outcome: Outcome
    decided_by: str
    reasons: tuple[Reason, ...]
    model_spoke: bool


class Policy:
    """
    A compiled `PolicySpec`.  Immutable, so any number of threads may use it; to change a list, make another one.

    Parameters
    ----------
    spec : PolicySpec
        As declared.
    schema : FeatureSchema
        Whose features rules may mention and reasons are given for.
    custom_numbers, custom_categories : collection of str
        Declared custom fields that rules may mention.
    amount_of : callable
        What the name ``amount`` means in rules; by default major units of the transaction's own currency.  Where several
        currencies meet, pass the encoder's conversion, NaN for an unknown rate.

    Attributes
    ----------
    band_of : callable
        Outcome of a score by the bands alone.
    approves_below : float
        Scores from 0 up to here are approved by the band alone, whatever the transaction: `decide` need not be asked.
        Minus infinity where rules, lists or sampled explanations may have a say.
    reads_transaction : bool
        False: `decide` looks at nothing of a transaction but its id.

    Raises
    ------
    ConfigurationError
        A rule does not compile, a list entry can never match, or a reason has no text.

    Examples
    --------
    >>> from fraudsdk.domain.schema import FeatureSchema
    >>> policy = Policy(PolicySpec(), FeatureSchema((), "0" * 64))
    >>> transaction = Transaction("t-1", 1_795_428_000_000_000, 1250, "GBP", user_id="u-1")
    >>> policy.fallback(transaction, None, "model: not loaded").outcome
    <Outcome.REVIEW: 'REVIEW'>
    """

    def __init__(
        self,
        spec: PolicySpec,
        schema: FeatureSchema,
        *,
        custom_numbers: Collection[str] = (),
        custom_categories: Collection[str] = (),
        amount_of: Callable[[Transaction], float] = major_units,
    ) -> None:
        fallback = spec.fallback or default_fallback(schema, custom_numbers, custom_categories)
        conditions = [parsed(rule) for rule in (*spec.rules, *fallback.rules)]
        segments = [segment.parsed() for segment in fallback.segments]
        self._layout = ValueLayout(
            {name for condition in (*conditions, *segments) for name in condition.names},
            schema,
            custom_numbers=custom_numbers,
            custom_categories=custom_categories,
            amount_of=amount_of,
        )
        catalogue = ReasonCatalogue.shipped().with_texts(spec.reasons)
        self._catalogue = catalogue
        self._feature_reasons = FeatureReasons(schema, catalogue)
        self._rule_reasons = {
            rule.name: _reason_of_rule(rule, catalogue) for rule in in_order((*spec.rules, *fallback.rules))
        }
        self._list_reasons = {entity_list.name: _reason_of_list(entity_list, catalogue) for entity_list in spec.lists}
        self._lists = ListIndex(spec.lists)
        self.band_of = spec.bands.outcome
        self._rules = self._compiled(spec.rules)
        self._rules_without_model = self._compiled((*spec.rules, *fallback.rules))
        self._segments = [
            (condition.compile(self._layout.names, self._layout.slots), segment.outcome)
            for condition, segment in zip(segments, fallback.segments, strict=True)
        ]
        self._default_outcome = fallback.default
        self._explain_below = round(spec.explain_rate * 2**32)
        # Where nothing but the band has a say, a score below this is an approval whatever the transaction holds.
        thresholds = [spec.bands.review, spec.bands.step_up, spec.bands.decline]
        lowest = min((t for t in thresholds if t is not None), default=math.inf)
        self.approves_below = -math.inf if spec.rules or spec.lists or self._explain_below else lowest
        self.reads_transaction = bool(spec.rules or spec.lists)

    def decide(
        self, transaction: Transaction, row: Row, margin: float, score: float, model_version: str, explain: Explain
    ) -> Decision:
        """
        Decide with a score.

        Parameters
        ----------
        transaction : Transaction
            What is decided on.
        row : float32[n_features]
            Its features; NaN = missing.
        margin : float
            Raw log-odds.
        score : float
            Calibrated probability, 0 to 1; anything else (NaN) goes to the fallback.
        model_version : str
            Name and version of the model.
        explain : callable
            Returns the exact contributions to the margin, ``float[n_features + 1]``, base value last.  Called at most
            once: where the outcome is not APPROVE and the score had a part in it, and for the declared share of
            approvals.  Whatever it raises leaves the outcome as it is and marks the decision `degraded`.

        Returns
        -------
        Decision
        """
        if not 0.0 <= score <= 1.0:
            return self.fallback(transaction, row, f"model: score must be from 0 to 1, was {score}")
        fired: list[CompiledRule] = []
        if self._rules:
            values = self._layout.fetch(transaction, row, margin, score)
            fired = [compiled for compiled in self._rules if compiled.holds(values)]
        hit = self._lists.find(transaction)
        band = self.band_of(score)
        if not fired and hit is None and band is Outcome.APPROVE and not self._explain_below:  # nearly always
            return approval(transaction.transaction_id, score, margin, model_version)
        verdict = self._verdict(hit, fired, band)
        reasons, because = self._explained(verdict, transaction, row, explain)
        return Decision(
            transaction_id=transaction.transaction_id,
            outcome=verdict.outcome,
            score=score,
            margin=margin,
            reasons=reasons,
            model_version=model_version,
            decided_by=verdict.decided_by,
            degraded=because is not None,
            degraded_because=because,
        )

    def fallback(self, transaction: Transaction, row: Row | None, because: str) -> Decision:
        """
        Decide without a score: no model, a failed stage, or a deadline that passed.

        Parameters
        ----------
        transaction : Transaction
            What is decided on.
        row : float32[n_features] or None
            Whatever features are known, NaN for those that are not; None where there are none.
        because : str
            Which stage and why; holds no card number.

        Returns
        -------
        Decision
            Always `degraded`, always ``decided_by="fallback"``; score and margin are NaN.
        """
        values = self._layout.fetch(transaction, row, math.nan, math.nan)
        fired = [compiled for compiled in self._rules_without_model if compiled.holds(values)]
        declared = next((outcome for holds, outcome in self._segments if holds(values)), self._default_outcome)
        verdict = self._verdict(self._lists.find(transaction), fired, declared)
        reasons = verdict.reasons
        if not reasons and verdict.outcome is not Outcome.APPROVE:
            reasons = (self._catalogue.entries[FALLBACK].reason(),)
        return Decision(
            transaction_id=transaction.transaction_id,
            outcome=verdict.outcome,
            score=math.nan,
            margin=math.nan,
            reasons=reasons,
            model_version=_NO_MODEL,
            decided_by="fallback",
            degraded=True,
            degraded_because=because,
        )

    def _compiled(self, rules: Sequence[Rule]) -> list[CompiledRule]:
        conditions = [parsed(rule) for rule in in_order(rules)]
        return [
            CompiledRule(
                rule,
                condition.compile(self._layout.names, self._layout.slots),
                reads_model=not _MODEL_NAMES.isdisjoint(condition.names),
            )
            for rule, condition in zip(in_order(rules), conditions, strict=True)
        ]

    def _verdict(self, hit: ListHit | None, fired: Sequence[CompiledRule], band: Outcome) -> _Verdict:
        if hit is not None and hit.kind is ListKind.BLOCK:
            return _Verdict(Outcome.DECLINE, "block_list", (self._list_reasons[hit.list_name],), model_spoke=False)
        below, decided_by = band, "band"
        if hit is not None:
            below, decided_by = Outcome.APPROVE, "allow_list"
            fired = [compiled for compiled in fired if compiled.rule.override_allow]
        fired, settled = considered(fired)
        outcome, rule = settle(fired, below)
        # A reason must have had a part in the outcome: the model had none where a list or a rule spoke over it.
        band_spoke = hit is None and not settled and band is not Outcome.APPROVE
        return _Verdict(
            outcome,
            decided_by if rule is None else f"rule:{rule.name}",
            self._reasons_of_rules(fired, outcome),
            model_spoke=band_spoke or any(compiled.reads_model for compiled in fired),
        )

    def _reasons_of_rules(self, fired: Sequence[CompiledRule], outcome: Outcome) -> tuple[Reason, ...]:
        if outcome is Outcome.APPROVE:
            return ()
        against = [compiled.rule for compiled in fired if compiled.rule.then is not Outcome.APPROVE]
        against.sort(key=lambda rule: -SEVERITY[rule.then])
        return _principal(self._rule_reasons[rule.name] for rule in against)

    def _explained(
        self, verdict: _Verdict, transaction: Transaction, row: Row, explain: Explain
    ) -> tuple[tuple[Reason, ...], str | None]:
        """The verdict's reasons with the model's added where they are due, and what went wrong while asking for them."""
        approved = verdict.outcome is Outcome.APPROVE
        if not (self._is_sampled(transaction) if approved else verdict.model_spoke):
            return verdict.reasons, None
        because = None
        from_model: tuple[Reason, ...] = ()
        try:
            from_model = self._feature_reasons.principal(explain(), row)
        except Exception as error:  # the outcome is already known, and must reach the caller whatever an explainer does
            because = f"explanation: {_described(error)}"
        reasons = _principal((*verdict.reasons, *from_model))
        if not reasons and not approved:
            reasons = (self._catalogue.entries[SCORE_ALONE].reason(),)
        return reasons, because

    def _is_sampled(self, transaction: Transaction) -> bool:
        return zlib.crc32(transaction.transaction_id.encode()) < self._explain_below


def _reason_of_rule(rule: Rule, catalogue: ReasonCatalogue) -> Reason:
    entry = catalogue.entry(rule.reason, whose=f"rule {rule.name!r}")
    return Reason(rule.reason, rule.text or entry.text, rule.customer_text or entry.customer_text)


def _reason_of_list(entity_list: EntityList, catalogue: ReasonCatalogue) -> Reason:
    entry = catalogue.entry(entity_list.reason, whose=f"list {entity_list.name!r}")
    return Reason(entry.code, f"{entry.text} List: {entity_list.name}.", entry.customer_text)


def _principal(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The first reason of each code, four at most."""
    by_code: dict[str, Reason] = {}
    for reason in reasons:
        by_code.setdefault(reason.code, reason)
    return tuple(by_code.values())[:MAX_REASONS]


def _described(error: Exception) -> str:
    # Our own messages are masked; what a client library puts into its message is anybody's guess.
    detail = f": {error}" if isinstance(error, FraudSDKError) else ""
    return f"{type(error).__name__}{detail}"[:_MAX_BECAUSE_CHARACTERS]
