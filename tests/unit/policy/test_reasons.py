"""From contributions to at most four reasons; the catalogue behind them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.errors import ConfigurationError, ModelError
from fraudsdk.policy import ReasonCatalogue, ReasonTexts, principal_reasons

CATALOGUE = ReasonCatalogue.shipped()
CODES = (
    "AMT01 CAL01 VEL01 VEL02 VEL03 VEL04 VEL05 DEV01 REC01 REC02 REC03 GEO01 GEO02 RSK01 RSK02 RSK03 DVC01 DCL01 "
    "LND01 LND02 CAT01 CUS01 BLK01 RUL01 SCR01 FBK01"
).split()


def schema_of(*codes):
    features = tuple(FeatureInfo(f"f{i}", "velocity", code, "") for i, code in enumerate(codes))
    return FeatureSchema(features, "0" * 64)


def reasons(codes, contributions, values=None, **options):
    row = np.array(values if values is not None else range(len(codes)), dtype=np.float32)
    return principal_reasons([*contributions, -9.9], row, schema_of(*codes), CATALOGUE, **options)


def test_features_of_one_code_speak_once_with_their_sum():
    (reason,) = reasons(["VEL01", "VEL01", "VEL01"], [0.5, 1.0, -0.25])

    assert ("VEL01", 1.25) == (reason.code, reason.contribution)


def test_a_reason_names_its_heaviest_feature_and_that_features_value():
    (reason,) = reasons(["VEL01", "VEL01", "VEL01"], [0.5, 1.0, -3.0 + 2.0], values=[3.0, 7.0, 9.0])

    assert ("f1", 7.0) == (reason.feature, reason.value)


def test_a_missing_value_is_a_value():
    (reason,) = reasons(["VEL01"], [0.5], values=[math.nan])

    assert math.isnan(reason.value)


def test_a_group_that_pulls_down_on_the_whole_is_no_reason():
    assert () == reasons(["VEL01", "VEL01", "DEV01"], [1.0, -1.5, 0.0])


def test_the_weightiest_four_come_first():
    codes = ["AMT01", "VEL01", "DEV01", "GEO01", "DCL01"]

    found = reasons(codes, [0.1, 0.5, 0.3, 0.2, 0.4])

    assert ["VEL01", "DCL01", "DEV01", "GEO01"] == [reason.code for reason in found]


def test_equal_weights_come_in_the_order_of_their_codes_and_of_the_row():
    found = reasons(["VEL01", "AMT01", "AMT01"], [1.0, 0.5, 0.5])

    assert [("AMT01", "f1"), ("VEL01", "f0")] == [(reason.code, reason.feature) for reason in found]


def test_the_base_value_is_no_reason():
    schema = schema_of("VEL01")

    assert () == principal_reasons([0.0, 99.0], np.zeros(1, np.float32), schema, CATALOGUE)


@given(
    data=st.lists(st.tuples(st.sampled_from(CODES[:6]), st.floats(-5, 5)), min_size=1, max_size=20),
    limit=st.integers(1, 6),
)
def test_reasons_agree_with_a_naive_sum(data, limit):
    totals = {}
    for code, contribution in data:
        totals[code] = totals.get(code, 0.0) + contribution
    expected = sorted(((-total, code) for code, total in totals.items() if total > 0))[:limit]

    found = reasons([code for code, _ in data], [contribution for _, contribution in data], limit=limit)

    assert expected == [(-reason.contribution, reason.code) for reason in found]


@pytest.mark.parametrize("contributions", [[0.1], [0.1, 0.2, 0.3], [[0.1, 0.2]], [math.nan, 0.0], [0.0, math.inf]])
def test_contributions_that_are_not_one_finite_number_per_feature_are_refused(contributions):
    with pytest.raises(ModelError, match="contributions must be 2 finite numbers"):
        principal_reasons(contributions, np.zeros(1, np.float32), schema_of("VEL01"), CATALOGUE)


def test_the_shipped_catalogue_knows_every_code_of_the_contract():
    assert set(CODES) <= CATALOGUE.entries.keys()


@pytest.mark.parametrize("code", CATALOGUE.entries)
def test_a_customer_text_reveals_no_rule_threshold_score_list_or_number(code):
    entry = CATALOGUE.entries[code]

    assert re.fullmatch(r"[A-Z][^.]*\.", entry.customer_text)
    assert not re.search(r"\d|rule|score|model|threshold|list|fraud|block|launder|mule", entry.customer_text, re.I)


def test_a_feature_with_a_code_that_nobody_explains_stops_the_start():
    with pytest.raises(ConfigurationError, match=r"feature 'f0' has the reason 'VEL9', .* did you mean 'VEL\d+'"):
        principal_reasons([0.0, 0.0], np.zeros(1, np.float32), schema_of("VEL9"), CATALOGUE)


def test_a_policy_may_say_it_in_its_own_words_and_add_codes():
    own = CATALOGUE.with_texts({"VEL01": ReasonTexts("Eilig.", "Bitte warten."), "HOUSE1": ReasonTexts("a.", "b.")})

    assert ("Eilig.", "Bitte warten.") == (own.entries["VEL01"].text, own.entries["VEL01"].customer_text)
    assert "velocity" == own.entries["VEL01"].family
    assert "custom" == own.entries["HOUSE1"].family
    assert "Eilig." != CATALOGUE.entries["VEL01"].text


@pytest.mark.parametrize("texts", [("", "b."), ("a.", "  "), ("a.", None)])
def test_an_empty_text_is_refused(texts):
    with pytest.raises(ConfigurationError, match="must be a sentence"):
        ReasonTexts(*texts)
