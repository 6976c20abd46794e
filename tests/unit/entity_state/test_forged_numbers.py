"""State with right checksums and wrong numbers in it, as fuzzing found it taken: refused, and nothing taken up."""

from __future__ import annotations

import numpy as np
import pytest
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.entity_state import log_format, log_kernels, part_kernels, snapshot
from fraudsdk.entity_state.layout import (
    DISTINCT_CAPACITY,
    DISTINCT_CHUNK,
    HEAD_BORN,
    HEAD_KEY,
    HEAD_LAST_US,
    HEAD_NEWER,
    KIND_DISTINCT,
    KIND_HEAD_WORDS,
    KIND_RING,
    META_BUMP,
    META_FREE,
    META_JOURNAL_NEXT,
    META_OLDEST,
    RING_CHUNK,
    RING_LENGTH,
    RING_START,
    RING_TILES,
    SKETCHED,
)
from fraudsdk.entity_state.log_format import HEADER_CHECKSUM, HEADER_MAGIC, HEADER_VERSION, HEADER_WORDS, MAGIC
from fraudsdk.entity_state.log_reader import has_record, read_segment
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.entity_state.snapshot import read_snapshot, restore, write_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import CorruptStateError, StateError
from fraudsdk.features.spec import Feature, FeatureSet

SCHEMA = b"eight or more bytes"
IDENTITY = StateIdentity.of(b"record", b"state", b"a key of sixteen bytes")
FEATURES = FeatureSet(
    "forged",
    (
        Feature("n", "count", entity="user", window="1h"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="1h"),
    ),
    ring_cap=8,
)
OWN = part_kernels.PART_WORDS - HEAD_LAST_US  # where word 0 of a head would be in a part


def driver_after(n, users=1) -> Driver:
    driver = Driver(FEATURES, journal_capacity=20)
    for i in range(n):
        driver.observe(Event(f"t{i}", 10**15 + i * 10**6, texts={"user_id": f"u{i % users}", "merchant_id": f"m{i}"}))
    return driver


# --- parts ------------------------------------------------------------------------------------------------------------


def answer_to(n, change) -> Taken:
    """What becomes of the part of a user after so many transactions, once its words were changed."""
    memory = driver_after(n).engine.memory
    (part,) = PartCodec(SCHEMA).pack(memory, memory.entity_keys(), 1)
    words = np.frombuffer(part, "<i8").astype(np.int64)
    kind = memory.layout.kinds[0]
    change(words, OWN + int(kind[KIND_RING]), OWN + int(kind[KIND_DISTINCT]), OWN + int(kind[KIND_HEAD_WORDS]))
    words[part_kernels.PART_CHECKSUM] = len(words)
    words[part_kernels.PART_CHECKSUM] = (np.int64(log_kernels.checksum(words)) << 32) | len(words)
    fresh = Driver(FEATURES).engine.memory
    answer = PartCodec(SCHEMA).take(fresh, words.astype("<i8").tobytes())
    assert (answer is Taken.TAKEN) == bool(len(fresh.entity_keys()))
    return answer


def swap(words, one, other, n):
    words[one : one + n], words[other : other + n] = words[other : other + n].copy(), words[one : one + n].copy()


def test_a_part_that_nobody_changed_is_taken():
    assert {Taken.TAKEN} == {answer_to(n, lambda *_: None) for n in (1, 5, 200)}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda words, ring, distinct, end: words.__setitem__(ring + RING_START, 2**63 - 1), id="start"),
        pytest.param(lambda words, ring, distinct, end: words.__setitem__(ring + RING_CHUNK, 2), id="chunk of a ring"),
        pytest.param(
            lambda words, ring, distinct, end: words.__setitem__(distinct + DISTINCT_CHUNK, 7), id="chunk of keys"
        ),
        pytest.param(lambda words, ring, distinct, end: words.__setitem__(OWN + HEAD_BORN, 1), id="born"),
    ],
)
def test_a_number_that_packing_would_not_write_is_refused(change):
    assert Taken.CHANGED == answer_to(3, change)


def tiles_of(words, ring, end):
    """Where the tiles begin, which come after the events: their number, then each."""
    assert 1 == words[ring + RING_TILES]
    return end + int(words[ring + RING_LENGTH]) * 2


@pytest.mark.parametrize("forged", ["chunk", "order", "twice", "never written"])
def test_tiles_and_sketches_are_as_packing_writes_them(forged):
    def change_tiles(words, ring, distinct, end):
        first = tiles_of(words, ring, end) + 1
        if forged == "chunk":
            words[ring + RING_TILES] = 3
        elif forged == "order":
            swap(words, first, first + 3, 3)
        elif forged == "twice":
            words[first + 3 : first + 6] = words[first : first + 3]
        else:
            words[first + 1] = -1

    def change_marks(words, ring, distinct, end):
        assert SKETCHED == words[distinct + DISTINCT_CAPACITY]
        at = len(words) - 4
        if forged == "chunk":
            words[distinct + DISTINCT_CHUNK] = 0
        elif forged == "order":
            swap(words, at, at + 2, 2)
        elif forged == "twice":
            words[at + 2 :] = words[at : at + 2]
        else:
            words[at + 1] = -(2**62)

    assert Taken.CHANGED == answer_to(200, change_tiles)
    assert Taken.CHANGED == answer_to(200, change_marks)


