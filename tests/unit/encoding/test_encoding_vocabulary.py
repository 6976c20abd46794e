"""
A vocabulary is frozen when a model is trained: 0 is unknown, NaN is absent.
"""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.encoding import Vocabulary
from fraudsdk.encoding.vocabulary import MAX_VALUES
from fraudsdk.errors import ConfigurationError, InvalidTransactionError


def test_values_are_ordered_by_count_and_then_by_name():
    vocabulary = Vocabulary.fit({"channel": ["web", "pos", "atm", "pos", None, "", "web"]})

    assert ("pos", "web", "atm") == vocabulary.values["channel"]
    assert {"pos": 1.0, "web": 2.0, "atm": 3.0} == vocabulary.codes("channel")


@given(st.lists(st.sampled_from(["pos", "web", "atm", None])), st.integers())
def test_the_order_of_the_rows_does_not_matter(column, seed):
    shuffled = random.Random(seed).sample(column, len(column))

    assert Vocabulary.fit({"channel": column}).fingerprint == Vocabulary.fit({"channel": shuffled}).fingerprint


def test_values_are_learnt_in_the_spelling_they_are_encoded_in():
    columns = {"channel": ["POS", "pos "], "mcc": np.array([742, 5411]), "merchant_country": ["GBR", "826", "GB", "US"]}
    vocabulary = Vocabulary.fit(columns)

    assert {"channel": ("pos",), "mcc": ("0742", "5411"), "merchant_country": ("GB", "US")} == vocabulary.values


def test_only_categories_and_declared_fields_are_learnt():
    columns = {"user_id": ["u-1"], "tier": ["Gold"], "colour": ["red"]}

    assert {"tier": ("Gold",)} == Vocabulary.fit(columns, fields=("tier",)).values


def test_the_rarest_values_beyond_the_cap_stay_unknown():
    column = [f"c{i:05}" for i in range(MAX_VALUES + 10)] + ["c04100"]
    values = Vocabulary.fit({"channel": column}).values["channel"]

    assert MAX_VALUES == len(values)
    assert "c04100" == values[0] and "c04101" not in values
    assert ("c04100", "c00000") == Vocabulary.fit({"channel": column}, limit=2).values["channel"]


def test_it_survives_json_with_the_same_fingerprint():
    vocabulary = Vocabulary.fit({"channel": ["pos", "wéb"], "currency": ["EUR"]})
    revived = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))

    assert vocabulary.fingerprint == revived.fingerprint
    assert vocabulary.fingerprint != Vocabulary({"channel": ("wéb", "pos"), "currency": ("EUR",)}).fingerprint


@pytest.mark.parametrize(
    "values",
    [
        {"channel": ["a", "a"]},
        {"channel": [""]},
        {"channel": [1]},
        {"channel": "ab"},
        ["channel"],
        {"channel": ["x"] * 5000},
    ],
)
def test_what_is_no_vocabulary_is_refused(values):
    with pytest.raises(ConfigurationError):
        Vocabulary.from_dict(values)


def test_a_wrong_value_is_named_by_its_row():
    with pytest.raises(InvalidTransactionError, match="in row 2"):
        Vocabulary.fit({"mcc": ["5411", "5411", "food", "5411"]})
