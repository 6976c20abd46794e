"""
The only module that imports numba: flags, signatures, the on-disk cache, and `warm_up`.

`kernel` marks an entry point that Python calls, with its one signature; `device` marks a helper that only kernels call.
Nothing is compiled at import: `warm_up` compiles (or loads) every kernel of the named modules and then refuses new
signatures, so that an array of the wrong dtype or layout raises `TypeError` in a test instead of costing one customer
hundreds of milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import cgutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator, UserWideCacheLocator
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS: dict[str, Any] = {
    "nogil": True,  # hosts score on several threads
    "error_model": "numpy",  # x / 0 is inf or NaN, as in the training code; no branch per division
    "fastmath": False,  # NaN means "missing" here, and fastmath may assume there are none
}

_entry_points: dict[str, tuple[Any, str]] = {}
_warm: set[str] = set()
_warm_lock = threading.Lock()


@functools.cache
def _source_stamp(package: Path) -> str:
    """Digest of the sources that the kernels of a package are made of: their own, and those that all share."""
    root = Path(__file__).parent
    shared = (root / "domain", root / "entity_state")
    sources = {path for folder in (package, *shared) for path in folder.rglob("*.py")} | set(root.glob("_*.py"))
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class _ContentStamp:
    """
    A stamp over the contents of all sources a kernel inlines.

    Numba's own stamp is the time and size of one file: it serves a stale kernel after a helper in another file changed,
    and misses after a reinstallation of the same bytes.
    """

    _py_file: str

    def get_source_stamp(self) -> str:
        return _source_stamp(Path(self._py_file).parent)


class _UserProvidedLocator(_ContentStamp, UserProvidedCacheLocator):  # type: ignore[misc]
    pass


class _UserWideLocator(_ContentStamp, UserWideCacheLocator):  # type: ignore[misc]
    pass


class _KernelCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_UserProvidedLocator, _UserWideLocator]  # noqa: RUF012


class _KernelCache(FunctionCache):  # type: ignore[misc]
    _impl_class = _KernelCacheImpl


def kernel(signature: str) -> Callable[[F], F]:
    """
    Mark an entry point: called from Python with exactly this signature.

    Parameters
    ----------
    signature : str
        A numba signature such as ``"void(int64[:, ::1], float32[::1])"``.
    """

    def mark(function: F) -> F:
        dispatcher = numba.njit(**_FLAGS)(function)
        # Without a writable cache directory every process compiles for itself, as numba itself would.
        with contextlib.suppress(RuntimeError):
            dispatcher._cache = _KernelCache(function)
        _entry_points[f"{function.__module__}.{function.__qualname__}"] = (dispatcher, signature)
        return dispatcher  # type: ignore[no-any-return]

    return mark


def device(function: F) -> F:
    """Mark a helper that only kernels call; it is compiled with, and usually inlined into, its caller."""
    # Forced: twice as fast as calls that hand over twenty arrays each on the stack.
    return numba.njit(forceinline=True, **_FLAGS)(function)  # type: ignore[no-any-return]


@intrinsic
def borrowed(typing_context, array):  # type: ignore[no-untyped-def]
    """
    The same array without its reference count.

    Numba counts references on every view and every call with atomic instructions: 65 % of the feature kernel's time was
    spent there.  The caller of a kernel holds its arguments until the call returns, so the kernel need not.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


def warm_up(prefix: str = "fraudsdk.") -> None:
    """
    Compile or load every kernel whose full name starts with `prefix`; call it after importing their modules.

    Idempotent and thread-safe.  After it, a kernel called with another signature raises `TypeError`.
    """
    with _warm_lock:
        for name, (dispatcher, signature) in list(_entry_points.items()):
            if name.startswith(prefix) and name not in _warm:
                dispatcher.compile(signature)
                dispatcher.disable_compile()
                _warm.add(name)
