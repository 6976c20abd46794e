"""A small feature schema and a transaction that nothing is wrong with."""

from __future__ import annotations

import numpy as np
import pytest

from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.domain.transaction import Transaction
from fraudsdk.policy import Policy, PolicySpec

NOON_US = 1_795_428_000_000_000
FEATURES = (
    ("user_count_1h", "velocity", "VEL01"),
    ("user_amount_1h", "velocity", "VEL01"),
    ("card_count_5m", "velocity", "VEL02"),
    ("amount_zscore", "deviation", "DEV01"),
    ("user_speed_kmh", "geography", "GEO01"),
)


@pytest.fixture(scope="session")
def schema():
    return FeatureSchema(tuple(FeatureInfo(name, family, code, name) for name, family, code in FEATURES), "0" * 64)


@pytest.fixture(scope="session")
def make_transaction():
    def make(**changes):
        fields = {
            "transaction_id": "t-1",
            "event_time_us": NOON_US,
            "amount_minor": 1250,
            "currency": "GBP",
            "user_id": "u-1",
            "card_id": "c-1",
            "merchant_id": "m-1",
            "ip": "203.0.113.7",
            "mcc": "5411",
            "merchant_country": "GB",
            "card_country": "GB",
            "card_present": True,
        }
        return Transaction(**(fields | changes))

    return make


@pytest.fixture
def transaction(make_transaction):
    return make_transaction()


@pytest.fixture
def row():
    return np.array([1.0, 12.5, 1.0, 0.5, np.nan], dtype=np.float32)


@pytest.fixture
def explain():
    """An explainer that counts its calls: VEL01 weighs 1.5 (0.5 + 1.0), GEO01 0.7, DEV01 -0.4."""

    class Explain:
        n_calls = 0
        contributions = (0.5, 1.0, 0.0, -0.4, 0.7, -3.0)

        def __call__(self):
            self.n_calls += 1
            return np.array(self.contributions)

    return Explain()


@pytest.fixture
def decide(schema, transaction, row, explain):
    """Decide on the usual transaction under a spec made of the given parts."""

    def decide(score=0.01, *, txn=transaction, policy=None, explain=explain, **spec):
        policy = policy or Policy(PolicySpec(**spec), schema)
        return policy.decide(txn, row, -4.5, score, "reference/1", explain)

    return decide
