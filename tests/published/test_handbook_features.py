"""
The Handbook's published feature values, every one of them, from its raw transactions and a file of 15 lines.

`handbook.toml` and the shipped mapping are all there is: no code here computes a feature.  The one difference that is
allowed is the order of tied rows.  Upstream sorted a customer's transactions with an unstable sort, so that of two in
one second the later-numbered one sometimes came first; the four such pairs of these days are listed below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.spec import FeatureSet
from fraudsdk.training.replay import Replayed, replay

PUBLISHED = "fdh_transformed_features_2018-04-01_04-14_and_06-11_09-04.parquet"
REVERSED_TIES = ((121453, 121454), (1240489, 1240490), (1350833, 1350834), (1472490, 1472491))
REVERSED = np.array(REVERSED_TIES).ravel()

CALENDAR = ("TX_DURING_WEEKEND", "TX_DURING_NIGHT")
CUSTOMER_COUNTS = tuple(f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW" for days in (1, 7, 30))
CUSTOMER_MEANS = tuple(f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW" for days in (1, 7, 30))
TERMINAL = tuple(f"TERMINAL_ID_{what}_{days}DAY_WINDOW" for days in (1, 7, 30) for what in ("NB_TX", "RISK"))

# Upstream's running sums leave 1e-14 where a mean is zero; a float32 row holds seven digits.
RELATIVE, ABSOLUTE = 1e-6, 1e-9


@pytest.fixture(scope="module")
def published(read_published) -> dict[str, np.ndarray]:
    return read_published(PUBLISHED)


@pytest.fixture(scope="module")
def computed(handbook_replayed: Replayed, published: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replayed columns at the published transactions, in the published order."""
    place = np.argsort(transaction_numbers(handbook_replayed))
    at = place[published["TRANSACTION_ID"]]  # the raw file numbers its transactions from 0 without a gap
    return columns_at(handbook_replayed, at)


@pytest.fixture(scope="module")
def other_order(handbook_columns: dict[str, Any], handbook_features: FeatureSet) -> dict[str, np.ndarray]:
    """The reversed ties' own columns when their customers' rows are replayed with each tie the other way round."""
    customer = handbook_columns["user_id"]
    of_tied = np.flatnonzero(np.isin(customer, customer[REVERSED]))
    row = of_tied.copy()
    for one, other in REVERSED_TIES:
        row[np.searchsorted(of_tied, [one, other])] = other, one
    replayed = replay({name: values[row] for name, values in handbook_columns.items()}, handbook_features, Vocabulary())
    numbers = transaction_numbers(replayed)
    return columns_at(replayed, np.array([np.flatnonzero(numbers == tied)[0] for tied in REVERSED]))


def transaction_numbers(replayed: Replayed) -> np.ndarray:
    return replayed.encoded.transaction_ids.astype(np.int64)


def columns_at(replayed: Replayed, at: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(replayed.engine.schema.names, replayed.rows[at].T, strict=True))


def differing(computed: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Where a float32 column is not the nearest to the published double."""
    return computed != published.astype(np.float32)


def test_every_transaction_has_a_row_of_the_15_features_under_the_book_s_names(handbook_replayed, published):
    names = [name for name in published if name != "TRANSACTION_ID"]

    assert 958_030 == len(published["TRANSACTION_ID"])
    assert ("TX_AMOUNT", *names) == handbook_replayed.engine.schema.names
    assert {*CALENDAR, *CUSTOMER_COUNTS, *CUSTOMER_MEANS, *TERMINAL} == set(names)
    assert handbook_replayed.scored.all()
    assert not np.isnan(handbook_replayed.rows).any()


def test_the_feature_set_file_survives_being_written_and_read_again(handbook_features: FeatureSet):
    assert handbook_features == FeatureSet.from_toml(handbook_features.to_toml())


@pytest.mark.parametrize("name", [*CALENDAR, *TERMINAL])
def test_flags_terminal_counts_and_risks_are_equal_to_the_bit(computed, published, name):
    assert 0 == np.count_nonzero(differing(computed[name], published[name]))


@pytest.mark.parametrize("name", CUSTOMER_COUNTS)
def test_customer_counts_are_equal_to_the_bit_except_at_exactly_the_reversed_ties(computed, published, name):
    different = differing(computed[name], published[name])

    assert REVERSED.tolist() == sorted(published["TRANSACTION_ID"][different].tolist())


@pytest.mark.parametrize("name", CUSTOMER_MEANS)
def test_customer_means_are_equal_to_rounding_except_at_exactly_the_reversed_ties(computed, published, name):
    different = ~np.isclose(computed[name].astype(np.float64), published[name], rtol=RELATIVE, atol=ABSOLUTE)

    assert REVERSED.tolist() == sorted(published["TRANSACTION_ID"][different].tolist())


def test_the_reversed_ties_are_equal_in_the_other_order(other_order, published):
    at = np.array([np.flatnonzero(published["TRANSACTION_ID"] == tied)[0] for tied in REVERSED])

    for name in CUSTOMER_COUNTS:
        assert published[name][at].astype(np.float32).tolist() == other_order[name].tolist(), name
    for name in CUSTOMER_MEANS:
        assert published[name][at] == pytest.approx(other_order[name], rel=RELATIVE, abs=ABSOLUTE), name


def test_a_tie_counts_both_ways_round_exactly_once(computed, published):
    """Whichever comes first does not see the other; the second sees the first."""
    count = computed["CUSTOMER_ID_NB_TX_1DAY_WINDOW"]
    at = {int(number): place for place, number in enumerate(published["TRANSACTION_ID"])}

    for one, other in REVERSED_TIES:
        assert count[at[one]] + 1 == count[at[other]]
