"""
The event log as it lies on disk: little-endian words of 64 bits.

::

    segment   header (`HEADER_WORDS`), then records one after another
    record    checksum and length | sequence number | kind | what kind says

A record is one change of what is remembered, in the order in which changes were made, so that state is a pure function of
a prefix of the log.  Sequence numbers go up by one.  A segment is named after its first one, and whatever an older segment
holds from that number on does not count.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.fields import RecordLayout

Words = npt.NDArray[np.int64]

# Of a segment.  A reader knows this version and those before it.
FORMAT_VERSION: Final = 2
MAGIC: Final = int.from_bytes(b"fsdkLOG\n", "little")
HEADER_MAGIC: Final = 0
HEADER_VERSION: Final = 1
HEADER_SEQUENCE: Final = 2  # of the first record
HEADER_INTS: Final = 3
HEADER_NUMBERS: Final = 4
HEADER_IDENTITY: Final = 5  # four words: which features and hash key the records were made for
HEADER_CHECKSUM: Final = 9
HEADER_WORDS: Final = 10

# Words of any record.
RECORD_CHECKSUM: Final = 0  # CRC-32C of all that follows in the high half, number of words in the low half
RECORD_SEQUENCE: Final = 1
RECORD_KIND: Final = 2
RECORD_WORDS: Final = 3
MAX_RECORD_WORDS: Final = 1 << 12

# Kinds of records, and their words after `RECORD_WORDS`.
EVENT: Final = 1  # margin, score (float64 bits), verdict (0 = not yet), then ints and numbers as encoded
VERDICT: Final = 2  # transaction key, margin, score, verdict
AMENDMENT: Final = 3  # transaction key, flags to set, flags to clear
WORD: Final = 4  # a word that verdicts refer to by its number: bytes of text, then the text
ERASURE: Final = 5  # what is forgotten of a subject (`fraudsdk.entity_state.erasure`)
PLACE: Final = (
    6  # how far in its stream this is (`fraudsdk.entity_state.place`): offset, bytes of the origin, the origin
)

EVENT_MARGIN: Final = RECORD_WORDS
EVENT_SCORE: Final = RECORD_WORDS + 1
EVENT_VERDICT: Final = RECORD_WORDS + 2
EVENT_INTS: Final = RECORD_WORDS + 3
VERDICT_KEY: Final = RECORD_WORDS
VERDICT_MARGIN: Final = RECORD_WORDS + 1
VERDICT_SCORE: Final = RECORD_WORDS + 2
VERDICT_VERDICT: Final = RECORD_WORDS + 3
VERDICT_WORDS: Final = RECORD_WORDS + 4
AMENDMENT_KEY: Final = RECORD_WORDS
AMENDMENT_SET: Final = RECORD_WORDS + 1
AMENDMENT_CLEAR: Final = RECORD_WORDS + 2
AMENDMENT_WORDS: Final = RECORD_WORDS + 3
WORD_BYTES: Final = RECORD_WORDS


def event_words(layout: RecordLayout) -> int:
    """Words of an `EVENT` of a record layout."""
    return EVENT_INTS + layout.n_ints + len(layout.numbers)


def word_of(text: bytes) -> Words:
    """What a `WORD` says, after `RECORD_WORDS`."""
    padded = text + b"\0" * (-len(text) % 8)
    return np.concatenate(([len(text)], np.frombuffer(padded, "<i8"))).astype(np.int64)


def text_of(record: Words) -> bytes:
    """
    The text of a `WORD`.

    Raises
    ------
    ValueError
        It says another length than it has.
    """
    return text_in(record[WORD_BYTES:])


def text_in(words: Words) -> bytes:
    """
    The text that `word_of` made words of.

    Raises
    ------
    ValueError
        It says another length than it has.
    """
    octets = words[1:].astype("<i8").tobytes()
    n_bytes = int(words[0]) if len(words) else -1
    if not 0 <= len(octets) - n_bytes < 8 or n_bytes < 0:
        raise ValueError(f"a text of {n_bytes} bytes is in {len(octets)}")
    return octets[:n_bytes]


def bytes_of(words: Words) -> memoryview:
    """Words as they lie on disk."""
    return memoryview(np.ascontiguousarray(words, "<i8").view(np.uint8))  # type: ignore[arg-type]
