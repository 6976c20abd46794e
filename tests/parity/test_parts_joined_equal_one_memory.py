"""
Several writers, each with its own events: whichever reads what all of them know reads what one that saw everything would.

The oracle is the engine that is written for obviousness; what is compared, and how closely, is as for a single memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin.comparison import Driver, Pair
from twin.events import Event
from twin.streams import DAY_US, START_US, feature_set, stream

from fraudsdk.entity_state import memory
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.features import kernels
from fraudsdk.features.spec import Feature, FeatureSet

SEEDS = st.integers(0, 2**32 - 1)
CODEC = PartCodec(b"what the writers agree on")


def examples(n: int) -> settings:
    """A failure prints the blob that reproduces it; the seed is in the message."""
    return settings(max_examples=n, print_blob=True, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def small_pools():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FIRST_POOL_WORDS", 1 << 10)
        yield


class Writers:
    """As a `Driver`, but each event goes to one of several; who reads takes up what others have changed since."""

    def __init__(self, features: FeatureSet, n: int, random: Random) -> None:
        self.drivers = [Driver(features) for _ in range(n)]
        for each in self.drivers:
            each.engine.memory.tell_changes(1_000)
            each.engine.adopt_memory()
        self.engine = self.drivers[0].engine
        self.reader = self.drivers[0]
        self.n_joined = 0
        self._random = random
        self._writer_of: dict[object, int] = {}
        self._changes: dict[int, list[int]] = {}  # of each key, how often each writer changed it
        self._taken: dict[tuple[int, int], list[int]] = {}

    def observe(self, event: Event, *, record: bool = True) -> tuple[int, np.ndarray]:
        writer = self._choose(event)
        self.reader = self.drivers[writer]
        for key in self._keys_of(event):
            self._take_up(writer, key)
        answer = self.reader.observe(event, record=record)
        self._note_changes(writer)
        return answer

    def provenance(self, event: Event):
        return self.reader.provenance(event)

    def label(self, transaction: str, *, is_fraud: bool) -> bool:
        return self._tell(transaction, lambda driver: driver.label(transaction, is_fraud=is_fraud))

    def answered(self, transaction: str, *, declined: bool) -> bool:
        return self._tell(transaction, lambda driver: driver.answered(transaction, declined=declined))

    def _choose(self, event: Event) -> int:
        """Whose event it is: of two at one time one writer's, or it could not be said which came first."""
        for known_as in (event.transaction, event.original, event.time_us):
            if known_as in self._writer_of:
                writer = self._writer_of[known_as]
                break
        else:
            writer = self._random.randrange(len(self.drivers))
        self._writer_of.setdefault(event.transaction, writer)
        self._writer_of.setdefault(event.time_us, writer)
        return writer

    def _keys_of(self, event: Event) -> list[int]:
        self.reader.observe(event, record=False)
        return [int(key) for key in self.reader.engine._keys[:, kernels.KEY] if key != 0]

    def _take_up(self, writer: int, key: int) -> None:
        changes = [n for other, n in enumerate(self._changes.get(key, ())) if other != writer]
        if self._taken.get((writer, key), [0] * len(changes)) == changes or not any(changes):
            return
        parts = [CODEC.pack(each.engine.memory, np.array([key]), 0)[0] for each in self.drivers]
        said = CODEC.take_up(self.drivers[writer].engine.memory, key, parts, writer)
        assert {Taken.TAKEN} == set(said)
        self.drivers[writer].engine.adopt_memory()
        self._taken[writer, key] = changes
        self.n_joined += 1

    def _tell(self, transaction: str, tell) -> bool:
        writer = self._writer_of.get(transaction, 0)
        known = tell(self.drivers[writer])
        self._note_changes(writer)
        return known

    def _note_changes(self, writer: int) -> None:
        for key in self.drivers[writer].engine.memory.take_changes().tolist():
            self._changes.setdefault(key, [0] * len(self.drivers))[writer] += 1


def first_difference(features: FeatureSet, steps: Sequence, n_writers: int, random: Random) -> tuple[str, int]:
    """The first disagreement with one that saw everything, empty when there is none; and how often parts were joined."""
    pair = Pair(features)
    pair.driver = Writers(features, n_writers, random)
    for i, step in enumerate(steps):
        problems = pair.take(step)
        if problems:
            return f"step {i}, {step}:\n" + "\n".join(problems), 0
    return "", pair.driver.n_joined


@examples(300)
@given(seed=SEEDS, n_features=st.integers(1, 12), n_steps=st.integers(1, 60), n_writers=st.integers(2, 4))
def test_every_feature_equals_its_definition_whoever_saw_the_events(seed, n_features, n_steps, n_writers):
    random = Random(seed)
    features = feature_set(random, n_features=n_features, ring_cap=64)

    difference, _ = first_difference(features, stream(random, n_steps), n_writers, random)

    assert "" == difference


