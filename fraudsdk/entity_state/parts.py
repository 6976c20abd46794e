"""
The state of single entities, to be kept elsewhere: packed into bytes, and taken up again by another memory.

A part says what it is: its schema, the change of state that it is of, and a checksum.  Whatever else is read is refused, and
nothing of it is taken up.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.entity_state import merge_kernels
from fraudsdk.entity_state import part_kernels as kernels
from fraudsdk.entity_state.layout import META_BUMP
from fraudsdk.entity_state.log_format import bytes_of
from fraudsdk.entity_state.memory import EntityMemory

_FIRST_WORDS: Final = 1 << 17
# What is read, our own events with what was stored of them, and a part that is being joined.
_HEADS_AT_ONCE: Final = 3


class Taken(IntEnum):
    """What became of a part."""

    TAKEN = kernels.TAKEN
    FOREIGN = kernels.FOREIGN  # no part, or of another schema
    CHANGED = kernels.CHANGED  # not as it was packed
    KNOWN = kernels.KNOWN  # an entity of that key is remembered


class PartCodec:
    """
    Packs and takes up the entities of memories of one layout.

    Parameters
    ----------
    schema : bytes
        At least eight bytes that differ where the words of a part would mean something else: `StateIdentity.state`.
    """

    def __init__(self, schema: bytes) -> None:
        self._schema = int.from_bytes(schema[:8], "little", signed=True)
        self._out = np.empty(_FIRST_WORDS, np.int64)

    def pack(self, memory: EntityMemory, keys: npt.NDArray[np.int64], sequence: int) -> list[bytes]:
        """
        Parts of entities.

        Parameters
        ----------
        memory : EntityMemory
        keys : int64[n]
        sequence : int
            The change of state that they are of.

        Returns
        -------
        list of bytes
            One a key; empty for one that is not remembered.
        """
        parts: list[bytes] = []
        ends = np.zeros(len(keys), np.int64)
        while len(parts) < len(keys):
            first = len(parts)
            done = kernels.pack(
                *(memory.pool, memory.layout.kinds, memory.table, self._schema, sequence, keys, first, self._out, ends)
            )
            if done == first:
                self._out = np.empty(2 * len(self._out), np.int64)
                continue
            edges = [0, *(8 * ends[first:done]).tolist()]
            octets = bytes(bytes_of(self._out[: ends[done - 1]]))  # slices of bytes take half as long as those of a view
            parts += [octets[begin:end] for begin, end in pairwise(edges)]
        return parts

    def take_up(
        self, memory: EntityMemory, key: int, parts: Sequence[bytes], mine: int, *, lacks_stored: bool = False
    ) -> list[Taken]:
        """
        Remember an entity as all its writers know it.

        Parameters
        ----------
        memory : EntityMemory
        key : int
        parts : sequence of bytes
            In the order of the writers; empty where one has none.
        mine : int
            Which of them are of our own events, -1 for none: those in memory count, and the part only where there are none.
        lacks_stored : bool
            What is in memory of our own events came while our part could not be read: both count.

        Returns
        -------
        list of Taken
            What became of each part.  One that is not sound is left out.
        """
        need = (len(parts) + _HEADS_AT_ONCE) * memory.layout.worst_words
        while int(memory.meta[META_BUMP]) + need > memory.bump_max:
            memory.grow()
        whole = [part if len(part) % 8 == 0 else b"" for part in parts]
        words = np.frombuffer(b"".join(whole), "<i8").astype(np.int64)
        ends = np.cumsum([len(part) // 8 for part in whole], dtype=np.int64)
        verdicts = np.zeros(len(parts), np.int64)
        pool, layout = memory.pool, memory.layout
        merge_kernels.take_up(
            *(
                key,
                words,
                ends,
                mine,
                int(lacks_stored),
                self._schema,
                pool,
                pool.view(np.float64),
                memory.table,
                memory.meta,
            ),
            *(layout.kinds, layout.measures, layout.distincts, layout.decayeds, verdicts),
        )
        cut = [len(part) % 8 != 0 for part in parts]
        return [
            Taken.CHANGED if is_cut else Taken(verdict) for is_cut, verdict in zip(cut, verdicts.tolist(), strict=True)
        ]

    def take(self, memory: EntityMemory, part: bytes) -> Taken:
        """Take up an entity, unless something is wrong with it, or it is known."""
        if len(part) % 8:
            return Taken.CHANGED
        words = np.frombuffer(part, "<i8").astype(np.int64)
        while True:
            pool = memory.pool
            answer = kernels.unpack(
                *(words, self._schema, pool, pool.view(np.float64), memory.table, memory.meta, memory.layout.kinds),
                memory.bump_max,
            )
            if answer != kernels.NO_ROOM:
                return Taken(answer)
            memory.grow()


def sequence_of(part: bytes) -> int:
    """The change of state that a sound part is of."""
    return int.from_bytes(part[8 * kernels.PART_SEQUENCE :][:8], "little", signed=True)
