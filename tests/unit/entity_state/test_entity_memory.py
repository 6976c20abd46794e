"""Memory is bounded: the least recently used is forgotten, chunks are used again, and what was lost is counted."""

from __future__ import annotations

import numpy as np
import pytest
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.domain import fields as record
from fraudsdk.entity_state import memory as memory_module
from fraudsdk.entity_state.layout import META_BUMP, StateLayout
from fraudsdk.entity_state.memory import EntityMemory
from fraudsdk.errors import ConfigurationError
from fraudsdk.features.spec import Feature, FeatureSet

SECOND_US = 10**6
HOUR_US = 3_600 * SECOND_US
NEW_USERS = FeatureSet("new", (Feature("is_new", "is_new", entity="user"),))
# A ring, tiles, distinct keys and their sketch: every sort of chunk.
EVERY_CHUNK = FeatureSet(
    "chunks",
    (
        Feature("n", "count", entity="user", window="24h"),
        Feature("spent", "sum", entity="user", window="1h"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="1h"),
    ),
    ring_cap=8,
    allowed_lateness="0s",
)


@pytest.fixture(autouse=True)
def small_pool(monkeypatch):
    monkeypatch.setattr(memory_module, "FIRST_POOL_WORDS", 1 << 16)


def purchase(i, user, **more):
    return Event(f"t{i}", 10**15 + i * SECOND_US, texts={"user_id": user, **more})


def is_new(driver, i, user):
    return driver.values(purchase(i, user))["is_new"] == 1.0


def test_the_least_recently_used_entity_is_forgotten_and_counted():
    driver = Driver(NEW_USERS, max_entities=68)
    for i in range(60):
        driver.observe(purchase(i, f"u{i}"))
    driver.observe(purchase(60, "u0"))  # used again: now u1 is the least recently used

    for i in range(61, 75):
        driver.observe(purchase(i, f"u{i}"))

    counters = driver.engine.memory.counters()
    assert not is_new(driver, 75, "u0")
    assert is_new(driver, 76, "u1")
    assert counters["evicted_entities"] + counters["entities"] == 60 + 14
    assert counters["entities"] <= 68


def test_a_forgotten_entity_takes_its_windows_with_it():
    driver = Driver(EVERY_CHUNK, max_entities=68)
    driver.observe(purchase(0, "u0"))
    assert 1.0 == driver.values(purchase(1, "u0"), record=False)["n"]

    for i in range(1, 80):
        driver.observe(purchase(i, f"u{i}"))

    assert 0.0 == driver.values(purchase(80, "u0"))["n"]


def test_the_pool_stops_growing_when_two_hundred_thousand_entities_stream_through():
    """
    Chunks of forgotten entities are handed out again, whatever they held.
    """
    driver = Driver(EVERY_CHUNK, max_entities=1_000)
    n, rng = 240_000, np.random.default_rng(7)
    ints = np.zeros((n, driver.engine.record_layout.n_ints), dtype=np.int64)
    ints[:, record.EVENT_TIME_US] = 10**15 + np.arange(n) * SECOND_US
    ints[:, record.AMOUNT_MINOR] = 100
    ints[:, record.FLAGS] = record.AUTHORISATION
    ints[:, record.TRANSACTION_KEY] = rng.integers(1, 2**62, n)
    # Most users come once; one in six events is of a busy user, whose ring and merchants overflow, for ten minutes each.
    users = np.where(np.arange(n) % 6 == 0, 1 + np.arange(n) // 600, rng.integers(10**6, 2**62, n))
    for column, name in enumerate(driver.engine.record_layout.identifiers, start=record.FIRST_IDENTIFIER):
        ints[:, column] = users if name == "user_id" else rng.integers(1, 2**62, n)
    numbers = np.zeros((n, len(driver.engine.record_layout.numbers)))
    used = []
    for part in np.array_split(np.arange(n), 4):
        driver.engine.replay(ints[part], numbers[part])
        used.append(int(driver.engine.memory.meta[META_BUMP]))

    counters = driver.engine.memory.counters()
    assert counters["evicted_entities"] > 190_000
    assert counters["tile_ladders"] > 300
    assert counters["distinct_counts_sketched"] > 300
    assert used[1] == used[2] == used[3]


def test_a_full_journal_forgets_the_oldest_transaction():
    driver = Driver(NEW_USERS, journal_capacity=3)
    for i in range(4):
        driver.observe(purchase(i, "u"))

    assert not driver.label("t0", is_fraud=True)
    assert driver.label("t1", is_fraud=True)
    assert 1 == driver.engine.memory.counters()["labels_for_forgotten_transactions"]


def test_a_reversal_of_a_forgotten_transaction_is_counted_and_undoes_nothing():
    driver = Driver(EVERY_CHUNK)
    driver.observe(purchase(0, "u"))

    driver.observe(Event("r", 10**15, kind="reversal", original="never seen", texts={"user_id": "u"}))

    assert 1.0 == driver.values(purchase(1, "u"))["n"]
    assert 1 == driver.engine.memory.counters()["reversals_that_undid_nothing"]


def test_late_events_and_duplicates_are_counted():
    driver = Driver(EVERY_CHUNK)
    driver.observe(purchase(7_200 * 24, "u"))
    driver.observe(purchase(7_200 * 24 - 1, "u"))  # late, and within the windows
    driver.observe(purchase(0, "u"))  # two days late, where 24 hours are kept
    driver.observe(purchase(0, "u"))

    counters = driver.engine.memory.counters()
    assert (2, 1, 1, 3) == tuple(
        counters[name] for name in ("late_events", "dropped_late_events", "duplicates", "events")
    )


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"max_entities": 10}, "max_entities must be at least 68 for this feature set, was 10; raise it"),
        ({"journal_capacity": 0}, "journal_capacity must be at least 1, was 0; raise it"),
    ],
)
def test_a_memory_too_small_to_work_is_refused(bounds, words):
    with pytest.raises(ConfigurationError, match=words):
        Driver(NEW_USERS, **bounds)


