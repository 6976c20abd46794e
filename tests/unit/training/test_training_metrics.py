from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.errors import ConfigurationError
from fraudsdk.training import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")

# Few distinct scores, so that ties are the rule.
scored = st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 12)), min_size=2, max_size=80)


def columns(rows):
    label, score = zip(*rows, strict=True)
    return np.array(label, np.int8), np.array(score, np.float64) / 12


@given(scored)
def test_auc_and_average_precision_are_scikit_learn_s(rows):
    label, score = columns(rows)
    if label.min() == label.max():
        assert math.isnan(metrics.roc_auc(label, score))
        return

    assert sklearn_metrics.roc_auc_score(label, score) == pytest.approx(metrics.roc_auc(label, score), abs=1e-12)
    assert sklearn_metrics.average_precision_score(label, score) == pytest.approx(
        metrics.average_precision(label, score), abs=1e-12
    )


@given(scored)
def test_brier_is_scikit_learn_s(rows):
    label, score = columns(rows)

    assert sklearn_metrics.brier_score_loss(label, score) == pytest.approx(metrics.brier_score(label, score))


@given(scored, st.integers(0, 12))
def test_a_threshold_stops_what_a_loop_would_stop(rows, threshold):
    label, score = columns(rows)
    amount = np.arange(1.0, len(label) + 1)
    stopped = [i for i in range(len(label)) if score[i] >= threshold / 12]
    caught = [i for i in stopped if label[i] == 1]
    point = metrics.at_threshold(metrics.RankingCurve.of(label, score, amount), threshold / 12, n_days=2)

    assert len(stopped) == point.alerts
    assert len(stopped) / 2 == point.alerts_per_day
    assert (len(caught) / label.sum() if label.any() else math.nan) == pytest.approx(point.recall, nan_ok=True)
    assert (len(caught) / len(stopped) if stopped else math.nan) == pytest.approx(point.precision, nan_ok=True)
    fraud_amount = amount[label == 1].sum()
    assert (amount[caught].sum() / fraud_amount if fraud_amount else math.nan) == pytest.approx(
        point.value_detection, nan_ok=True
    )


@given(scored, st.floats(0, 1))
def test_recall_at_a_false_positive_rate_is_the_best_of_all_thresholds_that_keep_it(rows, rate_max):
    label, score = columns(rows)
    if label.min() == label.max():
        return
    n_genuine, best = (label == 0).sum(), 0.0
    for threshold in set(score.tolist()):
        if (score[label == 0] >= threshold).sum() <= rate_max * n_genuine:
            best = max(best, (score[label == 1] >= threshold).mean())
    point = metrics.at_false_positive_rate(metrics.RankingCurve.of(label, score), rate_max, n_days=1)

    assert best == pytest.approx(point.recall)
    assert point.false_positive_rate <= rate_max + 1e-12


def test_a_false_positive_rate_that_the_first_tie_exceeds_stops_nothing():
    label, score = np.array([1, 0, 0], np.int8), np.array([0.9, 0.9, 0.1])
    point = metrics.at_false_positive_rate(metrics.RankingCurve.of(label, score), 0.1, n_days=1)

    assert (math.inf, 0, 0.0) == (point.threshold, point.alerts, point.recall)


def naive_card_precision(label, score, card, day, k):
    """The book's loop: one dictionary of cards a day."""
    per_day, gone = [], set()
    for today in sorted(set(day.tolist())):
        cards = {}
        for i in range(len(label)):
            if day[i] == today and card[i] != 0 and card[i] not in gone:
                highest, fraud = cards.get(card[i], (-math.inf, 0))
                cards[card[i]] = (max(highest, score[i]), max(fraud, label[i]))
        called = sorted(cards, key=lambda c: (-cards[c][0], c))[:k]
        found = [c for c in called if cards[c][1] == 1]
        per_day.append(len(found) / k)
        gone |= set(found)
    return per_day


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1]), st.integers(0, 8), st.integers(0, 9), st.integers(0, 4)),
        min_size=1,
        max_size=120,
    ),
    st.integers(1, 6),
)
def test_card_precision_is_the_book_s(rows, k):
    label, score, card, day = (np.array(column) for column in zip(*rows, strict=True))
    if not card.any():
        return
    days_with_cards = set(day[card != 0].tolist())
    expected = naive_card_precision(label, score, card, day, k)
    expected = [p for p, today in zip(expected, sorted(set(day.tolist())), strict=True) if today in days_with_cards]
    result = metrics.card_precision_at_k(label.astype(np.int8), score.astype(float), card, day, k)

    assert expected == list(result.per_day)
    assert np.mean(expected) == pytest.approx(result.mean)
    assert result.mean <= 1.0


