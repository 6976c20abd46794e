"""
Kernels as the interpreter runs them: the same source, every index checked, and seen by a fuzzer that follows coverage.

Machine code shows a fuzzer nothing of its branches, and reads outside of an array without a word.  The functions that it was
compiled from do neither, so a fuzzer follows these, and what both give must be the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import FunctionType, SimpleNamespace
from typing import Any

from fraudsdk._jit import Device, Kernel

# A kernel's numbers are the interpreter's here: what an int64 would overflow into shows as a difference of the results.
_NUMPY = SimpleNamespace(int64=int, float64=float, nan=math.nan)


class OutsideError(Exception):
    """An index leads outside of the words that it may reach."""


class Words:
    """Words that are read and written by an index inside of them, or not at all."""

    def __init__(self, words: Iterable[int]) -> None:
        self.words = list(words)
        self.shape = (len(self.words),)

    def __getitem__(self, at: int) -> int:
        if 0 <= at < len(self.words):
            return self.words[at]
        raise OutsideError(f"word {at} of {len(self.words)} is read")

    def __setitem__(self, at: int, word: int) -> None:
        if not 0 <= at < len(self.words):
            raise OutsideError(f"word {at} of {len(self.words)} is written")
        self.words[at] = word


class Rows:
    """A table of them; ``table[i]`` is a row and ``table[i, j]`` a word."""

    def __init__(self, rows: Iterable[Iterable[int]]) -> None:
        self.rows = [Words(row) for row in rows]
        self.shape = (len(self.rows), self.rows[0].shape[0])

    def __getitem__(self, at: Any) -> Any:
        row, word = at if isinstance(at, tuple) else (at, None)
        if not 0 <= row < len(self.rows):
            raise OutsideError(f"row {row} of {len(self.rows)} is read")
        return self.rows[row] if word is None else self.rows[row][word]

    def __setitem__(self, at: tuple[int, int], word: int) -> None:
        self[at[0]][at[1]] = word


class PlainKernels:
    """
    Makes Python functions of kernels and of the helpers that they call.

    Parameters
    ----------
    instrument : callable
        Given each function once; changes it in place.
    instead : dict of str to callable
        What stands for a helper, by its name.
    """

    def __init__(self, instrument: Callable[[Any], Any], instead: dict[str, Callable[..., Any]]) -> None:
        self._instrument = instrument
        self._instead = {"borrowed": lambda array: array, "np": _NUMPY, **instead}
        self._globals: dict[int, dict[str, Any]] = {}
        self._made: dict[int, FunctionType] = {}

    def of(self, marked: Any) -> FunctionType:
        """The Python function of a kernel or helper."""
        function = marked.function if isinstance(marked, Kernel) else marked._function
        if id(function) in self._made:
            return self._made[id(function)]
        names = self._globals.setdefault(id(function.__globals__), dict(function.__globals__))
        made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
        self._made[id(function)] = made
        for name in function.__code__.co_names:
            if name in self._instead:
                names[name] = self._instead[name]
            elif isinstance(function.__globals__.get(name), Device | Kernel):
                names[name] = self.of(function.__globals__[name])
        self._instrument(made)
        return made
