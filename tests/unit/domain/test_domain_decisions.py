"""`Decisions`: a batch in columns that reads like a list of `Decision`s."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fraudsdk import Decision, Outcome
from fraudsdk.domain.decision import approval
from fraudsdk.domain.decisions import Decisions

N = 5
REVIEWED = Decision("t-1", Outcome.REVIEW, 0.9, 2.25, (), "m/1", "band")
FALLEN_BACK = Decision(
    "t-3", Outcome.APPROVE, math.nan, math.nan, (), "none", "fallback", True, "model: none is loaded"
)
AS_LIST = [approval("t-0", 0.0, -9.0, "m/1"), REVIEWED, approval("t-2", 0.2, -7.0, "m/1"), FALLEN_BACK] + [
    approval("t-4", 0.4, -5.0, "m/1")
]


@pytest.fixture
def decisions() -> Decisions:
    ids = np.array([f"t-{row}" for row in range(N)], dtype=object)
    scores, margins = np.arange(N) / 10, np.arange(N) - 9.0
    for row, decision in ((1, REVIEWED), (3, FALLEN_BACK)):
        scores[row], margins[row] = decision.score, decision.margin
    # In no order: a duplicate may be settled late.
    return Decisions(ids, scores, margins, "m/1", {3: FALLEN_BACK, 1: REVIEWED})


def test_every_row_reads_as_from_a_list(decisions):
    assert N == len(decisions)
    assert AS_LIST == list(decisions)
    assert AS_LIST == [decisions[row] for row in range(N)]
    assert AS_LIST[::-1] == [decisions[-1 - row] for row in range(N)] == list(reversed(decisions))


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(1, 4), slice(-2, None), slice(None, None, 2), slice(None, None, -1), slice(4, 1), slice(9)],
)
def test_a_slice_is_that_of_the_list(decisions, rows):
    assert AS_LIST[rows] == decisions[rows]


@pytest.mark.parametrize("row", [N, -N - 1])
def test_a_row_that_is_not_there_is_refused(decisions, row):
    with pytest.raises(IndexError):
        decisions[row]


def test_a_row_is_a_whole_number(decisions):
    assert REVIEWED == decisions[np.int64(1)]
    with pytest.raises(TypeError):
        decisions[1.0]


def test_columns_say_what_the_decisions_say(decisions):
    assert [each.score for each in AS_LIST] == pytest.approx(decisions.scores.tolist(), nan_ok=True)
    assert [each.margin for each in AS_LIST] == pytest.approx(decisions.margins.tolist(), nan_ok=True)
    assert [each.transaction_id for each in AS_LIST] == decisions.transaction_ids.tolist()


def test_flagged_are_those_that_are_not_approved(decisions):
    assert [REVIEWED] == decisions.flagged()


def test_equality_is_that_of_the_decisions(decisions):
    assert AS_LIST == decisions and decisions == AS_LIST
    assert decisions != AS_LIST[:-1]
    assert decisions != [*AS_LIST[:-1], REVIEWED]
    assert decisions != 7


def test_a_batch_says_how_it_went(decisions):
    assert "<Decisions: 4 APPROVE, 1 REVIEW>" == repr(decisions)
    assert "<Decisions: none>" == repr(Decisions(np.empty(0, object), np.empty(0), np.empty(0), "m/1", {}))
