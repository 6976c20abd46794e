from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.errors import ConfigurationError
from fraudsdk.training.matrix import DAY_US, NEVER_US, UNKNOWN, TrainingMatrix
from fraudsdk.training.split import (
    SplitTimes,
    Unlabelled,
    labels_as_of,
    labels_with_hindsight,
    prequential_folds,
    split_by_time,
)

SCHEMA = FeatureSchema((FeatureInfo("x", "custom", "CUS01", "x"),), "0" * 64)


def matrix_of(rows: list[tuple[int, int, int, int]]) -> TrainingMatrix:
    """From (event day, label, label day or NEVER_US, card)."""
    rows = sorted(rows)
    day, label, label_day, card = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return TrainingMatrix(
        rows=np.zeros((len(rows), 1), np.float32),
        label=label.astype(np.int8),
        event_time_us=day * DAY_US,
        label_time_us=np.where(label_day == NEVER_US, NEVER_US, np.minimum(label_day, 10**6) * DAY_US),
        card_key=card,
        amount_major=np.ones(len(rows)),
        schema=SCHEMA,
    )


def test_the_youngest_stretch_of_training_holds_more_than_its_frauds():
    """
    Genuine transactions are confirmed late, frauds reported early: leaving out what is not known yet would keep only frauds.
    """
    rows = [(day, int(card == 0), day + (2 if card == 0 else 45), card) for day in range(30) for card in range(4)]

    split = split_by_time(matrix_of(rows), TIMES, horizon_us=7 * DAY_US, unlabelled=Unlabelled.EXCLUDED)

    assert 40 == len(split.train)
    assert 10 == split.train_label.sum()


TIMES = SplitTimes(0, 10 * DAY_US, 17 * DAY_US, 20 * DAY_US, 27 * DAY_US, 30 * DAY_US)

transactions = st.lists(
    st.integers(0, 29).flatmap(
        lambda day: st.tuples(
            st.just(day),
            st.sampled_from([-1, 0, 1]),
            st.one_of(st.integers(day, day + 20), st.just(NEVER_US)),
            st.integers(0, 5),
        )
    ),
    min_size=1,
    max_size=60,
)


@given(transactions, st.integers(0, 12), st.sampled_from(Unlabelled))
def test_a_fit_sees_what_a_naive_observer_knew_and_nothing_else(rows, horizon_days, unlabelled):
    # The twin, written for obviousness: ask of each transaction what was known on the day.
    matrix = matrix_of(rows)
    split = split_by_time(matrix, TIMES, horizon_us=horizon_days * DAY_US, unlabelled=unlabelled)
    for interval, index, labels, moment in (
        (range(10), split.train, split.train_label, 17),
        (range(17, 20), split.validation, split.validation_label, 27),
    ):
        expected = []
        for i, (day, label, label_day, _) in enumerate(sorted(rows)):
            if day not in interval:
                continue
            if label != UNKNOWN and label_day <= moment:
                expected.append((i, label))
            elif (unlabelled is Unlabelled.GENUINE_AFTER_HORIZON or label != UNKNOWN) and day + horizon_days <= moment:
                expected.append((i, 0))

        assert expected == list(zip(index.tolist(), labels.tolist(), strict=True))


@given(transactions)
def test_no_transaction_is_in_two_parts_and_none_crosses_a_border(rows):
    matrix = matrix_of(rows)
    split = split_by_time(matrix, TIMES)
    together = np.concatenate((split.train, split.validation, split.test))

    assert len(together) == len(set(together.tolist()))
    assert (matrix.event_time_us[split.train] < TIMES.train_end_us).all()
    assert (matrix.event_time_us[split.test] >= TIMES.test_start_us).all()


@given(transactions, st.integers(0, 40))
def test_a_label_that_arrives_later_changes_nothing_that_was_known(rows, as_of_day):
    # Given two histories that differ only in labels not yet known at the moment
    matrix = matrix_of(rows)
    later = matrix.label_time_us > as_of_day * DAY_US
    other = replace(matrix, label=np.where(later, 1 - np.abs(matrix.label), matrix.label).astype(np.int8))

    before, after = (labels_as_of(m, as_of_day * DAY_US, horizon_us=7 * DAY_US) for m in (matrix, other))

    assert before.tolist() == after.tolist()


def test_a_fraud_reported_after_the_fit_is_genuine_to_it_and_counted():
    matrix = matrix_of([(1, 1, 18, 1), (2, 1, 9, 2), (3, 0, 10, 3)])
    split = split_by_time(matrix, TIMES)

    assert [0, 1, 0] == split.train_label.tolist()
    assert 1 == split.n_late_frauds


def test_silence_within_the_horizon_is_left_out():
    matrix = matrix_of([(1, 0, NEVER_US, 1), (9, 0, NEVER_US, 2)])
    split = split_by_time(matrix, TIMES, horizon_us=10 * DAY_US)

    assert [0] == split.train.tolist()
    assert 1 == split.n_train_excluded


