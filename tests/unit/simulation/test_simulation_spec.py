"""What may be asked of the simulator, and what it says when the request cannot be met."""

from datetime import date

import pytest

from fraudsdk.errors import ConfigurationError
from fraudsdk.simulation import PATTERNS, SimulationSpec


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("transactions", 10, "transactions must be a whole number from 200"),
        ("transactions", 10**9, "20,000,000"),
        ("transactions", 1e6, "was 1000000.0"),
        ("transactions", True, "was True"),
        ("users", 3, "users must be a whole number from 20"),
        ("days", 1, "days must be a whole number from 7"),
        ("seed", -1, "was -1"),
        ("fraud_rate", 0.5, "between 0 and 0.2, was 0.5"),
        ("fraud_rate", float("nan"), "was nan"),
        ("start", date(1066, 10, 14), "was 1066-10-14"),
        ("currency", "euro", "ISO 4217"),
        ("fraud_mix", {"phishing": 1.0}, "'phishing'"),
        ("fraud_mix", {"mule": -1.0}, "shares >= 0"),
        ("fraud_mix", {"mule": 0.0}, "positive sum"),
        ("fraud_mix", {}, "positive sum"),
        ("genuine_confirmed_after_days", 1_000, "from 0 to 365"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_with_its_value(field, value, words):
    with pytest.raises(ConfigurationError, match=words):
        SimulationSpec(**{field: value})


def test_the_default_mix_asks_for_every_pattern_and_adds_up_to_the_fraud_rate():
    spec = SimulationSpec(transactions=1_000_000, fraud_rate=0.01)

    asked = [spec.fraud_rows(pattern) for pattern in PATTERNS[1:]]

    assert min(asked) > 0
    assert 10_000 == pytest.approx(sum(asked), abs=len(asked))


def test_a_request_does_not_change_with_the_mapping_it_was_made_from():
    mix = {"mule": 1.0}
    spec = SimulationSpec(fraud_mix=mix)
    mix["layering"] = 9.0

    assert 0 == spec.fraud_rows("layering")
