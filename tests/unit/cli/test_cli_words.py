"""
A decision in words.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fraudsdk.cli.words import counterfactual_sentence, duration, explanation_lines, probability, write_waterfall
from fraudsdk.domain.decision import Decision, Outcome, Reason
from fraudsdk.domain.explanation import Counterfactual, Explanation, FeatureContribution

S_US = 1_000_000


def an_explanation(*features):
    margin = -4.0 + sum(feature.contribution for feature in features)
    return Explanation("t-1", "cards/1", margin, -4.0, 0.93, features)


def a_feature(name="velocity", *, value=3.0, contribution=2.0, entity="card", known=True, age_us=None, exact=True):
    return FeatureContribution(name, f"What {name} is", value, contribution, entity, known, age_us, exact)


def a_decision(**changes):
    reason = Reason("VEL02", "The card is unusually busy.", "There was more activity than usual.", contribution=2.0)
    fields = {"outcome": Outcome.DECLINE, "score": 0.93, "margin": -2.0, "reasons": (reason,), "decided_by": "band"}
    return Decision(transaction_id="t-1", model_version="cards/1", **{**fields, **changes})


def a_change(**changes):
    fields = {
        "value": 7.0,
        "changed_to": 2.0,
        "low": -math.inf,
        "high": 2.5,
        "was": Outcome.DECLINE,
        "becomes": Outcome.REVIEW,
    }
    return Counterfactual(
        "count_1h", "Purchases in the last hour", n_cuts=4, margin=-0.4, score=0.401, **{**fields, **changes}
    )


def test_what_would_have_been_milder_is_told_in_a_sentence():
    explanation = replace(an_explanation(a_feature()), counterfactual=a_change())

    assert (
        'The model alone would have sent it to review, not declined it, had "Purchases in the last hour" been below 2.5 '
        "instead of 7 (score 40.1%)."
    ) == explanation_lines(a_decision(), explanation)[-1]


def test_a_change_that_must_not_go_too_far_says_both_ends():
    sentence = counterfactual_sentence(a_change(low=1.25, was=Outcome.APPROVE, becomes=Outcome.STEP_UP))

    assert "asked it to step up, not approved it" in sentence
    assert "been at least 1.25 and below 2.5 instead of 7" in sentence


def test_a_value_right_at_a_threshold_is_told_with_the_digits_that_matter():
    sentence = counterfactual_sentence(a_change(value=0.500012, high=0.50001))

    assert "been below 0.50001 instead of 0.500012" in sentence


def test_a_decline_is_told_with_its_reasons_for_analyst_and_customer():
    text = "\n".join(explanation_lines(a_decision(), an_explanation(a_feature())))

    assert "'t-1' was declined by band: score 93.0%, margin -2.000." in text
    assert "1. VEL02  The card is unusually busy.  (+2.00)" in text
    assert "to the customer: There was more activity than usual." in text


def test_the_lines_add_up_to_the_margin():
    many = [a_feature(f"f{i}", contribution=0.25) for i in range(12)]
    lines = explanation_lines(a_decision(), an_explanation(*many))

    assert ["+1.00", "4", "other", "features"] == lines[-3].split()
    assert ["-4.00", "-1.00"] == [line.split()[0] for line in lines[-2:]]


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (a_feature(entity=""), "the transaction itself"),
        (a_feature(known=False), "card, not seen before"),
        (a_feature(age_us=90 * S_US), "card, last seen 1 min 30 s ago"),
        (a_feature(age_us=90 * S_US, exact=False), "ago, bounded rather than exact"),
    ],
)
def test_every_value_says_where_it_came_from(feature, said):
    assert said in "\n".join(explanation_lines(a_decision(), an_explanation(feature)))


def test_a_missing_value_is_called_missing():
    assert "missing" in "\n".join(explanation_lines(a_decision(), an_explanation(a_feature(value=math.nan))))


def test_a_degraded_decision_says_why():
    decision = a_decision(
        score=math.nan, margin=math.nan, decided_by="fallback", degraded=True, degraded_because="model: none is loaded"
    )

    text = "\n".join(explanation_lines(decision, an_explanation(a_feature())))
    assert "no score" in text and "less than the full one: model: none is loaded" in text


def test_a_card_number_for_a_transaction_id_is_not_shown():
    explained = an_explanation(a_feature())
    decision = Decision("4111111111111111", Outcome.REVIEW, 0.3, -1.0, (), "cards/1", "band")

    assert "411111" not in "\n".join(explanation_lines(decision, explained))


@pytest.mark.parametrize(
    ("elapsed_s", "said"),
    [(0, "under 1 s"), (59, "59 s"), (3_600, "1 h"), (7_500, "2 h 5 min"), (90_061, "1 d 1 h")],
)
def test_a_duration_has_two_units(elapsed_s, said):
    assert said == duration(elapsed_s * S_US)


def test_a_score_never_rounds_to_certainty():
    assert ["100.0%", "over 99.9%", "99.0%", "0.0%"] == [probability(score) for score in (1.0, 0.9996, 0.99, 0.0)]


@pytest.mark.parametrize("name", ["why.png", "why.html"])
def test_a_waterfall_is_written_in_the_form_of_its_ending(name, tmp_path):
    write_waterfall(an_explanation(a_feature()), tmp_path / name, title="Why")
    content = (tmp_path / name).read_bytes()

    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<!doctype html>")
