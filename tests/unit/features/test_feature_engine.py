"""What the engine's one context must not let through: a kernel cannot check an address."""

from __future__ import annotations

import numpy as np
import pytest
from twin.comparison import VOCABULARY
from twin.events import Event, encode

from fraudsdk.features import kernels
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.features.spec import Feature, FeatureSet

FEATURES = FeatureSet(
    "two", (Feature("n", "count", entity="user", window="1h"), Feature("mean", "mean", entity="user", window="1h"))
)


@pytest.fixture(scope="module")
def engine():
    return FeatureEngine(FEATURES, VOCABULARY, max_entities=1_000, journal_capacity=1_000)


def encoded(engine, name):
    event = Event(name, 10**15, texts={"user_id": "u"}, amount_minor=100)
    return encode([event], engine.record_layout, VOCABULARY)


@pytest.mark.parametrize(
    "change",
    [
        lambda ints, numbers, row: (ints.astype(np.int32), numbers, row),
        lambda ints, numbers, row: (ints[:, :-1].copy(), numbers, row),
        lambda ints, numbers, row: (np.repeat(ints, 2, axis=0), numbers, row),
        lambda ints, numbers, row: (np.asfortranarray(np.repeat(ints, 2, axis=0))[::2], numbers, row),
        lambda ints, numbers, row: (ints, np.zeros((1, 9)), row),
        lambda ints, numbers, row: (ints, numbers.astype(np.float32), row),
        lambda ints, numbers, row: (ints, numbers, row.astype(np.float64)),
        lambda ints, numbers, row: (ints, numbers, row[:-1]),
        lambda ints, numbers, row: (ints, numbers, np.repeat(row, 2)[::2]),
    ],
)
def test_arrays_of_another_type_or_shape_are_refused_before_a_kernel_sees_them(engine, change):
    ints, numbers = encoded(engine, "refused")

    with pytest.raises(TypeError, match="must be"):
        engine.observe(*change(ints, numbers, np.zeros(2, np.float32)), record=True)


def test_each_call_writes_the_row_it_was_given(engine):
    first, second = np.zeros(2, np.float32), np.zeros(2, np.float32)

    assert kernels.SCORED == engine.observe(*encoded(engine, "a"), first, record=True)[0]
    assert kernels.SCORED == engine.observe(*encoded(engine, "b"), second, record=True)[0]

    assert (0.0, 1.0) == (first[0], second[0])


def test_slots_of_an_absent_and_of_a_new_entity_are_those_of_no_other():
    """
    Slots that are blank already are left alone: after any order of known, new and absent they must still be right.
    """
    engine = FeatureEngine(FEATURES, VOCABULARY, max_entities=1_000, journal_capacity=1_000)
    row, seen = np.zeros(2, np.float32), []
    for i, user in enumerate(("a", "a", "", "b", "", "a", "c", "d", "", "", "b")):
        event = Event(f"t{i}", 10**15 + i, texts={"user_id": user} if user else {}, amount_minor=100)
        engine.observe(*encode([event], engine.record_layout, VOCABULARY), row, record=True)
        seen.append(float(row[0]))

    assert [0, 1, None, 0, None, 2, 0, 0, None, None, 1] == [None if np.isnan(n) else n for n in seen]


def misaligned(array):
    """A copy that begins at an odd address."""
    memory = bytearray(array.nbytes + 1)
    copy = np.frombuffer(memory, array.dtype, array.size, offset=1).reshape(array.shape)
    copy[:] = array
    return copy


@pytest.mark.parametrize("position", [0, 2])  # this feature set reads no numbers
def test_arrays_that_are_not_aligned_are_refused(engine, position):
    arrays = [*encoded(engine, "unaligned"), np.zeros(2, np.float32)]
    arrays[position] = misaligned(arrays[position])
    assert not arrays[position].flags.aligned

    with pytest.raises(TypeError, match="aligned"):
        engine.observe(*arrays, record=True)


def test_a_row_in_immutable_memory_is_refused_and_stays_as_it_was(engine):
    immutable = bytes(8)
    row = np.frombuffer(immutable, np.float32)

    with pytest.raises(TypeError, match="read-only"):
        engine.observe(*encoded(engine, "immutable"), row, record=True)

    assert bytes(8) == immutable


@pytest.mark.parametrize(
    "change",
    [
        lambda ints, numbers: (ints.astype(np.int32), numbers),
        lambda ints, numbers: (ints[:, :-1].copy(), numbers),
        lambda ints, numbers: (np.asfortranarray(np.repeat(ints, 2, axis=0)), np.repeat(numbers, 2, axis=0)),
        lambda ints, numbers: (misaligned(ints), numbers),
        lambda ints, numbers: (np.repeat(ints, 3, axis=0), numbers),
        lambda ints, numbers: (ints, np.zeros((1, 9))),
        lambda ints, numbers: (ints[0], numbers),
    ],
)
def test_a_replay_refuses_arrays_that_it_would_read_past(engine, change):
    ints, numbers = encoded(engine, "replayed")

    with pytest.raises(TypeError, match="of a replay must be"):
        engine.replay(*change(ints, numbers))


@pytest.mark.parametrize(
    ("labels", "error", "reason"),
    [
        ({"label_rows": [1]}, ValueError, "from 0 to 0, were 1 to 1"),
        ({"label_rows": [-1]}, ValueError, "from 0 to 0, were -1 to -1"),
        ({"label_rows": [0, 0]}, ValueError, "one row, value and time each, had 2, 1 and 1"),
        ({"label_times_us": []}, ValueError, "had 1, 1 and 0"),
        ({"label_values": None}, ValueError, "had 1, 0 and 1"),
        ({"label_values": np.ones(1)}, TypeError, "label_values must be int8"),
        ({"label_rows": np.zeros(1, np.int32)}, TypeError, "label_rows must be int64"),
    ],
)
def test_a_replay_refuses_labels_about_rows_that_are_not_there(engine, labels, error, reason):
    ints, numbers = encoded(engine, "labelled")
    types = {"label_rows": np.int64, "label_values": np.int8, "label_times_us": np.int64}
    given = {"label_rows": [0], "label_values": [1], "label_times_us": [0]} | labels
    arrays = {name: np.array(v, types[name]) if isinstance(v, list) else v for name, v in given.items()}

    with pytest.raises(error, match=reason):
        engine.replay(ints, numbers, **arrays)
