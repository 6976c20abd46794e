"""
Marks kernels, and makes them callable: `kernel`, `device`, `intrinsic`, `deferred` and `warm_up`.

`kernel` marks an entry point that Python calls, with its one signature; `device` marks a helper that only kernels call.
Nothing is compiled at import, and Numba is not imported either: `warm_up` loads the machine code of every kernel of the
named modules from the cache, and only for what is not there does it ask `fraudsdk._codegen`, and so Numba, to compile.

A kernel refuses arguments of another type: an array of the wrong dtype or layout raises `TypeError` in a test instead of
costing one customer hundreds of milliseconds.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from fraudsdk._kernel_cache import CompiledObject, KernelCache, source_stamp
from fraudsdk._loader import Loaded, Target, UnloadableCodeError, host_has, host_target, load, runnable_targets
from fraudsdk.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

_kernels: dict[str, Kernel] = {}
_warm_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Warmed:
    """
    How a kernel was made callable.

    Attributes
    ----------
    name : str
        Full name of the kernel.
    compiled : bool
        False: it was found in the cache.
    elapsed_s : float
    not_kept_because : str
        Why what was compiled is not in the cache; empty when it is.
    """

    name: str
    compiled: bool
    elapsed_s: float
    not_kept_because: str = ""


class Deferred:
    """
    Something of Numba's that is made when a kernel that uses it is compiled, and not when a module is imported.

    Numba reads `_numba_type_` of a global that it does not know.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @functools.cached_property
    def made(self) -> Any:
        """The thing itself."""
        return self._make()

    @property
    def _numba_type_(self) -> Any:
        return _codegen().type_of(self._for_kernels())

    def _for_kernels(self) -> Any:
        return self.made

    def __call__(self, *args: Any) -> Any:
        return self.made(*args)


