"""
A small world to train on: cards that pay, some of which are taken over, with labels that arrive a week late.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.training.matrix import DAY_US, TrainingMatrix

START_US = 1_700_006_400_000_000  # 2023-11-15T00:00:00Z, a midnight
SCHEMA = FeatureSchema(
    (
        FeatureInfo("amount", "amount", "AMT01", "Amount in major units"),
        FeatureInfo("velocity", "velocity", "VEL02", "Transactions of the card in the last hour"),
        FeatureInfo("category", "category", "CAT01", "Merchant category code", categorical=True),
        FeatureInfo("noise", "custom", "CUS01", "Nothing at all"),
    ),
    "f" * 64,
)

MakeMatrix = Callable[..., TrainingMatrix]


def make_matrix(*, n: int = 6_000, days: int = 60, seed: int = 7, label_delay_days: int = 7) -> TrainingMatrix:
    generator = np.random.default_rng(seed)
    event_time_us = START_US + np.sort(generator.integers(0, days * DAY_US, n))
    category = generator.integers(0, 6, n)
    velocity = generator.poisson(2.0, n).astype(np.float32)
    amount = generator.lognormal(3.0, 1.0, n)
    log_odds = -6.5 + 0.9 * velocity + 0.012 * amount + 1.5 * (category == 3)
    label = (generator.random(n) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    noise = generator.normal(size=n).astype(np.float32)
    noise[generator.random(n) < 0.2] = np.nan
    return TrainingMatrix(
        rows=np.column_stack((amount, velocity, category, noise)).astype(np.float32),
        label=label,
        event_time_us=event_time_us,
        label_time_us=event_time_us + label_delay_days * DAY_US,
        card_key=generator.integers(1, 400, n),
        amount_major=amount,
        schema=SCHEMA,
        segments={"channel": np.array(["ecom" if c % 2 else "pos" for c in category], dtype=np.object_)},
    )


@pytest.fixture(name="make_matrix")
def _make_matrix() -> MakeMatrix:
    return make_matrix


@pytest.fixture(scope="session")
def matrix() -> TrainingMatrix:
    return make_matrix()
