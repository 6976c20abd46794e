"""One decision in words, and as a waterfall."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from fraudsdk.domain.decision import Decision, Outcome
from fraudsdk.domain.explanation import Counterfactual, Explanation, FeatureContribution
from fraudsdk.domain.masking import shown
from fraudsdk.training.files import written_whole
from fraudsdk.training.waterfall import waterfall_html, waterfall_png

PICTURE_ENDINGS: Final = (".png", ".html")
N_SHOWN: Final = 8

_VERBS: Final = {
    Outcome.APPROVE: "approved",
    Outcome.REVIEW: "sent to review",
    Outcome.STEP_UP: "asked to step up",
    Outcome.DECLINE: "declined",
}
_ACTS: Final = {
    Outcome.APPROVE: "approved it",
    Outcome.REVIEW: "sent it to review",
    Outcome.STEP_UP: "asked it to step up",
    Outcome.DECLINE: "declined it",
}
# Longest first; what is left over after two units is of no interest.
_UNITS_S: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_DESCRIPTION_WIDTH: Final = 52


def explanation_lines(decision: Decision, explanation: Explanation) -> list[str]:
    """What was decided, the principal reasons, and the features that weighed most."""
    score = (
        "no score"
        if math.isnan(decision.score)
        else f"score {probability(decision.score)}, margin {decision.margin:+.3f}"
    )
    lines = [
        f"Transaction {shown(decision.transaction_id)} was {_VERBS[decision.outcome]} by {decision.decided_by}: {score}.",
    ]
    if decision.degraded:
        lines.append(f"The answer is less than the full one: {decision.degraded_because}.")
    for rank, reason in enumerate(decision.reasons, 1):
        weight = "" if reason.contribution is None else f"  ({reason.contribution:+.2f})"
        lines.append(f"  {rank}. {reason.code}  {reason.text}{weight}")
        lines.append(f"     to the customer: {reason.customer_text}")
    lines += ["", *_contribution_lines(explanation)]
    if explanation.counterfactual is not None:
        lines += ["", counterfactual_sentence(explanation.counterfactual)]
    return lines


def counterfactual_sentence(change: Counterfactual) -> str:
    """What would have moved the verdict, in a sentence; of the model alone, for lists and rules were not asked."""
    bounds = [
        (words, bound) for words, bound in (("at least", change.low), ("below", change.high)) if math.isfinite(bound)
    ]
    # As few digits as tell the value from what it should have been.
    for digits in (4, 6, 9):
        value = _value(change.value, digits)
        told = [f"{words} {_value(bound, digits)}" for words, bound in bounds]
        if not any(text.endswith(f" {value}") for text in told):
            break
    return (
        f"The model alone would have {_ACTS[change.becomes]}, not {_ACTS[change.was]}, had "
        f'"{change.description or change.feature}" been {" and ".join(told)} instead of {value} '
        f"(score {probability(change.score)})."
    )


def write_waterfall(explanation: Explanation, path: Path, *, title: str) -> None:
    """Draw an explanation into a ``.png`` or ``.html`` file."""
    write = {".png": waterfall_png, ".html": waterfall_html}[path.suffix]
    features = explanation.features
    with written_whole(path) as aside:
        write(
            [feature.contribution for feature in features],
            explanation.base_margin,
            [feature.description or feature.name for feature in features],
            [feature.value for feature in features],
            aside,
            title,
            score=explanation.score,
        )


def probability(score: float) -> str:
    """
    A score in percent that never rounds to certainty.

    Examples
    --------
    >>> probability(0.256), probability(0.99972)
    ('25.6%', 'over 99.9%')
    """
    return "over 99.9%" if 0.999 < score < 1.0 else f"{score:.1%}"


def duration(elapsed_us: int) -> str:
    """
    A duration in its two largest units.

    Examples
    --------
    >>> duration(7_500_000_000)
    '2 h 5 min'
    """
    rest = elapsed_us // 1_000_000
    if rest == 0:
        return "under 1 s"
    parts = []
    for name, unit in _UNITS_S:
        if rest >= unit:
            parts.append(f"{rest // unit} {name}")
            rest %= unit
    return " ".join(parts[:2])


def _contribution_lines(explanation: Explanation) -> list[str]:
    shown_features = explanation.features[:N_SHOWN]
    rest = math.fsum(feature.contribution for feature in explanation.features[N_SHOWN:])
    lines = [f"  {'margin':>7}  {'value':>12}  {'feature':<{_DESCRIPTION_WIDTH}}  whose memory"]
    lines += [_contribution_line(feature) for feature in shown_features]
    lines.append(f"  {rest:>+7.2f}  {'':>12}  {len(explanation.features) - len(shown_features)} other features")
    lines.append(f"  {explanation.base_margin:>+7.2f}  {'':>12}  the average transaction")
    lines.append(f"  {explanation.margin:>+7.2f}  {'':>12}  this transaction, {probability(explanation.score)}")
    return lines


def _contribution_line(feature: FeatureContribution) -> str:
    words = feature.description or feature.name
    if len(words) > _DESCRIPTION_WIDTH:
        words = f"{words[: _DESCRIPTION_WIDTH - 1].rstrip()}…"
    return (
        f"  {feature.contribution:>+7.2f}  {_value(feature.value):>12}  {words:<{_DESCRIPTION_WIDTH}}  "
        f"{_provenance(feature)}"
    )


def _value(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return "missing"
    return f"{value:,.0f}" if abs(value) < 1e9 and value == int(value) else f"{value:,.{digits}g}"


def _provenance(feature: FeatureContribution) -> str:
    if not feature.entity:
        return "the transaction itself"
    if not feature.known:
        return f"{feature.entity}, not seen before"
    age = "" if feature.age_us is None else f", last seen {duration(feature.age_us)} ago"
    return f"{feature.entity}{age}{'' if feature.exact else ', bounded rather than exact'}"