def test_growing_keeps_every_word_where_it_was():
    memory = EntityMemory(
        StateLayout.build((), ring_cap=8, allowed_lateness_us=0), max_entities=100, journal_capacity=1
    )
    memory.pool[8:20] = np.arange(12)
    memory.meta[META_BUMP] = 20
    before = len(memory.pool)

    memory.grow()

    assert 2 * before == len(memory.pool)
    assert list(range(12)) == memory.pool[8:20].tolist()


def test_a_head_of_one_cache_line_lies_in_one():
    """
    NumPy's own arrays begin 16 bytes into a line, and every chunk would lie in one line more than it fills.
    """
    memory = EntityMemory(
        StateLayout.build((), ring_cap=8, allowed_lateness_us=0), max_entities=100, journal_capacity=1
    )

    first = memory.pool.__array_interface__["data"][0]
    memory.grow()

    assert (0, 0) == (first % 64, memory.pool.__array_interface__["data"][0] % 64)


def test_an_entity_costs_its_head_alone_where_no_feature_reads_more():
    driver = Driver(NEW_USERS)
    for i in range(100):
        driver.observe(purchase(i, f"u{i}"))

    assert 64 <= driver.engine.memory.counters()["state_bytes"] / 100 <= 65


def test_the_entity_that_a_transaction_names_is_not_the_one_that_is_forgotten_for_it():
    driver = Driver(NEW_USERS, max_entities=68)
    for i in range(68):
        driver.observe(purchase(i, f"u{i}"))
    event = purchase(68, "u0")

    assert driver.values(event, record=False) == driver.values(event) == {"is_new": 0.0}
    assert 0 == driver.engine.memory.counters()["evicted_entities"]


def test_an_entity_that_was_met_once_keeps_its_one_event_in_the_smallest_chunk():
    """
    Most pairs of a user and a merchant are met once or twice: room for more events was an eighth of all memory.
    """
    spent = FeatureSet("spent", (Feature("spent", "sum", entity="user", window="1h"),))
    driver = Driver(spent)
    for i in range(100):
        driver.observe(purchase(i, f"u{i}"))

    head_bytes, smallest_chunk_bytes = 128, 64
    each = driver.engine.memory.counters()["state_bytes"] / 100
    assert head_bytes + smallest_chunk_bytes <= each <= head_bytes + smallest_chunk_bytes + 1


def test_pages_are_supplied_before_they_are_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(memory_module, "populate", lambda address, n_bytes: asked.append((address, n_bytes)) or True)
    monkeypatch.setattr(memory_module, "FIRST_POOL_WORDS", 1 << 26)
    remembered = Driver(NEW_USERS).engine.memory
    assert remembered.is_short_of_pages

    remembered.supply_pages()

    assert not remembered.is_short_of_pages
    start, n_bytes = asked[0]
    assert start == remembered.pool.ctypes.data + 8 * int(remembered.meta[META_BUMP])
    # In use up to where little is left: the next pages follow those that are there.
    remembered.meta[META_BUMP] += n_bytes // 8 - memory_module._SHORT_WORDS[0] + 1
    assert remembered.is_short_of_pages
    remembered.supply_pages()
    assert asked[2][0] == start + n_bytes
    assert not remembered.is_short_of_pages


def test_a_system_that_supplies_no_pages_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(memory_module, "populate", lambda address, n_bytes: asked.append(address) or False)
    remembered = Driver(NEW_USERS).engine.memory
    remembered.supply_pages()

    assert not remembered.is_short_of_pages
    remembered.supply_pages()
    assert 2 == len(asked)
