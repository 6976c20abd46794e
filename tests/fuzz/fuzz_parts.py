"""The reader of parts: `PartCodec.take`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz_material import Emptied, Violation, driver_after, events, require_nothing_beyond
from mutator import words_of
from plain_kernels import OutsideError, PlainKernels, Rows, Words

from fraudsdk.entity_state import log_kernels, part_kernels
from fraudsdk.entity_state.layout import META_BUMP
from fraudsdk.entity_state.part_kernels import (
    MAGIC,
    PART_CHECKSUM,
    PART_KEY,
    PART_KIND,
    PART_MAGIC,
    PART_SCHEMA,
    PART_WORDS,
)
from fraudsdk.entity_state.parts import PartCodec, Taken, sequence_of

SCHEMA = b"eight or more bytes"
SCHEMA_WORD = int.from_bytes(SCHEMA[:8], "little")


def checksum(words: Any, at: int, n: int) -> int:
    """What `part_checksum` gives: machine code, for there is nothing to learn from it."""
    part = np.array(words.words[at : at + n], np.int64)
    part[PART_CHECKSUM] = n
    return int(log_kernels.checksum(part))


class _Pool(Words):
    """A pool in which nothing is written that was not claimed."""

    meta: Words

    def __setitem__(self, at: int, word: int) -> None:
        if not 8 <= at < self.meta[META_BUMP]:
            raise OutsideError(f"word {at} is written, and {self.meta[META_BUMP]} are claimed")
        super().__setitem__(at, word)


class PartReader:
    """
    Promises: what is refused leaves nothing; what is taken is packed again as the same bytes, and can be gone on with.
    """

    def __init__(self, instrument: Callable[[Any], Any]) -> None:
        self._codec = PartCodec(SCHEMA)
        self._there = Emptied()
        self._more = [self._there.driver.encode([event]) for event in list(events(210))[200:]]
        self._row = np.zeros(self._there.driver.engine.n_features, np.float32)
        self._unpack = PlainKernels(instrument, {"part_checksum": checksum}).of(part_kernels.unpack)
        layout = self._there.memory.layout
        self._kinds = Rows(layout.kinds.tolist())
        self._kind_of_key = {words_of(part)[PART_KEY]: words_of(part)[PART_KIND] for part in self.seeds()}

    def seeds(self) -> list[bytes]:
        """The longest and shortest of every kind: with tiles, a sketch, and with hardly anything."""
        parts: dict[int, list[bytes]] = {}
        for n in (2, 12, 200):
            memory = driver_after(n).engine.memory
            for part in self._codec.pack(memory, np.sort(memory.entity_keys()), 7):
                parts.setdefault(words_of(part)[PART_KIND], []).append(part)
        return [choose(each, key=len) for each in parts.values() for choose in (min, max)] + [
            sorted(each, key=len)[len(each) // 2] for each in parts.values()
        ]

    def repaired(self, words: list[int], draw: random.Random) -> list[int]:
        """With a right checksum, and mostly as a part of this schema."""
        words += [0] * (PART_WORDS - len(words))
        if draw.random() < 0.98:
            words[PART_MAGIC], words[PART_SCHEMA] = MAGIC, SCHEMA_WORD
            if draw.random() < 0.9:
                words[PART_KIND] %= self._kinds.shape[0]
        words[PART_CHECKSUM] = len(words)
        crc = log_kernels.checksum(np.array(words, np.uint64).view(np.int64))
        words[PART_CHECKSUM] = int(crc) << 32 | len(words)
        return words

    def read(self, part: bytes) -> None:
        driver = self._there.emptied()
        memory = driver.engine.memory
        if len(part) % 8 == 0:
            expected, pool = self._read_plainly(part)
        else:
            expected, pool = Taken.CHANGED, []
        answer = self._codec.take(memory, part)
        bump = int(memory.meta[META_BUMP])
        require_nothing_beyond(memory, bump)
        if answer is not expected:
            raise Violation(f"it is {answer.name}, and by the same source in Python {expected.name}")
        if answer is not Taken.TAKEN:
            if len(memory.entity_keys()) or bump != 8:
                raise Violation(f"a part that is {answer.name} left something")
            return
        # Of another word with a NaN, a float in the interpreter, nothing is said.
        if memory.pool[:bump].tolist() != pool[:bump]:
            raise Violation("machine code and Python gave different entities")
        (again,) = self._codec.pack(memory, memory.entity_keys(), sequence_of(part))
        if again != part:
            raise Violation(f"{len(part)} bytes were taken and {len(again)} others packed again")
        if self._kind_of_key.get(words_of(part)[PART_KEY]) == words_of(part)[PART_KIND]:
            self._go_on(driver)

    def _read_plainly(self, part: bytes) -> tuple[Taken, list[int]]:
        memory = self._there.memory
        meta = Words(memory.meta.tolist())
        pool = _Pool([0] * len(memory.pool))
        pool.meta = meta
        table = Rows([[0, 0] for _ in range(16)])
        words = Words(np.frombuffer(part, "<i8").tolist())
        answer = self._unpack(words, SCHEMA_WORD, pool, _Nowhere(), table, meta, self._kinds, len(pool.words) - 1)
        return Taken(answer), pool.words

    def _go_on(self, driver: Any) -> None:
        """Events of the entities of all seeds: whatever their numbers lead to is there."""
        memory = driver.engine.memory
        for ints, numbers in self._more:
            driver.engine.observe(ints, numbers, self._row, record=True)
        require_nothing_beyond(driver.engine.memory, int(memory.meta[META_BUMP]))


class _Nowhere(Words):
    """The pool as floats: one word is written by it, and then as an integer again."""

    def __init__(self) -> None:
        super().__init__([])

    def __setitem__(self, at: int, word: float) -> None:
        pass
