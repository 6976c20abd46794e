"""
The event log in memory: append records, seal them with their checksums, read them back.

A *log* is an ``int64[LOG_WORDS]`` that says where the buffer is.  Appending copies a few dozen words; checksums are made when the
buffer is written, on another thread.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk._native import floats_of, ints_of
from fraudsdk.entity_state.log_format import (
    AMENDMENT,
    AMENDMENT_CLEAR,
    AMENDMENT_KEY,
    AMENDMENT_SET,
    AMENDMENT_WORDS,
    EVENT,
    EVENT_INTS,
    EVENT_MARGIN,
    EVENT_SCORE,
    EVENT_VERDICT,
    MAX_RECORD_WORDS,
    RECORD_CHECKSUM,
    RECORD_KIND,
    RECORD_SEQUENCE,
    RECORD_WORDS,
    VERDICT,
    VERDICT_KEY,
    VERDICT_MARGIN,
    VERDICT_SCORE,
    VERDICT_VERDICT,
    VERDICT_WORDS,
)

# Words of a log: the buffer's address first, as `ints_of` reads it.
LOG_BUFFER = 0  # 0: nothing is logged
LOG_CAPACITY = 1  # words that events may fill; what is beyond is kept for verdicts and amendments
LOG_USED = 2
LOG_SEQUENCE = 3  # of the next record
LOG_INTS = 4  # words of an encoded transaction
LOG_NUMBERS = 5
LOG_WORDS = 6

_LOW = 0xFFFFFFFF


def _crc32c_tables() -> np.ndarray:
    """Of the polynomial of Castagnoli, reflected; table k is for a byte that k more bytes follow (Kounavis and Berry, 2005)."""
    tables = np.zeros((8, 256), dtype=np.int64)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        tables[0, byte] = crc
    for k in range(1, 8):
        tables[k] = (tables[k - 1] >> 8) ^ tables[0][tables[k - 1] & 0xFF]
    return tables


_TABLES = _crc32c_tables()


@device
def crc_of_word(crc, word):
    """Go on with a CRC-32C by eight bytes, the lowest first."""
    low, high = (word ^ crc) & _LOW, (word >> 32) & _LOW
    return (
        _TABLES[7, low & 0xFF]
        ^ _TABLES[6, (low >> 8) & 0xFF]
        ^ _TABLES[5, (low >> 16) & 0xFF]
        ^ _TABLES[4, low >> 24]
        ^ _TABLES[3, high & 0xFF]
        ^ _TABLES[2, (high >> 8) & 0xFF]
        ^ _TABLES[1, (high >> 16) & 0xFF]
        ^ _TABLES[0, high >> 24]
    )


@device
def record_checksum(words, at, n):
    """CRC-32C of a record: its length, then all words after the first."""
    crc = crc_of_word(np.int64(_LOW), n)
    for word in range(at + 1, at + n):
        crc = crc_of_word(crc, words[word])
    return crc ^ _LOW


@kernel("int64(int64[::1])")
def checksum(words):
    """CRC-32C of words."""
    words = borrowed(words)
    crc = np.int64(_LOW)
    for word in range(words.shape[0]):
        crc = crc_of_word(crc, words[word])
    return crc ^ _LOW


@device
def open_record(log, kind, n):
    """Begin a record of `n` words; where it is.  There must be room."""
    buffer, at = ints_of(log, 0), log[LOG_USED]
    buffer[at + RECORD_CHECKSUM] = n
    buffer[at + RECORD_SEQUENCE] = log[LOG_SEQUENCE]
    buffer[at + RECORD_KIND] = kind
    log[LOG_USED] += n
    log[LOG_SEQUENCE] += 1
    return at


@device
def has_room_for_events(log, n):
    """Whether `n` more transactions fit; always where nothing is logged."""
    words = n * (EVENT_INTS + log[LOG_INTS] + log[LOG_NUMBERS])
    return log[LOG_BUFFER] == 0 or log[LOG_USED] + words <= log[LOG_CAPACITY]


@device
def log_event(log, ints, numbers, i, margin, score, verdict):
    """Append a transaction that was just remembered."""
    if log[LOG_BUFFER] == 0:
        return
    buffer, bufferf, n_ints, n_numbers = ints_of(log, 0), floats_of(log, 0), log[LOG_INTS], log[LOG_NUMBERS]
    at = open_record(log, EVENT, EVENT_INTS + n_ints + n_numbers)
    bufferf[at + EVENT_MARGIN] = margin
    bufferf[at + EVENT_SCORE] = score
    buffer[at + EVENT_VERDICT] = verdict
    for j in range(n_ints):
        buffer[at + EVENT_INTS + j] = ints[i, j]
    for j in range(n_numbers):
        bufferf[at + EVENT_INTS + n_ints + j] = numbers[i, j]


@kernel("void(int64[::1], int64, float64, float64, int64)", nogil=False)
def log_verdict(log, key, margin, score, verdict):
    """Append the decision on a transaction that was logged without."""
    log = borrowed(log)
    buffer, bufferf = ints_of(log, 0), floats_of(log, 0)
    at = open_record(log, VERDICT, VERDICT_WORDS)
    buffer[at + VERDICT_KEY] = key
    bufferf[at + VERDICT_MARGIN] = margin
    bufferf[at + VERDICT_SCORE] = score
    buffer[at + VERDICT_VERDICT] = verdict


@kernel("void(int64[::1], int64, int64, int64)", nogil=False)
def log_amendment(log, key, set_bits, clear_bits):
    """Append a label, or the host's final answer."""
    log = borrowed(log)
    buffer = ints_of(log, 0)
    at = open_record(log, AMENDMENT, AMENDMENT_WORDS)
    buffer[at + AMENDMENT_KEY] = key
    buffer[at + AMENDMENT_SET] = set_bits
    buffer[at + AMENDMENT_CLEAR] = clear_bits


