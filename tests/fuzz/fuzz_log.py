"""The reader of the log: `read_segment`, and the recovery that applies what it gives."""

from __future__ import annotations

import json
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_material import IDENTITY, Emptied, Violation, events, require_nothing_beyond
from mutator import EDGES
from plain_kernels import PlainKernels, Words

from fraudsdk.entity_state import log_format, log_kernels, log_reader
from fraudsdk.entity_state.event_log import EventLog
from fraudsdk.entity_state.layout import META_BUMP, META_EVENTS
from fraudsdk.entity_state.log_format import (
    EVENT,
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
    RECORD_KIND,
    RECORD_SEQUENCE,
    RECORD_WORDS,
    WORD,
    bytes_of,
    event_words,
    word_of,
)
from fraudsdk.entity_state.log_reader import Segment, read_segment
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.entity_state.state_directory import StateDirectory
from fraudsdk.errors import StateError
from fraudsdk.policy.recorded import DecisionRecorder, _Words
from fraudsdk.scorer import recovery

FIRST = 1
_GUARD = 64
SOME_WORDS = (
    ("version", 1, "m/1"),
    ("reason", 1, ["VEL01", "many at once", "safe"]),
    ("decider", 1, "für Prüfer"),
)


def checksum(words: Any, at: int, n: int) -> int:
    """What `record_checksum` gives: machine code, for there is nothing to learn from it."""
    return int(log_kernels.checksum(np.array([n, *words.words[at + 1 : at + n]], np.int64)))


def records_of(words: Any) -> Iterator[tuple[int, int]]:
    """Where each record begins and ends, by its length."""
    at = HEADER_WORDS
    while at < len(words):
        end = at + max(int(words[at]) & 0xFFFFFFFF, 1)
        yield at, end
        at = end


