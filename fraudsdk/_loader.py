"""
From machine code to a function that Python can call, by LLVM's linker alone: Numba is not imported.

Also says which CPU this is, since code compiled for another must never be run.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import llvmlite.binding as llvm
import numpy as np

from fraudsdk._kernel_cache import CompiledObject
from fraudsdk.errors import ConfigurationError

ENTRY_SYMBOL: Final = "fraudsdk_entry"
# The kernel as a C function of its scalars, for other kernels to call by its address.
NATIVE_SYMBOL: Final = "fraudsdk_native"
# Resolved to NumPy's array type when code is linked: its address differs from process to process.
NDARRAY_SYMBOL: Final = "fraudsdk_ndarray_type"

_METH_FASTCALL: Final = 0x0080
# What a CPU must have for the levels of the x86-64 psABI, as LLVM names it; each level includes those below it.
_X86_LEVELS: Final = (
    ("x86-64-v2", ("cx16", "sahf", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3")),
    ("x86-64-v3", ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")),
    ("x86-64-v4", ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")),
)
PORTABLE_LEVELS: Final = tuple(level for level, _ in _X86_LEVELS)


if sys.platform == "win32":
    # Kernels read the clock by clock_gettime, and a cache is trusted by its owner and mode.
    raise ConfigurationError("kernels run on Linux and macOS, this is Windows; use one of these, or WSL")


class UnloadableCodeError(Exception):
    """The linker refused: symbols are missing, or these bytes are no object file.  The caller compiles anew."""


@dataclass(frozen=True, slots=True)
class Target:
    """
    A CPU to compile for.

    Attributes
    ----------
    cpu : str
        LLVM's name, such as ``znver4`` or ``x86-64-v3``.
    features : str
        LLVM's feature string, such as ``+avx2,-avx512f``; empty = what the name implies.
    """

    cpu: str
    features: str = ""


@functools.cache
def host_target() -> Target:
    """This CPU, by name and by what the operating system lets it do."""
    return Target(llvm.get_host_cpu_name(), _host_features().flatten())


@functools.cache
def _host_features() -> Any:
    return llvm.get_host_cpu_features()


def host_has(needs: Iterable[str]) -> bool:
    """Whether this CPU has all of these features, as LLVM names them."""
    features = _host_features()
    return all(features.get(need, False) for need in needs)


def runnable_targets(needs: Sequence[str] = ()) -> tuple[Target, ...]:
    """Targets whose code this CPU runs, best first: itself, then the portable levels that it reaches."""
    reached = []
    for level, level_needs in _X86_LEVELS:
        if not host_has(level_needs):
            break
        reached.append(portable_target(level, needs))
    return (host_target(), *reversed(reached))


def portable_target(level: str, needs: Sequence[str] = ()) -> Target:
    """A level, and the features that a kernel is only ever loaded with."""
    return Target(level, ",".join(f"+{need}" for need in needs))


def named_target(cpu: str, needs: Sequence[str] = ()) -> Target:
    """
    The target of a name: ``host``, or a portable level.

    Raises
    ------
    ConfigurationError
        It is none of them.  An arbitrary CPU is refused because no other machine could tell whether it may run the code.
    """
    if cpu == "host":
        return host_target()
    if cpu not in PORTABLE_LEVELS:
        raise ConfigurationError(f"cpu must be host, {', '.join(PORTABLE_LEVELS)}, was {cpu!r}; name one of these")
    return portable_target(cpu, needs)


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_lock = threading.Lock()
# Code is never unloaded: a thread may be in it, and functions point into it.
_kept: list[Any] = []
_serial = itertools.count()  # the linker takes a name once


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    Code that is part of this process now.

    Attributes
    ----------
    entry : callable
        For Python.
    address : int
        Of the C function of its scalars; 0 where it has none.
    """

    entry: Callable[..., Any]
    address: int


def load(name: str, compiled: CompiledObject) -> Loaded:
    """
    Link an object file into this process.

    Parameters
    ----------
    name : str
        What tracebacks call it.
    compiled : CompiledObject
        As `fraudsdk._codegen` wrote it; has been verified.

    Raises
    ------
    UnloadableCodeError
        A symbol is missing, or this is no object file for this machine.
    """
    with _lock:
        try:
            library = _linked(name, compiled, {})
        except RuntimeError:
            try:
                library = _linked(name, compiled, _numba_runtime(compiled.externals))
            except RuntimeError as error:
                raise UnloadableCodeError(f"{name}: {error}") from error
        definition = _MethodDef(name.rpartition(".")[2].encode(), library[ENTRY_SYMBOL], _METH_FASTCALL, None)
        _kept.append((library, definition))
    address = library[NATIVE_SYMBOL] if compiled.has_native else 0
    return Loaded(_new_function(ctypes.byref(definition), None, None), address)


def _linked(name: str, compiled: CompiledObject, imports: Mapping[str, int]) -> Any:
    builder = llvm.JITLibraryBuilder().add_object_img(compiled.code).add_current_process().export_symbol(ENTRY_SYMBOL)
    if compiled.has_native:
        builder.export_symbol(NATIVE_SYMBOL)
    builder.import_symbol(NDARRAY_SYMBOL, id(np.ndarray))
    for symbol, address in imports.items():
        builder.import_symbol(symbol, address)
    return builder.link(_linker(), f"{name}#{next(_serial)}")


def _numba_runtime(externals: Iterable[str]) -> dict[str, int]:
    """Addresses of what only Numba brings: a kernel may use it, at the price of Numba's import in every process."""
    from numba.core.registry import cpu_target

    cpu_target.target_context.refresh()
    addresses = {symbol: llvm.address_of_symbol(symbol) for symbol in externals}
    return {symbol: address for symbol, address in addresses.items() if address is not None}


def _new_function(*arguments: Any) -> Callable[..., Any]:
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    return make(("PyCFunction_NewEx", ctypes.pythonapi))(*arguments)  # type: ignore[no-any-return]


@functools.cache
def _linker() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler()
