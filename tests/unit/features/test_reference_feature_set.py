"""The shipped catalogue: broad, described, and with names that models can rely on."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from fraudsdk.features.catalogue import reference_feature_set

REFERENCE = reference_feature_set()
NAMES = Path(__file__).with_name("reference_feature_names.txt")
FAMILIES = {
    *(
        "amount",
        "calendar",
        "velocity",
        "deviation",
        "recency",
        "geography",
        "risk",
        "device",
        "declines",
        "laundering",
    ),
}


def test_the_catalogue_has_at_least_seventy_features_in_ten_families():
    families = Counter(feature.family for feature in REFERENCE.features)

    assert len(REFERENCE.features) >= 70
    assert FAMILIES | {"category"} == set(families)
    assert all(families[family] >= 3 for family in FAMILIES)


@pytest.mark.parametrize("feature", REFERENCE.features, ids=lambda feature: feature.name)
def test_every_feature_is_described_and_has_a_reason_code(feature):
    assert len(feature.description) > 5
    assert re.fullmatch(r"[A-Z]{3}\d{2}", feature.reason)


def test_names_and_their_order_stay_as_they_were_published():
    """
    Models, policies and dashboards name features: whoever changes this list tells the owners of all three.
    """
    published = NAMES.read_text(encoding="utf-8").split()

    assert published == list(REFERENCE.names)


def test_codes_are_said_to_be_categorical():
    categorical = {info.name for info in REFERENCE.schema.features if info.categorical}

    assert {"channel_code", "entry_mode_code", "mcc_code", "merchant_country_code", "three_ds_code"} == categorical


def test_a_limit_and_the_filter_just_under_it_agree():
    (under,) = REFERENCE.filters

    assert len(under.between) == len(REFERENCE.limits)
    for (low, high), limit in zip(under.between, REFERENCE.limits, strict=True):
        assert 0.9 * limit == low
        assert round(limit - 0.01, 2) == round(high, 2)