class LogReader:
    """
    Promises: what is refused is left as it was; what counts is written again as the same bytes; what is cut off is put aside;
    the state that is recovered is sound, and is recovered again.
    """

    def __init__(self, instrument: Callable[[Any], Any]) -> None:
        for function in (
            *(
                read_segment,
                log_reader._require_header,
                log_reader.has_record,
                log_reader.identity_of,
                log_format.text_of,
            ),
            *(recovery.recover, recovery._apply, recovery._apply_other, recovery._put_aside, recovery._drop_decided),
            *(DecisionRecorder.learn, _Words.learn),
        ):
            instrument(function)
        plain = PlainKernels(instrument, {"record_checksum": checksum})
        self._intact_until = plain.of(log_kernels.intact_until)
        self._there, self._taken_up = Emptied(), Emptied()
        engine = self._there.driver.engine
        self._layout = engine.record_layout
        # Where a transaction is written to, and beyond that what it must not reach.
        self._guarded = np.zeros((2, _GUARD + self._layout.n_ints + len(self._layout.numbers)), np.int64)
        ints = self._guarded[:1, : self._layout.n_ints]
        numbers = self._guarded[1:, : len(self._layout.numbers)].view(np.float64)
        self._attached = ints, numbers, np.zeros(engine.n_features, np.float32)
        self._codec = PartCodec(b"eight or more bytes")
        shared = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self._directory = StateDirectory(Path(self._folder.name))
        self._path = self._directory.segment(FIRST)

    # --- what it is fed -----------------------------------------------------------------------------------------------

    def seeds(self) -> list[bytes]:
        return [self._written(n) for n in (0, 1, 6, 40)]

    def _written(self, n: int) -> bytes:
        """Of so many transactions, as the log writes it: decided at once, later or not at all, with labels and words."""
        with tempfile.TemporaryDirectory() as folder:
            directory, lock = StateDirectory(Path(folder)), threading.Lock()
            log = EventLog(directory, IDENTITY, self._layout, sequence=FIRST, lock=lock)
            with lock:
                for table, number, word in SOME_WORDS:
                    text = json.dumps((table, number, word), ensure_ascii=False).encode()
                    log_kernels.log_words(log.words, WORD, word_of(text))
                for i, event in enumerate(events(n)):
                    ints, numbers = self._there.driver.encode([event])
                    bits = np.array([0.5, 0.25]).view(np.int64)
                    verdict = 0 if i % 3 == 1 else 5
                    row = np.concatenate((bits, [verdict], ints[0], numbers[0].view(np.int64)))
                    log_kernels.log_words(log.words, EVENT, row)
                    if i % 6 == 1:
                        log_kernels.log_verdict(log.words, int(ints[0, 3]), 0.5, 0.25, 5)
                    if i % 4 == 3:
                        log_kernels.log_amendment(log.words, int(ints[0, 3]), 1 << 8, 1 << 9)
            log.close()
            octets = directory.segment(FIRST).read_bytes()
            directory.close()
        return octets

    def repaired(self, words: list[int], draw: random.Random) -> list[int]:
        """With right checksums and numbers of records, as far as lengths lead; mostly with the header that it should have."""
        words += [0] * (HEADER_WORDS - len(words))
        if draw.random() < 0.95:
            self._repair_header(words, draw)
        words[HEADER_CHECKSUM] = self._checksum(words[:HEADER_CHECKSUM])
        if draw.random() < 0.3:
            self._change_a_record(words, draw)
        at, sequence = HEADER_WORDS, words[HEADER_SEQUENCE]
        while at + RECORD_WORDS <= len(words):
            n = words[at] & 0xFFFFFFFF
            if not RECORD_WORDS <= n <= min(MAX_RECORD_WORDS, len(words) - at):
                if draw.random() < 0.5:
                    break
                n = min(draw.choice((RECORD_WORDS, event_words(self._layout))), len(words) - at)
            words[at + RECORD_SEQUENCE] = sequence
            words[at] = self._checksum([n, *words[at + 1 : at + n]]) << 32 | n
            at, sequence = at + n, (sequence + 1) % (1 << 64)
        return words

    def _repair_header(self, words: list[int], draw: random.Random) -> None:
        words[HEADER_MAGIC], words[HEADER_SEQUENCE] = MAGIC, FIRST
        words[HEADER_IDENTITY:HEADER_CHECKSUM] = np.frombuffer(IDENTITY.record + IDENTITY.key, "<u8").tolist()
        if draw.random() < 0.9:
            words[HEADER_VERSION] = FORMAT_VERSION
        if draw.random() < 0.9:
            words[HEADER_INTS], words[HEADER_NUMBERS] = self._layout.n_ints, len(self._layout.numbers)
        else:  # in another place of as many words
            moved = draw.choice((-1, 1, 2))
            words[HEADER_INTS] = self._layout.n_ints + moved
            words[HEADER_NUMBERS] = len(self._layout.numbers) - moved

    def _change_a_record(self, words: list[int], draw: random.Random) -> None:
        """Another kind; longer or shorter and yet in step with what follows; left out or twice."""
        places = [at for at, end in records_of(words) if RECORD_WORDS <= end - at and end <= len(words)][:200]
        if not places:
            return
        at = draw.choice(places)
        n = words[at] & 0xFFFFFFFF
        match draw.randrange(5):
            case 0:
                words[at + RECORD_KIND] = draw.choice((0, 1, 2, 3, 4, 5, *EDGES)) % (1 << 64)
            case 1:
                shorter = draw.randrange(RECORD_WORDS, n + 1)
                words[at : at + n] = [shorter, *words[at + 1 : at + shorter]]
            case 2:
                more = draw.choice((1, 2, 40))
                words[at : at + n] = [n + more, *words[at + 1 : at + n], *([draw.choice(words)] * more)]
            case 3:
                del words[at : at + n]
            case 4:
                other = draw.choice(places)
                words[other:other] = words[at : at + n]

    @staticmethod
    def _checksum(words: list[int]) -> int:
        return int(log_kernels.checksum(np.array(words, np.uint64).view(np.int64)))

    # --- what it promises ---------------------------------------------------------------------------------------------

    def read(self, octets: bytes) -> None:
        self._path.write_bytes(octets)
        try:
            segment = self._read_segment(octets)
            self._recover(octets, segment)
        finally:
            for path in self._directory.path.iterdir():
                if path.name != "lock":
                    path.unlink()

    def _read_segment(self, octets: bytes) -> Segment | None:
        try:
            segment = read_segment(self._path, FIRST, None)
        except StateError:
            return None
        words = Words(np.frombuffer(octets[: len(octets) // 8 * 8], "<i8").tolist())
        plainly = self._intact_until(words, HEADER_WORDS, FIRST, 2**63 - 1)
        if (len(segment.words), segment.stop) != plainly:
            raise Violation(
                f"intact until {len(segment.words)}, {segment.stop}, and by the same source in Python {plainly}"
            )
        again = self._written_again(segment)
        if again != octets[: segment.words.nbytes]:
            raise Violation("records that count are written again as other bytes")
        return segment

    def _written_again(self, segment: Segment) -> bytes:
        """By the functions that write a log."""
        buffer = np.zeros(len(segment.words), np.int64)
        log = np.zeros(log_kernels.LOG_WORDS, np.int64)
        log[log_kernels.LOG_BUFFER], log[log_kernels.LOG_SEQUENCE] = buffer.ctypes.data, FIRST
        for at, end in records_of(segment.words):
            log_kernels.log_words(
                log, int(segment.words[at + RECORD_KIND]), segment.words[at + RECORD_WORDS : end].copy()
            )
        used = buffer[: log[log_kernels.LOG_USED]]
        log_kernels.seal(used)
        return bytes(bytes_of(segment.words[:HEADER_WORDS])) + bytes(bytes_of(used))

    def _recover(self, octets: bytes, segment: Segment | None) -> None:
        try:
            found, state = self._recovered()
        except StateError:
            if self._path.read_bytes() != octets:
                raise Violation("what was refused was changed") from None
            return
        if self._is_of_a_later_version(octets):
            raise Violation("a segment of a later version was taken for a torn one")
        left = self._path.read_bytes() if self._path.exists() else b""
        torn = b"".join(path.read_bytes() for path in self._directory.path.glob("*.torn"))
        header_alone = len(octets) <= 8 * HEADER_WORDS
        if left + torn != octets and not header_alone:
            raise Violation(f"of {len(octets)} bytes {len(left)} are left and {len(torn)} were put aside")
        if found.sequence != (FIRST if segment is None else segment.stop):
            raise Violation(f"it goes on with number {found.sequence}")
        self._require_sound(segment)
        if left and state != self._recovered()[1]:
            raise Violation("recovered again it is another state")

    def _recovered(self) -> tuple[recovery.Recovered, tuple[bytes, ...]]:
        driver, recorder = self._there.emptied(), DecisionRecorder()
        driver.engine.attach(*self._attached)
        found = recovery.recover(self._directory, IDENTITY, driver.engine, recorder)
        if self._guarded[0, self._layout.n_ints :].any() or self._guarded[1, len(self._layout.numbers) :].any():
            raise Violation("a transaction was written beyond its words")
        return found, (*driver.memory_bytes(), repr(recorder.words).encode())

    @staticmethod
    def _is_of_a_later_version(octets: bytes) -> bool:
        if len(octets) < 8 * HEADER_WORDS:
            return False
        words = np.frombuffer(octets[: 8 * HEADER_WORDS], "<i8").astype(np.int64)
        is_header = words[HEADER_MAGIC] == MAGIC and words[HEADER_CHECKSUM] == log_kernels.checksum(
            words[:HEADER_CHECKSUM]
        )
        return bool(is_header and words[HEADER_VERSION] > FORMAT_VERSION)

    def _require_sound(self, segment: Segment | None) -> None:
        """Whatever the transactions were, their entities are some that another memory takes up."""
        memory, other = self._there.memory, self._taken_up.emptied().engine.memory
        require_nothing_beyond(memory, int(memory.meta[META_BUMP]))
        n_events = (
            0
            if segment is None
            else sum(segment.words[at + RECORD_KIND] == EVENT for at, _ in records_of(segment.words))
        )
        if memory.meta[META_EVENTS] > n_events:
            raise Violation(f"{memory.meta[META_EVENTS]} transactions are remembered of {n_events} that were logged")
        for part in self._codec.pack(memory, memory.entity_keys(), 1):
            if self._codec.take(other, part) is not Taken.TAKEN:
                raise Violation("an entity is not sound")