# --- snapshots --------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path):
    directory = StateDirectory(tmp_path / "state")
    yield directory
    directory.close()


def forged(directory, change, n=200, users=1):
    """A snapshot whose meta, pool, journal or texts were changed under right checksums."""
    path = write_snapshot(directory, IDENTITY, driver_after(n, users).engine.memory, [("version", 1, "m/1")], 7)
    words = np.fromfile(path, "<i8").astype(np.int64)
    header, sections, at = words[:HEADER_OF_SNAPSHOT], [], HEADER_OF_SNAPSHOT
    for length in header[snapshot._SECTIONS : snapshot._CHECKSUM : 2].tolist():
        sections.append(words[at : at + length].copy())
        at += length
    change(header, *sections[:4])
    for place, section in enumerate(sections):
        header[snapshot._SECTIONS + 2 * place + 1] = log_kernels.checksum(section)
    header[snapshot._CHECKSUM] = log_kernels.checksum(header[: snapshot._CHECKSUM])
    np.concatenate((header, *sections)).astype("<i8").tofile(path)
    return path


HEADER_OF_SNAPSHOT = snapshot.HEADER_WORDS


def write_into(words, at, value):
    words[at] = value


def head_of(meta):
    return int(meta[META_OLDEST])


def ring_word(pool, meta, word, value):
    pool[head_of(meta) + int(FIRST_KIND[KIND_RING]) + word] = value


FIRST_KIND = Driver(FEATURES).engine.memory.layout.kinds[0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda header, meta, pool, journal, texts: write_into(meta, META_OLDEST, len(pool)), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: write_into(meta, META_OLDEST, -8), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: write_into(meta, META_BUMP, 8), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: write_into(meta, META_FREE + 4, head_of(meta)), "lead nowhere"),
        (
            lambda header, meta, pool, journal, texts: write_into(pool, head_of(meta) + HEAD_NEWER, head_of(meta)),
            "lead nowhere",
        ),
        (lambda header, meta, pool, journal, texts: ring_word(pool, meta, RING_CHUNK, 2**40), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: ring_word(pool, meta, RING_CHUNK, head_of(meta)), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: ring_word(pool, meta, RING_START, 2**63 - 1), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: ring_word(pool, meta, RING_LENGTH, -1), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: ring_word(pool, meta, RING_TILES, 12), "lead nowhere"),
        (lambda header, meta, pool, journal, texts: write_into(meta, META_JOURNAL_NEXT, 3), "a journal of"),
        (lambda header, meta, pool, journal, texts: write_into(meta, META_JOURNAL_NEXT, -3), "a journal of"),
        (lambda header, meta, pool, journal, texts: write_into(header, snapshot._JOURNAL_WORDS, 1), "a journal of"),
        (lambda header, meta, pool, journal, texts: write_into(header, snapshot._JOURNAL_CAPACITY, 0), "a journal of"),
        (
            lambda header, meta, pool, journal, texts: write_into(header, snapshot._VERSION, 0),
            "header that was changed",
        ),
        (lambda header, meta, pool, journal, texts: write_into(texts, 0, -1), "cannot be read"),
    ],
)
def test_a_snapshot_whose_numbers_lead_nowhere_is_refused(directory, change, what):
    path, memory = forged(directory, change), Driver(FEATURES, journal_capacity=20).engine.memory
    before = memory.meta.tobytes(), memory.table.tobytes()

    with pytest.raises(CorruptStateError, match=what):
        restore(memory, *read_snapshot(path))

    assert before == (memory.meta.tobytes(), memory.table.tobytes())


def test_two_entities_of_one_key_are_refused(directory):
    def change(header, meta, pool, journal, texts):
        oldest = head_of(meta)
        pool[pool[oldest + HEAD_NEWER] + HEAD_KEY] = pool[oldest + HEAD_KEY]

    path = forged(directory, change, n=5, users=2)

    with pytest.raises(CorruptStateError, match="lead nowhere"):
        restore(Driver(FEATURES, journal_capacity=20).engine.memory, *read_snapshot(path))


def test_a_snapshot_that_nobody_changed_is_taken(directory):
    memory = Driver(FEATURES, journal_capacity=20).engine.memory

    restore(memory, *read_snapshot(forged(directory, lambda *_: None)))

    assert 1 == len(memory.entity_keys())


# --- the log ----------------------------------------------------------------------------------------------------------


def header_of(version) -> np.ndarray:
    words = np.zeros(HEADER_WORDS, np.int64)
    words[HEADER_MAGIC], words[HEADER_VERSION], words[2] = MAGIC, version, 1
    words[HEADER_CHECKSUM] = log_kernels.checksum(words[:HEADER_CHECKSUM])
    return words


def test_records_of_a_later_version_are_not_called_torn(tmp_path):
    path = tmp_path / "segment"
    np.concatenate((header_of(log_format.FORMAT_VERSION + 1), np.arange(40))).astype("<i8").tofile(path)

    with pytest.raises(StateError, match="upgrade fraudsdk"):
        has_record(path, 1)


def test_a_version_that_there_never_was_is_refused(tmp_path):
    path = tmp_path / "segment"
    header_of(0).astype("<i8").tofile(path)

    with pytest.raises(CorruptStateError, match="header that was changed"):
        read_segment(path, 1, None)
