"""The calibration inside the scoring kernel gives the bits of `Calibration.probability`."""

from __future__ import annotations

import math
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk._jit import kernel
from fraudsdk.model.calibration import Calibration
from fraudsdk.scorer.kernels import probability

MARGINS = st.one_of(st.floats(width=32), st.floats(-20, 20))


@kernel("float64(float64, float64[::1])")
def probability_of(margin, table):
    return probability(margin, table)


def bits(x: float) -> bytes:
    return b"missing" if math.isnan(x) else struct.pack("d", x)


@settings(deadline=None)  # the first compiles
@given(MARGINS, st.floats(0.01, 10), st.floats(-5, 5))
def test_the_sigmoid_and_platts(margin, slope, intercept):
    for calibration in (Calibration.identity(), Calibration.platt(slope, intercept)):
        assert bits(calibration.probability(margin)) == bits(probability_of(margin, calibration.table()))


@settings(deadline=None)  # the first compiles
@given(
    MARGINS,
    st.dictionaries(st.floats(-20, 20), st.floats(0, 1), min_size=1, max_size=12),
)
def test_the_piecewise_map_inside_and_outside_its_knots(margin, knots):
    calibration = Calibration.piecewise(sorted(knots), sorted(knots.values()))
    table = calibration.table()

    for each in (margin, *knots):
        assert bits(calibration.probability(each)) == bits(probability_of(each, table))