def test_fractions_leave_the_gaps_out():
    matrix = matrix_of([(day, 0, day, 1) for day in range(100)])
    times = SplitTimes.by_fractions(matrix, train=0.5, validation=0.25, gap_us=7 * DAY_US)

    assert 7 * DAY_US == times.validation_start_us - times.train_end_us
    assert 7 * DAY_US == times.test_start_us - times.validation_end_us
    assert 42 == times.train_end_us // DAY_US
    assert 99 * DAY_US + 1 == times.test_end_us


@pytest.mark.parametrize(
    ("days", "options", "says"),
    [
        (10, {}, "span 9.0 days, of which the label delay takes 14.0"),
        (100, {"train": 0.9, "validation": 0.2}, "were 0.9 and 0.2"),
        (100, {"gap_us": -1}, "must be >= 0 us"),
    ],
)
def test_a_split_that_cannot_be_made_says_why(days, options, says):
    with pytest.raises(ConfigurationError, match=says):
        SplitTimes.by_fractions(matrix_of([(day, 0, day, 1) for day in range(days)]), **options)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ((0, 0, 1, 2, 3, 4), "train interval must not be empty"),
        ((0, 5, 4, 6, 7, 8), "validation must not start before"),
    ],
)
def test_intervals_out_of_order_are_refused(times, says):
    with pytest.raises(ConfigurationError, match=says):
        SplitTimes(*times)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0, 1]), st.integers(0, 6)), min_size=30, max_size=200))
def test_a_fold_is_the_book_s_loop_over_days(rows):
    # The twin follows get_train_test_set of the book line by line.
    matrix = matrix_of([(day, label, day, card) for day, label, card in rows])
    day, label, card = matrix.event_time_us // DAY_US, matrix.label, matrix.card_key
    train = [i for i in range(len(matrix)) if day[i] < 7]
    known = {int(card[i]) for i in train if label[i] == 1}
    test = []
    for k in range(7):
        known |= {int(card[i]) for i in range(len(matrix)) if day[i] == 7 + k - 1 and label[i] == 1}
        test += [i for i in range(len(matrix)) if day[i] == 14 + k and (card[i] == 0 or int(card[i]) not in known)]
    if not train or not test:
        with pytest.raises(ConfigurationError, match="train and"):
            prequential_folds(matrix, 0, n_folds=1)
        return

    (fold,) = prequential_folds(matrix, 0, n_folds=1)

    assert train == fold.train.tolist()
    assert test == fold.test.tolist()


def test_further_folds_start_a_week_earlier_each():
    matrix = matrix_of([(day, 0, day, 1) for day in range(60)])
    folds = prequential_folds(matrix, 30 * DAY_US, n_folds=3)

    assert [30, 23, 16] == [fold.start_us // DAY_US for fold in folds]


def test_a_fold_outside_the_data_is_refused():
    with pytest.raises(ConfigurationError, match="cover the whole fold"):
        prequential_folds(matrix_of([(day, 0, day, 1) for day in range(20)]), 90 * DAY_US, n_folds=1)


def test_silence_means_genuine_only_beside_frauds_alone():
    assert Unlabelled.GENUINE_AFTER_HORIZON is Unlabelled.of(np.array([1, -1, 1], np.int8))
    assert Unlabelled.EXCLUDED is Unlabelled.of(np.array([1, -1, 0], np.int8))


def test_a_feed_of_frauds_is_measured_against_the_silence_around_them():
    # Given a fraud of day 10 that was reported on day 17, and silence before and after it
    matrix = matrix_of([(2, -1, NEVER_US, 1), (10, -1, NEVER_US, 2), (10, 1, 17, 3), (11, -1, NEVER_US, 4)])
    label = labels_with_hindsight(matrix, horizon_us=7 * DAY_US, unlabelled=Unlabelled.GENUINE_AFTER_HORIZON)

    # Then what is younger than the horizon on the last day that anything is known of stays open
    assert [0, 0, 1, UNKNOWN] == label.tolist()


def test_a_quick_report_is_not_measured_among_transactions_too_young_for_silence():
    """
    With it, the youngest week would hold frauds and nothing else.
    """
    matrix = matrix_of([(2, -1, NEVER_US, 1), (19, 1, 19, 2), (20, -1, NEVER_US, 3)])
    label = labels_with_hindsight(matrix, horizon_us=7 * DAY_US, unlabelled=Unlabelled.GENUINE_AFTER_HORIZON)

    assert [0, UNKNOWN, UNKNOWN] == label.tolist()


def test_excluded_silence_stays_unknown_with_hindsight():
    matrix = matrix_of([(2, -1, NEVER_US, 1), (3, 0, 50, 2), (4, 1, 60, 3)])
    label = labels_with_hindsight(matrix, horizon_us=DAY_US, unlabelled=Unlabelled.EXCLUDED)

    assert [UNKNOWN, 0, 1] == label.tolist()
