"""
Changes that know what they change: words of 64 bits that are lengths, offsets, flags and times.

Single bytes are the fuzzer's own business (`atheris.Mutate`); these are the changes that it would hardly ever find.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

_WORD: Final = 1 << 64
# Where lengths, offsets, halves of words and sums of them go wrong.
EDGES: Final = tuple(
    sign * edge + step
    for sign in (1, -1)
    for edge in (0, 1, 8, 64, 128, 512, 2560, 4096, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 60, 1 << 62, (1 << 63) - 1)
    for step in (-1, 0, 1)
)


def words_of(octets: bytes) -> list[int]:
    """Unsigned words; bytes that are no whole word are left out."""
    return [int.from_bytes(octets[at : at + 8], "little") for at in range(0, len(octets) - 7, 8)]


def octets_of(words: Sequence[int]) -> bytes:
    return b"".join((word % _WORD).to_bytes(8, "little") for word in words)


def changed(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> list[int]:
    """A copy with one to four changes; `others` are inputs to take pieces from."""
    words = list(words)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4))):
        if not words:
            return list(draw.choice(others))
        draw.choice(_CHANGES)(words, draw, others)
    return words


def _place(words: list[int], draw: random.Random) -> int:
    """The first words say what the rest is: half of all changes go there."""
    return draw.randrange(min(len(words), 64) if draw.random() < 0.5 else len(words))


def _edge(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    words[_place(words, draw)] = draw.choice(EDGES) % _WORD


def _edge_of_a_half(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    at, shift = _place(words, draw), draw.choice((0, 32))
    words[at] = words[at] & ~(0xFFFFFFFF << shift) | (draw.choice(EDGES) % (1 << 32)) << shift


def _near(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    at = _place(words, draw)
    words[at] = (words[at] + draw.choice((-64, -8, -2, -1, 1, 2, 8, 64))) % _WORD


def _bit(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    words[_place(words, draw)] ^= 1 << draw.randrange(64)


def _another_word(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    words[_place(words, draw)] = draw.choice(words)


def _cut_out(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    at = _place(words, draw)
    del words[at : at + draw.choice((1, 1, 2, 3, 8, 40))]


def _twice(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    at, n = _place(words, draw), draw.choice((1, 1, 2, 3, 8, 40))
    words[at:at] = words[at : at + n]


def _swapped(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    one, other = _place(words, draw), _place(words, draw)
    words[one], words[other] = words[other], words[one]


def _piece_of_another(words: list[int], draw: random.Random, others: Sequence[Sequence[int]]) -> None:
    other, n = draw.choice(others), draw.choice((1, 2, 4, 16, 64))
    at, source = _place(words, draw), draw.randrange(len(other))
    words[at : at + n] = other[source : source + n]


_CHANGES: Final = (
    *(_edge, _edge, _edge_of_a_half, _near, _near, _bit),
    *(_another_word, _cut_out, _twice, _swapped, _piece_of_another),
)
