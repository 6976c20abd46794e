"""
Snapshots: all that is remembered after a prefix of the log, in one file.

::

    header (`HEADER_WORDS`) | meta | pool, as far as it is in use | journal | words of decisions | tombstones | place in a stream

Each section has a CRC-32C in the header, and the header one of its own.  A snapshot is written aside, synced and renamed,
so one that has its name is whole; the tables over pool and journal are made anew when it is read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fraudsdk.entity_state import log_kernels, soundness_kernels
from fraudsdk.entity_state.layout import (
    META_BUMP,
    META_ENTITIES,
    META_JOURNAL_NEXT,
    META_MAX_ENTITIES,
    META_WORDS,
    StateLayout,
)
from fraudsdk.entity_state.log_format import Words, bytes_of
from fraudsdk.entity_state.memory import TOMBSTONE_WORDS, EntityMemory
from fraudsdk.entity_state.place import Place
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import CorruptStateError, StateError

FORMAT_VERSION: Final = 3
_OLDEST_VERSION: Final = 2  # the first had no tombstones, and was never released
_WITHOUT_PLACE: Final = 2
MAGIC: Final = int.from_bytes(b"fsdkSNAP", "little")
_MAGIC, _VERSION, _SEQUENCE = 0, 1, 2
_JOURNAL_CAPACITY: Final = 3
_JOURNAL_WORDS: Final = 4
_IDENTITY: Final = 5  # six words: record, state and key
_SECTIONS: Final = 11  # words and checksum of each
_N_SECTIONS: Final = 6
TOMBSTONES: Final = 4  # which of the sections they are
_CHECKSUM: Final = _SECTIONS + 2 * _N_SECTIONS
HEADER_WORDS: Final = _CHECKSUM + 1
# The more frequent mistake first: a wrong key explains more than another feature set does.
_WHAT_DIFFERS: Final = (
    ("key", "another hash_key", "open it with the key that it was kept with"),
    (
        "record",
        "other fields or another vocabulary",
        "open it with the model that it was kept for, or start in a new directory",
    ),
    (
        "state",
        "another feature set",
        "open it with the feature set that it was kept for, or let it be built from the log",
    ),
)

_NO_WORDS: Final = np.zeros(0, np.int64)

DecisionWords = Sequence[tuple[str, int, Any]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What a file of state says of itself.

    Attributes
    ----------
    path : Path
    sequence : int
        Number of the first record that is not in it.
    identity : StateIdentity
    max_entities, journal_capacity : int
        Bounds of the memory it was taken of.
    journal_words : int
        Words of a row of its journal.
    n_tombstones : int
        Identifiers that were erased.
    place : Place or None
        How far in its stream it is; None where it is of none.
    """

    path: Path
    sequence: int
    identity: StateIdentity
    max_entities: int
    journal_capacity: int
    journal_words: int
    n_tombstones: int = 0
    place: Place | None = None


def write_snapshot(
    directory: StateDirectory, identity: StateIdentity, memory: EntityMemory, words: DecisionWords, sequence: int
) -> Path:
    """
    Keep a memory in which exactly the records before `sequence` are; nobody may change it meanwhile.

    Raises
    ------
    OSError
        It cannot be written.  What was there before still is.
    """
    sections = _sections_of(memory, words)
    header = np.zeros(HEADER_WORDS, np.int64)
    header[_MAGIC], header[_VERSION], header[_SEQUENCE] = MAGIC, FORMAT_VERSION, sequence
    header[_JOURNAL_CAPACITY], header[_JOURNAL_WORDS] = memory.journal.shape
    header[_IDENTITY:_SECTIONS] = np.frombuffer(identity.record + identity.state + identity.key, "<i8")
    for number, section in enumerate(sections):
        header[_SECTIONS + 2 * number] = section.size
        header[_SECTIONS + 2 * number + 1] = log_kernels.checksum(section)
    header[_CHECKSUM] = log_kernels.checksum(header[:_CHECKSUM])
    path = directory.snapshot(sequence)
    aside = path.with_suffix(".tmp")
    try:
        with open(aside, "wb", opener=private) as file:
            for part in (header, *sections):
                file.write(bytes_of(part))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    directory.sync()
    return path


