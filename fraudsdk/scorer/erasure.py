"""
Erasing a subject: its identifiers as they are kept, what is said about it, and the order in which that goes.

With a scorer running, and without one::

    find ──> log what is forgotten ──> forget ──> end the segment ──> snapshot ──> remove every older file ──> scan
    recover ──> find, in the log too ──> forget ──────────────────────> snapshot ──> remove every older file ──> scan

A crash before the log or the snapshot says so leaves nothing erased; after it whoever recovers forgets the same, and removes what
is left of the files.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.config import ScorerConfig
from fraudsdk.domain.fields import EVENT_TIME_US, FIRST_IDENTIFIER, IDENTIFIERS
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.encoding.hashing import hash_space
from fraudsdk.entity_state.erasure import (
    NO_TRACES,
    Scanned,
    Subject,
    TakenOut,
    Traces,
    apply_record,
    bury,
    find_traces,
    identifiers_in,
    keep_erased,
    marks_of,
    partners_without_entities,
    records_of,
    scan_files,
    tombstones_in,
    traces_in_log,
    unsearched_kinds,
)
from fraudsdk.entity_state.log_format import Words
from fraudsdk.entity_state.memory import EntityMemory
from fraudsdk.entity_state.state_directory import StateDirectory, StateFiles
from fraudsdk.errors import ConfigurationError, InvalidTransactionError, StateError
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.scorer.compaction import Kept, recovered_from, require_decided
from fraudsdk.scorer.kept_state import KeptState
from fraudsdk.telemetry.clock import Clock

# A transaction that nobody makes, to have identifiers encoded as those of any other.
_NOBODYS: Final = {
    "transaction_id": "an erasure",
    "user_id": "nobody",
    "device_id": "nobody",
    "amount": "1",
    "event_time_us": 1_600_000_000_000_000,
}
# How often what a subject does during its erasure is erased too.
_ROUNDS: Final = 3

Identifiers = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Erased:
    """
    What an erasure did, and what was looked through afterwards.

    Attributes
    ----------
    n_entities, n_transactions : int
        That were about the subject, and are forgotten.
    n_mentions : int
        Entities of others that had the subject among what they count.
    erased_us : int
        When, in microseconds since the Unix epoch: what the subject did until then is not remembered again.
    scanned : tuple of Scanned
        Files that hold what was remembered at that time; empty where nothing is kept.
    unsearched : tuple of str
        Entity kinds whose members cannot be told from their keys.
    problems : tuple of str
        What a recovery had to say, where there was one.
    counters : dict of str to int
        Of the memory that is left.
    """

    n_entities: int
    n_transactions: int
    n_mentions: int
    erased_us: int
    scanned: tuple[Scanned, ...] = ()
    unsearched: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    counters: dict[str, int] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def was_known(self) -> bool:
        """Whether anything was remembered of the subject."""
        return bool(self.n_entities or self.n_transactions or self.n_mentions)

    @property
    def n_found(self) -> int:
        """How often a key of the subject is still in a file."""
        return sum(each.n_found for each in self.scanned)


class Tombstones:
    """
    Keeps what was erased from being remembered again.

    Parameters
    ----------
    encoder : Encoder
    memory : EntityMemory
        Whose tombstones they are.
    """

    def __init__(self, encoder: Encoder, memory: EntityMemory) -> None:
        self._encoder = encoder
        self._memory = memory
        self._read: npt.NDArray[np.int64] | None = None
        self._erased_us: dict[int, int] = {}

    def columns_of(self, ints: npt.NDArray[np.int64]) -> list[int]:
        """Columns of an encoded transaction, ``int64[n_ints]``, that name somebody who was erased at its time or later."""
        if self._read is not self._memory.tombstones:
            self._read = self._memory.tombstones
            self._erased_us = marks_of(self._read)
        if not self._erased_us:
            return []
        time_us = int(ints[EVENT_TIME_US])
        return [
            column
            for column, name in enumerate(self._encoder.layout.identifiers, FIRST_IDENTIFIER)
            if time_us <= self._erased_us.get(mark_of(self._encoder, name, int(ints[column])), time_us - 1)
        ]

    def cover(self, ints: npt.NDArray[np.int64]) -> bool:
        """
        Take out of an encoded transaction, ``int64[n_ints]``, who was erased at its time or later.

        Returns
        -------
        bool
            Whether it is the transaction of such a one; another's may name one as its counterparty.
        """
        columns = self.columns_of(ints)
        ints[columns] = 0
        return any(_is_own(self._encoder.layout.identifiers[column - FIRST_IDENTIFIER]) for column in columns)


def subject_of(encoder: Encoder, identifiers: Identifiers) -> Subject:
    """
    A subject as it is kept.

    Parameters
    ----------
    encoder : Encoder
        Of the scorer that keeps it.
    identifiers : Mapping of str to str, or several
        By the field of a transaction that holds them.  Fields that name the same kind of thing, as a user and a counterparty do,
        are looked for together.

    Raises
    ------
    ConfigurationError
        None is given, or no feature reads such a field.
    InvalidTransactionError
        One is no identifier.
    """
    targets: list[tuple[int, int, bool]] = []
    marks: list[int] = []
    for field, several in identifiers.items():
        columns = _columns_of(encoder, field)
        for text in [several] if isinstance(several, str) else several:
            names = [encoder.layout.identifiers[place] for place in columns]
            hashes = _encoded(encoder, dict.fromkeys(names, text))[FIRST_IDENTIFIER:]
            if not hashes[columns[0]]:
                raise InvalidTransactionError(field, "names nobody", "give it as it is sent")
            targets += [
                (FIRST_IDENTIFIER + place, int(hashes[place]), _is_own(name))
                for place, name in zip(columns, names, strict=True)
            ]
            marks.append(mark_of(encoder, field, targets[-1][1]))
    if not targets:
        raise ConfigurationError("nobody is named; say whom to erase, such as user_id")
    return Subject(np.array(targets, np.int64), np.array(marks, np.int64))


def _is_own(field: str) -> bool:
    """Whether a transaction belongs to what this field names; to a counterparty it does not."""
    return hash_space(field) == field


def mark_of(encoder: Encoder, field: str, identifier: int) -> int:
    """What a tombstone says of an identifier: a hash of its hash, by the same secret."""
    return encoder.transaction_key(f"erased {hash_space(field)} {identifier}")


def partners_of(encoder: Encoder, memory: EntityMemory, subject: Subject) -> list[int]:
    """
    Keyed hashes of whatever can make a pair with a subject and is no entity: values of the vocabulary, and every code of a
    country that a standard could give.
    """
    layout, hashes = encoder.layout, []
    for column in sorted(partners_without_entities(memory.layout, subject)):
        field = layout.identifiers[column - FIRST_IDENTIFIER]
        if field in IDENTIFIERS:
            continue
        values = dict.fromkeys(encoder.vocabulary.codes(field))
        if hash_space(field) == "country":
            values |= dict.fromkeys(map("".join, product(ascii_uppercase, repeat=2)))
        hashes += [int(_encoded(encoder, {field: value})[column]) for value in values]
    return hashes


def erase_live(
    encoder: Encoder,
    engine: FeatureEngine,
    state: KeptState | None,
    lock: threading.Lock,
    identifiers: Identifiers,
    clock: Clock,
) -> Erased:
    """
    Erase a subject from what a scorer remembers, and keeps; see `fraudsdk.Scorer.erase`.

    Takes the lock, and holds it for as long as the memory is searched.  What the subject does meanwhile may be found in the
    snapshot afterwards: it is erased with the rest.
    """
    memory, subject = engine.memory, subject_of(encoder, identifiers)
    partners = partners_of(encoder, memory, subject)
    known = NO_TRACES if state is None else state.logged_traces(subject)
    taken, scanned = TakenOut(), tuple[Scanned, ...]()
    for _ in range(_ROUNDS):
        with lock:
            traces, records = _planned(memory, subject, partners, known, clock.now_us(), state)
            for record in records:
                taken += apply_record(memory, record, 1 if state is None else state.keep_erasure(record))
            engine.adopt_memory()
            engine.forget_scratch()
        if state is not None:
            files, logged = state.finish_erasure(subject)
            known = traces.joined(logged)
            scanned = scan_files(files, subject, known)
        if not any(each.n_found for each in scanned):
            break
    erased_us = int(records[-1][1])
    with lock:
        counters = memory.counters()
    unsearched = unsearched_kinds(memory.layout, subject)
    return Erased(
        *(taken.n_entities, taken.n_transactions, taken.n_mentions, erased_us, scanned, unsearched), counters=counters
    )


def erase_kept(directory: StateDirectory, config: ScorerConfig, identifiers: Identifiers, now_us: int) -> Erased:
    """
    Erase a subject from a directory that no scorer has open.

    Parameters
    ----------
    directory : StateDirectory
    config : ScorerConfig
        As the scorer has it.
    identifiers : Mapping of str to str, or several
    now_us : int
        The time, microseconds since the Unix epoch.

    Raises
    ------
    ModelError, ConfigurationError, InvalidTransactionError
        Model, features or identifiers are not what they should be.
    StateError
        What is there cannot be recovered, or was kept for something else; or transactions are without their decision.
    OSError
        The snapshot cannot be written.  What was there before still is.
    """
    kept = recovered_from(directory, config)
    subject = subject_of(kept.encoder, identifiers)
    return _erase(directory, kept, subject, [(mark, now_us) for mark in subject.marks.tolist()])


def erase_as_in(directory: StateDirectory, config: ScorerConfig, other: Path) -> Erased:
    """
    Erase from a directory, one that was restored from a backup, whoever was erased in another, as of then.

    Parameters
    ----------
    directory : StateDirectory
    config : ScorerConfig
        As the scorer has it.
    other : Path
        A state directory; a scorer may be writing to it.

    Raises
    ------
    StateError
        The other one was kept with another key, or has no snapshot; else as `erase_kept`.
    """
    identity, tombstones = tombstones_in(StateFiles(other))
    kept = recovered_from(directory, config)
    if identity.key != kept.identity.key:
        raise StateError(f"{other} was kept with another hash_key than {directory.path}; name one that has the same")
    there = marks_of(kept.engine.memory.tombstones)
    wanted = [
        (mark, erased_us)
        for mark, erased_us in marks_of(tombstones).items()
        if there.get(mark, erased_us - 1) < erased_us
    ]
    return _erase(directory, kept, _subject_of_marks(kept, directory, [mark for mark, _ in wanted]), wanted)


def _subject_of_marks(kept: Kept, directory: StateDirectory, marks: Sequence[int]) -> Subject:
    """Whose tombstones these are, of all whose identifiers a directory still tells."""
    encoder, memory, wanted = kept.encoder, kept.engine.memory, set(marks)
    targets: list[tuple[int, int, bool]] = []
    for field in dict.fromkeys(hash_space(name) for name in encoder.layout.identifiers if name in IDENTIFIERS):
        columns = _columns_of(encoder, field)
        told = {
            its for place in columns for its in identifiers_in(memory, directory, FIRST_IDENTIFIER + place).tolist()
        }
        targets += [
            (FIRST_IDENTIFIER + place, identifier, _is_own(encoder.layout.identifiers[place]))
            for identifier in sorted(told)
            if mark_of(encoder, field, identifier) in wanted
            for place in columns
        ]
    return Subject(np.array(targets, np.int64).reshape(-1, 3), np.array(marks, np.int64))


def _erase(directory: StateDirectory, kept: Kept, subject: Subject, tombstones: Sequence[tuple[int, int]]) -> Erased:
    """Erase a subject, with its marks and times, from what was recovered, and keep what is left."""
    encoder, engine, memory, sequence = kept.encoder, kept.engine, kept.engine.memory, kept.found.sequence
    traces = find_traces(memory, subject, partners_of(encoder, memory, subject))
    traces = traces.joined(traces_in_log(directory, memory.layout, subject))
    erased_us, taken = max((each for _, each in tombstones), default=0), TakenOut()
    for record in records_of(subject, traces, erased_us):
        taken += apply_record(memory, record, sequence + 1)
    for mark, each_us in tombstones:
        bury(memory, np.array([mark], np.int64), each_us, sequence + 1)
    undecided = [each for each in kept.found.undecided if engine.lacks_verdict(each.journal_row, each.key)]
    require_decided(directory, len(undecided))
    # The erasure is a change like any other: files from before it have other names than those from after it.
    keep_erased(directory, kept.identity, memory, kept.recorder.words, sequence + 1)
    scanned = scan_files(directory.files(), subject, traces)
    return Erased(
        *(taken.n_entities, taken.n_transactions, taken.n_mentions, erased_us, scanned),
        unsearched_kinds(memory.layout, subject),
        tuple(kept.found.problems),
        memory.counters(),
    )


def _planned(
    memory: EntityMemory,
    subject: Subject,
    partners: Iterable[int],
    known: Traces,
    now_us: int,
    state: KeptState | None,
) -> tuple[Traces, list[Words]]:
    """What is about a subject, and the records that say so, for which the log has room.  Called under the lock."""
    traces, records, is_current = NO_TRACES, list[Words](), False
    while not is_current:  # to wait for room lets the lock go
        traces = find_traces(memory, subject, partners).joined(known)
        records = records_of(subject, traces, now_us)
        is_current = state is None or state.wait_for_room_for_erasure(records)
    return traces, records


def _columns_of(encoder: Encoder, field: str) -> list[int]:
    """Places among the identifiers of a layout where what is in a field may be."""
    names = encoder.layout.identifiers
    columns = [place for place, name in enumerate(names) if hash_space(name) == hash_space(field)]
    if field not in IDENTIFIERS or not columns:
        kept = ", ".join(name for name in names if name in IDENTIFIERS)
        raise ConfigurationError(f"no feature reads {field!r}, so that nothing that is kept names one; kept are {kept}")
    return columns


def _encoded(encoder: Encoder, fields: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The row of a transaction with these fields."""
    ints, numbers = encoder.empty(1)
    try:
        encoder.encode(encoder.prepare({**_NOBODYS, **fields}), ints, numbers)
    except InvalidTransactionError as error:  # about the field: there is no transaction
        raise InvalidTransactionError(error.field, error.problem, error.remedy) from None
    row: npt.NDArray[np.int64] = ints[0]
    return row
