"""A subject is taken out of a memory, a part or a log: nothing about it is left, and nothing about others is changed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin.comparison import Driver
from twin.events import Event, key_of

from fraudsdk.domain.fields import FIRST_IDENTIFIER
from fraudsdk.entity_state import erasure, erasure_kernels
from fraudsdk.entity_state.erasure import (
    ERASED_US,
    MARK,
    PartEraser,
    Subject,
    TakenOut,
    apply_record,
    find_traces,
    records_of,
    scan_files,
    unsearched_kinds,
)
from fraudsdk.entity_state.kernels import mix64
from fraudsdk.entity_state.layout import (
    DISTINCT_WORDS,
    HEAD_KIND,
    KIND_COMPONENT_0,
    KIND_DISTINCT,
    KIND_DISTINCTS,
    KIND_HEAD_WORDS,
    KIND_JOURNAL,
    KIND_RING,
    KIND_RING_COLUMNS,
    KIND_SALT,
    KIND_TILE_WORDS,
    META_BUMP,
    META_ENTITIES,
    META_EVICTED,
    META_FREE,
    META_JOURNAL_NEXT,
    META_SKETCHES,
    META_TILE_LADDERS,
    RING_WORDS,
    SIZE_CLASSES,
    SKETCH_RANKS,
    SKETCH_REGISTERS,
    SKETCHED,
)
from fraudsdk.entity_state.log_format import MAX_RECORD_WORDS, RECORD_WORDS
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.entity_state.snapshot import read_snapshot, restore, write_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import CorruptStateError, StateError
from fraudsdk.features.spec import Feature, FeatureSet

MINUTE_US = 60_000_000
COUNTRIES = ("FR", "GB")
SCHEMA = b"eight or more bytes"
IDENTITY = StateIdentity.of(b"record", b"state", b"a key of sixteen bytes")
# Kinds with rings and without, pairs of all sorts: the other one with entities of its own, counted only, and neither.
FEATURES = FeatureSet(
    "erasable",
    (
        Feature("n", "count", entity="user", window="24h"),
        Feature("spent", "sum", entity="user", window="1h"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="24h"),
        Feature("sold", "sum", entity="merchant", window="24h"),
        Feature("customers", "distinct", entity="merchant", field="user", window="24h"),
        Feature("devices", "distinct", entity="merchant", field="device", window="24h"),
        Feature("usual", "decayed_sum", entity="merchant", field="amount", half_life="1h"),
        Feature("faithful", "count", entity="user+merchant", window="24h"),
        Feature("held", "seconds_since_last", entity="user+device"),
        Feature("abroad", "seconds_since_first", entity="user+merchant_country"),
        Feature("usual_way", "count", entity="user+device+merchant", window="24h"),
        Feature("payees", "distinct", entity="counterparty", field="user", window="24h"),
    ),
    ring_cap=8,
)


def events(n, seed, first=0, users=4):
    draw = random.Random(f"{seed} {first}")
    for i in range(first, first + n):
        yield Event(
            f"t{i}",
            10**15 + i * MINUTE_US - draw.choice((0, 0, 5 * MINUTE_US)),
            amount_minor=draw.randrange(100, 90_000),
            texts={
                "user_id": f"u{draw.randrange(users)}",
                "merchant_id": f"m{draw.randrange(5)}",
                "device_id": f"d{draw.randrange(6)}",
                "merchant_country": draw.choice(COUNTRIES),
                "counterparty_id": f"p{draw.randrange(3)}",
            },
        )


def driver_after(sent):
    driver = Driver(FEATURES)
    for event in sent:
        driver.observe(event)
    return driver


def subject(driver, field, *names, mark=77):
    column = FIRST_IDENTIFIER + driver.engine.record_layout.identifiers.index(field)
    targets = [(column, key_of(name), True) for name in names]
    return Subject(np.array(targets, np.int64), np.array([mark], np.int64))


def erase(driver, who, erased_us=10**15):
    memory = driver.engine.memory
    traces = find_traces(memory, who, [key_of(country) for country in COUNTRIES])
    taken = TakenOut()
    for record in records_of(who, traces, erased_us):
        taken += apply_record(memory, record, 9)
    return traces, taken


def without(event, field, name):
    """What would have been sent by a host that never knew the name."""
    kept = {key: text for key, text in event.texts.items() if (key, text) != (field, name)}
    return replace(event, texts=kept)


def probes(users=4):
    now_us = 10**15 + 2_000 * MINUTE_US
    for i in range(40):
        texts = {
            "user_id": f"u{i % users}",
            "merchant_id": f"m{i % 5}",
            "device_id": f"d{i % 6}",
            "merchant_country": COUNTRIES[i % 2],
            "counterparty_id": f"p{i % 3}",
        }
        yield Event(f"probe {i}", now_us - 1_000 * MINUTE_US, texts=texts)


def said_of(driver, probe) -> bytes:
    """The row of a transaction, which is not remembered."""
    return driver.observe(probe, record=False)[1].tobytes()


def keys_about(driver, name, sent):
    """What would betray a user, eight bytes each, worked out from what was sent: its identifier, transactions and entities."""
    layout, kinds = driver.engine.record_layout, driver.engine.memory.layout.kinds
    keys = {key_of(name)}
    for event in sent:
        if event.texts["user_id"] != name:
            continue
        keys.add(key_of(event.transaction))
        for kind in kinds:
            components = kind[KIND_COMPONENT_0 : KIND_COMPONENT_0 + kind[0]].tolist()
            texts = [event.texts[layout.identifiers[column - FIRST_IDENTIFIER]] for column in components]
            if name in texts:
                key = int(kind[KIND_SALT])
                for text in texts:
                    key = int(mix64(np.int64(key ^ key_of(text))))
                keys.add(key)
    return keys


def betrayed(memory, keys) -> int:
    """In how many places of a memory, used or not, one of the keys is."""
    octets = b"".join(each.tobytes() for each in (memory.pool[: memory.meta[META_BUMP]], memory.journal, memory.table))
    return sum(octets.count(key.to_bytes(8, "little", signed=True)) for key in keys)


# --- of a memory -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 120), later=st.integers(0, 60))
def test_what_is_left_is_what_a_host_would_have_that_never_knew_the_name(seed, n, later):
    # Given two hosts, one of which was never told who u1 is
    before, after = list(events(n, seed)), list(events(later, seed, first=n))
    known, unknown = driver_after(before), driver_after(without(event, "user_id", "u1") for event in before)
    # When the other one erases u1, and both go on
    erase(known, subject(known, "user_id", "u1"))
    for event in after:
        known.observe(event)
        unknown.observe(event)

    # Then both say the same of everybody
    for probe in probes():
        assert said_of(unknown, probe) == said_of(known, probe)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 150))
def test_no_word_of_the_memory_is_about_it_any_more(seed, n):
    sent = list(events(n, seed))
    driver = driver_after(sent)
    keys = keys_about(driver, "u1", sent)
    named = sum(event.texts["user_id"] == "u1" for event in sent)
    before = betrayed(driver.engine.memory, keys)

    traces, taken = erase(driver, subject(driver, "user_id", "u1"))

    assert (before > 0) == (named > 0)
    assert named == taken.n_transactions == len(traces.transactions)
    assert keys - {key_of("u1")} == {*traces.entities.tolist(), *traces.transactions.tolist()}
    assert 0 == betrayed(driver.engine.memory, keys)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), n=st.integers(100, 500))
def test_nor_is_any_where_most_was_forgotten_for_want_of_room(seed, n):
    # Given chunks that were given back and given to others, larger and smaller
    sent = list(events(n, seed, users=30))
    driver = Driver(FEATURES, max_entities=110, journal_capacity=200)
    for event in sent:
        driver.observe(event)
    assert driver.engine.memory.meta[META_EVICTED] > 0

    erase(driver, subject(driver, "user_id", "u1"))

    assert 0 == betrayed(driver.engine.memory, keys_about(driver, "u1", sent))


def in_use(memory) -> np.ndarray:
    """Which words of a pool something reads."""
    pool, meta, used = memory.pool, memory.meta, np.zeros(memory.meta[META_BUMP], bool)
    for free in meta[META_FREE : META_FREE + SIZE_CLASSES].tolist():
        while free:
            used[free] = True  # which one is free next
            free = int(pool[free])
    for head in memory.table[memory.table[:, 1] != 0, 1].tolist():
        kind = memory.layout.kinds[pool[head + HEAD_KIND]]
        used[head : head + kind[KIND_HEAD_WORDS]] = True
        if kind[KIND_RING]:
            chunk, capacity, start, length, _, tiles, _ = pool[head + kind[KIND_RING] :][:RING_WORDS].tolist()
            for column in range(kind[KIND_RING_COLUMNS] if chunk else 0):
                used[chunk + column * capacity + start :][:length] = True
            used[tiles : tiles + (kind[KIND_TILE_WORDS] if tiles else 0)] = True
        for d in range(kind[KIND_DISTINCTS]):
            chunk, capacity, length = pool[head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS :][:DISTINCT_WORDS].tolist()
            if capacity == SKETCHED:
                used[chunk : chunk + SKETCH_REGISTERS * SKETCH_RANKS] = True
            elif chunk:
                used[chunk : chunk + length] = used[chunk + capacity : chunk + capacity + length] = True
    return used


@pytest.mark.parametrize("max_entities", [110, 400])
def test_every_word_that_nothing_reads_is_zero(max_entities):
    driver = Driver(FEATURES, max_entities=max_entities)
    for event in events(600, seed=15, users=90):
        driver.observe(event)
    memory = driver.engine.memory
    assert memory.meta[META_SKETCHES] and memory.meta[META_TILE_LADDERS]
    assert memory.pool[: memory.meta[META_BUMP]][~in_use(memory)].any()

    erase(driver, subject(driver, "user_id", "u1"))

    assert not memory.pool[: memory.meta[META_BUMP]][~in_use(memory)].any()


def test_words_that_nothing_reads_would_still_tell(monkeypatch):
    # Given a merchant whose list of customers has moved to a larger chunk, u1 on it
    sent = list(events(150, seed=4, users=30))
    driver = driver_after(sent)
    # When u1 is erased without a look at what was let go of
    monkeypatch.setattr(erasure_kernels, "scrub", lambda *arguments: None)
    erase(driver, subject(driver, "user_id", "u1"))

    assert betrayed(driver.engine.memory, keys_about(driver, "u1", sent)) > 0


@pytest.mark.parametrize("names", [("d1",), ("d1", "d2", "d3")])
def test_a_device_is_erased_like_a_user(names):
    sent = list(events(100, seed=2))
    known = driver_after(sent)
    unknown = sent
    for name in names:
        unknown = [without(event, "device_id", name) for event in unknown]
    erase(known, subject(known, "device_id", *names))

    rebuilt = driver_after(unknown)
    for probe in probes():
        assert said_of(rebuilt, probe) == said_of(known, probe)


def test_a_duplicate_and_a_label_of_it_are_unknown_and_those_of_others_are_not():
    sent = list(events(60, seed=3))
    driver = driver_after(sent)
    erase(driver, subject(driver, "user_id", "u1"))

    known = {event.transaction: driver.label(event.transaction, is_fraud=True) for event in sent}

    assert {event.transaction: event.texts["user_id"] != "u1" for event in sent} == known


def test_the_journal_goes_on_after_an_erasure():
    # Given a journal of ten, some of which are erased
    driver = Driver(FEATURES, journal_capacity=10)
    sent = list(events(40, seed=4))
    for event in sent[:15]:
        driver.observe(event)
    erase(driver, subject(driver, "user_id", "u1"))
    # When it goes round
    for event in sent[15:]:
        driver.observe(event)

    # Then it knows the last ten and no others
    assert [True] * 10 == [driver.label(event.transaction, is_fraud=True) for event in sent[30:]]
    assert not any(driver.label(event.transaction, is_fraud=True) for event in sent[:30])


def test_an_event_that_others_keep_does_not_tell_whose_transaction_it_was():
    sent = list(events(100, seed=12))
    driver = driver_after(sent)
    pool, high = driver.engine.memory.pool, ~np.int64(0xFFFFFFFF)
    tags = [key_of(event.transaction) & int(high) for event in sent if event.texts["user_id"] == "u1"]
    assert np.isin(pool & high, tags).any()

    erase(driver, subject(driver, "user_id", "u1"))

    assert not np.isin(pool & high, tags).any()


def test_of_another_ones_transaction_the_name_goes_and_the_rest_stays():
    # Given a column that names whom a transaction is with, not whose it is
    sent = list(events(100, seed=13))
    driver = driver_after(sent)
    column, key, _ = subject(driver, "device_id", "d1").targets[0].tolist()
    who = Subject(np.array([[column, key, False]]), np.array([77]))
    _, taken = erase(driver, who)

    # Then its entities are gone, and nobody's transactions
    assert 0 == taken.n_transactions < taken.n_entities
    joined = driver.engine.memory.layout.kinds[-2, KIND_JOURNAL]
    assert 0 == betrayed(driver.engine.memory, {key})
    named = driver.engine.memory.journal[: len(sent), joined] != 0
    assert [event.texts["device_id"] != "d1" for event in sent] == named.tolist()
    assert all(driver.label(event.transaction, is_fraud=True) for event in sent)


def test_a_row_that_was_emptied_is_no_transaction_once_the_memory_is_restored():
    driver = driver_after(events(60, seed=14))
    erase(driver, subject(driver, "user_id", "u1"))
    memory, other = driver.engine.memory, driver_after([])
    bump, n_rows = memory.meta[META_BUMP], memory.meta[META_JOURNAL_NEXT]

    other.engine.memory.restore(memory.meta, memory.pool[:bump], memory.journal[:n_rows], len(memory.journal))
    other.engine.adopt_memory()

    assert not other.engine.label(0, is_fraud=True)
    assert sorted(memory.journal_index.tolist()) == sorted(other.engine.memory.journal_index.tolist())


def test_somebody_unknown_has_a_tombstone_all_the_same():
    driver = driver_after(events(50, seed=5))
    before = driver.memory_bytes()

    traces, taken = erase(driver, subject(driver, "user_id", "nobody", mark=5), erased_us=42)

    assert TakenOut() == taken and not len(traces.entities) and not len(traces.transactions)
    assert (5, 42) == tuple(driver.engine.memory.tombstones[0, [MARK, ERASED_US]].tolist())
    erased_again = driver.memory_bytes()
    assert before[1:] == erased_again[1:]  # of the pool, unused words may have been zeroed


def test_the_same_erased_twice_has_one_tombstone_the_later_one():
    driver = driver_after(events(20, seed=6))
    for erased_us, mark in ((1, 5), (2, 6), (3, 5)):
        erase(driver, subject(driver, "user_id", "u1", mark=mark), erased_us)

    assert [[6, 2], [5, 3]] == driver.engine.memory.tombstones[:, [MARK, ERASED_US]].tolist()


def test_erasing_is_not_counted_as_forgetting_for_want_of_room():
    driver = driver_after(events(60, seed=7))
    n = int(driver.engine.memory.meta[META_ENTITIES])
    _, taken = erase(driver, subject(driver, "user_id", "u1"))

    assert 0 == driver.engine.memory.meta[META_EVICTED]
    assert n - taken.n_entities == driver.engine.memory.meta[META_ENTITIES]


def test_the_same_events_and_erasures_give_the_same_bytes():
    one, other = driver_after(events(90, seed=8)), driver_after(events(90, seed=8))
    for driver in (one, other):
        erase(driver, subject(driver, "user_id", "u1"))
        for event in events(60, seed=8, first=90):
            driver.observe(event)

    assert one.memory_bytes() == other.memory_bytes()


def test_a_pair_whose_other_half_nobody_tells_is_not_believed():
    # Given no list of countries: any key could be that of u1 and some country
    driver = driver_after(events(60, seed=9))
    who = subject(driver, "user_id", "u1")

    with_countries = find_traces(driver.engine.memory, who, [key_of(country) for country in COUNTRIES])
    without_countries = find_traces(driver.engine.memory, who)

    assert len(with_countries.entities) - len(without_countries.entities) in (1, 2)


def test_a_kind_of_three_that_no_journal_names_is_said_to_be_unsearched():
    features = FeatureSet("three", (Feature("way", "seconds_since_last", entity="user+device+merchant"),))
    driver = Driver(features)

    assert ("user+device+merchant",) == unsearched_kinds(driver.engine.memory.layout, subject(driver, "user_id", "u1"))
    assert () == unsearched_kinds(driver_after([]).engine.memory.layout, subject(driver_after([]), "user_id", "u1"))


# --- of records ------------------------------------------------------------------------------------------------------


def test_however_much_there_is_every_record_fits():
    driver = driver_after([])
    many = erasure.Traces(np.arange(1, 9_001), np.arange(1, 4_002))

    records = records_of(subject(driver, "user_id", "u1"), many, 1)

    assert [2, 3] == [sum(record[0] == what for record in records) for what in (1, 2)]
    assert 3 == records[-1][0]
    assert all(RECORD_WORDS + len(record) <= MAX_RECORD_WORDS for record in records)


def test_however_many_are_erased_at_once_every_record_fits_and_says_a_part():
    driver = driver_after(events(60, seed=16))
    column = subject(driver, "user_id", "u1").targets[0, 0]
    targets = np.array([(column, key_of(f"u{n}"), True) for n in range(2_500)])
    everybody = Subject(targets, np.arange(1, 2_501))

    _, taken = erase(driver, everybody)

    assert 60 == taken.n_transactions
    assert [*range(1, 2_501)] == driver.engine.memory.tombstones[:, MARK].tolist()
    records = records_of(everybody, erasure.NO_TRACES, 1)
    assert 3 == len(records) and all(RECORD_WORDS + len(record) <= MAX_RECORD_WORDS for record in records)


@pytest.mark.parametrize("payload", [[], [9], [3], [3, 1], [3, 1, 5], [3, 1, -1], [3, 1, 2**62, 1, 2]])
def test_a_record_that_says_nothing_of_an_erasure_is_refused(payload):
    with pytest.raises(CorruptStateError, match="upgrade fraudsdk"):
        apply_record(driver_after([]).engine.memory, np.array(payload, np.int64), 9)


def test_more_keys_than_a_set_began_with():
    # 6,000 pairs of one user: several times what sets and lists begin with
    sent = [
        Event(f"t{i}", 10**15 + i, texts={"user_id": "u1", "merchant_id": f"m{i}", "device_id": "d1"})
        for i in range(6_000)
    ]
    driver = Driver(FEATURES, max_entities=30_000, journal_capacity=10_000)
    for event in sent:
        driver.observe(event)
    traces, taken = erase(driver, subject(driver, "user_id", "u1"))

    assert 6_000 == taken.n_transactions and 1 + 6_000 + 6_000 + 1 == taken.n_entities == len(traces.entities)
    assert 6_000 == driver.engine.memory.meta[META_ENTITIES]  # the merchants


# --- of files --------------------------------------------------------------------------------------------------------


def test_tombstones_are_in_a_snapshot(tmp_path):
    driver, directory = driver_after(events(20, seed=17)), StateDirectory(tmp_path)
    for mark in (5, 6):
        erase(driver, subject(driver, "user_id", "u1", mark=mark), mark)
    path = write_snapshot(directory, IDENTITY, driver.engine.memory, [], 12)

    snapshot, sections = read_snapshot(path)
    other = driver_after([]).engine.memory
    restore(other, snapshot, sections)
    directory.close()

    assert 2 == snapshot.n_tombstones
    assert [[5, 5, 9], [6, 6, 9]] == other.tombstones.tolist() == erasure.tombstones_in(directory)[1].tolist()


def test_a_snapshot_of_before_there_were_tombstones_is_refused_by_its_version(tmp_path):
    directory = StateDirectory(tmp_path)
    path = write_snapshot(directory, IDENTITY, driver_after([]).engine.memory, [], 12)
    directory.close()
    words = np.fromfile(path, "<i8")
    words[1] = 1
    words.tofile(path)

    with pytest.raises(StateError, match="has format 1, of a version before the first release"):
        read_snapshot(path)


# --- of parts --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 120))
def test_parts_lose_the_same_as_a_memory(seed, n):
    # Given the parts of a memory, one by one
    driver, codec = driver_after(events(n, seed)), PartCodec(SCHEMA)
    who = subject(driver, "user_id", "u1")
    memory = driver.engine.memory
    parts = codec.pack(memory, np.sort(memory.entity_keys()), 7)
    eraser = PartEraser(memory.layout, who, [key_of(country) for country in COUNTRIES])
    for part in parts:
        eraser.learn(part)
    # When the subject is taken out of each; of three components a part does not tell whose it is
    erased = [part for part in map(eraser.erased, parts) if part is not None]

    # Then they are sound, and are what the memory has once it was erased there, but for what joins three
    taken_up = driver_after([])
    assert {Taken.TAKEN} >= {codec.take(taken_up.engine.memory, part) for part in erased}
    erase(driver, who)
    left = np.sort(memory.entity_keys())
    of_three = memory.layout.names.index("user+device+merchant")
    kept = {part for part in codec.pack(memory, left, 7) if kind_of(part) != of_three}
    assert {unlinked(part, memory) for part in kept} == {
        unlinked(part, memory) for part in erased if kind_of(part) != of_three
    }


def kind_of(part):
    return int(np.frombuffer(part, "<i8")[4])


def unlinked(part, memory):
    """A part without checksum, and without the transactions' keys in the tags of its ring: the journal tells a memory which."""
    words = np.frombuffer(part, "<i8").copy()
    words[2] = 0
    kind = memory.layout.kinds[words[4]]
    head = int(kind[6]) - 4 + 6
    ring = 6 - 4 + int(kind[9])
    if kind[9]:
        length = int(words[ring + 3])
        words[head + length : head + 2 * length] &= 0xFFFFFFFF
    return words.tobytes()