def read_snapshot(path: Path) -> tuple[Snapshot, list[Words]]:
    """
    Read and verify a snapshot.

    Returns
    -------
    snapshot : Snapshot
    sections : list of int64[n]
        Meta, pool, journal rows, the words of decisions, tombstones and place, for `restore`.

    Raises
    ------
    CorruptStateError
        Some byte is not as it was written.
    StateError
        A later version wrote it.
    """
    words = _words_of(path)
    header = _header_of(path, words)
    sections, at = [], len(header)
    for section in range(_n_sections(header)):
        sections.append(_section_of(path, header, words, section, at))
        at += len(sections[-1])
    if at != len(words):
        raise _corrupt(path, "has bytes after its end")
    sections += [_NO_WORDS] * (_N_SECTIONS - len(sections))
    return _snapshot_of(path, header, sections[0], sections[-1]), sections


def read_head(path: Path) -> tuple[Snapshot, Words]:
    """
    What a snapshot says of itself, its place included, and its meta, without a look at the rest.

    Raises
    ------
    CorruptStateError, StateError
        As `read_snapshot`, as far as can be seen.
    """
    n_words, odd = divmod(path.stat().st_size, 8)
    words = np.fromfile(path, "<i8", count=HEADER_WORDS + META_WORDS).astype(np.int64, copy=False)
    header = _header_of(path, words)
    lengths = header[_SECTIONS:-1:2].tolist()
    if odd or min(lengths) < 0 or n_words != len(header) + sum(lengths):
        raise _corrupt(path, "was cut off or has bytes after its end")
    meta, place = _section_of(path, header, words, 0, len(header)), _NO_WORDS
    if _n_sections(header) == _N_SECTIONS:  # it is the last
        end = np.fromfile(path, "<i8", offset=8 * (n_words - lengths[-1])).astype(np.int64, copy=False)
        place = _section_of(path, header, end, _N_SECTIONS - 1, 0)
    return _snapshot_of(path, header, meta, place), meta


def require_identity(path: Path, kept: StateIdentity, asked: StateIdentity, *, of_log: bool = False) -> None:
    """
    Refuse state that means something else.

    Raises
    ------
    StateError
        Names what differs.
    """
    for name, what, remedy in _WHAT_DIFFERS[: 2 if of_log else 3]:
        if getattr(kept, name) != getattr(asked, name):
            raise StateError(f"{path} was kept with {what}; {remedy}")


def restore(memory: EntityMemory, snapshot: Snapshot, sections: Sequence[Words]) -> DecisionWords:
    """
    Fill an empty memory from the sections of a snapshot; gives the words of decisions.

    Raises
    ------
    CorruptStateError
        Numbers in it lead nowhere.  The memory is as it was.
    StateError
        More was kept than the memory may hold.
    """
    meta, pool, journal, texts, tombstones, place = sections
    decisions = _decisions_of(snapshot, texts)
    _require_sound(snapshot, sections, memory)
    memory.restore(meta, pool, journal.reshape(-1, memory.layout.journal_words), snapshot.journal_capacity)
    memory.tombstones = tombstones.reshape(-1, TOMBSTONE_WORDS).copy()
    memory.place = place.copy()
    return decisions


def _decisions_of(snapshot: Snapshot, texts: Words) -> DecisionWords:
    try:
        decisions: DecisionWords = json.loads(texts.astype("<i8").tobytes().rstrip(b"\0"))
    except (ValueError, RecursionError) as error:
        raise _corrupt(snapshot.path, "has words of decisions that cannot be read") from error
    if not isinstance(decisions, list) or not all(isinstance(each, list) for each in decisions):
        raise _corrupt(snapshot.path, "has words of decisions that are none")
    return decisions


def _require_sound(snapshot: Snapshot, sections: Sequence[Words], memory: EntityMemory) -> None:
    meta, pool, journal, *_ = sections
    layout = memory.layout
    n_rows = min(int(meta[META_JOURNAL_NEXT]), snapshot.journal_capacity)
    if snapshot.journal_words != layout.journal_words or len(journal) != n_rows * layout.journal_words:
        raise _corrupt(snapshot.path, f"has a journal of {len(journal)} words for {n_rows} transactions")
    if not is_sound(meta, pool, layout):
        raise _corrupt(snapshot.path, "has numbers that lead nowhere")


