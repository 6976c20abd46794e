"""
What turns rows into margins, and which of them this CPU gets.

    avx512      blocks of 63 nodes, one byte permute and one comparison each
    avx2        the same blocks, with the shuffles that older CPUs have
    portable    a branch-free walk of single nodes, several trees side by side

All give the same bits.  The first that the CPU has is taken, unless the forest needs so many columns that a walk is faster; the
choice can be forced.  A kernel is compiled only for the engine that is taken: LLVM ends the process when it is asked for an
instruction that the CPU lacks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fraudsdk import _simd
from fraudsdk._jit import warm_up
from fraudsdk.errors import ConfigurationError
from fraudsdk.model import block_layout
from fraudsdk.model.blocks import build_blocks
from fraudsdk.model.forest import Int32Array
from fraudsdk.model.memory import ReadOnlyMemory

PORTABLE: Final = "portable"
_NEEDS: Final = {"avx512": _simd.AVX512, "avx2": _simd.AVX2, PORTABLE: ()}
_MODULES: Final = {"avx512": "avx512", "avx2": "avx2", PORTABLE: "kernels"}
ENGINES: Final = tuple(_NEEDS)

# Pairs of registers to look through for each block beyond which the walk is faster: (numeric tests only, also sets of
# categories, on which the walk is slow, though they take no registers).  ADR 0008.
_MAX_PAIRS: Final = {"avx512": (3, 12), "avx2": (1, 6)}
# Whether forests deeper than two blocks gain, likewise.
_CHAINS: Final = {"avx512": (True, True), "avx2": (False, True)}


class Engine(Protocol):
    """What turns rows into margins.  Rows have been checked; both methods are called from several threads at once."""

    @property
    def name(self) -> str:
        """One of `ENGINES`, or ``"c"``."""
        ...

    def margin(self, row: npt.NDArray[np.float32]) -> float:
        """Margin of one row."""
        ...

    def margins(self, rows: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
        """Margins of many rows, into ``out``."""
        ...


class TableEngine:
    """
    Margins from forest tables, by Numba kernels.  The tables are read-only memory.

    Parameters
    ----------
    tables : int32[n_words]
        Checked forest tables.
    name : str, optional
        One of `ENGINES`; by default the fastest for this CPU and forest.

    Attributes
    ----------
    direct : callable
        `margin`, a little faster.

    Raises
    ------
    ConfigurationError
        No such engine, the CPU lacks it, or it does not take this forest.
    """

    def __init__(self, tables: Int32Array, name: str | None = None) -> None:
        if name is not None:
            check_engine(name)
        self.name, content = _chosen(tables) if name is None else (name, _content(tables, name))
        self._memory = ReadOnlyMemory(content)
        self._address = self._memory.address
        self._kernels = kernels_of(self.name)
        # No frame of Python between the caller and the kernel: 60 ns, a tenth of a call.
        self.direct: Callable[[npt.NDArray[np.float32]], float] = partial(self._kernels.margin, self._address)

    def margin(self, row: npt.NDArray[np.float32]) -> float:
        """Margin of one row."""
        return self.direct(row)

    def margins(self, rows: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
        """Margins of many rows, into ``out``."""
        self._kernels.margins(rows, self._address, out)

    def native(self) -> tuple[int, int]:
        """
        For other kernels: the address of ``float32 f(int64 row, int64 tables)`` and the address of the tables.

        ``row`` is the address of float32[n_features].  Valid as long as this engine lives.
        """
        return self._kernels.margin_at.address, self._address


def available_engines() -> tuple[str, ...]:
    """Engines that this CPU has, the fastest first."""
    return tuple(name for name, needs in _NEEDS.items() if _simd.supports(needs))


def check_engine(name: str) -> None:
    """
    Refuse an engine that cannot run here.

    Raises
    ------
    ConfigurationError
        No such engine, or the CPU lacks it.
    """
    if name not in _NEEDS:
        raise ConfigurationError(
            f"engine must be one of {', '.join(ENGINES)}, was {name!r}; leave it out to have the fastest chosen"
        )
    _simd.require(_NEEDS[name])


def kernels_of(name: str) -> Any:
    """Module of the kernels of an engine that this CPU has, warm."""
    module = importlib.import_module(f"fraudsdk.model.{_MODULES[name]}")
    warm_up(f"{module.__name__}.")
    return module


def _chosen(tables: Int32Array) -> tuple[str, npt.NDArray[Any]]:
    fastest = available_engines()[0]
    if fastest == PORTABLE:
        return PORTABLE, tables
    try:
        blocks = build_blocks(tables)
    except ConfigurationError:  # too large for blocks: the walk takes every forest
        return PORTABLE, tables
    header = blocks[: 8 * block_layout.HEADER_WORDS].view(np.int64)
    has_sets = int(header[block_layout.N_CATEGORICAL] > 0)
    slower = header[block_layout.N_PAIRS] > _MAX_PAIRS[fastest][has_sets] or (
        header[block_layout.SHAPE] == block_layout.CHAINED and not _CHAINS[fastest][has_sets]
    )
    return (PORTABLE, tables) if slower else (fastest, blocks)


def _content(tables: Int32Array, name: str) -> npt.NDArray[Any]:
    return tables if name == PORTABLE else build_blocks(tables)
