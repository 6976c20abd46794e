"""
State as it was: the newest snapshot that is whole, and every record of the log after it.

What a crash left unfinished at the end of the log is cut off and put aside, and said; anything else that is missing is an error,
never a silent gap.  Of a stream's state all that came after its last place is cut off too: it was never marked, and comes again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.entity_state.erasure import apply_logged
from fraudsdk.entity_state.log_format import (
    ERASURE,
    HEADER_WORDS,
    PLACE,
    RECORD_KIND,
    RECORD_SEQUENCE,
    RECORD_WORDS,
    WORD,
    text_of,
)
from fraudsdk.entity_state.log_reader import Segment, has_record, identity_of, read_segment
from fraudsdk.entity_state.marks import place_of, unmarked
from fraudsdk.entity_state.place import Mark, Place
from fraudsdk.entity_state.snapshot import DecisionWords, private, read_snapshot, require_identity, restore
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity, torn_off
from fraudsdk.errors import CorruptStateError, StateError
from fraudsdk.features import replay_kernels
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.policy.recorded import DecisionRecorder

# Rows that are held while their decisions may still come.
_MANY_UNDECIDED: Final = 1_000
# Files of what was cut off a stream's state that stay: it is in the stream, and a worker may be killed every minute.
_MOST_PUT_ASIDE: Final = 4


@dataclass(frozen=True, slots=True)
class Undecided:
    """
    A transaction without its decision.

    Attributes
    ----------
    key, journal_row : int
    row : float32[n_features]
        As it was when the transaction came.
    """

    key: int
    journal_row: int
    row: npt.NDArray[np.float32]


@dataclass
class Recovered:
    """
    What was found.

    Attributes
    ----------
    sequence : int
        Number of the next record.
    snapshot : Path or None
        What the log was applied to.
    n_replayed : int
        Records after it.
    n_torn_bytes : int
        Bytes at the end of the log that were no whole record, or of a stream came after its last place, and were put aside.
    sequence_of_snapshot : int
        Number of the first record that the snapshot does not have.
    undecided : list of Undecided
        Transactions that were remembered when the process died, before their decision was.
    problems : list of str
        Snapshots that could not be used, and why; what was put aside.
    place : Place or None
        How far in its stream the state is; None where it is of none.
    """

    sequence: int = 1
    snapshot: Path | None = None
    n_replayed: int = 0
    n_torn_bytes: int = 0
    sequence_of_snapshot: int = 1
    undecided: list[Undecided] = field(default_factory=list, repr=False)
    problems: list[str] = field(default_factory=list)
    place: Place | None = None


def recover(
    directory: StateDirectory,
    identity: StateIdentity,
    engine: FeatureEngine,
    recorder: DecisionRecorder,
    *,
    mark: Mark | None = None,
    until: int | None = None,
) -> Recovered:
    """
    Give an empty engine and recorder what a directory holds.

    Parameters
    ----------
    engine : FeatureEngine
        With arrays attached; they are written over.
    mark : Mark, optional
        The last place that `last_mark` found in it: what came later does not count.  None where it is no stream's.
    until : int, optional
        Only what comes before the segment that begins with this record, which is left alone: it is being written.

    Raises
    ------
    CorruptStateError
        Records are missing or were changed.
    StateError
        What is there was kept for something else, by a later version, or does not fit the bounds.
    """
    found = Recovered(place=mark.place if mark else None)
    damaged = _restore_newest_snapshot(directory, identity, engine, recorder, found)
    segments = [each for each in directory.segments() if until is None or each[0] < until]
    if until is None and segments and not has_record(segments[-1][1], segments[-1][0]):
        _, path = segments.pop()
        if path.stat().st_size > 8 * HEADER_WORDS:
            _put_aside(path, 0, found)
        else:  # begun, and nothing written to it yet
            path.unlink()
    for place, (first, path) in enumerate(segments):
        is_last = place == len(segments) - 1
        ends = until if is_last else segments[place + 1][0]
        if mark is not None:
            ends = mark.sequence if ends is None else min(ends, mark.sequence)
        if ends is not None and (ends <= found.sequence or ends <= first):
            continue
        if first > found.sequence:
            raise CorruptStateError(
                f"{directory.path} lacks the changes {found.sequence} to {first - 1} of state: the log goes on in "
                f"{path.name}; put the missing segments back, or start in a new directory{_also(found)}"
            )
        segment = read_segment(path, first, ends)
        require_identity(path, identity_of(segment), identity, of_log=True)
        _require_layout(segment, engine)
        if segment.stop > found.sequence:  # a snapshot may outlast the end of a log that nobody synced
            _apply(segment, engine, recorder, found)
        if segment.n_torn_bytes and ends is None:
            _put_aside(path, segment.words.nbytes, found)
    if mark is not None:
        _require_all_until(mark, directory, found)
        if until is None:
            _cut_after(mark, directory, found)
    for path in damaged:  # not before all went well: who tries again must find what is here now
        _rename_damaged(path, found)
    _drop_decided(engine, found)
    return found


def _require_all_until(mark: Mark, directory: StateDirectory, found: Recovered) -> None:
    if found.sequence != mark.sequence:
        raise CorruptStateError(
            f"{directory.path} lacks the changes {found.sequence} to {mark.sequence - 1} of state, up to "
            f"{mark.place.said}; put a copy of its files back, or start in a new directory{_also(found)}"
        )


def _cut_after(mark: Mark, directory: StateDirectory, found: Recovered) -> None:
    """Put aside what was never marked, the newest first: killed in between, this leaves a log that has no gap."""
    tails = unmarked(directory, mark)
    why = f"came after {mark.place.said}, the last that was marked, and come again from there"
    for path, n_marked in tails:
        if n_marked:
            directory.sync()  # without what came later
        _put_aside(path, n_marked, found, why)
    if tails:
        _forget_put_aside(directory)


def _forget_put_aside(directory: StateDirectory) -> None:
    for path in sorted(directory.path.glob("*.torn"), key=lambda each: each.stat().st_mtime_ns)[:-_MOST_PUT_ASIDE]:
        path.unlink(missing_ok=True)


def _drop_decided(engine: FeatureEngine, found: Recovered) -> None:
    """Keep what has no decision yet, of what the journal still has; the newest, if it is more than threads there are."""
    lacking = [each for each in found.undecided if engine.lacks_verdict(each.journal_row, each.key)]
    found.undecided = lacking[-_MANY_UNDECIDED // 2 :]


def _also(found: Recovered) -> str:
    """What went wrong before, at the end of what is wrong now."""
    return "".join(f"; {problem}" for problem in found.problems)


def _restore_newest_snapshot(
    directory: StateDirectory,
    identity: StateIdentity,
    engine: FeatureEngine,
    recorder: DecisionRecorder,
    found: Recovered,
) -> list[Path]:
    """Give engine and recorder what it holds, if there is one; those that were damaged, and are newer."""
    damaged: list[Path] = []
    for _, path in reversed(directory.snapshots()):
        try:
            snapshot, sections = read_snapshot(path)
        except CorruptStateError as error:
            damaged.append(path)
            found.problems.append(str(error))
            continue
        require_identity(path, snapshot.identity, identity, of_log=True)
        try:
            require_identity(path, snapshot.identity, identity)
        except StateError as error:  # another feature set: the log may still give its state
            found.problems.append(str(error))
            continue
        _require_same_owner(path, snapshot.place, found)
        try:
            words = restore(engine.memory, snapshot, sections)
        except CorruptStateError as error:
            damaged.append(path)
            found.problems.append(str(error))
            continue
        _learn(words, path, recorder)
        engine.adopt_memory()
        found.sequence = found.sequence_of_snapshot = snapshot.sequence
        found.snapshot = path
        break
    return damaged


def _require_same_owner(path: Path, kept: Place | None, found: Recovered) -> None:
    if (kept and kept.origin) != (found.place and found.place.origin):
        raise StateError(
            f"{path} holds the state of {_owner(kept)}, and what is recovered is that of {_owner(found.place)}; move it out of the "
            "state directory"
        )


def _owner(place: Place | None) -> str:
    return f"the stream {place.stream}" if place else "a host"


def _rename_damaged(path: Path, found: Recovered) -> None:
    """So that it does not count among those that are kept."""
    named = path.replace(path.with_suffix(".damaged"))
    found.problems.append(f"{path.name} is {named.name} now")


def _learn(words: DecisionWords, path: Path, recorder: DecisionRecorder) -> None:
    try:
        for table, number, word in words:
            recorder.learn(table, number, word)
    except ValueError as error:
        raise CorruptStateError(
            f"{path} has words of decisions that are none ({error}); move it away: the snapshot before it and the log after that "
            "give the same state"
        ) from error


def _apply(segment: Segment, engine: FeatureEngine, recorder: DecisionRecorder, found: Recovered) -> None:
    words, at = segment.words, segment.at(found.sequence)
    while at < len(words):
        at, why = replay_kernels.replay_log(
            words, words.view(float), at, segment.n_ints, segment.n_numbers, engine.context
        )
        if why == replay_kernels.GROW:
            engine.grow()
        elif why == replay_kernels.UNDECIDED:
            found.undecided.append(Undecided(*engine.newest()))
            if len(found.undecided) > _MANY_UNDECIDED:
                _drop_decided(engine, found)
        elif why == replay_kernels.FOR_PYTHON:
            at = _apply_other(segment, at, engine, recorder, found)
        elif why == replay_kernels.MALFORMED:
            raise _malformed(segment, at, "is of another length than its kind has")
        elif why == replay_kernels.CONTRADICTION:
            raise CorruptStateError(
                f"{segment.path} has one transaction twice, in record {words[at + RECORD_SEQUENCE]}; it was kept with a smaller "
                "journal_capacity: compact it with that, and any capacity can read the snapshot"
            )
    found.n_replayed += segment.stop - max(found.sequence, segment.first)
    found.sequence = segment.stop


def _apply_other(segment: Segment, at: int, engine: FeatureEngine, recorder: DecisionRecorder, found: Recovered) -> int:
    """A record that is not about one transaction; where the next one begins."""
    n = int(segment.words[at]) & 0xFFFFFFFF
    record = segment.words[at : at + n]
    if record[RECORD_KIND] == ERASURE:
        apply_logged(engine.memory, record)
        engine.adopt_memory()
        return at + n
    if record[RECORD_KIND] == PLACE:
        _require_same_owner(segment.path, place_of(record, segment.path), found)
        engine.memory.place = record[RECORD_WORDS:].copy()
        return at + n
    if record[RECORD_KIND] != WORD:
        raise StateError(
            f"{segment.path} has a record of kind {record[RECORD_KIND]}, which this version does not know; upgrade fraudsdk"
        )
    try:
        recorder.learn(*json.loads(text_of(record)))
    except (ValueError, TypeError, RecursionError) as error:
        raise _malformed(segment, at, "is no word of a decision") from error
    return at + n


def _require_layout(segment: Segment, engine: FeatureEngine) -> None:
    """Kernels copy so many words into arrays of the engine's layout."""
    expected = engine.record_layout.n_ints, len(engine.record_layout.numbers)
    if (segment.n_ints, segment.n_numbers) != expected:
        raise CorruptStateError(
            f"{segment.path} says that a transaction has {segment.n_ints} and {segment.n_numbers} words, and it has "
            f"{expected[0]} and {expected[1]}; put a copy of the file in its place"
        )


def _malformed(segment: Segment, at: int, problem: str) -> CorruptStateError:
    """Of a record that has a right checksum: it was not written by this library."""
    return CorruptStateError(
        f"{segment.path} has a change, number {segment.words[at + RECORD_SEQUENCE]}, that {problem}; put a copy of the file in "
        "its place"
    )


def _put_aside(
    path: Path, intact_bytes: int, found: Recovered, why: str = "were no whole record, as a crash leaves them"
) -> None:
    """Cut a segment after the last record that counts; what is cut off goes into a file beside it."""
    with open(path, "r+b") as file:
        file.seek(intact_bytes)
        torn = file.read()
        aside = torn_off(path, intact_bytes)
        with open(aside, "wb", opener=private) as kept:
            kept.write(torn)
        if intact_bytes > 8 * HEADER_WORDS:
            file.truncate(intact_bytes)
            os.fsync(file.fileno())
        else:
            path.unlink()
    found.n_torn_bytes += len(torn)
    found.problems.append(f"{len(torn)} bytes at the end of {path.name} {why}; they are in {aside.name}")