def is_sound(meta: Words, pool: Words, layout: StateLayout) -> bool:
    """Whether what meta and pool say of entities and chunks agrees, so that kernels may follow it."""
    n_units = len(pool) // soundness_kernels.UNIT_WORDS
    n_entities = int(meta[META_ENTITIES])
    if not 0 <= n_entities <= n_units:
        return False
    table = np.zeros((1 << max(4, (2 * n_entities).bit_length()), 2), np.int64)
    claimed = np.zeros(n_units, np.int8)
    return bool(soundness_kernels.is_sound_memory(pool, meta, layout.kinds, table, claimed))


def _sections_of(memory: EntityMemory, words: DecisionWords) -> list[Words]:
    text = json.dumps(words).encode()
    text += b"\0" * (-len(text) % 8)
    n_journal = min(int(memory.meta[META_JOURNAL_NEXT]), len(memory.journal))
    return [
        memory.meta,
        memory.pool[: memory.meta[META_BUMP]],
        memory.journal[:n_journal].reshape(-1),
        np.frombuffer(text, "<i8").astype(np.int64),
        memory.tombstones.reshape(-1),
        memory.place,
    ]


def _n_sections(header: Words) -> int:
    return _N_SECTIONS - 1 if header[_VERSION] == _WITHOUT_PLACE else _N_SECTIONS


def _header_of(path: Path, words: Words) -> Words:
    """The header, which is as it was written."""
    if len(words) < HEADER_WORDS or words[_MAGIC] != MAGIC:
        raise _corrupt(path, "is no snapshot")
    if words[_VERSION] > FORMAT_VERSION:
        raise StateError(
            f"{path} has format {words[_VERSION]} and this version reads up to {FORMAT_VERSION}; upgrade fraudsdk"
        )
    if 1 <= words[_VERSION] < _OLDEST_VERSION:
        raise StateError(
            f"{path} has format {words[_VERSION]}, of a version before the first release, and this one reads from "
            f"{_OLDEST_VERSION} on; move it away: the whole log, if it is there, gives the same state"
        )
    header = words[: _SECTIONS + 2 * _n_sections(words) + 1]
    is_whole = header[-1] == log_kernels.checksum(np.ascontiguousarray(header[:-1]))
    if not is_whole or header[_VERSION] < 1:
        raise _corrupt(path, "has a header that was changed")
    return header


def _section_of(path: Path, header: Words, words: Words, number: int, at: int) -> Words:
    """A section, which is as it was written."""
    n, expected = header[_SECTIONS + 2 * number : _SECTIONS + 2 * number + 2].tolist()
    section = words[at : at + n]
    if len(section) != n or log_kernels.checksum(section) != expected:
        raise _corrupt(path, f"has a section {number} that was changed or cut off")
    return section


def _snapshot_of(path: Path, header: Words, meta: Words, place: Words) -> Snapshot:
    if len(meta) != META_WORDS:
        raise _corrupt(path, f"has {len(meta)} words of meta instead of {META_WORDS}")
    n_tombstones, odd = divmod(int(header[_SECTIONS + 2 * TOMBSTONES]), TOMBSTONE_WORDS)
    if odd:
        raise _corrupt(path, "has tombstones that are none")
    digests = header[_IDENTITY:_SECTIONS].astype("<i8").tobytes()
    identity = StateIdentity(digests[:16], digests[16:32], digests[32:])
    sequence, capacity = int(header[_SEQUENCE]), int(header[_JOURNAL_CAPACITY])
    if sequence < 1 or capacity < 1:
        raise _corrupt(path, f"is of change {sequence} and has a journal of {capacity}")
    bounds = int(meta[META_MAX_ENTITIES]), capacity, int(header[_JOURNAL_WORDS])
    try:
        return Snapshot(path, sequence, identity, *bounds, n_tombstones, Place.of(place))
    except ValueError as error:
        raise _corrupt(path, f"has a place in a stream that is none ({error})") from error


def _words_of(path: Path) -> Words:
    n_bytes = path.stat().st_size
    if n_bytes % 8:
        raise _corrupt(path, "was cut off")
    return np.fromfile(path, "<i8").astype(np.int64, copy=False)


def private(path: str, flags: int) -> int:
    """Open a file that nobody else may read; for `open`."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _corrupt(path: Path, problem: str) -> CorruptStateError:
    return CorruptStateError(
        f"{path} {problem}; move it away: the snapshot before it and the log after that give the same state"
    )