@examples(150)
@given(seed=SEEDS, n_features=st.integers(1, 8), n_steps=st.integers(20, 200), n_writers=st.integers(2, 4))
def test_rings_that_overflow_once_joined_never_say_less_than_the_truth(seed, n_features, n_steps, n_writers):
    random = Random(seed)
    features = feature_set(random, n_features=n_features, ring_cap=8, bounded_only=True, allowed_lateness="24h")

    difference, _ = first_difference(
        features, stream(random, n_steps, crowded=True, amend_within_us=DAY_US), n_writers, random
    )

    assert "" == difference


def test_the_streams_above_join_parts_often():
    n_joined = 0
    for seed in range(40):
        random = Random(seed)
        features = feature_set(random, n_features=8, ring_cap=64)
        n_joined += first_difference(features, stream(random, 60), 3, random)[1]

    assert n_joined > 40 * 20


@examples(100)
@given(seed=SEEDS, n_steps=st.integers(10, 80), n_writers=st.integers(2, 4))
def test_whoever_joins_the_same_parts_reads_the_same_bits(seed, n_steps, n_writers):
    """Sums of floating point included: all join in the order of the writers."""
    random = Random(seed)
    features = feature_set(random, n_features=12, ring_cap=8)
    writers = Writers(features, n_writers, random)
    events = [step[1] for step in stream(random, n_steps) if step[0] == "observe"]
    for event in events:
        writers.observe(event)
    at_rest = events[-1]
    keys = writers._keys_of(at_rest)
    parts = {key: [CODEC.pack(each.engine.memory, np.array([key]), 0)[0] for each in writers.drivers] for key in keys}

    rows = []
    for writer, driver in enumerate(writers.drivers):
        for key in keys:
            CODEC.take_up(driver.engine.memory, key, parts[key], writer)
        driver.engine.adopt_memory()
        rows.append(driver.observe(at_rest, record=False)[1].tobytes())
    stranger = Driver(features)  # that has none of the events itself
    for key in keys:
        CODEC.take_up(stranger.engine.memory, key, parts[key], -1)
    stranger.engine.adopt_memory()

    assert {stranger.observe(at_rest, record=False)[1].tobytes()} == set(rows)


@examples(100)
@given(seed=SEEDS, n_steps=st.integers(10, 60))
def test_events_that_came_while_our_part_could_not_be_read_are_added_to_it(seed, n_steps):
    random = Random(seed)
    features = feature_set(random, n_features=12, ring_cap=64)
    drawn = [step[1] for step in stream(random, n_steps) if step[0] == "observe" and not step[1].original]
    events = list({event.transaction: event for event in drawn}.values())
    cut = random.randrange(len(events) + 1)
    whole, before, after = Driver(features), Driver(features), Driver(features)
    for event in events:
        whole.observe(event)
    for event in events[:cut]:
        before.observe(event)
    for event in events[cut:]:
        after.observe(event)

    for key in before.engine.memory.entity_keys().tolist():
        (part,) = CODEC.pack(before.engine.memory, np.array([key]), 0)
        CODEC.take_up(after.engine.memory, key, [b"", part], 1, lacks_stored=True)
        after.engine.adopt_memory()

    newest_us = max(event.time_us for event in drawn)
    asked = [replace(event, transaction=f"asked {i}", time_us=newest_us) for i, event in enumerate(drawn)]
    rows = [[each.observe(event, record=False)[1] for event in asked] for each in (whole, after)]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_first", "n_second"), [(100, 100), (100, 5), (5, 100), (40, 40), (3, 4)])
def test_distinct_keys_of_two_writers_are_counted_as_one_would_count_them(n_first, n_second):
    features = FeatureSet("devices", (Feature("devices", "distinct", entity="user", field="device", window="24h"),))
    one, first, second = Driver(features), Driver(features), Driver(features)
    for i in range(n_first + n_second):
        event = Event(f"t{i}", START_US + i, texts={"user_id": "u", "device_id": f"d{i}"})
        one.observe(event)
        (first if i < n_first else second).observe(event)
    (key,) = one.engine.memory.entity_keys().tolist()

    (theirs,) = CODEC.pack(second.engine.memory, np.array([key]), 0)
    CODEC.take_up(first.engine.memory, key, [b"", theirs], 0)
    first.engine.adopt_memory()

    asked = Event("asked", START_US + 1_000, texts={"user_id": "u", "device_id": "d0"})
    assert one.values(asked, record=False) == first.values(asked, record=False)
