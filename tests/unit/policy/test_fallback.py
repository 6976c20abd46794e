"""Deciding without a score: always degraded, never silent, never laxer than the lists and rules."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fraudsdk.domain.decision import Outcome
from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy import (
    EntityList,
    FallbackSpec,
    ListEntry,
    ListKind,
    Policy,
    PolicySpec,
    Rule,
    Segment,
    default_fallback,
)

APPROVE, REVIEW, STEP_UP, DECLINE = Outcome
EMPTY = FeatureSchema((), "0" * 64)


@pytest.fixture
def fall_back(schema, transaction):
    def fall_back(*, txn=transaction, row=None, schema=schema, **spec):
        return Policy(PolicySpec(**spec), schema).fallback(txn, row, "model: not loaded")

    return fall_back


def test_a_fallback_says_that_it_is_one_and_why(fall_back):
    decision = fall_back()

    assert (True, "model: not loaded", "fallback") == (
        decision.degraded,
        decision.degraded_because,
        decision.decided_by,
    )
    assert ("t-1", "none") == (decision.transaction_id, decision.model_version)
    assert math.isnan(decision.score) and math.isnan(decision.margin)


@pytest.mark.parametrize("default", list(Outcome))
def test_failing_open_or_closed_is_a_written_choice(fall_back, default):
    decision = fall_back(fallback=FallbackSpec(default))

    assert default is decision.outcome
    expected = [] if default is APPROVE else ["FBK01"]
    assert expected == [reason.code for reason in decision.reasons]


def test_a_segment_fails_its_own_way_and_the_first_that_holds_counts(fall_back):
    segments = (
        Segment("abroad", "merchant_country != card_country", DECLINE),
        Segment("small", "amount < 20", APPROVE),
        Segment("any", "true", STEP_UP),
    )

    assert APPROVE is fall_back(fallback=FallbackSpec(REVIEW, segments)).outcome


def test_a_segment_about_a_feature_does_not_hold_without_a_row(fall_back, row):
    fallback = FallbackSpec(REVIEW, (Segment("calm", "user_count_1h < 5", APPROVE),))

    assert REVIEW is fall_back(fallback=fallback).outcome
    assert APPROVE is fall_back(fallback=fallback, row=row).outcome


def test_block_and_allow_lists_still_count(fall_back):
    def listed(kind):
        return (EntityList("mine", kind, "user_id", (ListEntry("u-1"),)),)

    blocked, allowed = fall_back(lists=listed(ListKind.BLOCK)), fall_back(lists=listed(ListKind.ALLOW))

    assert (DECLINE, "fallback", True) == (blocked.outcome, blocked.decided_by, blocked.degraded)
    assert ["BLK01"] == [reason.code for reason in blocked.reasons]
    assert (APPROVE, "fallback", True) == (allowed.outcome, allowed.decided_by, allowed.degraded)


def test_the_policys_own_rules_still_count(fall_back):
    decision = fall_back(rules=(Rule("groceries", 'mcc == "5411"', DECLINE, reason="CAT01"),))

    assert DECLINE is decision.outcome
    assert ["CAT01"] == [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("when", ["score < 0.5", "not score > 0.5", "margin < 9"])
def test_a_rule_about_the_score_does_not_fire_without_one(fall_back, when):
    assert REVIEW is fall_back(fallback=FallbackSpec(REVIEW), rules=(Rule("r", when, DECLINE),)).outcome


def test_a_rule_of_the_fallback_counts_only_there(fall_back, decide):
    fallback = FallbackSpec(APPROVE, rules=(Rule("careful", "amount > 10", STEP_UP, reason="AMT01"),))

    assert STEP_UP is fall_back(fallback=fallback).outcome
    assert APPROVE is decide(0.01, fallback=fallback).outcome


def test_rules_of_policy_and_fallback_share_one_order_of_priority(fall_back):
    from fraudsdk.policy import Effect

    fallback = FallbackSpec(REVIEW, rules=(Rule("settles", "true", APPROVE, effect=Effect.EXACTLY, priority=5),))

    assert APPROVE is fall_back(fallback=fallback, rules=(Rule("low", "true", DECLINE),)).outcome
    assert DECLINE is fall_back(fallback=fallback, rules=(Rule("high", "true", DECLINE, priority=6),)).outcome


# The default.


def test_the_default_reviews_what_is_not_plainly_small_and_local(fall_back, make_transaction):
    assert APPROVE is fall_back(txn=make_transaction(amount_minor=2500)).outcome
    assert REVIEW is fall_back(txn=make_transaction(amount_minor=2501)).outcome
    assert REVIEW is fall_back(txn=make_transaction(card_present=False)).outcome
    assert REVIEW is fall_back(txn=make_transaction(card_present=None)).outcome
    assert REVIEW is fall_back(txn=make_transaction(merchant_country="FR")).outcome
    assert REVIEW is fall_back(txn=make_transaction(card_country=None)).outcome


def test_the_default_asks_for_more_where_a_large_remote_payment_goes_abroad(fall_back, make_transaction):
    txn = make_transaction(merchant_country="FR", card_present=False, amount_minor=25_000)

    assert STEP_UP is fall_back(txn=txn).outcome


def test_the_default_uses_the_features_that_are_there(fall_back, row):
    burst = row.copy()
    burst[2] = 10.0  # card_count_5m

    decision = fall_back(row=burst)

    assert DECLINE is decision.outcome
    assert ["VEL02"] == [reason.code for reason in decision.reasons]


def test_the_default_works_with_no_features_at_all(fall_back, make_transaction):
    txn = make_transaction(amount_minor=9_900)

    assert REVIEW is fall_back(txn=txn, schema=EMPTY, row=np.empty(0, np.float32)).outcome
    assert {"fallback_abroad_remote"} == {rule.name for rule in default_fallback(EMPTY).rules}


def test_the_default_has_one_rule_per_sign_that_the_schema_knows():
    names = ("card_declined_1h", "user_declined_1h", "card_count_5m", "user_count_5m", "user_impossible_travel")
    schema = FeatureSchema(tuple(FeatureInfo(name, "velocity", "VEL01", "") for name in names), "0" * 64)

    assert 6 == len(default_fallback(schema).rules)


def test_a_declared_fallback_with_a_misspelt_name_stops_the_start(fall_back):
    with pytest.raises(ConfigurationError, match="fallback segment 'mine', column 1: unknown name 'amont'"):
        fall_back(fallback=FallbackSpec(REVIEW, (Segment("mine", "amont < 5", APPROVE),)))


def test_a_rule_of_the_fallback_may_not_bear_the_name_of_another(fall_back):
    rule = Rule("r", "true", REVIEW)

    with pytest.raises(ConfigurationError, match="two rules are named 'r'"):
        fall_back(rules=(rule,), fallback=FallbackSpec(REVIEW, rules=(rule,)))
