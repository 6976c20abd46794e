"""What benchmarks share: trained models, and where they are kept between runs."""

from __future__ import annotations

import os

# Before anything imports them: the libraries size their thread pools once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[variable] = "1"

import pytest
from _models import Shelf
from peers import windows


@pytest.fixture(scope="session")
def shelf(request: pytest.FixtureRequest) -> Shelf:
    return Shelf(request.config.cache.mkdir("fraudsdk-bench"))


@pytest.fixture(scope="session")
def events() -> windows.Events:
    """A month of the Handbook's transactions."""
    return windows.handbook_events(300_000)
