"""Segments of the log as they are read back: what is intact, and where one ends that was torn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state.log_format import (
    FORMAT_VERSION,
    HEADER_CHECKSUM,
    HEADER_IDENTITY,
    HEADER_INTS,
    HEADER_MAGIC,
    HEADER_NUMBERS,
    HEADER_SEQUENCE,
    HEADER_VERSION,
    HEADER_WORDS,
    MAGIC,
    MAX_RECORD_WORDS,
    Words,
)
from fraudsdk.entity_state.state_directory import StateIdentity
from fraudsdk.errors import CorruptStateError, StateError


@dataclass(frozen=True, slots=True)
class Segment:
    """
    One segment.

    Attributes
    ----------
    path : Path
    first : int
        Sequence number that its name says.
    stop : int
        Sequence number after its last record.
    words : int64[n]
        Header and intact records.
    n_ints, n_numbers : int
        Words of an encoded transaction.
    n_bytes : int
        Of the file.
    """

    path: Path
    first: int
    stop: int
    words: Words
    n_ints: int
    n_numbers: int
    n_bytes: int

    @property
    def n_torn_bytes(self) -> int:
        """Bytes after the last record that is intact."""
        return self.n_bytes - self.words.nbytes

    def at(self, sequence: int) -> int:
        """Where a record begins."""
        return int(log_kernels.intact_until(self.words, HEADER_WORDS, self.first, sequence)[0])


def read_segment(path: Path, first: int, until: int | None) -> Segment:
    """
    Read a segment as far as it is intact.

    Parameters
    ----------
    first : int
        Number of its first record.
    until : int or None
        Number of the first record of the next segment: from there on this one does not count.

    Raises
    ------
    CorruptStateError
        It is no segment, or its header was changed; or records before `until` are missing.
    StateError
        A later version wrote it.
    """
    n_bytes = path.stat().st_size
    words = np.fromfile(path, "<i8", count=n_bytes // 8).astype(np.int64, copy=False)
    _require_header(path, words, first)
    stop = 2**63 - 1 if until is None else until
    at, sequence = log_kernels.intact_until(words, HEADER_WORDS, first, stop)
    if until is not None and sequence < until:
        raise CorruptStateError(
            f"{path} is not as it was written from byte {8 * at} on, and {until - sequence} changes of state are lost with that; "
            "put a copy of the file in its place"
        )
    return Segment(path, first, sequence, words[:at], int(words[HEADER_INTS]), int(words[HEADER_NUMBERS]), n_bytes)


def identity_of(segment: Segment) -> StateIdentity:
    """What the records of a segment mean; of a log, nothing is said of the state."""
    digests = segment.words[HEADER_IDENTITY:HEADER_CHECKSUM].astype("<i8").tobytes()
    return StateIdentity(digests[:16], b"", digests[16:])


def has_record(path: Path, first: int) -> bool:
    """
    Whether the first record of a segment is as it was written: a crash may come before it.

    Raises
    ------
    StateError
        A later version wrote it, whose records are not for this one to call torn.
    """
    return first_record(path, first) is not None


def first_record(path: Path, first: int) -> Words | None:
    """
    The first record of a segment; None where a crash came before it.

    Raises
    ------
    StateError
        As `has_record`.
    """
    words = np.fromfile(path, "<i8", count=HEADER_WORDS + MAX_RECORD_WORDS).astype(np.int64, copy=False)
    if _has_whole_header(words):
        _require_known_version(path, words)
    if len(words) <= HEADER_WORDS:
        return None
    end, sequence = log_kernels.intact_until(words, HEADER_WORDS, first, first + 1)
    return words[HEADER_WORDS:end] if sequence > first else None


def _require_header(path: Path, words: Words, first: int) -> None:
    if len(words) < HEADER_WORDS or words[HEADER_MAGIC] != MAGIC:
        raise CorruptStateError(f"{path} is no segment of a log; move it out of the state directory")
    _require_known_version(path, words)
    if not _has_whole_header(words) or words[HEADER_SEQUENCE] != first or words[HEADER_VERSION] < 1:
        raise CorruptStateError(f"{path} has a header that was changed; put a copy of the file in its place")


def _has_whole_header(words: Words) -> bool:
    if len(words) < HEADER_WORDS or words[HEADER_MAGIC] != MAGIC:
        return False
    return bool(log_kernels.checksum(np.ascontiguousarray(words[:HEADER_CHECKSUM])) == words[HEADER_CHECKSUM])


def _require_known_version(path: Path, words: Words) -> None:
    if words[HEADER_VERSION] > FORMAT_VERSION:
        raise StateError(
            f"{path} has format {words[HEADER_VERSION]} and this version reads up to {FORMAT_VERSION}; upgrade fraudsdk"
        )
