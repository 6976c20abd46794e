"""Parts: an entity that goes to another memory is there what it was here."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.entity_state import log_kernels, part_kernels
from fraudsdk.entity_state.layout import META_SKETCHES, META_TILE_LADDERS
from fraudsdk.entity_state.parts import PartCodec, Taken, sequence_of
from fraudsdk.features.spec import Feature, FeatureSet

SCHEMA = b"eight or more bytes"
EVERYTHING = FeatureSet(
    "everything",
    (
        Feature("n", "count", entity="user", window="24h"),
        Feature("spent", "sum", entity="user", window="1h"),
        Feature("spread", "std", entity="user", window="7d", field="amount"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="24h"),
        Feature("devices", "distinct", entity="merchant", field="device", window="1h"),
        Feature("pair", "count", entity="user+merchant", window="30d"),
        Feature("decayed", "decayed_sum", entity="merchant", field="amount", half_life="1h"),
        Feature("far", "distance_from_last_km", entity="user"),
        Feature("centre", "distance_from_centre_km", entity="user"),
        Feature("unusual", "hour_deviation", entity="user"),
        Feature("known", "seconds_since_first", entity="merchant"),
    ),
    ring_cap=8,
)


def events(n, seed, first=0):
    draw = random.Random(seed)
    time_us = 10**15 + first * 60 * 10**6
    for i in range(first, first + n):
        time_us += draw.choice((0, 1, 10**6, 60 * 10**6, 60 * 10**6, 600 * 10**6))
        late_us = draw.choice((0, 0, 0, 5 * 10**6))
        yield Event(
            f"t{i}",
            time_us - late_us,
            texts={
                "user_id": f"u{draw.randrange(3)}",
                "merchant_id": f"m{draw.randrange(90)}",
                "device_id": f"d{draw.randrange(99)}",
            },
            numbers={
                "amount": draw.randrange(1, 900) / 4,
                "latitude": draw.uniform(-80, 80),
                "longitude": draw.uniform(-180, 180),
            },
        )


def driver_after(n, seed):
    driver = Driver(EVERYTHING)
    for event in events(n, seed):
        driver.observe(event)
    return driver


def moved(driver):
    """Another driver, that took up every entity of this one."""
    codec, other = PartCodec(SCHEMA), Driver(EVERYTHING)
    keys = np.sort(driver.engine.memory.entity_keys())
    for part in codec.pack(driver.engine.memory, keys, 7):
        assert Taken.TAKEN == codec.take(other.engine.memory, part)
    return other


def packed(driver) -> list[bytes]:
    return PartCodec(SCHEMA).pack(driver.engine.memory, np.sort(driver.engine.memory.entity_keys()), 7)


def a_part(n=600, seed=1) -> bytes:
    """The longest of many: with tiles and a sketch."""
    return max(packed(driver_after(n, seed)), key=len)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 400), st.integers(0, 60), st.integers(0, 2**32))
def test_a_moved_entity_is_and_becomes_what_it_would_have(n, more, seed):
    stayed = driver_after(n, seed)
    went = moved(stayed)

    assert packed(stayed) == packed(went)
    for event in events(more, seed + 1, first=n):
        assert stayed.values(event) == pytest.approx(went.values(event), abs=0, rel=0, nan_ok=True)
    assert packed(stayed) == packed(went)


def test_what_moves_has_tiles_and_sketches():
    meta = moved(driver_after(600, 1)).engine.memory.meta

    assert meta[META_TILE_LADDERS] > 0
    assert meta[META_SKETCHES] > 0


def test_a_part_says_which_change_it_is_of_and_a_stranger_has_none():
    driver = driver_after(20, 3)
    keys = driver.engine.memory.entity_keys()[:1]

    part, nothing = PartCodec(SCHEMA).pack(driver.engine.memory, np.append(keys, 12_345), 99)

    assert 99 == sequence_of(part)
    assert b"" == nothing


def test_any_changed_bit_is_refused_and_nothing_taken_up():
    part, other = a_part(), Driver(EVERYTHING).engine.memory
    codec, before = PartCodec(SCHEMA), other.pool[:200].copy()
    for octet in range(len(part)):
        changed = bytearray(part)
        changed[octet] ^= 1 << (octet % 8)

        assert codec.take(other, bytes(changed)) in (Taken.FOREIGN, Taken.CHANGED)
    assert np.array_equal(before, other.pool[:200])
    assert 0 == len(other.entity_keys())


def test_any_other_length_is_refused():
    part, codec, other = a_part(), PartCodec(SCHEMA), Driver(EVERYTHING).engine.memory
    for length in range(0, len(part), 3):
        assert codec.take(other, part[:length]) in (Taken.FOREIGN, Taken.CHANGED)
    assert Taken.CHANGED == codec.take(other, part + bytes(8))
    assert Taken.TAKEN == codec.take(other, part)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_numbers_that_lead_outside_are_refused_even_with_a_right_checksum(data):
    words = np.frombuffer(a_small_part(), "<i8").copy()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(part_kernels.PART_KIND, len(words) - 1))
        words[at] = data.draw(st.sampled_from((-(2**63), -1, 0, 1, 2, 7, 8, 9, 63, 64, 65, 2**31, 2**32, 2**62)))
    words[part_kernels.PART_CHECKSUM] = len(words)
    crc = log_kernels.checksum(words)
    words[part_kernels.PART_CHECKSUM] = (np.int64(crc) << 32) | len(words)
    memory = Driver(EVERYTHING).engine.memory
    guard = memory.pool[-64:].copy()

    answer = PartCodec(SCHEMA).take(memory, words.astype("<i8").tobytes())

    assert answer in (Taken.TAKEN, Taken.CHANGED)  # what it means cannot be told, only that it stays inside
    assert np.array_equal(guard, memory.pool[-64:])
    if answer is Taken.TAKEN:
        PartCodec(SCHEMA).pack(memory, memory.entity_keys(), 1)


def a_small_part() -> bytes:
    if not _SMALL:
        _SMALL.append(a_part(120, 5))
    return _SMALL[0]


_SMALL: list[bytes] = []


def test_another_schema_is_foreign():
    assert Taken.FOREIGN == PartCodec(b"another schema").take(Driver(EVERYTHING).engine.memory, a_part())


def test_an_entity_that_is_known_stays():
    driver = driver_after(30, 2)
    before = packed(driver)

    assert {Taken.KNOWN} == {PartCodec(SCHEMA).take(driver.engine.memory, part) for part in before}
    assert before == packed(driver)


def test_the_least_recently_used_make_room():
    parts, other = packed(driver_after(300, 4)), Driver(EVERYTHING, max_entities=90).engine.memory
    codec = PartCodec(SCHEMA)
    for part in parts:
        assert Taken.TAKEN == codec.take(other, part)

    assert 90 == len(other.entity_keys())
    assert parts[-90:] == codec.pack(other, np.sort(other.entity_keys()), 7)
