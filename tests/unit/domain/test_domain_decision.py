"""`Decision`, made the quick way and the long way."""

from __future__ import annotations

import dataclasses

import pytest

from fraudsdk.domain.decision import Decision, Outcome, approval


def test_the_quick_way_makes_the_same_decision():
    quick = approval("t-1", 0.01, -4.5, "reference/1")
    long = Decision("t-1", Outcome.APPROVE, 0.01, -4.5, (), "reference/1", "band")

    assert long == quick and hash(long) == hash(quick) and repr(long) == repr(quick)
    assert dataclasses.replace(long, duplicate=True) == dataclasses.replace(quick, duplicate=True)


def test_a_quick_decision_is_as_frozen_as_any():
    with pytest.raises(dataclasses.FrozenInstanceError):
        approval("t-1", 0.01, -4.5, "reference/1").score = 0.9
