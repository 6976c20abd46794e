"""What the readers are fed: state of a few entities, small, and with everything that an entity can have."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator

import numpy as np
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.entity_state import memory as memory_module
from fraudsdk.entity_state.memory import EntityMemory
from fraudsdk.entity_state.state_directory import StateIdentity
from fraudsdk.features.spec import Feature, FeatureSet

FEATURES = FeatureSet(
    "fuzzed",
    (
        Feature("n", "count", entity="user", window="1h"),
        Feature("spread", "std", entity="user", window="10m", field="amount"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="1h"),
        Feature("decayed", "decayed_sum", entity="merchant", field="amount", half_life="1h"),
        Feature("far", "distance_from_last_km", entity="user"),
        Feature("unusual", "hour_deviation", entity="user"),
        Feature("pair", "count", entity="user+merchant", window="1h"),
    ),
    ring_cap=8,
)
IDENTITY = StateIdentity.of(b"record", b"state", b"a key of sixteen bytes")
MAX_ENTITIES = 200
JOURNAL_CAPACITY = 16
# A memory is made, or emptied, for each input: as small as it can be.
memory_module.FIRST_POOL_WORDS = 0


class Violation(AssertionError):
    """A reader broke its promise."""


def events(n: int, *, users: int = 2, merchants: int = 90, seed: int = 1) -> Iterator[Event]:
    draw, time_us = random.Random(seed), 10**15
    for i in range(n):
        time_us += draw.choice((0, 10**6, 20 * 10**6))
        yield Event(
            f"t{i}",
            time_us,
            texts={"user_id": f"u{i % users}", "merchant_id": f"m{draw.randrange(merchants)}"},
            numbers={"amount": draw.randrange(900) / 4, "latitude": draw.uniform(-80, 80), "longitude": 2.0},
        )


def driver() -> Driver:
    return Driver(FEATURES, max_entities=MAX_ENTITIES, journal_capacity=JOURNAL_CAPACITY)


@functools.cache
def driver_after(n: int, merchants: int = 90) -> Driver:
    """Nobody changes it."""
    filled = driver()
    for event in events(n, merchants=merchants):
        filled.observe(event)
    return filled


class Emptied:
    """A driver that is emptied for each input, which takes less than making one."""

    def __init__(self) -> None:
        self.driver = driver()
        self._meta = self.memory.meta.copy()

    @property
    def memory(self) -> EntityMemory:
        return self.driver.engine.memory

    def emptied(self) -> Driver:
        memory = self.memory
        for array in (memory.pool, memory.table, memory.journal, memory.journal_index):
            array.fill(0)
        memory.meta[:] = self._meta
        return self.driver


def require_nothing_beyond(memory: EntityMemory, n_words: int) -> None:
    """Nothing was ever written where nothing was claimed."""
    if np.count_nonzero(memory.pool[n_words:]):
        raise Violation(f"something was written beyond word {n_words} of the pool")
