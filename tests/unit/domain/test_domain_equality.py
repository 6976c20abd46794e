"""Frozen objects that hold missing values are equal when their values are, on every Python."""

from __future__ import annotations

from fraudsdk import Decision, Feature, FeatureSet, Outcome, Transaction
from fraudsdk.domain.decision import Reason


def nan():
    return float("nan")


def decision(score):
    return Decision("t-1", Outcome.REVIEW, score, nan(), (Reason("A", "b", "c", value=nan()),), "none", "fallback")


def test_missing_values_are_equal_to_one_another():
    assert decision(nan()) == decision(nan())
    assert Feature("a", "log", empty=nan()) == Feature("a", "log", empty=nan())
    assert FeatureSet("s", (Feature("a", "log", empty=nan()),)) == FeatureSet("s", (Feature("a", "log", empty=nan()),))
    made = [Transaction("t-1", 1_772_452_800_000_000, 1250, user_id="u-1", latitude=nan()) for _ in range(2)]
    assert made[0] == made[1]


def test_a_missing_value_is_not_equal_to_a_known_one():
    assert decision(nan()) != decision(0.5)
    assert Feature("a", "log", empty=nan()) != Feature("a", "log", empty=0.0)
    assert decision(0.5) != "decision"


def test_equal_objects_have_one_hash():
    assert hash(decision(nan())) == hash(decision(nan()))
    assert 1 == len({Feature("a", "log", empty=nan()), Feature("a", "log", empty=nan())})
