"""A decision: its reasons, when it is explained, and what happens when explaining fails."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fraudsdk.domain.decision import Decision, Outcome
from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.errors import ConfigurationError, DeadlineExceededError
from fraudsdk.policy import (
    Effect,
    EntityList,
    FallbackSpec,
    ListEntry,
    ListKind,
    Policy,
    PolicySpec,
    ReasonTexts,
    Rule,
    ScoreBands,
)

APPROVE, REVIEW, STEP_UP, DECLINE = Outcome


def test_an_approval_carries_score_margin_and_version_and_no_reasons(decide, explain):
    expected = Decision("t-1", APPROVE, 0.01, -4.5, (), "reference/1", "band")

    assert expected == decide(0.01)
    assert 0 == explain.n_calls


def test_a_review_is_explained_by_the_model_weightiest_first(decide, explain):
    decision = decide(0.5)

    assert (REVIEW, "band", False) == (decision.outcome, decision.decided_by, decision.degraded)
    assert [("VEL01", "user_amount_1h", 1.5), ("GEO01", "user_speed_kmh", 0.7)] == [
        (reason.code, reason.feature, reason.contribution) for reason in decision.reasons
    ]
    assert 1 == explain.n_calls


def test_a_rule_that_decided_is_the_first_reason_and_the_models_reasons_follow(decide):
    rules = (Rule("abroad", "true", DECLINE, reason="GEO02", text="Seen abroad.", customer_text="Please call us."),)

    first, *others = decide(0.5, rules=rules).reasons

    assert ("GEO02", "Seen abroad.", "Please call us.") == (first.code, first.text, first.customer_text)
    assert ["VEL01", "GEO01"] == [reason.code for reason in others]


def test_a_code_is_given_once_and_four_at_most(decide):
    codes = ("GEO01", "RSK01", "RSK01", "DCL01", "CAL01", "AMT01")
    rules = tuple(Rule(f"r{i}", "true", REVIEW, reason=code) for i, code in enumerate(codes))

    assert ["GEO01", "RSK01", "DCL01", "CAL01"] == [reason.code for reason in decide(0.5, rules=rules).reasons]


def test_the_most_severe_rule_is_named_first(decide):
    rules = (
        Rule("mild", "true", REVIEW, reason="AMT01", priority=5),
        Rule("severe", "true", DECLINE, reason="DCL01"),
    )

    assert ["DCL01", "AMT01"] == [reason.code for reason in decide(0.01, rules=rules).reasons]


def test_the_model_gives_no_reasons_where_a_rule_alone_decided(decide, explain):
    decision = decide(0.01, rules=(Rule("r", "amount > 1", DECLINE),))

    assert ["RUL01"] == [reason.code for reason in decision.reasons]
    assert 0 == explain.n_calls


def test_the_model_gives_no_reasons_where_a_rule_settled_over_its_band(decide, explain):
    decide(0.5, rules=(Rule("r", "amount > 1", DECLINE, effect=Effect.EXACTLY),))

    assert 0 == explain.n_calls


@pytest.mark.parametrize("when", ["score >= 0.01", "amount > 1 and margin > -9"])
def test_the_model_gives_reasons_where_a_rule_read_its_score(decide, explain, when):
    decision = decide(0.01, rules=(Rule("r", when, DECLINE),))

    assert ["RUL01", "VEL01", "GEO01"] == [reason.code for reason in decision.reasons]
    assert 1 == explain.n_calls


def test_an_explanation_that_fails_leaves_the_outcome_and_says_so(decide):
    def fail():
        raise RuntimeError("card 4111111111111111")

    decision = decide(0.95, explain=fail)

    assert (DECLINE, "band", 0.95) == (decision.outcome, decision.decided_by, decision.score)
    assert (True, "explanation: RuntimeError") == (decision.degraded, decision.degraded_because)
    assert ["SCR01"] == [reason.code for reason in decision.reasons]


def test_an_explanation_that_is_late_keeps_the_rules_reasons(decide):
    def be_late():
        raise DeadlineExceededError("2 us left, explaining takes 90")

    decision = decide(0.95, explain=be_late, rules=(Rule("r", "true", REVIEW, reason="AMT01"),))

    assert "explanation: DeadlineExceededError: 2 us left, explaining takes 90" == decision.degraded_because
    assert ["AMT01"] == [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("contributions", [(1.0,), (math.nan,) * 6])
def test_contributions_that_make_no_sense_are_a_failed_explanation(decide, explain, contributions):
    explain.contributions = contributions

    decision = decide(0.5, explain=explain)

    assert REVIEW is decision.outcome
    assert decision.degraded_because.startswith("explanation: ModelError: contributions must be 6 finite numbers")


def test_a_score_without_one_feature_pulling_up_still_has_a_reason(decide, explain):
    explain.contributions = (-1.0,) * 6

    decision = decide(0.5, explain=explain)

    assert ["SCR01"] == [reason.code for reason in decision.reasons]
    assert not decision.degraded


def test_every_outcome_but_approve_has_a_reason_for_the_customer(decide):
    for score in (0.2, 0.5, 0.9, 1.0):
        assert all(reason.customer_text for reason in decide(score).reasons)
        assert decide(score).reasons


def test_the_declared_share_of_approvals_is_explained_and_always_the_same_ones(schema, make_transaction, row, explain):
    policy = Policy(PolicySpec(explain_rate=0.25), schema)

    def explained():
        decisions = [
            policy.decide(make_transaction(transaction_id=f"t-{i}"), row, -4.5, 0.01, "reference/1", explain)
            for i in range(2_000)
        ]
        return [decision.transaction_id for decision in decisions if decision.reasons]

    first = explained()

    assert 425 < len(first) < 575  # 500 +- 4 standard deviations
    assert first == explained()


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 1)])
def test_none_or_all_approvals_may_be_explained(decide, explain, rate, expected):
    assert APPROVE is decide(0.01, explain_rate=rate).outcome
    assert expected == explain.n_calls


@pytest.mark.parametrize("score", [math.nan, -0.01, 1.01, math.inf])
def test_a_score_that_is_no_probability_goes_to_the_fallback(decide, score):
    decision = decide(score, fallback=FallbackSpec(STEP_UP))

    assert ("fallback", True) == (decision.decided_by, decision.degraded)
    assert decision.degraded_because.startswith("model: score must be from 0 to 1, was ")
    assert STEP_UP is decision.outcome


def test_a_schema_whose_reasons_nobody_explains_stops_the_start():
    schema = FeatureSchema((FeatureInfo("f", "custom", "HOUSE1", ""),), "0" * 64)

    with pytest.raises(ConfigurationError, match="feature 'f' has the reason 'HOUSE1'"):
        Policy(PolicySpec(), schema)
    Policy(PolicySpec(reasons={"HOUSE1": ReasonTexts("a.", "b.")}), schema)


def test_a_rule_with_an_unknown_reason_stops_the_start(decide):
    with pytest.raises(ConfigurationError, match="rule 'r' has the reason 'VEL99'"):
        decide(0.01, rules=(Rule("r", "true", REVIEW, reason="VEL99"),))


def test_own_texts_reach_the_decision(decide):
    texts = {"VEL01": ReasonTexts("Hurried.", "Please slow down.")}

    assert "Please slow down." == decide(0.5, reasons=texts).reasons[0].customer_text


def test_the_row_is_only_read(decide, row):
    before = row.copy()

    decide(0.5, rules=(Rule("r", "user_count_1h > 0 and amount_zscore > 0", DECLINE),))

    np.testing.assert_array_equal(before, row)


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (ScoreBands(review=0.2, decline=0.9), 0.2),
        (ScoreBands(review=None, step_up=0.4, decline=0.9), 0.4),
        (ScoreBands(review=None, decline=None), math.inf),
    ],
)
def test_scores_below_the_lowest_band_need_nobodys_opinion(schema, bands, expected):
    policy = Policy(PolicySpec(bands=bands), schema)

    assert expected == policy.approves_below


@pytest.mark.parametrize(
    "spoken_for",
    [
        {"rules": (Rule("large", "amount > 1000000", REVIEW),)},
        {"lists": (EntityList("known", ListKind.BLOCK, "user_id", (ListEntry("u-9"),)),)},
        {"explain_rate": 0.01},
    ],
)
def test_where_rules_lists_or_samples_have_a_say_no_score_settles_it(schema, spoken_for):
    assert -math.inf == Policy(PolicySpec(**spoken_for), schema).approves_below
