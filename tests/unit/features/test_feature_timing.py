"""
How long each feature takes is counted by computing it once more, which nobody may notice.
"""

from __future__ import annotations

import math
import time
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin.comparison import VOCABULARY, Driver
from twin.events import Event
from twin.streams import feature_set, stream

from fraudsdk._ticks import TICK_SHIFT
from fraudsdk.features import kernels, timing_kernels
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.features.plan import OP_COLUMN
from fraudsdk.features.spec import Feature, FeatureSet
from fraudsdk.features.timing import FeatureTimes
from fraudsdk.telemetry.histogram import MAX_NS_AT, N_WORDS

SEEDS = st.integers(0, 2**32 - 1)
SECOND_US = 10**6
FEATURES = FeatureSet(
    "timed",
    (
        Feature("amount", "value", field="amount"),
        Feature("mean", "mean", entity="user", window="30d"),
        Feature("sum", "sum", entity="user", window="30d"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="1h"),
        Feature("share", "ratio", of=("amount", "sum")),
    ),
    ring_cap=8,
)


def random_case(seed):
    """A feature set with small rings, and events in arrival order: duplicates, reversals and chargebacks among them."""
    random = Random(seed)
    features = feature_set(random, n_features=8, ring_cap=8)
    return features, [step[1] for step in stream(random, 80, crowded=random.random() < 0.5) if step[0] == "observe"]


def event(i, user="u"):
    return Event(f"t{i}", 10**15 + i * SECOND_US, texts={"user_id": user, "merchant_id": f"m{i % 7}"})


@settings(max_examples=30, print_blob=True, deadline=None)
@given(seed=SEEDS)
def test_timing_changes_nothing_that_is_remembered_and_no_later_row(seed):
    features, events = random_case(seed)
    timed, untimed = Driver(features), Driver(features)
    for each in events:
        status, row = timed.observe(each)
        memory, kept = timed.memory_bytes(), row.tobytes()
        timed.engine.time_features()

        assert memory == timed.memory_bytes()
        assert kept == row.tobytes()
        expected_status, expected = untimed.observe(each)
        assert (expected_status, expected.tobytes()) == (status, kept)
    assert untimed.memory_bytes() == timed.memory_bytes()


@settings(max_examples=30, print_blob=True, deadline=None)
@given(seed=SEEDS)
def test_each_feature_computed_alone_is_the_feature_of_the_row(seed):
    features, events = random_case(seed)
    driver = Driver(features)
    times = FeatureTimes(driver.engine.plan)
    for each in events:
        status, row = driver.observe(each, record=False)
        if status == kernels.SCORED:
            times.take(driver.engine.context)

            assert row.tobytes() == times.row.tobytes()
        driver.observe(each)


@settings(max_examples=10, print_blob=True, deadline=None)
@given(seed=SEEDS)
def test_timing_does_not_change_where_a_value_is_said_to_come_from(seed):
    features, events = random_case(seed)
    driver = Driver(features)
    for each in events:
        driver.observe(each)
        expected = driver.provenance(each)
        driver.engine.time_features()

        assert expected == driver.provenance(each)


@pytest.mark.parametrize(
    "features",
    [FEATURES, reference_feature_set(), FeatureSet("stateless", (Feature("amount", "value", field="amount"),))],
)
def test_every_feature_is_counted_once_per_timed_transaction_in_the_order_of_the_row(features):
    driver = Driver(features)
    for i in range(20):
        driver.observe(event(i))
        driver.engine.time_features()
    latencies = driver.engine.feature_latencies()

    assert list(features.names) == list(latencies)
    assert {20} == {latency.n for latency in latencies.values()}


def test_before_the_first_transaction_there_is_nothing_to_time():
    engine = FeatureEngine(FEATURES, VOCABULARY, max_entities=100, journal_capacity=100)

    engine.time_features()

    assert all(latency.n == 0 and math.isnan(latency.p50_us) for latency in engine.feature_latencies().values())


def test_the_features_together_take_no_longer_than_the_call_that_timed_them():
    driver = Driver(reference_feature_set())
    for i in range(300):
        driver.observe(event(i))
    driver.engine.warm_up()

    started_ns = time.perf_counter_ns()
    driver.engine.time_features()
    whole_us = (time.perf_counter_ns() - started_ns) / 1e3

    assert sum(latency.max_us for latency in driver.engine.feature_latencies().values()) <= whole_us


def test_reading_windows_is_charged_to_the_features_that_read_them_and_to_no_other():
    """
    A user whose month is in tiles takes long to read; one never seen has nothing to read.
    """
    known, new = Driver(FEATURES), Driver(FEATURES)
    for i in range(400):
        known.observe(event(i))
        new.observe(event(i, user=f"u{i}"))
        if i >= 300:
            known.engine.time_features()
            new.engine.time_features()
    of_known, of_new = known.engine.feature_latencies(), new.engine.feature_latencies()

    assert min(of_known["mean"].p50_us, of_known["sum"].p50_us) > 2 * max(of_new["mean"].p50_us, of_new["sum"].p50_us)
    assert min(of_known["mean"].p50_us, of_known["sum"].p50_us) > 2 * of_known["amount"].p50_us
    assert min(of_known["mean"].p50_us, of_known["sum"].p50_us) > 2 * of_known["share"].p50_us


def test_a_transaction_that_does_not_name_the_entity_is_not_charged_for_the_windows_of_the_last_one():
    driver = Driver(FEATURES)
    for i in range(300):
        driver.observe(event(i))
    driver.engine.time_features()
    for i in range(300, 400):
        driver.observe(event(i, user=""))
        driver.engine.time_features()
    latencies = driver.engine.feature_latencies()

    assert latencies["mean"].max_us > 2 * latencies["mean"].p50_us
    assert latencies["sum"].max_us > 2 * latencies["sum"].p50_us


def test_what_windows_took_is_shared_evenly_by_the_features_that_read_them():
    plan = FeatureEngine(FEATURES, VOCABULARY, max_entities=100, journal_capacity=100).plan
    user = plan.state.names.index("user")
    reading = np.zeros((len(plan.state.names), timing_kernels.READING_FIELDS), dtype=np.int64)
    reading[user] = 2, 44_000
    own_ticks = plan.ops[:, OP_COLUMN] * 1_000 + 1_000
    words = np.zeros((len(plan.ops), N_WORDS), dtype=np.int64)

    timing_kernels.count_times(plan.ops, own_ticks, reading, 1 << TICK_SHIFT, words)

    assert [1_000, 2_000 + 22_000, 3_000 + 22_000, 4_000, 5_000] == words[:, MAX_NS_AT].tolist()


def test_counters_of_two_cores_that_differ_do_not_make_a_time_negative():
    plan = FeatureEngine(FEATURES, VOCABULARY, max_entities=100, journal_capacity=100).plan
    reading = np.full((len(plan.state.names), timing_kernels.READING_FIELDS), -50, dtype=np.int64)
    words = np.zeros((len(plan.ops), N_WORDS), dtype=np.int64)

    timing_kernels.count_times(plan.ops, np.full(len(plan.ops), -50), reading, 1 << TICK_SHIFT, words)

    assert [1] * len(plan.ops) == words[:, 0].tolist()
