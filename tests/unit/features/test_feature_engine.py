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

    with pytest.raises(TypeError, match="needs"):
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
