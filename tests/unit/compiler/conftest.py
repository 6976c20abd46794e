"""A small real model to take apart, and writers of both formats that write anything they are told to."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost")

N_FEATURES = 6


def training_rows(n: int = 2_000, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Four numbers, a fifth of them missing, and two categorical columns of 3 and 12 codes."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    rows[:, 4] = rng.integers(0, 3, n)
    rows[:, 5] = rng.integers(0, 12, n)
    signal = np.nan_to_num(rows[:, 0]) + 2 * (rows[:, 5] % 3 == 1) + rng.normal(size=n) * 0.5
    return rows, (signal > 1).astype(np.float32)


def train(n_trees: int = 3, **parameters: Any) -> Any:
    rows, labels = training_rows()
    data = xgboost.DMatrix(
        rows,
        labels,
        feature_names=["amount", "age_days", "speed", "ratio", "channel", "mcc"],
        feature_types=["q"] * 4 + ["c"] * 2,
        enable_categorical=True,
    )
    return xgboost.train({"objective": "binary:logistic", "max_depth": 3, **parameters}, data, n_trees)


@pytest.fixture(scope="session")
def booster() -> Any:
    return train()


@pytest.fixture(scope="session")
def json_model(booster: Any) -> bytes:
    return bytes(booster.save_raw("json"))


@pytest.fixture(scope="session")
def ubj_model(booster: Any) -> bytes:
    return bytes(booster.save_raw("ubj"))


@pytest.fixture
def document(json_model: bytes) -> dict[str, Any]:
    return json.loads(json_model)


@pytest.fixture(scope="session")
def train_model() -> Callable[..., Any]:
    return train


def write_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def write_ubjson(value: Any) -> bytes:
    """UBJSON as XGBoost writes it, except that arrays are not typed."""
    if value is None:
        return b"Z"
    if value is True or value is False:
        return b"T" if value else b"F"
    if isinstance(value, int):
        return b"L" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"D" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"S" + _ubjson_text(value)
    if isinstance(value, list):
        return b"[#L" + struct.pack(">q", len(value)) + b"".join(map(write_ubjson, value))
    return b"{" + b"".join(_ubjson_text(key) + write_ubjson(item) for key, item in value.items()) + b"}"


def _ubjson_text(text: str) -> bytes:
    return b"L" + struct.pack(">q", len(text.encode())) + text.encode()


@pytest.fixture(scope="session", params=[write_json, write_ubjson], ids=["json", "ubjson"])
def write(request: pytest.FixtureRequest) -> Callable[[Any], bytes]:
    return request.param
