"""What a rule that holds makes of the outcome below it."""

from __future__ import annotations

import pytest

from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy import Effect, Policy, PolicySpec, Rule
from fraudsdk.policy.rules import MAX_RULES

APPROVE, REVIEW, STEP_UP, DECLINE = Outcome
EXACTLY = Effect.EXACTLY


def rule(name, then, when="true", **options):
    return Rule(name, when, then, **options)


def test_a_rule_raises_the_outcome(decide):
    decision = decide(0.01, rules=(rule("r", REVIEW),))

    assert (REVIEW, "rule:r") == (decision.outcome, decision.decided_by)


def test_a_rule_never_lowers_the_outcome(decide):
    decision = decide(0.95, rules=(rule("r", REVIEW),))

    assert (DECLINE, "band") == (decision.outcome, decision.decided_by)


def test_a_rule_that_agrees_with_the_band_leaves_the_decision_to_the_band(decide):
    assert "band" == decide(0.5, rules=(rule("r", REVIEW),)).decided_by


def test_a_rule_that_does_not_hold_changes_nothing(decide):
    decision = decide(0.01, rules=(rule("r", DECLINE, "amount > 500"),))

    assert (APPROVE, "band", ()) == (decision.outcome, decision.decided_by, decision.reasons)


def test_a_rule_about_a_missing_value_does_not_fire(decide):
    rules = (rule("r", DECLINE, "user_speed_kmh > 900"), rule("s", DECLINE, "not user_speed_kmh > 900"))

    assert APPROVE is decide(0.01, rules=rules).outcome


def test_the_most_severe_of_several_rules_decides(decide):
    rules = (rule("mild", REVIEW, priority=9), rule("severe", DECLINE), rule("middle", STEP_UP, priority=5))

    decision = decide(0.01, rules=rules)

    assert (DECLINE, "rule:severe") == (decision.outcome, decision.decided_by)


def test_of_two_rules_with_one_outcome_the_higher_priority_is_said_to_have_decided(decide):
    rules = (rule("low", REVIEW), rule("high", REVIEW, priority=1), rule("lower", REVIEW, priority=-1))

    assert "rule:high" == decide(0.01, rules=rules).decided_by


def test_of_equal_priorities_the_one_declared_first_is_said_to_have_decided(decide):
    assert "rule:first" == decide(0.01, rules=(rule("first", REVIEW), rule("second", REVIEW))).decided_by


def test_a_rule_that_says_exactly_lowers_the_bands_outcome(decide):
    decision = decide(0.95, rules=(rule("r", APPROVE, effect=EXACTLY),))

    assert (APPROVE, "rule:r", ()) == (decision.outcome, decision.decided_by, decision.reasons)


def test_a_rule_of_higher_priority_raises_what_another_settled(decide):
    rules = (rule("settles", APPROVE, effect=EXACTLY, priority=10), rule("raises", REVIEW, priority=20))

    assert (REVIEW, "rule:raises") == (decide(0.95, rules=rules).outcome, decide(0.95, rules=rules).decided_by)


def test_a_rule_of_lower_priority_does_not_raise_what_another_settled(decide):
    rules = (rule("settles", APPROVE, effect=EXACTLY, priority=10), rule("raises", DECLINE, priority=9))

    assert (APPROVE, "rule:settles") == (decide(0.95, rules=rules).outcome, decide(0.95, rules=rules).decided_by)


def test_of_two_rules_that_say_exactly_the_higher_priority_settles(decide):
    rules = (rule("low", DECLINE, effect=EXACTLY), rule("high", REVIEW, effect=EXACTLY, priority=1))

    assert (REVIEW, "rule:high") == (decide(0.95, rules=rules).outcome, decide(0.95, rules=rules).decided_by)


def test_rules_read_transaction_features_score_and_margin(decide):
    when = 'amount == 12.5 and mcc == "5411" and card_present and user_count_1h == 1 and score < 0.1 and margin < -4'

    assert "rule:r" == decide(0.01, rules=(rule("r", REVIEW, when),)).decided_by


def test_a_transaction_field_hides_a_feature_of_the_same_name(schema, transaction, row, explain):
    from fraudsdk.domain.schema import FeatureInfo, FeatureSchema

    columns = (*schema.features[:4], FeatureInfo("amount", "amount", "AMT01", "in another currency"))
    policy = Policy(PolicySpec(rules=(rule("r", REVIEW, "amount == 12.5"),)), FeatureSchema(columns, "0" * 64))

    assert "rule:r" == policy.decide(transaction, row, -4.5, 0.01, "reference/1", explain).decided_by


def test_the_amount_is_what_the_host_says_it_is(schema, transaction, row, explain):
    spec = PolicySpec(rules=(rule("r", REVIEW, "amount > 100"),))
    policy = Policy(spec, schema, amount_of=lambda transaction: transaction.amount_minor / 10)

    assert REVIEW is policy.decide(transaction, row, -4.5, 0.01, "reference/1", explain).outcome


@pytest.mark.parametrize(
    ("currency", "amount_minor", "major"), [("GBP", 1250, 12.5), ("JPY", 1250, 1250), ("KWD", 1250, 1.25), (None, 1250, 12.5)]
)  # fmt: skip
def test_by_default_the_amount_is_in_major_units_of_its_own_currency(
    decide, make_transaction, currency, amount_minor, major
):
    txn = make_transaction(currency=currency, amount_minor=amount_minor)

    assert REVIEW is decide(0.01, txn=txn, rules=(rule("r", REVIEW, f"amount == {major}"),)).outcome


def test_rules_read_declared_custom_fields(schema, make_transaction, row, explain):
    when = 'points > 10 and tier == "gold" and missing(visits) and missing(region)'
    policy = Policy(
        PolicySpec(rules=(rule("r", REVIEW, when),)),
        schema,
        custom_numbers=("points", "visits"),
        custom_categories=("tier", "region"),
    )
    txn = make_transaction(custom={"points": 11.0, "tier": "gold"})

    assert REVIEW is policy.decide(txn, row, -4.5, 0.01, "reference/1", explain).outcome


def test_a_misspelt_name_stops_the_start_and_names_the_rule(schema):
    with pytest.raises(ConfigurationError, match=r"rule 'r', column 1: unknown name 'user_cuont_1h'; did you mean"):
        Policy(PolicySpec(rules=(rule("r", REVIEW, "user_cuont_1h > 1"),)), schema)


@pytest.mark.parametrize("name", ["", "with space", "9lives", "a" * 65, "x:y"])
def test_a_rule_needs_a_plain_name(name):
    with pytest.raises(ConfigurationError, match="a rule's name must be"):
        rule(name, REVIEW)


def test_two_rules_of_one_name_are_refused(schema):
    with pytest.raises(ConfigurationError, match="two rules are named 'r'"):
        Policy(PolicySpec(rules=(rule("r", REVIEW), rule("r", DECLINE))), schema)


def test_a_rule_that_could_change_nothing_is_refused():
    with pytest.raises(ConfigurationError, match='say effect = "exactly"'):
        rule("r", APPROVE)


def test_the_number_of_rules_is_bounded(schema):
    rules = tuple(rule(f"r{i}", REVIEW) for i in range(MAX_RULES + 1))

    with pytest.raises(ConfigurationError, match=f"at most {MAX_RULES} rules"):
        Policy(PolicySpec(rules=rules), schema)
