"""A calibration maps margins to probabilities, never changes a ranking, and survives its file."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.errors import InvalidModelError
from fraudsdk.model.calibration import Calibration

PIECEWISE = Calibration.piecewise([-3.0, -1.0, 2.0], [0.01, 0.1, 0.9])

margins = st.floats(min_value=-1e4, max_value=1e4)


@st.composite
def calibrations(draw):
    kind = draw(st.sampled_from(["identity", "platt", "piecewise"]))
    if kind == "identity":
        return Calibration.identity()
    if kind == "platt":
        return Calibration.platt(draw(st.floats(1e-3, 10)), draw(st.floats(-20, 20)))
    n = draw(st.integers(1, 20))
    knots = sorted(draw(st.sets(st.floats(-50, 50), min_size=n, max_size=n)))
    return Calibration.piecewise(knots, sorted(draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))))


@pytest.mark.parametrize(
    ("margin", "probability"),
    [(-9.0, 0.01), (-3.0, 0.01), (-2.0, 0.055), (-1.0, 0.1), (0.5, 0.5), (2.0, 0.9), (9.0, 0.9)],
)
def test_between_knots_it_is_a_line_and_outside_them_level(margin, probability):
    assert probability == pytest.approx(PIECEWISE.probability(margin), abs=1e-12)


def test_identity_is_the_sigmoid():
    assert 0.5 == Calibration.identity().probability(0.0)
    assert 1 / (1 + math.exp(1.5)) == pytest.approx(Calibration.identity().probability(-1.5), abs=1e-15)


@pytest.mark.parametrize("margin", [-1e300, -800.0, 800.0, 1e300, -math.inf, math.inf])
def test_margins_beyond_all_reason_do_not_overflow(margin):
    assert (0.0 if margin < 0 else 1.0) == pytest.approx(Calibration.identity().probability(margin), abs=1e-12)


@given(calibrations(), margins, margins)
def test_a_higher_margin_never_has_a_lower_probability(calibration, a, b):
    low, high = sorted((a, b))

    assert 0.0 <= calibration.probability(low) <= calibration.probability(high) <= 1.0


@given(calibrations(), margins)
def test_it_survives_its_dictionary(calibration, margin):
    again = Calibration.from_dict(calibration.to_dict())

    assert calibration == again
    assert calibration.probability(margin) == again.probability(margin)


@given(calibrations(), st.lists(margins, max_size=20))
def test_a_batch_gives_the_bits_of_single_calls(calibration, values):
    expected = [calibration.probability(float(np.float32(margin))) for margin in values]

    assert expected == calibration.probabilities_of(np.array(values, np.float32)).tolist()


@pytest.mark.parametrize("calibration", [Calibration.identity(), Calibration.platt(1, 0), PIECEWISE])
def test_where_no_model_spoke_there_is_no_score(calibration):
    assert math.isnan(calibration.probability(math.nan))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "spline"},
        {"kind": "identity", "slope": 1.0},
        {"kind": "platt", "slope": 1.0},
        {"kind": "platt", "slope": "steep", "intercept": 0.0},
        {"kind": "platt", "slope": -1.0, "intercept": 0.0},
        {"kind": "platt", "slope": math.nan, "intercept": 0.0},
        {"kind": "piecewise", "margins": [], "probabilities": []},
        {"kind": "piecewise", "margins": [0.0, 1.0], "probabilities": [0.5]},
        {"kind": "piecewise", "margins": [1.0, 0.0], "probabilities": [0.1, 0.2]},
        {"kind": "piecewise", "margins": [0.0, 1.0], "probabilities": [0.5, 0.4]},
        {"kind": "piecewise", "margins": [0.0, 1.0], "probabilities": [0.5, 1.4]},
        {"kind": "piecewise", "margins": [0.0, math.inf], "probabilities": [0.1, 0.4]},
        {"kind": "piecewise", "margins": [0.0, 1.0], "probabilities": [0.1, math.nan]},
        {"kind": "piecewise", "margins": 3, "probabilities": [0.1]},
        {"kind": ["piecewise"]},
    ],
)
def test_a_calibration_that_is_none_is_refused(value):
    with pytest.raises(InvalidModelError):
        Calibration.from_dict(value)
