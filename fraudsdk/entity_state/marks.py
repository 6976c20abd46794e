"""The last place in its stream that a state directory holds, found without a lock and without a change."""

from __future__ import annotations

from pathlib import Path

from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state.log_format import HEADER_WORDS, PLACE, RECORD_KIND, RECORD_WORDS, Words
from fraudsdk.entity_state.log_reader import first_record, has_record, read_segment
from fraudsdk.entity_state.place import Mark, Place
from fraudsdk.entity_state.snapshot import read_head
from fraudsdk.entity_state.state_directory import StateFiles
from fraudsdk.errors import CorruptStateError


def last_mark(files: StateFiles, until: int | None = None) -> Mark | None:
    """
    The last place that a directory holds; None where it is no stream's.  Nothing is changed.

    Parameters
    ----------
    until : int, optional
        Only what comes before the segment that begins with this record.

    Raises
    ------
    CorruptStateError
        Records are missing or were changed.
    StateError
        A later version wrote them.
    """
    segments = [each for each in files.segments() if until is None or each[0] < until]
    kept, is_streams = _mark_of_newest_snapshot(files)
    if is_streams is None:  # no snapshot says it: the first record does
        is_streams = bool(segments) and _begins_with_place(*segments[0])
    start, stop = kept.sequence if kept else 1, until
    for first, path in reversed(segments if is_streams else ()):
        if stop is not None and stop <= start:
            break
        if stop is None and not has_record(path, first):
            continue
        if (found := _last_in(path, first, stop)) is not None and found.sequence >= start:
            return found
        stop = first
    return kept


def unmarked(files: StateFiles, mark: Mark) -> list[tuple[Path, int]]:
    """Segments with something that came after the last place, the newest first, and how many bytes of each came before it."""
    found = []
    for first, path in reversed(files.segments()):
        n_marked = 0 if first >= mark.sequence else 8 * read_segment(path, first, None).at(mark.sequence)
        if path.stat().st_size > n_marked:
            found.append((path, n_marked))
        if n_marked:
            break
    return found


def holds_changes(files: StateFiles) -> bool:
    """Whether anything is kept in a directory: a crash may leave files, and nothing in them."""
    return bool(files.snapshots()) or any(has_record(path, first) for first, path in files.segments())


def _mark_of_newest_snapshot(files: StateFiles) -> tuple[Mark | None, bool | None]:
    """Its mark, and whether it is a stream's; None for that where no snapshot can be read."""
    for sequence, path in reversed(files.snapshots()):
        try:
            snapshot, _ = read_head(path)
        except CorruptStateError:  # whoever recovers says so
            continue
        return (None, False) if snapshot.place is None else (Mark(snapshot.place, sequence), True)
    return None, None


def _begins_with_place(first: int, path: Path) -> bool:
    record = first_record(path, first)
    return record is not None and int(record[RECORD_KIND]) == PLACE


def _last_in(path: Path, first: int, stop: int | None) -> Mark | None:
    words = read_segment(path, first, stop).words
    at, sequence = log_kernels.last_of_kind(words, HEADER_WORDS, PLACE)
    if at < 0:
        return None
    n = int(words[at]) & 0xFFFFFFFF
    return Mark(place_of(words[at : at + n], path), int(sequence) + 1)


def place_of(record: Words, path: Path) -> Place:
    """
    What a `PLACE` says.

    Raises
    ------
    CorruptStateError
        It has a right checksum and is none: it was not written by this library.
    """
    try:
        place = Place.of(record[RECORD_WORDS:])
        if place is None:
            raise ValueError("nothing")
    except ValueError as error:
        raise CorruptStateError(
            f"{path} has a place in a stream that is none ({error}); put a copy of the file in its place"
        ) from error
    return place
