"""The store in memory keeps the promises of a `StateStore`; Redis does so in ``tests/integration/redis``."""

from __future__ import annotations

import pytest

from fraudsdk.entity_state.store import MemoryStore
from fraudsdk.testing.contracts import StateStoreContract


class TestMemoryStore(StateStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore()

    @pytest.fixture
    def another(self):
        return MemoryStore()
