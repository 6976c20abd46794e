"""Pages of memory: what the system is asked about them."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from typing import Final

from fraudsdk.errors import ConfigurationError

_PROT_READ: Final = 1
_MADV_POPULATE_WRITE: Final = 23  # Linux 5.14


def populate(address: int, n_bytes: int) -> bool:
    """
    Have the system supply the pages of some memory now, rather than when each is first written to.

    What they hold stays as it is, and other threads may use it meanwhile.

    Returns
    -------
    bool
        False where the system cannot do that: pages then come one by one, as they do anyway.
    """
    if os.name != "posix" or not hasattr(mmap, "MADV_HUGEPAGE"):  # another system: another number means another thing
        return False
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end <= first:
        return True
    return _call("madvise", first, end - first, _MADV_POPULATE_WRITE) == 0


def make_read_only(address: int, n_bytes: int) -> None:
    """
    Let nobody write to pages any more; Windows has no such call, there they stay writable.

    Raises
    ------
    ConfigurationError
        The system refuses.
    """
    if os.name == "posix" and _call("mprotect", address, n_bytes, _PROT_READ) != 0:
        raise ConfigurationError(
            f"the system refuses to make model memory read-only: {os.strerror(ctypes.get_errno())}; "
            "allow mprotect in the sandbox of this process"
        )


def _call(name: str, address: int, n_bytes: int, how: int) -> int:
    function = getattr(_c_library(), name)
    return int(function(ctypes.c_void_p(address), ctypes.c_size_t(n_bytes), how))


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
