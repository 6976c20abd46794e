"""
Tables of other shapes run through the same replay and catalogue with nothing but a shipped mapping file.

Sparkov has places and card numbers but no devices; TabFormer has refunds, declines and amounts such as ``$-99.00``; the
Fraud Detector sample has addresses and labels for half of its rows, out of time order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pytest

from fraudsdk.domain import fields
from fraudsdk.encoding.encoder import LABEL_NEVER, LABEL_UNKNOWN
from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.training import metrics
from fraudsdk.training.matrix import DAY_US
from fraudsdk.training.replay import Replayed, replay

ReplayPublished: TypeAlias = Callable[[str, str], Replayed]

# Need nothing but an amount, a time and a user, which each of the tables has.
ALWAYS_THERE = (
    "amount", "amount_log", "hour_sin", "hour_cos", "is_weekend", "is_night", "day_of_month",
    "user_count_1m", "user_count_24h", "user_count_30d", "user_amount_24h", "user_merchant_is_new", "merchant_count_24h",
)  # fmt: skip
DEVICE = ("device_count_1h", "device_seconds_since_last", "user_device_is_new", "device_fraud_rate_30d")
PLACE = ("user_distance_from_last_km", "user_speed_kmh", "user_distance_from_centre_km", "distance_from_home_km")


@pytest.fixture(scope="module")
def replay_published(read_published) -> ReplayPublished:
    def replay_it(file: str, mapping: str) -> Replayed:
        columns = ColumnMapping.load(mapping).apply(read_published(file), currency="USD")
        return replay(columns, reference_feature_set("USD"), Vocabulary.fit(columns))

    return replay_it


@pytest.fixture(scope="module")
def sparkov(replay_published: ReplayPublished) -> Replayed:
    return replay_published("sparkov_gen_A_transactions.parquet", "sparkov")


@pytest.fixture(scope="module")
def tabformer(replay_published: ReplayPublished) -> Replayed:
    return replay_published("tabformer_user0_transactions.parquet", "tabformer")


@pytest.fixture(scope="module")
def fraud_detector(replay_published: ReplayPublished) -> Replayed:
    return replay_published("aws_afd_transaction_coldstart_1611.parquet", "aws_fraud_detector")


def column(replayed: Replayed, name: str) -> np.ndarray:
    return replayed.rows[:, replayed.engine.schema.names.index(name)]


def not_missing(replayed: Replayed, names: Sequence[str]) -> list[str]:
    """Those of the columns that hold a value anywhere."""
    return [name for name in names if not np.isnan(column(replayed, name)).all()]


def with_missing(replayed: Replayed, names: Sequence[str]) -> list[str]:
    """Those of the columns that lack a value anywhere."""
    return [name for name in names if np.isnan(column(replayed, name)).any()]


def flagged(replayed: Replayed, flag: int) -> np.ndarray:
    return (replayed.encoded.ints[:, fields.FLAGS] & flag) != 0


def identifier(replayed: Replayed, name: str) -> np.ndarray:
    return replayed.encoded.ints[:, fields.FIRST_IDENTIFIER + replayed.engine.record_layout.identifiers.index(name)]


def card_and_time(replayed: Replayed) -> np.ndarray:
    return np.column_stack((identifier(replayed, "card_id"), replayed.encoded.ints[:, fields.EVENT_TIME_US]))


def test_each_table_is_scored_to_the_last_row_with_its_labels(sparkov, tabformer, fraud_detector):
    matrices = [replayed.matrix() for replayed in (sparkov, tabformer, fraud_detector)]

    assert [572_204, 19_963, 1_611] == [len(matrix) for matrix in matrices]
    assert [4_235, 27, 95] == [matrix.n_frauds for matrix in matrices]
    assert [0, 0, 801] == [int((matrix.label == LABEL_UNKNOWN).sum()) for matrix in matrices]


def test_no_row_holds_an_infinity(sparkov, tabformer, fraud_detector):
    for replayed in (sparkov, tabformer, fraud_detector):
        assert not np.isinf(replayed.rows).any()


def test_what_every_table_can_answer_is_answered_in_every_row(sparkov, tabformer, fraud_detector):
    for replayed in (sparkov, tabformer, fraud_detector):
        assert [] == with_missing(replayed, ALWAYS_THERE)


def test_a_column_that_a_table_lacks_is_missing_and_not_zero(sparkov, tabformer, fraud_detector):
    assert [] == not_missing(sparkov, [*DEVICE, "ip_count_1h", "balance", "distance_from_home_km", "mcc_code"])
    assert [] == not_missing(tabformer, [*DEVICE, *PLACE, "ip_count_1h", "balance", "channel_code"])
    assert [] == not_missing(fraud_detector, [*DEVICE, *PLACE, "card_count_1h", "balance", "mcc_code"])


def test_places_and_categories_of_sparkov_reach_the_row(sparkov):
    distance_km, code = column(sparkov, "user_distance_from_last_km"), column(sparkov, "channel_code")

    # A degree around home both ways: no two of one user's merchants are further apart.
    assert 0 < np.nanmedian(distance_km) < np.nanmax(distance_km) < 400
    # Only the first purchase of a user has no place before it.
    assert len(np.unique(identifier(sparkov, "user_id"))) == np.isnan(distance_km).sum()
    assert 14 == len(np.unique(code)) and code.min() >= 1


def test_negative_amounts_of_tabformer_are_refunds(tabformer):
    refunds = flagged(tabformer, fields.REFUND)
    seen = column(tabformer, "user_refund_count_30d")
    times_us = tabformer.encoded.ints[refunds, fields.EVENT_TIME_US]
    at = int(np.flatnonzero(refunds)[-1])
    t_us = tabformer.encoded.ints[at, fields.EVENT_TIME_US]

    assert 650 == refunds.sum()
    assert (tabformer.encoded.ints[:, fields.AMOUNT_MINOR] >= 0).all()
    assert np.count_nonzero((times_us > t_us - 30 * DAY_US) & (times_us < t_us)) == seen[at]


def test_a_refund_is_not_counted_among_purchases(tabformer):
    """The count of a minute, this one included, is zero at a refund that stands alone and one at a lone purchase."""
    refunds, since_s = flagged(tabformer, fields.REFUND), column(tabformer, "user_seconds_since_last")
    count = column(tabformer, "user_count_1m")

    assert {0.0} == set(count[refunds & (since_s > 60)].tolist())
    assert {1.0} == set(count[~refunds & (since_s > 60)].tolist())


def test_declines_of_tabformer_are_counted_on_the_card(tabformer):
    assert 574 == flagged(tabformer, fields.DECLINED).sum()
    assert column(tabformer, "user_declined_24h").max() > 1


def test_rows_of_one_card_and_second_both_count(sparkov):
    """34 rows of Sparkov share card and second with another: the later one sees the earlier."""
    keys = card_and_time(sparkov)
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    tied = np.flatnonzero((keys[order][1:] == keys[order][:-1]).all(axis=1))
    first, second = order[tied], order[tied + 1]

    assert 17 == len(tied)
    for name in ("card_count_1m", "card_count_24h", "card_count_7d"):
        assert (column(sparkov, name)[first] + 1).tolist() == column(sparkov, name)[second].tolist()
    assert not column(sparkov, "card_seconds_since_last")[second].any()


def test_rows_of_one_card_and_minute_all_count_in_tabformer(tabformer):
    """167 rows share card and minute, three of them one minute."""
    each, count, refunds = (
        card_and_time(tabformer),
        column(tabformer, "card_count_1m"),
        flagged(tabformer, fields.REFUND),
    )
    keys, counts = np.unique(each, axis=0, return_counts=True)

    assert 167 == counts[counts > 1].sum()
    assert 3 == counts.max()
    for key, n in zip(keys[counts > 1], counts[counts > 1], strict=True):
        at = np.flatnonzero((each == key).all(axis=1))
        own, purchases = count[at], ~refunds[at]
        assert n == len(own)
        assert np.diff(own, prepend=own[0] - purchases[0]).tolist() == purchases.astype(float).tolist()


def test_a_row_without_a_label_teaches_nothing(fraud_detector):
    unlabelled = fraud_detector.matrix().label == LABEL_UNKNOWN

    assert (fraud_detector.label_time_us[unlabelled] == LABEL_NEVER).all()
    assert (fraud_detector.label_time_us[~unlabelled] != LABEL_NEVER).all()


def test_rows_out_of_order_are_replayed_in_order(fraud_detector):
    times_us = fraud_detector.encoded.ints[:, fields.EVENT_TIME_US]

    assert (np.diff(times_us) >= 0).all()
    assert (np.diff(fraud_detector.order) < 0).any()


def test_a_model_of_sparkov_s_first_three_fifths_finds_the_frauds_of_the_rest(sparkov):
    """Easy data: amount, hour and category alone reach 0.987.  A catalogue that fell below 0.95 would be broken."""
    pytest.importorskip("xgboost")
    from fraudsdk.training.train import TrainParams, fit_trees, margins

    matrix = sparkov.matrix()
    first_us, last_us = int(matrix.event_time_us[0]), int(matrix.event_time_us[-1])
    cut_us = first_us + (last_us - first_us) * 3 // 5
    train = np.flatnonzero(matrix.label_time_us <= cut_us)  # whose label was known when the model was made
    test = matrix.take(np.flatnonzero(matrix.event_time_us > cut_us))
    params = TrainParams(num_boost_round=50, early_stopping_rounds=None, max_depth=4, max_bin=256)
    trees = fit_trees(matrix.rows[train], matrix.label[train], matrix.schema, params)
    margin = margins(trees.booster, test.rows, test.schema).astype(np.float64)

    assert 0.95 < metrics.roc_auc(test.label, margin)
    assert 0.5 < metrics.average_precision(test.label, margin)  # by chance: 0.007