class Device(Deferred):
    """A helper; Python may call it too, by a compilation of its own, which tests do."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(lambda: _codegen().dispatcher(function))
        self._function = function
        functools.update_wrapper(self, function)

    @functools.cached_property
    def _inlined(self) -> Any:
        return _codegen().inlined(self._function)

    def _for_kernels(self) -> Any:
        return self._inlined


class Kernel(Deferred):
    """An entry point.  Calling it before it is warm makes it so."""

    def __init__(self, function: FunctionType, signature: str, *, nogil: bool, needs: Sequence[str]) -> None:
        super().__init__(lambda: _codegen().dispatcher(function))
        functools.update_wrapper(self, function)
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.signature = signature
        self.nogil = nogil
        self.needs = tuple(needs)
        self.warmed: Warmed | None = None
        self._address = 0
        self._source = Path(function.__code__.co_filename)

    def __call__(self, *args: Any) -> Any:
        self.warm_up()
        return self(*args)

    def warm_up(self) -> Warmed:
        """Load or compile; once."""
        with _warm_lock:
            if self.warmed is None:
                if not host_has(self.needs):
                    raise ConfigurationError(
                        f"{self.name} needs a CPU with {', '.join(self.needs)}; choose another engine"
                    )
                started = time.perf_counter()
                loaded, compiled, not_kept = self._loaded()
                self._address = loaded.address
                # Found on the class by a call, which so costs no Python frame.
                type(self).__call__ = staticmethod(loaded.entry)  # type: ignore[method-assign]
                self.warmed = Warmed(self.name, compiled, time.perf_counter() - started, not_kept)
            return self.warmed

    @property
    def address(self) -> int:
        """
        Address of the kernel as a C function of its scalars, for other kernels to call; valid for good.

        Raises
        ------
        TypeError
            It takes arrays, or gives back more than one number.
        """
        self.warm_up()
        if not self._address:
            raise TypeError(f"{self.name} is no function of numbers alone, so that it has no address: {self.signature}")
        return self._address

    def _loaded(self) -> tuple[Loaded, bool, str]:
        if not self._source.is_file():
            # Typed in, or from a string: there is nothing to tell its versions apart by.
            return self._linked(self.compile(host_target())), True, "it has no source file"
        cache = KernelCache.of_environment()
        for target in runnable_targets(self.needs):
            cached = cache.read(self.name, self.key(target))
            if cached is None:
                continue
            try:
                return load(self.name, cached), False, ""
            except UnloadableCodeError:
                continue  # of a process with other libraries: compiled for this one below
        compiled = self.compile(host_target())
        linked = self._linked(compiled)
        return linked, True, cache.write(self.name, self.key(host_target()), compiled)

    def _linked(self, compiled: CompiledObject) -> Loaded:
        try:
            return load(self.name, compiled)
        except UnloadableCodeError as error:
            raise ConfigurationError(
                f"code compiled for this process cannot be linked into it: {error}; "
                "check that fraudsdk, Numba and llvmlite are of this interpreter, and install them again"
            ) from error

    def prepare(self, cache: KernelCache, target: Target) -> Warmed:
        """Compile for a CPU, which need not be this one, into a cache that does not hold it yet."""
        started = time.perf_counter()
        key = self.key(target)
        if cache.read(self.name, key) is not None:
            return Warmed(self.name, False, time.perf_counter() - started)
        not_kept = cache.problem() or cache.write(self.name, key, self.compile(target))
        return Warmed(self.name, True, time.perf_counter() - started, not_kept)

    def compile(self, target: Target) -> CompiledObject:
        """Machine code for a CPU."""
        compiled: CompiledObject = _codegen().compile_object(
            self.function, self.signature, self.name, nogil=self.nogil, target=target
        )
        return compiled

    def key(self, target: Target) -> str:
        """What the machine code depends on, digested: other sources, libraries or CPUs have other keys."""
        return source_stamp(self._source, self.name, self.signature, self.nogil, target.cpu, target.features)


def kernel(signature: str, *, nogil: bool = True, needs: Sequence[str] = ()) -> Callable[[F], F]:
    """
    Mark an entry point: called from Python with exactly this signature.

    Parameters
    ----------
    signature : str
        A Numba signature such as ``"void(int64[:, ::1], float32[::1])"``: C-contiguous arrays, int64, float64 and float32;
        the result is one of these numbers, a boolean, a tuple of them or nothing.
    nogil : bool
        Whether other threads may run meanwhile.  Not worth its price for a call of a few microseconds, and wrong for a
        kernel that reads Python objects.
    needs : sequence of str
        CPU features that the kernel is written for, as LLVM names them; on a CPU without them it is left out.
    """

    def mark(function: F) -> F:
        assert isinstance(function, FunctionType)
        # A class for each: Python looks `__call__` up on the class, and there the entry is put when it is loaded.
        kind = type("Kernel", (Kernel,), {"__doc__": function.__doc__})
        marked: Kernel = kind(function, signature, nogil=nogil, needs=needs)
        _kernels[marked.name] = marked
        return marked  # type: ignore[return-value]

    return mark


def device(function: F) -> F:
    """Mark a helper that only kernels call; it is inlined into its caller."""
    # Forced: twice as fast as calls that hand over twenty arrays each on the stack.
    return Device(function)  # type: ignore[return-value]


def intrinsic(function: Callable[..., Any]) -> Any:
    """
    Mark a function that writes LLVM itself, as `numba.extending.intrinsic` does, without importing Numba yet.

    The function imports what it needs of Numba and llvmlite in its own body.
    """

    def make() -> Any:
        from numba import extending

        return extending.intrinsic(function)

    return functools.update_wrapper(Deferred(make), function)


def deferred(place: str) -> Any:
    """
    An object of Numba's by its place, ``"numba:carray"``, for kernels to name.

    It is imported when a kernel is compiled.
    """
    module, _, name = place.partition(":")
    return Deferred(lambda: getattr(importlib.import_module(module), name))


@intrinsic
def borrowed(typing_context, array):  # type: ignore[no-untyped-def]
    """
    The same array without its reference count.

    Numba counts references on every view and every call with atomic instructions: 65 % of the feature kernel's time was
    spent there.  The caller of a kernel holds its arguments until the call returns, so the kernel need not.
    """
    from numba.core import cgutils

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


@intrinsic
def bit_length(typing_context, value):  # type: ignore[no-untyped-def]
    """Bits of a positive int64 up to its highest set one, as `int.bit_length`."""
    from llvmlite import ir
    from numba.core import types

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        return builder.sub(word(64), builder.ctlz(arguments[0], ir.IntType(1)(1)))

    return types.int64(types.int64), generate


def kernels(prefix: str = "fraudsdk.") -> list[Kernel]:
    """Kernels whose full name starts with `prefix`, of modules that were imported."""
    return [each for name, each in list(_kernels.items()) if name.startswith(prefix)]


def warm_up(prefix: str = "fraudsdk.") -> list[Warmed]:
    """
    Load or compile every kernel whose full name starts with `prefix`; call it after importing their modules.

    Idempotent and thread-safe.  What this CPU cannot run is left out.

    Returns
    -------
    list of Warmed
        How each became warm, now or before.
    """
    return [each.warm_up() for each in kernels(prefix) if host_has(each.needs)]


def _codegen() -> Any:
    from fraudsdk import _codegen

    return _codegen
