"""
Equality of frozen objects that may hold NaN.

Two missing values are the same answer, yet NaN differs from itself.  Until Python 3.12 a generated ``__eq__`` compared tuples,
which look at identity first and so mostly agreed; from 3.13 on it compares attribute by attribute and does not.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class EqualWithNan:
    """For dataclasses made with ``eq=False``: equal when every field is, a missing value being equal to a missing one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_alike(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash(tuple(_hashable(getattr(self, f.name)) for f in fields(self) if f.compare and f.hash is not False))  # type: ignore[arg-type]


def _alike(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)


def _hashable(value: Any) -> Any:
    return None if value != value else value  # the hash of a NaN is that of its object
