"""
Tables that others published, and what a replay makes of them, once per session.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.spec import FeatureSet
from fraudsdk.training.replay import Replayed, replay

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
HANDBOOK_RAW = "fdh_raw_2018-04-01_2018-09-04.parquet"

Columns: TypeAlias = dict[str, np.ndarray]
ReadPublished: TypeAlias = Callable[[str], Columns]


@pytest.fixture(scope="session")
def read_published() -> ReadPublished:
    """Columns of a published table by its file name; skips where the tables are absent, fails there in CI."""
    pytest.importorskip("pyarrow", reason="reading Parquet needs fraudsdk[data]")
    from fraudsdk.training.tables import read_columns

    def read(name: str) -> Columns:
        path = DATA / name
        if not path.exists():
            message = f"{path} is absent: the published tables are not part of the repository"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
        return read_columns(path)

    return read


@pytest.fixture(scope="session")
def handbook_columns(read_published: ReadPublished) -> dict[str, Any]:
    """The raw transactions, through the shipped mapping."""
    return ColumnMapping.load("handbook").apply(read_published(HANDBOOK_RAW), currency="EUR")


@pytest.fixture(scope="session")
def handbook_features() -> FeatureSet:
    """The book's 15 features, as a file declares them."""
    return FeatureSet.load(Path(__file__).with_name("handbook.toml"))


@pytest.fixture(scope="session")
def handbook_replayed(handbook_columns: dict[str, Any], handbook_features: FeatureSet) -> Replayed:
    """All 1,504,628 transactions with the book's 15 features."""
    return replay(handbook_columns, handbook_features, Vocabulary())
