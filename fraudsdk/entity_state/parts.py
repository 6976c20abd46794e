"""
The state of single entities, to be kept elsewhere: packed into bytes, and taken up again by another memory.

A part says what it is: its schema, the change of state that it is of, and a checksum.  Whatever else is read is refused, and
nothing of it is taken up.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.entity_state import part_kernels as kernels
from fraudsdk.entity_state.log_format import bytes_of
from fraudsdk.entity_state.memory import EntityMemory

_FIRST_WORDS: Final = 1 << 14


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
            begins = [0, *ends[first : done - 1].tolist()]
            octets = bytes_of(self._out)
            parts += [
                bytes(octets[8 * begin : 8 * end]) for begin, end in zip(begins, ends[first:done].tolist(), strict=True)
            ]
        return parts

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


def keys_of(memory: EntityMemory) -> npt.NDArray[np.int64]:
    """Keys of all entities that are remembered, in no order that means anything."""
    keys: npt.NDArray[np.int64] = memory.table[memory.table[:, 1] != 0, 0].copy()
    return keys


def sequence_of(part: bytes) -> int:
    """The change of state that a sound part is of."""
    return int.from_bytes(part[8 * kernels.PART_SEQUENCE :][:8], "little", signed=True)
