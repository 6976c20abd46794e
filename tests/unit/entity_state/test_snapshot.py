"""Snapshots: all of a memory or an error, whatever happened to the file."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.entity_state import log_kernels, snapshot
from fraudsdk.entity_state.layout import META_BUMP
from fraudsdk.entity_state.memory import EntityMemory
from fraudsdk.entity_state.snapshot import read_snapshot, require_identity, restore, write_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import CorruptStateError, StateError
from fraudsdk.features.spec import Feature, FeatureSet

FEATURES = FeatureSet(
    "kept",
    (
        Feature("n", "count", entity="user", window="24h"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="1h"),
    ),
    ring_cap=8,
)
IDENTITY = StateIdentity.of(b"record", b"state", b"a key of sixteen bytes")
WORDS = [("version", "m/1"), ("reason", ["VEL01", "für Prüfer", "safe"])]
CAPACITY = 40


@pytest.fixture
def directory(tmp_path):
    directory = StateDirectory(tmp_path / "state")
    yield directory
    directory.close()


def memory_after(n) -> EntityMemory:
    driver = Driver(FEATURES, journal_capacity=CAPACITY)
    for i in range(n):
        driver.observe(Event(f"t{i}", 10**15 + i * 10**8, texts={"user_id": f"u{i % 5}", "merchant_id": f"m{i % 9}"}))
    return driver.engine.memory


def empty() -> EntityMemory:
    return Driver(FEATURES, journal_capacity=CAPACITY).engine.memory


@pytest.mark.parametrize("n", [0, 1, CAPACITY - 1, CAPACITY, 3 * CAPACITY])
def test_a_memory_comes_back(directory, n):
    memory, again = memory_after(n), empty()
    path = write_snapshot(directory, IDENTITY, memory, WORDS, 7)

    found, sections = read_snapshot(path)
    words = restore(again, found, sections)

    assert (7, IDENTITY, CAPACITY) == (found.sequence, found.identity, found.journal_capacity)
    assert [list(each) for each in WORDS] == [list(each) for each in words]
    bump = memory.meta[META_BUMP]
    assert np.array_equal(memory.meta, again.meta)
    assert np.array_equal(memory.pool[:bump], again.pool[:bump])
    assert np.array_equal(memory.journal, again.journal)
    # Another order of entering would be as good; both find the same.
    assert sorted(memory.table[memory.table[:, 1] != 0].tolist()) == sorted(
        again.table[again.table[:, 1] != 0].tolist()
    )
    assert sorted(memory.journal_index.tolist()) == sorted(again.journal_index.tolist())
    assert 0o600 == path.stat().st_mode & 0o777


def test_any_changed_bit_is_noticed(directory):
    path = write_snapshot(directory, IDENTITY, memory_after(3), WORDS, 7)
    whole = path.read_bytes()
    for octet in range(len(whole)):
        changed = bytearray(whole)
        changed[octet] ^= 1 << (octet % 8)
        path.write_bytes(changed)
        with pytest.raises(StateError, match=r"changed|no snapshot|upgrade|bytes after|cut off"):
            read_snapshot(path)


def test_any_other_length_is_noticed(directory):
    path = write_snapshot(directory, IDENTITY, memory_after(3), WORDS, 7)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptStateError):
            read_snapshot(path)
    path.write_bytes(whole + bytes(8))
    with pytest.raises(CorruptStateError, match="bytes after its end"):
        read_snapshot(path)


def test_sections_of_any_claimed_length_are_refused(directory):
    path = write_snapshot(directory, IDENTITY, memory_after(3), WORDS, 7)
    for claimed in (-1, 2**62, 10**6, 0):
        words = np.fromfile(path, "<i8")
        words[snapshot._SECTIONS + 2] = claimed
        words[snapshot._CHECKSUM] = log_kernels.checksum(np.ascontiguousarray(words[: snapshot._CHECKSUM]))
        words.tofile(path)
        with pytest.raises(CorruptStateError):
            read_snapshot(path)


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_one_that_cannot_be_written_leaves_what_was_there(directory, monkeypatch, fails):
    write_snapshot(directory, IDENTITY, memory_after(3), WORDS, 7)
    before = {path.name: path.read_bytes() for path in directory.path.iterdir()}

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "write":
        monkeypatch.setattr(snapshot, "bytes_of", refuse)
    elif fails == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(type(directory.path), "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_snapshot(directory, IDENTITY, memory_after(9), WORDS, 8)

    monkeypatch.undo()
    assert before == {path.name: path.read_bytes() for path in directory.path.iterdir()}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (StateIdentity.of(b"record", b"state", b"another key of sixteen"), "another hash_key"),
        (StateIdentity.of(b"other", b"state", b"a key of sixteen bytes"), "other fields or another vocabulary"),
        (StateIdentity.of(b"record", b"other", b"a key of sixteen bytes"), "another feature set"),
    ],
)
def test_another_meaning_is_named(directory, other, what):
    with pytest.raises(StateError, match=f"was kept with {what}"):
        require_identity(directory.path, IDENTITY, other)
