"""
One kernel online and offline: the same rows and the same memory, byte for byte.

And reading leaves no trace, so that an unrecorded answer is the answer that will be recorded.
"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin.comparison import Driver
from twin.events import Event
from twin.streams import HOUR_US, feature_set, stream

from fraudsdk.domain.fields import TRANSACTION_KEY
from fraudsdk.entity_state import memory
from fraudsdk.features import engine as engine_module
from fraudsdk.features import kernels
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.engine import Recorded

SEEDS = st.integers(0, 2**32 - 1)


def random_case(seed):
    """A feature set with small rings, events in arrival order, and labels (row, value, time) by time."""
    random = Random(seed)
    features = feature_set(random, n_features=8, ring_cap=8)
    events = [step[1] for step in stream(random, 150, crowded=random.random() < 0.5) if step[0] == "observe"]
    labels = [
        (row, int(random.random() < 0.5), event.time_us + random.choice((0, 1, HOUR_US, 5 * HOUR_US)))
        for row, event in enumerate(events)
        if random.random() < 0.3
    ]
    return features, events, sorted(labels, key=lambda label: label[2])


def online(features, events, labels):
    """Observe one by one; a label is delivered before the first event that is not earlier than it."""
    driver = Driver(features)
    rows, statuses, waiting = [], [], list(labels)
    for event in events:
        while waiting and waiting[0][2] <= event.time_us:
            row, value, _ = waiting.pop(0)
            driver.label(events[row].transaction, is_fraud=bool(value))
        status, row = driver.observe(event)
        rows.append(row)
        statuses.append(status)
    return driver, np.array(rows), np.array(statuses, dtype=np.int8)


def replayed(features, events, labels):
    driver = Driver(features)
    rows, statuses = driver.engine.replay(*driver.encode(events), **_arrays(labels))
    return driver, rows, statuses


def replayed_in_batches(features, events, labels):
    """The same rows, each batch copied before the next takes its place."""
    driver = Driver(features)
    parts = [
        (rows.copy(), statuses.copy())
        for _, rows, statuses in driver.engine.replay_batches(*driver.encode(events), **_arrays(labels))
    ]
    return driver, np.concatenate([rows for rows, _ in parts]), np.concatenate([statuses for _, statuses in parts])


def _arrays(labels):
    return {
        "label_rows": np.array([label[0] for label in labels], dtype=np.int64),
        "label_values": np.array([label[1] for label in labels], dtype=np.int8),
        "label_times_us": np.array([label[2] for label in labels], dtype=np.int64),
    }


@settings(max_examples=40, print_blob=True, deadline=None)
@given(seed=SEEDS, chunk=st.sampled_from((1, 7, 64, 65_536)), replayed=st.sampled_from((replayed, replayed_in_batches)))
def test_a_replay_in_chunks_leaves_the_bytes_that_observing_one_by_one_leaves(seed, chunk, replayed):
    case = random_case(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FIRST_POOL_WORDS", 1 << 16)
        one_by_one, expected_rows, expected_statuses = online(*case)
        patch.setattr(memory, "FIRST_POOL_WORDS", 0)
        patch.setattr(engine_module, "REPLAY_CHUNK", chunk)
        at_once, rows, statuses = replayed(*case)

    assert expected_statuses.tolist() == statuses.tolist()
    assert expected_rows.tobytes() == rows.tobytes()
    assert one_by_one.memory_bytes() == at_once.memory_bytes()


def test_a_pool_that_must_grow_in_the_middle_of_a_replay_changes_no_byte(monkeypatch):
    events = [
        Event(f"t{i}", 10**15 + i * 10**6, texts={"user_id": f"u{i % 700}", "merchant_id": f"m{i % 90}"})
        for i in range(3_000)
    ]
    roomy, expected_rows, _ = replayed(reference_feature_set(), events, [])
    monkeypatch.setattr(memory, "FIRST_POOL_WORDS", 0)

    cramped, rows, _ = replayed(reference_feature_set(), events, [])

    first_words = 2 * cramped.engine.plan.state.worst_words
    assert len(cramped.engine.memory.pool) >= 2 * first_words
    assert expected_rows.tobytes() == rows.tobytes()
    assert roomy.memory_bytes() == cramped.memory_bytes()


@settings(max_examples=40, print_blob=True, deadline=None)
@given(seed=SEEDS)
def test_reading_leaves_every_byte_as_it_was_and_gives_the_row_that_will_be_recorded(seed):
    features, events, _ = random_case(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FIRST_POOL_WORDS", 1 << 10)
        driver = Driver(features)
    for event in events:
        before = driver.memory_bytes()
        _, read = driver.observe(event, record=False)

        assert before == driver.memory_bytes()
        status, recorded = driver.observe(event)
        assert status != kernels.SCORED or read.tobytes() == recorded.tobytes()


def test_a_label_of_a_transaction_that_arrives_later_is_lost_and_counted():
    features, events, _ = random_case(3)
    too_early = [(len(events) - 1, 1, min(event.time_us for event in events))]

    driver, _, _ = replayed(features, events, too_early)

    assert 1 == driver.engine.memory.counters()["labels_for_forgotten_transactions"]


def test_a_duplicate_of_a_replayed_transaction_gets_the_verdict_that_was_kept_with_it():
    features, events, _ = random_case(5)
    driver, _, statuses = replayed(features, events, [])
    scored = next(i for i, status in enumerate(statuses) if status == kernels.SCORED)
    row = np.zeros(driver.engine.n_features, dtype=np.float32)
    ints, numbers = driver.encode([events[scored]])
    key = int(ints[0, TRANSACTION_KEY])
    status, journal_row = driver.engine.observe(ints, numbers, row, record=True)

    driver.engine.keep_verdict(journal_row, key, Recorded(margin=-1.5, score=0.18, verdict=7))
    driver.engine.keep_verdict(journal_row, key + 1, Recorded(margin=9.0, score=1.0, verdict=9))
    _, again = driver.engine.observe(ints, numbers, row, record=True)

    assert kernels.DUPLICATE == status
    assert Recorded(margin=-1.5, score=0.18, verdict=7) == driver.engine.verdict_of(again, key)
    assert 0 == driver.engine.verdict_of(again, key + 1).verdict
