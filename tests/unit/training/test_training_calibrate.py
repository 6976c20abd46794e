from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.model.calibration import Calibration
from fraudsdk.training import calibrate
from fraudsdk.training.metrics import expected_calibration_error, reliability

pytest.importorskip("sklearn")


def sample(distort, *, n=40_000, seed=5):
    """Labels drawn with log-odds `distort(margin)`, so that this is the calibration to be found."""
    generator = np.random.default_rng(seed)
    margin = generator.normal(-3.0, 2.0, n)
    label = (generator.random(n) < 1 / (1 + np.exp(-distort(margin)))).astype(np.int8)
    return margin, label, generator.integers(1, 4_000, n)


def test_margins_that_are_log_odds_keep_their_sigmoid():
    assert "identity" == calibrate.fit_calibration(*sample(lambda margin: margin)).chosen


def test_margins_off_by_scale_and_shift_get_platt_s_two_parameters():
    margin, label, card = sample(lambda margin: 0.5 * margin - 1.0)
    fit = calibrate.fit_calibration(margin, label, card)

    assert "platt" == fit.chosen
    probe = np.array([-4.0, 0.0, 3.0])
    assert 1 / (1 + np.exp(-(0.5 * probe - 1.0))) == pytest.approx(fit.calibration.probabilities_of(probe), rel=0.15)


def test_a_bend_that_two_parameters_cannot_follow_gets_knots():
    margin, label, card = sample(lambda margin: np.where(margin > -2.0, -0.5, -4.0))
    fit = calibrate.fit_calibration(margin, label, card)

    assert "isotonic" == fit.chosen
    assert fit.log_loss["isotonic"] < fit.log_loss["platt"] < fit.log_loss["identity"]
    assert expected_calibration_error(reliability(label, fit.calibration.probabilities_of(margin))) < 0.01


def test_a_gain_within_its_own_noise_changes_nothing():
    # In this sample Platt's parameters lower the held-out log loss, by less than the standard error of the gain.
    generator = np.random.default_rng(12)
    margin = generator.normal(-3, 2, 3_000)
    label = (generator.random(3_000) < 1 / (1 + np.exp(-margin))).astype(np.int8)
    fit = calibrate.fit_calibration(margin, label, generator.integers(1, 400, 3_000))

    assert fit.log_loss["platt"] < fit.log_loss["identity"]
    assert "identity" == fit.chosen


def test_too_few_frauds_keep_the_sigmoid():
    margin, label, card = np.linspace(-3, 3, 100), np.zeros(100, np.int8), np.arange(100)
    label[:5] = 1

    assert Calibration.identity() == calibrate.fit_calibration(margin, label, card).calibration


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["platt", "isotonic"]), st.sampled_from([2, 30, 400]))
def test_a_calibration_is_monotone_and_never_certain_where_it_has_seen_margins(seed, kind, n_distinct):
    generator = np.random.default_rng(seed)
    margin = generator.integers(-5, n_distinct, 400) / 7.0
    label = (generator.random(400) < 0.2).astype(np.int8)
    calibration = calibrate._CANDIDATES[kind](margin, label)
    seen = calibration.probabilities_of(np.linspace(margin.min(), margin.max(), 1_001))
    everywhere = calibration.probabilities_of(np.linspace(-1e6, 1e6, 1_001))

    assert (np.diff(seen) >= 0).all() and (np.diff(everywhere) >= 0).all()
    assert 0.0 < seen.min() and seen.max() < 1.0
    assert len(calibration.margins) <= 256


def test_one_card_or_none_does_not_stop_the_comparison():
    margin, label, _ = sample(lambda margin: 0.5 * margin, n=5_000)
    for card in (np.ones(5_000, np.int64), np.zeros(5_000, np.int64)):
        assert np.isfinite(list(calibrate.fit_calibration(margin, label, card).log_loss.values())).all()