@kernel("void(int64[::1], int64, int64[::1])", nogil=False)
def log_words(log, kind, payload):
    """Append a record of any kind: what comes after `RECORD_KIND`."""
    log, payload = borrowed(log), borrowed(payload)
    buffer = ints_of(log, 0)
    at = open_record(log, kind, RECORD_WORDS + payload.shape[0])
    for j in range(payload.shape[0]):
        buffer[at + RECORD_WORDS + j] = payload[j]


@kernel("void(int64[::1])")
def seal(words):
    """Write the checksum of each record into it, before they go to disk."""
    words = borrowed(words)
    at = np.int64(0)
    while at < words.shape[0]:
        n = words[at]
        words[at] = (record_checksum(words, at, n) << 32) | n
        at += n


@kernel("UniTuple(int64, 2)(int64[::1], int64, int64)")
def last_of_kind(words, at, kind):
    """
    The last record of a kind among records that are intact.

    Parameters
    ----------
    words : int64[n]
        Of a segment.
    at : int64
        Where a record begins.
    kind : int64

    Returns
    -------
    at, sequence : int64
        Where it is, and its number; -1 and -1 where there is none.
    """
    words = borrowed(words)
    found = np.int64(-1)
    while at < words.shape[0]:
        if words[at + RECORD_KIND] == kind:
            found = at
        at += words[at] & _LOW
    if found < 0:
        return found, found
    return found, words[found + RECORD_SEQUENCE]


@kernel("UniTuple(int64, 2)(int64[::1], int64, int64, int64)")
def intact_until(words, at, sequence, stop):
    """
    How far records are as they were written, one sequence number after another.

    Parameters
    ----------
    words : int64[n]
        Of a segment.
    at : int64
        Where a record begins.
    sequence : int64
        The number it must have.
    stop : int64
        The number of a record that need not be looked at any more.

    Returns
    -------
    at, sequence : int64
        Of the first record that is not looked at, or is torn, changed or out of order; after the last one otherwise.
    """
    words = borrowed(words)
    while at < words.shape[0] and sequence < stop:
        n = words[at] & _LOW
        if n < RECORD_WORDS or n > MAX_RECORD_WORDS or n > words.shape[0] - at:
            break
        if words[at + RECORD_SEQUENCE] != sequence:
            break
        if (words[at] >> 32) & _LOW != record_checksum(words, at, n):
            break
        at += n
        sequence += 1
    return at, sequence