def test_a_detected_card_is_not_found_again():
    label, score = np.array([1, 1, 0, 1], np.int8), np.array([0.9, 0.9, 0.5, 0.1])
    card, day = np.array([5, 5, 6, 7]), np.array([0, 1, 1, 1])

    assert (1.0, 0.0) == metrics.card_precision_at_k(label, score, card, day, k=1).per_day
    assert (1.0, 1.0) == metrics.card_precision_at_k(label, score, card, day, k=1, drop_detected=False).per_day


def test_a_perfect_ranking_is_bounded_by_the_compromised_cards_there_are():
    label, score = np.array([1, 0, 0, 0], np.int8), np.array([0.1, 0.2, 0.3, 0.4])
    result = metrics.card_precision_at_k(label, score, np.array([1, 2, 3, 4]), np.zeros(4, np.int64), k=2)

    assert (0.0, 0.5, (1,)) == (result.mean, result.mean_max, result.compromised_per_day)


def test_reliability_counts_every_transaction_once_and_a_true_score_has_no_error():
    generator = np.random.default_rng(3)
    score = generator.beta(0.3, 3.0, 40_000)
    label = (generator.random(40_000) < score).astype(np.int8)
    bins = metrics.reliability(label, score)

    assert 40_000 == sum(b.n for b in bins)
    assert metrics.expected_calibration_error(bins) < 0.005
    assert metrics.expected_calibration_error(metrics.reliability(label, np.minimum(2 * score, 1.0))) > 0.05


def test_a_score_of_one_has_a_bin():
    bins = metrics.reliability(np.array([1, 0], np.int8), np.array([1.0, 0.0]))

    assert [(0.0, 1), (0.9, 1)] == [(b.lower, b.n) for b in bins]


def test_wilson_s_interval_is_the_textbook_s():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 0 of 20.
    assert (0.2553, 0.3662) == pytest.approx(metrics.wilson_interval(81 / 263, 263), abs=5e-5)
    assert (0.0, 0.1611) == pytest.approx(metrics.wilson_interval(0.0, 20), abs=5e-5)


def test_the_interval_by_card_is_wider_than_by_transaction_when_cards_hang_together():
    # Given 40 cards whose 50 transactions share one score and one label
    generator = np.random.default_rng(1)
    card = np.repeat(np.arange(1, 41), 50)
    label = np.repeat(generator.integers(0, 2, 40), 50).astype(np.int8)
    score = np.repeat(generator.normal(size=40), 50) + label

    by_card = metrics.bootstrap_by_card(label, score, card)["auc"]
    by_transaction = metrics.bootstrap_by_card(label, score, np.zeros(2_000, np.int64))["auc"]

    assert by_card.high - by_card.low > 2 * (by_transaction.high - by_transaction.low)
    assert by_card.low <= metrics.roc_auc(label, score) <= by_card.high


def test_a_resample_is_weighed_as_the_repeated_rows_would_be():
    # One card, drawn once in every resample: the interval is the figure itself.
    label, score = np.array([1, 0, 1, 0], np.int8), np.array([0.9, 0.8, 0.3, 0.3])
    interval = metrics.bootstrap_by_card(label, score, np.ones(4, np.int64))["average_precision"]

    assert interval.low == interval.high == pytest.approx(metrics.average_precision(label, score))


def test_rare_segment_values_are_pooled():
    values = np.array(["a"] * 5 + ["b"] * 3 + ["c", "d", None], dtype=np.object_)
    label = np.array([1, 0] * 5 + [1], np.int8)
    rows = metrics.segment_table(
        "channel", values, label, np.linspace(0, 1, 11), np.ones(11), threshold=0.5, n_days=1, n_values_max=3
    )

    assert [("a", 5), ("b", 3), ("(other)", 3)] == [(row.value, row.n) for row in rows]
    assert label.sum() == sum(row.n_frauds for row in rows)


@pytest.mark.parametrize(
    ("label", "score", "says"),
    [
        ([], [], "at least 1"),
        ([0, 1], [0.5], "of one length"),
        ([0, -1], [0.5, 0.5], "label must be 0 or 1"),
        ([0, 1], [0.5, math.nan], "1 are not"),
    ],
)
def test_what_cannot_be_measured_is_refused(label, score, says):
    with pytest.raises(ConfigurationError, match=says):
        metrics.roc_auc(np.array(label, np.int8), np.array(score, np.float64))


def test_a_margin_in_place_of_a_score_is_refused():
    with pytest.raises(ConfigurationError, match="not the margin"):
        metrics.brier_score(np.array([0, 1], np.int8), np.array([-2.0, 3.0]))
