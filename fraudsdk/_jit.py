"""
The only module that imports numba: flags, signatures, the on-disk cache, and `warm_up`.

`kernel` marks an entry point that Python calls, with its one signature; `device` marks a helper that only kernels call.
Nothing is compiled at import: `warm_up` compiles (or loads) every kernel of the named modules and then refuses new
signatures, so that an array of the wrong dtype or layout raises `TypeError` in a test instead of costing one customer
hundreds of milliseconds.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _UserProvidedCacheLocator, _UserWideCacheLocator

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS: dict[str, Any] = {
    "nogil": True,  # hosts score on several threads
    "error_model": "numpy",  # x / 0 is inf or NaN, as in the training code; no branch per division
    "fastmath": False,  # NaN means "missing" here, and fastmath may assume there are none
}

_entry_points: dict[str, tuple[Any, str]] = {}
_warm: set[str] = set()
_warm_lock = threading.Lock()


def _source_stamp() -> str:
    """Digest of every source file of the library: a kernel inlines helpers from other files, so any change counts."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path.relative_to(root)}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class _WholeTreeStamp:
    """
    Numba's own stamp looks at one file and would serve a stale kernel after a helper in another file changed.
    """

    _stamp: str | None = None

    def get_source_stamp(self) -> str:
        if _WholeTreeStamp._stamp is None:
            _WholeTreeStamp._stamp = _source_stamp()
        return _WholeTreeStamp._stamp


class _UserProvidedLocator(_WholeTreeStamp, _UserProvidedCacheLocator):  # type: ignore[misc]
    pass


class _UserWideLocator(_WholeTreeStamp, _UserWideCacheLocator):  # type: ignore[misc]
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
        try:
            dispatcher._cache = _KernelCache(function)
        except RuntimeError:
            pass  # no writable cache directory: compile in every process, as numba itself would
        _entry_points[f"{function.__module__}.{function.__qualname__}"] = (dispatcher, signature)
        return dispatcher  # type: ignore[no-any-return]

    return mark


def device(function: F) -> F:
    """Mark a helper that only kernels call; it is compiled with, and usually inlined into, its caller."""
    return numba.njit(**_FLAGS)(function)  # type: ignore[no-any-return]


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
