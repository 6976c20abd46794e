"""A stream to consume: a feature set of 72 features over five entities, a model of it, and its transactions as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
from _models import Shelf, compile_with_features, train_catalogue

from fraudsdk.features.spec import Feature, FeatureSet

KEY = b"a key for tests only"
ENTITIES = ("user", "card", "merchant", "device", "ip")
_WINDOWED = (
    ("count", "10m"), ("count", "1h"), ("count", "24h"), ("count", "7d"), ("sum", "1h"), ("sum", "24h"), ("sum", "7d"),
    ("mean", "7d"), ("max", "24h"), ("ratio_to_mean", "7d"), ("ratio_to_max", "24h"), ("zscore", "7d"),
)  # fmt: skip


def seventy_features() -> FeatureSet:
    """12 windows of five entities, the time since each was last seen, and what a transaction says itself: 72."""
    windows = [
        Feature(f"{entity}_{aggregate}_{window}", aggregate, entity=entity, window=window)
        for entity in ENTITIES
        for aggregate, window in _WINDOWED
    ]
    lasts = [Feature(f"{entity}_last", "seconds_since_last", entity=entity) for entity in ENTITIES]
    own = [
        Feature("amount", "value", field="amount"),
        Feature("amount_log", "log", field="amount"),
        Feature("hour_sin", "hour_sin"),
        Feature("hour_cos", "hour_cos"),
        Feature("is_weekend", "is_weekend"),
        Feature("is_night", "is_night"),
        Feature("is_round", "round_amount", bound=50.0),
    ]
    return FeatureSet("stream", (*windows, *lasts, *own), currency="EUR", ring_cap=64)


def stream_model(shelf: Shelf, simulated: Any, out: Path) -> Path:
    """300 trees of depth 6 on those features, certified."""
    from fraudsdk.policy.spec import PolicySpec
    from fraudsdk.training.replay import replay

    replayed = replay(simulated.columns, seventy_features(), simulated.vocabulary, hash_key=KEY)
    return compile_with_features(
        train_catalogue(shelf, replayed), out, replayed.engine.feature_set, simulated.vocabulary, PolicySpec()
    )


def stream_columns(n: int, n_users: int = 20_000, seed: int = 21) -> dict[str, np.ndarray]:
    """Simulated transactions in the order of their time."""
    from fraudsdk.simulation import SimulationSpec, simulate

    return simulate(SimulationSpec(transactions=n, users=n_users, days=45, seed=seed))


def messages_of(transactions: list[dict[str, Any]]) -> list[tuple[bytes, bytes]]:
    """Keys and values, as a payment host produces them."""
    return [(str(each["user_id"]).encode(), orjson.dumps(each)) for each in transactions]
