"""A band begins at its threshold; thresholds rise with severity."""

from __future__ import annotations

import math

import pytest

from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy import ScoreBands


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.0, Outcome.APPROVE),
        (math.nextafter(0.2, 0), Outcome.APPROVE),
        (0.2, Outcome.REVIEW),
        (math.nextafter(0.9, 0), Outcome.REVIEW),
        (0.9, Outcome.DECLINE),
        (1.0, Outcome.DECLINE),
    ],
)
def test_by_default_review_begins_at_a_fifth_and_decline_at_nine_tenths(score, expected):
    assert expected is ScoreBands().outcome(score)


def test_a_step_up_band_lies_between_review_and_decline():
    bands = ScoreBands(review=0.2, step_up=0.5, decline=0.9)

    assert [Outcome.REVIEW, Outcome.STEP_UP, Outcome.DECLINE] == [bands.outcome(score) for score in (0.49, 0.5, 0.9)]


def test_a_band_that_is_left_out_gives_its_scores_to_the_milder_one():
    assert Outcome.APPROVE is ScoreBands(review=None, decline=0.9).outcome(0.89)
    assert Outcome.REVIEW is ScoreBands(review=0.2, decline=None).outcome(1.0)


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({"review": 0.9, "decline": 0.2}, "bands.decline must be above bands.review"),
        ({"review": 0.5, "step_up": 0.5}, "bands.step_up must be above bands.review"),
        ({"review": -0.1}, "bands.review must be a number from 0 to 1, was -0.1"),
        ({"decline": 1.5}, "bands.decline must be a number from 0 to 1, was 1.5"),
        ({"decline": math.nan}, "was nan"),
        ({"decline": math.inf}, "was inf"),
        ({"decline": "0.9"}, "was '0.9'"),
        ({"decline": True}, "was True"),
    ],
)
def test_thresholds_that_are_not_rising_probabilities_are_refused(thresholds, words):
    with pytest.raises(ConfigurationError, match=words):
        ScoreBands(**thresholds)
