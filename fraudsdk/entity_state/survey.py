"""
What lies in a state directory, read beside a scorer that may be writing to it: no lock, no key, nothing changed.

`survey` looks at heads and sizes; `verify` reads every byte and says what a recovery would make of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state.layout import COUNTER_NAMES
from fraudsdk.entity_state.log_format import HEADER_WORDS, MAX_RECORD_WORDS, RECORD_SEQUENCE, RECORD_WORDS, Words
from fraudsdk.entity_state.log_reader import Segment, has_record, identity_of, read_segment
from fraudsdk.entity_state.marks import last_mark
from fraudsdk.entity_state.place import Mark
from fraudsdk.entity_state.snapshot import Snapshot, read_head, read_snapshot
from fraudsdk.entity_state.state_directory import StateFiles, StateIdentity, torn_off
from fraudsdk.errors import StateError, StateUnavailableError

# A scorer that takes a snapshot removes what it made superfluous, once in a million changes.
_ATTEMPTS: Final = 5
# Places in a torn tail where a whole change is looked for: one is found at once, unless somebody drew the tail to have none.
_MOST_TRIED: Final = 1_000

Counter = Callable[[int], None]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SnapshotFound:
    """
    A snapshot, by its head.

    Attributes
    ----------
    path : Path
    sequence : int
        Number of the first change that is not in it.
    n_bytes : int
    written_s : float
        When, in seconds since the Unix epoch.
    head : Snapshot or None
        None where it cannot be read.
    counters : dict of str to int
        What had happened by then, by name.
    problem : str
        Why it cannot be read; empty when it can.
    """

    path: Path
    sequence: int
    n_bytes: int
    written_s: float
    head: Snapshot | None
    counters: dict[str, int]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SegmentFound:
    """
    A segment of the log.

    Attributes
    ----------
    path : Path
    first, stop : int
        Numbers of its first change, and after its last one that counts.
    n_bytes : int
    written_s : float
    n_torn_bytes : int
        After the last change; of the last segment only, the others are not read.
    problem : str
        Why it cannot be read; empty when it can.
    """

    path: Path
    first: int
    stop: int
    n_bytes: int
    written_s: float
    n_torn_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """
    What is there.

    Attributes
    ----------
    snapshots, segments : tuple
        Oldest first.
    leftovers, strangers : tuple of Path
        Files that nothing reads, and files that are no part of the state.
    mark : Mark or None
        The last place of a stream; None where it is none's.
    mark_problem : str
        Why that cannot be read; empty when it can.
    """

    snapshots: tuple[SnapshotFound, ...]
    segments: tuple[SegmentFound, ...]
    leftovers: tuple[Path, ...]
    strangers: tuple[Path, ...]
    mark: Mark | None = None
    mark_problem: str = ""

    @property
    def newest(self) -> SnapshotFound | None:
        """The snapshot that a recovery would begin with."""
        return next((each for each in reversed(self.snapshots) if each.head is not None), None)

    @property
    def to_replay(self) -> tuple[SegmentFound, ...]:
        """The segments that a recovery would read."""
        start = self.newest.sequence if self.newest else 1
        return tuple(each for each in self.segments if each.stop > start and each.first < self._stop)

    @property
    def n_to_replay(self) -> int:
        """The changes that a recovery would read from the log."""
        start = self.newest.sequence if self.newest else 1
        return sum(min(each.stop, self._stop) - max(each.first, start) for each in self.to_replay)

    @property
    def n_unmarked(self) -> int:
        """The changes after the last place of a stream, which a recovery would cut off."""
        return max((each.stop for each in self.segments), default=self._stop) - self._stop if self.mark else 0

    @property
    def _stop(self) -> int:
        return self.mark.sequence if self.mark else 2**63


@dataclass(frozen=True, slots=True)
class Report:
    """
    What one file, or the place between two, was found to be.

    Attributes
    ----------
    name : str
    n_bytes : int
    found : str
    is_wrong : bool
        Something that neither a crash nor a scorer at work leaves.
    """

    name: str
    n_bytes: int
    found: str
    is_wrong: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """
    What was verified.

    Attributes
    ----------
    reports : tuple of Report
    start : int
        Number of the first change that is not in the newest whole snapshot.
    stop : int
        Number after the last change that counts.
    mark : Mark or None
        The last place of a stream, after which none counts; None where it is none's, or that cannot be read.
    """

    reports: tuple[Report, ...]
    start: int
    stop: int
    mark: Mark | None = None

    @property
    def wrong(self) -> tuple[Report, ...]:
        """Those that say something is wrong."""
        return tuple(each for each in self.reports if each.is_wrong)


def survey(files: StateFiles) -> Survey:
    """
    Look at a state directory: heads of snapshots, names and sizes of segments, and the last of these.

    Raises
    ------
    StateError
        It is none.
    StateUnavailableError
        Its files came and went all the while.
    """
    return _while_files_come_and_go(files, lambda: _survey(files))


def verify(files: StateFiles, progress: Counter = lambda n_bytes: None) -> Verified:
    """
    Verify every checksum of every file, and that nothing is missing between them.

    Takes as much memory as the largest file.

    Parameters
    ----------
    files : StateFiles
    progress : callable
        Told how many bytes have been read.

    Raises
    ------
    StateError
        It is no state directory.
    StateUnavailableError
        Its files came and went all the while.
    """
    return _while_files_come_and_go(files, lambda: _verify(files, progress))


def _while_files_come_and_go(files: StateFiles, look: Callable[[], _T]) -> _T:
    for _ in range(_ATTEMPTS):
        files.require_state()
        try:
            return look()
        except FileNotFoundError as error:
            vanished = error
    raise StateUnavailableError(
        f"files of {files.path} were removed while they were read, {_ATTEMPTS} times: {vanished.filename}; try again later"
    ) from vanished


def _survey(files: StateFiles) -> Survey:
    segments = files.segments()
    found = [_segment_between(each, after) for each, (after, _) in pairwise(segments)]
    found += [_last_segment(*each) for each in segments[-1:]]
    return Survey(
        tuple(_snapshot_found(*each) for each in files.snapshots()),
        tuple(found),
        tuple(files.leftovers()),
        tuple(files.strangers()),
        *_mark_found(files),
    )


def _mark_found(files: StateFiles) -> tuple[Mark | None, str]:
    try:
        return last_mark(files), ""
    except StateError as error:
        return None, str(error)


def _snapshot_found(sequence: int, path: Path) -> SnapshotFound:
    status = path.stat()
    try:
        head, meta = read_head(path)
    except StateError as error:
        return SnapshotFound(path, sequence, status.st_size, status.st_mtime, None, {}, str(error))
    counters = {name: int(meta[word]) for name, word in COUNTER_NAMES.items()}
    return SnapshotFound(path, sequence, status.st_size, status.st_mtime, head, counters)


def _segment_between(segment: tuple[int, Path], stop: int) -> SegmentFound:
    first, path = segment
    status = path.stat()
    return SegmentFound(path, first, stop, status.st_size, status.st_mtime)


def _last_segment(first: int, path: Path) -> SegmentFound:
    status = path.stat()
    if not has_record(path, first):
        return SegmentFound(path, first, first, status.st_size, status.st_mtime, status.st_size)
    try:
        read = read_segment(path, first, None)
    except StateError as error:
        return SegmentFound(path, first, first, status.st_size, status.st_mtime, problem=str(error))
    return SegmentFound(path, first, read.stop, read.n_bytes, status.st_mtime, read.n_torn_bytes)


def _verify(files: StateFiles, progress: Counter) -> Verified:
    segments, snapshots = files.segments(), files.snapshots()
    reports, start, n_read = [], 1, 0
    identity: StateIdentity | None = None
    for sequence, path in snapshots:
        snapshot, report = _verified_snapshot(sequence, path, identity)
        reports.append(report)
        if snapshot is not None:
            start, identity = sequence, identity or snapshot.identity
        progress(n_read := n_read + report.n_bytes)
    if segments and segments[0][0] > start:
        reports.append(_missing(start, segments[0][0]))
    stop = start
    for place, (first, path) in enumerate(segments):
        until = segments[place + 1][0] if place + 1 < len(segments) else None
        segment, those = _verified_segment(first, path, until, start, identity)
        reports += those
        if segment is not None:
            stop, identity = max(start, segment.stop), identity or identity_of(segment)
        progress(n_read := n_read + those[0].n_bytes)
    mark, problem = _mark_found(files)
    if problem and not any(each.is_wrong for each in reports):  # else it has been said
        reports.append(Report("log", 0, problem, is_wrong=True))
    reports += [_leftover(path) for path in files.leftovers()]
    reports += [Report(path.name, path.lstat().st_size, "is no part of the state") for path in files.strangers()]
    return Verified(tuple(reports), start, mark.sequence if mark else stop, mark)


def _verified_snapshot(sequence: int, path: Path, identity: StateIdentity | None) -> tuple[Snapshot | None, Report]:
    n_bytes = path.stat().st_size
    try:
        snapshot, _ = read_snapshot(path)
    except StateError as error:
        return None, _unreadable(path, n_bytes, error)
    if snapshot.sequence != sequence:
        renamed = f"holds the changes before {snapshot.sequence:,}: it was renamed; give it its name back"
        return None, Report(path.name, n_bytes, renamed, is_wrong=True)
    if other := _other_meaning(snapshot.identity, identity):
        return None, Report(path.name, n_bytes, other, is_wrong=True)
    return snapshot, Report(path.name, n_bytes, f"whole, the changes before {sequence:,}")


def _verified_segment(
    first: int, path: Path, until: int | None, start: int, identity: StateIdentity | None
) -> tuple[Segment | None, list[Report]]:
    """
    A segment, and what there is to say of it.

    Parameters
    ----------
    until : int or None
        First change of the next segment.
    start : int
        First change that a recovery needs.
    """
    n_bytes = path.stat().st_size
    if until is None and not has_record(path, first):
        return None, [_torn(path, min(n_bytes, 8 * HEADER_WORDS), first, n_bytes)]
    try:
        segment = read_segment(path, first, None)
    except StateError as error:
        return None, [_unreadable(path, n_bytes, error)]
    if other := _other_meaning(identity_of(segment), identity):
        return None, [Report(path.name, n_bytes, other, is_wrong=True)]
    reports = [Report(path.name, segment.n_bytes, _changes(first, min(segment.stop, until or segment.stop)))]
    if until is None and segment.n_torn_bytes:
        reports.append(_torn(path, segment.words.nbytes, segment.stop, segment.n_torn_bytes))
    elif until is not None and segment.stop < until:
        reports.append(_ends_early(segment, until, start))
    return segment, reports


def _unreadable(path: Path, n_bytes: int, error: StateError) -> Report:
    return Report(path.name, n_bytes, str(error).removeprefix(f"{path} "), is_wrong=True)


def _torn(path: Path, n_intact_bytes: int, sequence: int, n_torn_bytes: int) -> Report:
    """Of the last segment: what is not whole after the change before `sequence`."""
    if n_torn_bytes <= 8 * HEADER_WORDS and n_intact_bytes == n_torn_bytes:
        return Report(path.name, n_torn_bytes, "begun, and holds no change yet")
    n_whole = _changes_after(path, n_intact_bytes, sequence)
    cut_off = (
        f"{n_torn_bytes:,} bytes at its end are no whole change, as a crash leaves them or a scorer that is writing: a "
        f"recovery would move them to {torn_off(path, n_intact_bytes).name}"
    )
    if not n_whole:
        return Report(path.name, n_torn_bytes, cut_off)
    damaged = (
        f"is not as it was written from byte {n_intact_bytes:,} on, and {n_whole:,} whole changes follow later: a disk was "
        f"damaged, or lost power; a recovery would move {n_torn_bytes:,} bytes to {torn_off(path, n_intact_bytes).name}, those "
        "changes with them; put a copy of the file in its place first"
    )
    return Report(path.name, n_torn_bytes, damaged, is_wrong=True)


def _ends_early(segment: Segment, until: int, start: int) -> Report:
    if segment.n_torn_bytes:
        damaged = (
            f"is not as it was written from byte {segment.words.nbytes:,} on: the changes {segment.stop:,} to "
            f"{until - 1:,} are lost; put a copy of the file in its place"
        )
        return Report(segment.path.name, segment.n_torn_bytes, damaged, is_wrong=True)
    if until <= start:
        lost = f"the changes {segment.stop:,} to {until - 1:,} are missing; the snapshot before {start:,} has them"
        return Report("log", 0, lost)
    return _missing(segment.stop, until)


def _missing(first: int, until: int) -> Report:
    missing = f"the changes {first:,} to {until - 1:,} are missing; put the segments that hold them back"
    return Report("log", 0, missing, is_wrong=True)


def _leftover(path: Path) -> Report:
    what = (
        "a snapshot that was never finished, or is being written"
        if path.suffix == ".tmp"
        else "what a recovery cut off the log"
    )
    return Report(path.name, path.stat().st_size, f"{what}; nothing reads it")


def _changes(first: int, stop: int) -> str:
    return f"whole, the changes {first:,} to {stop - 1:,}" if stop > first else "holds no whole change"


def _other_meaning(found: StateIdentity, expected: StateIdentity | None) -> str:
    if expected is None or (found.record, found.key) == (expected.record, expected.key):
        return ""
    what = "another hash_key" if found.key != expected.key else "other fields or another vocabulary"
    return f"was kept with {what} than the files before it; move it out of the state directory"


def _changes_after(path: Path, n_intact_bytes: int, sequence: int) -> int:
    """How many whole changes follow one another beyond the place where a segment ceases to be as it was written."""
    words = np.fromfile(path, "<i8", count=path.stat().st_size // 8).astype(np.int64, copy=False)
    tail = np.ascontiguousarray(words[n_intact_bytes // 8 :])
    for at in _candidates(tail, sequence)[:_MOST_TRIED].tolist():
        first = int(tail[at + RECORD_SEQUENCE])
        _, after = log_kernels.intact_until(tail, at, first, 2**63 - 1)
        if after > first:
            return int(after - first)
    return 0


def _candidates(tail: Words, stop: int) -> npt.NDArray[np.int64]:
    """Where a record of a later change may begin, by its length and number."""
    lengths, sequences = tail[:-1] & 0xFFFFFFFF, tail[1:]
    is_one = (lengths >= RECORD_WORDS) & (lengths <= MAX_RECORD_WORDS)
    is_one &= (sequences >= stop) & (sequences <= stop + len(tail))
    return np.flatnonzero(is_one)