def test_a_part_that_says_nothing_of_the_subject_is_left_as_it_is():
    driver, codec = driver_after(events(60, seed=11)), PartCodec(SCHEMA)
    memory = driver.engine.memory
    parts = codec.pack(memory, memory.entity_keys(), 7)
    eraser = PartEraser(memory.layout, subject(driver, "user_id", "nobody"))

    assert all(eraser.erased(part) is part for part in parts)


# --- the scan --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["little", "big"]), st.sampled_from([7, 8, 64]))
def test_a_key_is_found_at_any_byte_in_either_order(tmp_path_factory, before, after, order, piece):
    path = tmp_path_factory.mktemp("scanned") / "file"
    key = key_of("u1")
    path.write_bytes(b"\1" * before + key.to_bytes(8, order, signed=True) + b"\2" * after)
    who = Subject(np.array([[5, key, 1]]), np.zeros(0, np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasure, "_SCAN_BYTES", piece)
        (scanned,) = scan_files([path], who, erasure.NO_TRACES)

    assert ("file", before + 8 + after, 1, before) == (scanned.name, scanned.n_bytes, scanned.n_found, scanned.first)


def test_a_file_without_a_key_is_said_to_have_none(tmp_path):
    (tmp_path / "file").write_bytes(key_of("u1").to_bytes(8, "little", signed=True)[:7] + bytes(100))
    who = Subject(np.array([[5, key_of("u1"), 1]]), np.zeros(0, np.int64))

    (scanned,) = scan_files([tmp_path / "file"], who, erasure.NO_TRACES)

    assert (107, 0, -1) == (scanned.n_bytes, scanned.n_found, scanned.first)


@given(st.integers(-(2**63), 2**63 - 1))
def test_mixing_can_be_undone(word):
    assert word == erasure_kernels.unmix64(mix64(np.int64(word)))
