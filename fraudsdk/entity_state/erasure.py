"""
Taking a subject out of what is remembered: found, forgotten, struck off the lists of others, and looked for afterwards.

A subject is one or more identifiers, as the keyed hashes of the columns of a transaction that they can be in.  What is about it::

    entities      those of an identifier, and of pairs with one in them
    transactions  its rows of the journal; their keys in the rings of others
    names         such an entity in the journal's rows of others: of those who paid the subject
    mentions      the identifier among the distinct keys of others
    old words     what any of these left in words of the pool that nothing reads any more

An erasure is a change of state like any other: records of the log say what is forgotten, so that a replay forgets the same.
What stays is a *tombstone* per identifier, which tells whether an identifier is the one that was erased, and not which that was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.entity_state import erasure_kernels as kernels
from fraudsdk.entity_state.layout import (
    DISTINCT_IDENTIFIER,
    KIND_COMPONENT_0,
    KIND_COMPONENTS,
    KIND_JOURNAL,
    META_JOURNAL_NEXT,
    StateLayout,
)
from fraudsdk.entity_state.log_format import HEADER_WORDS, RECORD_SEQUENCE, RECORD_WORDS, Words
from fraudsdk.entity_state.log_reader import read_segment
from fraudsdk.entity_state.memory import TOMBSTONE_WORDS, EntityMemory
from fraudsdk.entity_state.snapshot import TOMBSTONES, DecisionWords, read_snapshot, write_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateFiles, StateIdentity
from fraudsdk.errors import CorruptStateError, StateError

# What a record of an erasure says, in its first word; keys follow.
TRANSACTIONS: Final = 1
ENTITIES: Final = 2
IDENTIFIERS: Final = 3  # at the end: time, number of targets, targets, marks of the tombstones
_KEYS_PER_RECORD: Final = 4_000
_IDENTIFIERS_PER_RECORD: Final = 1_000
# Columns of ``EntityMemory.tombstones``.
MARK: Final = 0
ERASED_US: Final = 1
SEQUENCE: Final = 2  # no file of the directory that begins before this change may stay

_FIRST_SET: Final = 1 << 12
_SCAN_BYTES: Final = 1 << 24
_NO_KEYS: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Subject:
    """
    Who is erased.

    Attributes
    ----------
    targets : int64[n, 3]
        A column of ``ints``, the keyed hash of the identifier in it, and whether a transaction that has it there is the subject's
        own (a user's) or another's (a counterparty's): one for each column that could name the subject.
    marks : int64[m]
        Of its tombstones, one an identifier: a keyed hash of that hash.
    """

    targets: npt.NDArray[np.int64]
    marks: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Traces:
    """
    What is about a subject.

    Attributes
    ----------
    entities, transactions : int64[n], int64[m]
        Their keys, each once.
    """

    entities: npt.NDArray[np.int64]
    transactions: npt.NDArray[np.int64]

    def joined(self, other: Traces) -> Traces:
        """These and those of another."""
        return Traces(*(np.union1d(mine, its) for mine, its in zip(self._both, other._both, strict=True)))

    @property
    def _both(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self.entities, self.transactions


NO_TRACES: Final = Traces(_NO_KEYS, _NO_KEYS)


@dataclass(frozen=True, slots=True)
class TakenOut:
    """How much was: entities, transactions, and entities of others that had counted an identifier."""

    n_entities: int = 0
    n_transactions: int = 0
    n_mentions: int = 0

    def __add__(self, other: TakenOut) -> TakenOut:
        return TakenOut(
            self.n_entities + other.n_entities,
            self.n_transactions + other.n_transactions,
            self.n_mentions + other.n_mentions,
        )


@dataclass(frozen=True, slots=True)
class Scanned:
    """
    One file that was looked through.

    Attributes
    ----------
    name : str
    n_bytes : int
    n_found : int
        How often a key of the subject was in it.
    first : int
        Byte of the first one; -1 where there is none.
    """

    name: str
    n_bytes: int
    n_found: int
    first: int


# --- find ------------------------------------------------------------------------------------------------------------


def find_traces(memory: EntityMemory, subject: Subject, known: Iterable[int] = ()) -> Traces:
    """
    What a memory holds about a subject; nothing is changed.

    Parameters
    ----------
    memory : EntityMemory
    subject : Subject
    known : iterable of int
        Keyed hashes of identifiers that may stand beside the subject's in a pair, besides those that the memory itself tells.
    """
    others = _known_set(memory, subject, known)
    found = NO_TRACES
    for column, identifier, is_own in subject.targets.tolist():
        traces = _traces_of(memory, column, identifier, others)
        found = found.joined(traces if is_own else Traces(traces.entities, _NO_KEYS))
    return found


def unsearched_kinds(layout: StateLayout, subject: Subject) -> tuple[str, ...]:
    """Kinds of three and more components with a subject's identifier, which no transaction in the journal names."""
    kinds, columns = layout.kinds, set(subject.targets[:, 0].tolist())
    return tuple(
        name
        for name, kind in zip(layout.names, kinds, strict=True)
        if kind[KIND_COMPONENTS] > 2 and not kind[KIND_JOURNAL] and columns & set(_components(kind))
    )


def traces_in_log(files: StateFiles, layout: StateLayout, subject: Subject, until: int | None = None) -> Traces:
    """
    What the segments of a log say about a subject, the keys of all that they name with it.

    Parameters
    ----------
    until : int, optional
        Only what comes before this change.

    Notes
    -----
    A segment that cannot be read is passed over: whoever erases removes it in any case.
    """
    entities, transactions = np.zeros(_FIRST_SET, np.int64), np.zeros(_FIRST_SET, np.int64)
    for first, path in files.segments():
        if until is not None and first >= until:
            break
        with contextlib.suppress(CorruptStateError):
            words = read_segment(path, first, None).words
            for column, identifier, is_own in subject.targets.tolist():
                while not kernels.trace_in_log(
                    words, HEADER_WORDS, layout.kinds, column, identifier, is_own, entities, transactions
                ):
                    entities, transactions = _larger(entities), _larger(transactions)
    return Traces(*(np.sort(each[each != 0]) for each in (entities, transactions)))


def identifiers_in(memory: EntityMemory, files: StateFiles, column: int) -> Words:
    """The keyed hashes in a column of transactions, of all that a memory and a log still tell."""
    layout, keys = memory.layout, np.zeros(_FIRST_SET, np.int64)
    while not kernels.know_alone(memory.pool, memory.meta, layout.kinds, column, keys):
        keys = _larger(keys)
    wanted = np.array([column], np.int64)
    while kernels.FULL == kernels.know_counted(memory.pool, memory.meta, layout.kinds, layout.distincts, wanted, keys):
        keys = _larger(keys)
    for first, path in files.segments():
        with contextlib.suppress(CorruptStateError):
            words = read_segment(path, first, None).words
            while not kernels.know_logged(words, HEADER_WORDS, column, keys):
                keys = _larger(keys)
    told: Words = keys[keys != 0]
    return told


def partners_without_entities(layout: StateLayout, subject: Subject) -> set[int]:
    """Columns that make pairs with a subject's, and have no entities of their own to tell their identifiers."""
    columns: set[int] = set(subject.targets[:, 0].tolist())
    alone: set[int] = set()
    partners: set[int] = set()
    for kind in layout.kinds:
        components = set(_components(kind))
        if len(components) == 1:
            alone |= components
        elif columns & components:
            partners |= components
    return partners - alone


def _components(kind: npt.NDArray[np.int64]) -> list[int]:
    components: list[int] = kind[KIND_COMPONENT_0 : KIND_COMPONENT_0 + kind[KIND_COMPONENTS]].tolist()
    return components


def _known_set(memory: EntityMemory, subject: Subject, known: Iterable[int]) -> Words:
    """Identifiers that complete a pair with the subject's, of columns that have no entities of their own."""
    layout, keys = memory.layout, _set_of(known)
    counted = set(layout.distincts[:, DISTINCT_IDENTIFIER].tolist())
    wanted = np.array(sorted(partners_without_entities(layout, subject) & counted), np.int64)
    while wanted.size and (
        kernels.know_counted(memory.pool, memory.meta, layout.kinds, layout.distincts, wanted, keys) == kernels.FULL
    ):
        keys = _larger(keys)
    return keys


def _traces_of(memory: EntityMemory, column: int, identifier: int, known: Words) -> Traces:
    kinds, out = memory.layout.kinds, np.empty(_FIRST_SET, np.int64)
    while True:
        n = kernels.find_entities(memory.pool, memory.meta, memory.table, kinds, column, identifier, known, out)
        if n <= len(out):
            break
        out = np.empty(n, np.int64)
    entities = _set_of(out[:n].tolist())
    n_rows = min(int(memory.meta[META_JOURNAL_NEXT]), len(memory.journal))
    while True:
        n, n_added = kernels.find_transactions(memory.journal, kinds, n_rows, column, identifier, entities, out)
        if n_added == kernels.FULL:
            entities = _larger(entities)
        elif n > len(out):
            out = np.empty(n, np.int64)
        elif not n_added:  # a look that adds nothing has seen all
            return Traces(np.sort(entities[entities != 0]), np.sort(out[:n]))


def _set_of(keys: Iterable[int]) -> Words:
    """A set for kernels, less than half full."""
    members = np.unique(np.fromiter(keys, np.int64))
    members = members[members != 0]
    size = max(_FIRST_SET, 1 << (4 * len(members)).bit_length())
    return _filled(members, size)


def _larger(keys: Words) -> Words:
    return _filled(keys[keys != 0], 4 * len(keys))


def _filled(members: Words, size: int) -> Words:
    keys = np.zeros(size, np.int64)
    kernels.fill(keys, members)
    return keys


# --- take out --------------------------------------------------------------------------------------------------------


def records_of(subject: Subject, traces: Traces, erased_us: int) -> list[Words]:
    """
    An erasure as records of a log, what comes after `RECORD_WORDS` of each; `apply_record` does what they say.

    Parameters
    ----------
    erased_us : int
        When, in microseconds since the Unix epoch: what the subject did until then is not remembered again.
    """
    records = [
        np.concatenate(([what], keys[first : first + _KEYS_PER_RECORD]))
        for what, keys in ((TRANSACTIONS, traces.transactions), (ENTITIES, traces.entities))
        for first in range(0, len(keys), _KEYS_PER_RECORD)
    ]
    for first in range(0, max(1, len(subject.targets), len(subject.marks)), _IDENTIFIERS_PER_RECORD):
        some = slice(first, first + _IDENTIFIERS_PER_RECORD)
        targets, marks = subject.targets[some, :2], subject.marks[some]
        records.append(np.concatenate(([IDENTIFIERS, erased_us, len(targets)], targets.reshape(-1), marks)))
    return [record.astype(np.int64) for record in records]


def apply_record(memory: EntityMemory, payload: Words, after: int) -> TakenOut:
    """
    Do to a memory what a record of an erasure says.

    Parameters
    ----------
    payload : int64[n]
        What comes after `RECORD_WORDS`.
    after : int
        Number of the record that follows it.

    Raises
    ------
    CorruptStateError
        It is no such record.
    """
    what, keys = int(payload[0]) if len(payload) else 0, np.ascontiguousarray(payload[1:])
    pool, meta, table, kinds = memory.pool, memory.meta, memory.table, memory.layout.kinds
    if what == TRANSACTIONS:
        n = kernels.forget_transactions(pool, meta, table, memory.journal, memory.journal_index, kinds, keys)
        return TakenOut(n_transactions=n)
    if what == ENTITIES:
        n_rows = min(int(meta[META_JOURNAL_NEXT]), len(memory.journal))
        kernels.unname(memory.journal, kinds, n_rows, _set_of(keys.tolist()))
        return TakenOut(n_entities=kernels.forget_entities(pool, meta, table, kinds, keys))
    if what != IDENTIFIERS or len(keys) < 2 or not 0 <= keys[1] <= (len(keys) - 2) // 2:
        raise CorruptStateError(f"record {after - 1} says of an erasure what none is; upgrade fraudsdk")
    targets, marks = keys[2 : 2 + 2 * keys[1]].reshape(-1, 2), keys[2 + 2 * keys[1] :]
    n = sum(
        kernels.strike(pool, meta, kinds, memory.layout.distincts, column, identifier)
        for column, identifier in targets.tolist()
    )
    kernels.scrub(pool, meta, kinds)
    bury(memory, marks, int(keys[0]), after)
    return TakenOut(n_mentions=n)


def apply_logged(memory: EntityMemory, record: Words) -> TakenOut:
    """The same of a whole record."""
    return apply_record(memory, record[RECORD_WORDS:], int(record[RECORD_SEQUENCE]) + 1)


def bury(memory: EntityMemory, marks: Words, erased_us: int, sequence: int) -> None:
    """Add tombstones; one of the same mark is replaced, so that there are never more than identifiers that were erased."""
    others = memory.tombstones[~np.isin(memory.tombstones[:, MARK], marks)]
    added = np.array([(mark, erased_us, sequence) for mark in marks.tolist()], np.int64).reshape(-1, 3)
    memory.tombstones = np.concatenate((others, added))


# --- parts -----------------------------------------------------------------------------------------------------------


class PartEraser:
    """
    Takes a subject out of single parts, in two rounds over all of them.

    Parameters
    ----------
    layout : StateLayout
    subject : Subject
    known : iterable of int
        As for `find_traces`.

    Notes
    -----
    Parts must be sound: taken up by a `PartCodec`, or packed by one.  The first round, `learn`, tells which identifiers there
    are, so that the pairs among the parts can be told apart; the second, `erased`, says what becomes of each.
    """

    def __init__(self, layout: StateLayout, subject: Subject, known: Iterable[int] = ()) -> None:
        self._layout = layout
        self._targets: list[tuple[int, int]] = [(column, its) for column, its, _ in subject.targets.tolist()]
        self._known = _set_of(known)
        self._no_table = np.zeros((1, 2), np.int64)

    def learn(self, part: bytes) -> None:
        """Take note of the identifiers that a part tells."""
        words = _words_of(part)
        while kernels.know_part(words, self._layout.kinds, self._layout.distincts, self._known) == kernels.FULL:
            self._known = _larger(self._known)

    def erased(self, part: bytes) -> bytes | None:
        """A part without the subject: the same one where it says nothing of it, None where it is all about it."""
        words, n = _words_of(part), len(part) // 8
        for column, identifier in self._targets:
            if kernels.part_belongs(words, self._layout.kinds, column, identifier, self._no_table, self._known):
                return None
            n = kernels.strike_from_part(words, self._layout.kinds, self._layout.distincts, column, identifier)
            words = np.ascontiguousarray(words[:n])
        return part if 8 * n == len(part) else words.astype("<i8").tobytes()


def _words_of(part: bytes) -> Words:
    return np.frombuffer(part, "<i8").astype(np.int64)


# --- files -----------------------------------------------------------------------------------------------------------


def remove_before(directory: StateDirectory, sequence: int) -> list[Path]:
    """
    Remove every snapshot and segment that begins before a change, and everything that was left unfinished.

    Returns
    -------
    list of Path
        What was removed; what a crash leaves is removed by the same call again.
    """
    gone = [*directory.leftovers(), *_files_before(directory, sequence)]
    for path in gone:
        path.unlink(missing_ok=True)
    if gone:
        directory.sync()
    return gone


def _files_before(files: StateFiles, sequence: int) -> list[Path]:
    return [path for first, path in (*files.segments(), *files.snapshots()) if first < sequence]


def keep_erased(
    directory: StateDirectory, identity: StateIdentity, memory: EntityMemory, words: DecisionWords, sequence: int
) -> Path:
    """
    Keep a memory that a subject was taken out of, and remove every file that is older; a snapshot that cannot be read removes none.

    Parameters
    ----------
    directory, identity, memory, words, sequence
        As for `write_snapshot`.

    Raises
    ------
    OSError
        The snapshot cannot be written.  What was there before still is.
    CorruptStateError
        It was not written as it is in memory.
    """
    path = write_snapshot(directory, identity, memory, words, sequence)
    read_snapshot(path)  # the only one there will be
    remove_before(directory, sequence)
    return path


def finish_erasures(
    directory: StateDirectory,
    identity: StateIdentity,
    memory: EntityMemory,
    words: DecisionWords,
    sequence: int,
    sequence_of_snapshot: int,
) -> int:
    """
    Do what is left of erasures that a crash cut short.

    Parameters
    ----------
    directory, identity, memory, words, sequence
        As they were recovered.
    sequence_of_snapshot : int
        Of the snapshot that the memory was recovered from.

    Returns
    -------
    int
        How many files were removed.

    Raises
    ------
    OSError, CorruptStateError
        As `keep_erased`.
    """
    since = int(memory.tombstones[:, SEQUENCE].max(initial=1))
    if since > sequence_of_snapshot:
        older = _files_before(directory, sequence)
        keep_erased(directory, identity, memory, words, sequence)
        return len(older)
    older = _files_before(directory, since)
    if older:
        remove_before(directory, since)
    return len(older)


def scan_files(paths: Iterable[Path], subject: Subject, traces: Traces) -> tuple[Scanned, ...]:
    """
    Look for the keys of a subject in files, at every byte, in either byte order.

    Its identifiers, its entities and its transactions are looked for, as eight bytes each.
    """
    patterns = patterns_of(subject, traces)
    return tuple(_scanned(path, patterns) for path in paths)


def patterns_of(subject: Subject, traces: Traces) -> Words:
    """The keys of a subject as eight bytes in either order, for `n_found_in`."""
    keys = np.concatenate((subject.targets[:, 1], traces.entities, traces.transactions)).astype("<i8")
    return _set_of(np.concatenate((keys, keys.byteswap())).astype(np.int64).tolist())


def n_found_in(octets: bytes, patterns: Words) -> int:
    """How often one of some patterns is in bytes, wherever it begins."""
    n, _ = kernels.scan(np.frombuffer(octets, np.uint8).copy(), patterns)
    return int(n)


def _scanned(path: Path, patterns: Words) -> Scanned:
    """Piece by piece, each with the seven bytes before it."""
    n_bytes, n_found, first, tail = 0, 0, -1, b""
    with path.open("rb") as file:
        while chunk := file.read(_SCAN_BYTES):
            octets = np.frombuffer(tail + chunk, np.uint8)
            n, at = kernels.scan(octets.copy(), patterns)
            if n and first < 0:
                first = n_bytes - len(tail) + at
            n_found, n_bytes, tail = n_found + n, n_bytes + len(chunk), bytes(octets[-7:])
    return Scanned(path.name, n_bytes, n_found, first)


def tombstones_in(files: StateFiles) -> tuple[StateIdentity, npt.NDArray[np.int64]]:
    """
    The tombstones of a directory, and what it was kept with.

    Raises
    ------
    StateError
        No snapshot there can be read; one is taken with every erasure.
    """
    files.require_state()
    for _, path in reversed(files.snapshots()):
        with contextlib.suppress(CorruptStateError):
            snapshot, sections = read_snapshot(path)
            return snapshot.identity, sections[TOMBSTONES].reshape(-1, TOMBSTONE_WORDS)
    raise StateError(
        f"{files.path} has no snapshot, so that nobody was erased there; name the directory with the erasures"
    )


def erased_until_us(tombstones: npt.NDArray[np.int64]) -> int:
    """Nothing after this time is of what was erased."""
    return int(tombstones[:, ERASED_US].max(initial=-(2**63)))


def marks_of(tombstones: npt.NDArray[np.int64]) -> dict[int, int]:
    """When each was erased, by its mark."""
    return dict(zip(tombstones[:, MARK].tolist(), tombstones[:, ERASED_US].tolist(), strict=True))
