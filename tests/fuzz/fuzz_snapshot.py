"""The reader of snapshots: `read_snapshot`, and `restore` of what it gives."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_material import (
    IDENTITY,
    JOURNAL_CAPACITY,
    MAX_ENTITIES,
    Emptied,
    Violation,
    driver_after,
    events,
    require_nothing_beyond,
)
from plain_kernels import PlainKernels, Rows, Words

from fraudsdk.entity_state import log_kernels, snapshot, soundness_kernels
from fraudsdk.entity_state.layout import META_BUMP, META_ENTITIES, META_MAX_ENTITIES, META_WORDS
from fraudsdk.entity_state.memory import EntityMemory
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.entity_state.snapshot import FORMAT_VERSION, HEADER_WORDS, MAGIC, read_head, read_snapshot, restore
from fraudsdk.entity_state.state_directory import StateDirectory
from fraudsdk.errors import CorruptStateError, StateError

DECISIONS = [("version", 1, "m/1"), ("reason", 1, ["VEL01", "für Prüfer", "safe"])]


class SnapshotReader:
    """
    Promises: what is refused changes nothing; what is restored is written again as the same words, is sound, and can be gone
    on with.
    """

    def __init__(self, instrument: Callable[[Any], Any]) -> None:
        for function in (
            *(read_snapshot, read_head, restore, snapshot._header_of, snapshot._section_of, snapshot._snapshot_of),
            *(snapshot._words_of, snapshot._require_sound, snapshot._decisions_of, EntityMemory.restore),
        ):
            instrument(function)
        self._is_sound = PlainKernels(instrument, {}).of(soundness_kernels.is_sound_memory)
        self._there, self._taken_up = Emptied(), Emptied()
        self._kinds = Rows(self._there.memory.layout.kinds.tolist())
        self._codec = PartCodec(b"eight or more bytes")
        self._more = [self._there.driver.encode([event]) for event in list(events(210))[200:]]
        self._row = np.zeros(self._there.driver.engine.n_features, np.float32)
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._directory = StateDirectory(Path(self._folder.name))
        self._path = self._directory.path / "read.fssnap"

    # --- what it is fed -----------------------------------------------------------------------------------------------

    def seeds(self) -> list[bytes]:
        """Empty; small; with a journal that went round, tiles and a sketch; with free chunks of entities that were evicted."""
        drivers = [
            driver_after(n, merchants) for n, merchants in ((0, 1), (3, 2), (12, 3), (30, 4), (200, 90), (600, 400))
        ]
        return [
            snapshot.write_snapshot(self._directory, IDENTITY, each.engine.memory, DECISIONS, 7).read_bytes()
            for each in drivers
        ]

    def repaired(self, words: list[int], draw: random.Random) -> list[int]:
        """With right checksums; sections as long as the file is, mostly."""
        words += [0] * (HEADER_WORDS + META_WORDS - len(words))
        sections, end = range(snapshot._SECTIONS, snapshot._CHECKSUM, 2), len(words)
        if draw.random() < 0.95:
            words[snapshot._MAGIC], words[snapshot._VERSION] = MAGIC, FORMAT_VERSION
            words[sections[0]] = META_WORDS
            lengths = [words[at] for at in sections]
            if sum(lengths) != end - HEADER_WORDS:
                # What was put in or cut out was the pool's, and its end is told.
                words[sections[1]] = max(end - HEADER_WORDS - lengths[0] - lengths[2] - lengths[3], 0)
        at = HEADER_WORDS
        for section in sections:
            words[section + 1] = self._checksum(words[at : at + words[section]])
            at += words[section]
        if draw.random() < 0.5:
            words[HEADER_WORDS + META_BUMP] = words[sections[1]]
            words[sections[0] + 1] = self._checksum(words[HEADER_WORDS : HEADER_WORDS + words[sections[0]]])
        words[snapshot._CHECKSUM] = self._checksum(words[: snapshot._CHECKSUM])
        return words

    @staticmethod
    def _checksum(words: list[int]) -> int:
        return int(log_kernels.checksum(np.array(words, np.uint64).view(np.int64)))

    # --- what it promises ---------------------------------------------------------------------------------------------

    def read(self, octets: bytes) -> None:
        self._path.write_bytes(octets)
        try:
            found, sections = read_snapshot(self._path)
        except StateError:
            return
        if read_head(self._path)[0] != found:
            raise Violation("its head alone says something else")
        self._require_same_soundness(sections)
        driver = self._there.emptied()
        empty = driver.memory_bytes()
        try:
            decisions = restore(driver.engine.memory, found, sections)
        except StateError:
            if driver.memory_bytes() != empty:
                raise Violation("what was refused left something") from None
            return
        driver.engine.adopt_memory()
        memory = driver.engine.memory
        require_nothing_beyond(memory, int(memory.meta[META_BUMP]))
        if found.journal_capacity == JOURNAL_CAPACITY:
            self._require_same(octets, found, memory, decisions)
        self._require_parts(memory)
        for ints, numbers in self._more:
            driver.engine.observe(ints, numbers, self._row, record=True)
        require_nothing_beyond(driver.engine.memory, int(memory.meta[META_BUMP]))

    def _require_same_soundness(self, sections: list[Any]) -> None:
        meta, pool, *_ = sections
        claimed, entities = len(pool) // soundness_kernels.UNIT_WORDS, int(meta[META_ENTITIES])
        if not 0 <= entities <= claimed:
            return  # said before any kernel is asked
        native = snapshot.is_sound(meta, pool, self._there.memory.layout)
        table = Rows([[0, 0] for _ in range(1 << max(4, (2 * entities).bit_length()))])
        plain = self._is_sound(Words(pool.tolist()), Words(meta.tolist()), self._kinds, table, Words([0] * claimed))
        if native != plain:
            raise Violation(f"machine code says {native} of its soundness, and the same source in Python {plain}")

    def _require_same(self, octets: bytes, found: snapshot.Snapshot, memory: EntityMemory, decisions: Any) -> None:
        memory.meta[META_MAX_ENTITIES] = found.max_entities  # a bound is the memory's own, and not taken over
        path = snapshot.write_snapshot(self._directory, found.identity, memory, decisions, found.sequence)
        memory.meta[META_MAX_ENTITIES] = MAX_ENTITIES
        try:
            (_, again), (_, sections) = read_snapshot(path), read_snapshot(self._path)
        except CorruptStateError as error:
            raise Violation("what is written again cannot be read") from error
        finally:
            path.unlink()
        for one, other in zip(again[:3], sections[:3], strict=True):
            if not np.array_equal(one, other):
                raise Violation("it is written again as other words")

    def _require_parts(self, memory: EntityMemory) -> None:
        """Every entity is found by its key, and is one that another memory takes up."""
        other, keys = self._taken_up.emptied().engine.memory, memory.entity_keys()
        if len(np.unique(keys)) != len(keys):
            raise Violation("two entities have one key")
        for part in self._codec.pack(memory, keys, 1):
            if self._codec.take(other, part) is not Taken.TAKEN:
                raise Violation("an entity is not sound")
