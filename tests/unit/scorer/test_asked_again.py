"""First answers, kept for those who ask again."""

from __future__ import annotations

import numpy as np

from fraudsdk.domain.decision import approval
from fraudsdk.domain.decisions import Decisions
from fraudsdk.scorer.asked import Asked


def decided(transaction_id: str, score: float):
    return approval(transaction_id, score, 0.0, "v1")


def batch(*ids: str, score: float) -> Decisions:
    n = len(ids)
    return Decisions(np.array(ids, object), np.full(n, score), np.zeros(n), "v1", {})


def test_the_first_answer_stands_however_it_was_asked_for():
    asked = Asked()

    assert decided("t-1", 0.1) == asked.answer(decided("t-1", 0.1))
    assert [0.2, 0.1, 0.2] == [each.score for each in asked.answers(batch("t-2", "t-1", "t-2", score=0.2))]
    again = [asked.answer(decided("t-2", 0.9)), *asked.answers(batch("t-1", "t-2", score=0.9))]

    assert [(0.2, True), (0.1, True), (0.2, True)] == [(each.score, each.duplicate) for each in again]
    assert 0.2 == asked.first("t-2").score


def test_a_batch_that_is_new_is_passed_on_as_it_is():
    decisions = batch("t-1", "t-2", score=0.5)

    assert decisions is Asked().answers(decisions)


def test_beyond_the_bound_the_oldest_is_forgotten():
    asked = Asked(capacity=2)
    for number in range(3):
        asked.answer(decided(f"t-{number}", 0.1))

    assert asked.first("t-0") is None
    assert asked.answer(decided("t-1", 0.9)).duplicate
    assert not asked.answer(decided("t-0", 0.9)).duplicate
