"""Memory that kernels read by its address: page-aligned, all of it present, and writable by nobody once it is filled."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from fraudsdk._pages import make_read_only


class ReadOnlyMemory:
    """
    A copy of an array that stays as it is.

    The copy is in anonymous pages rather than in a mapped file: a mapped file that somebody truncates kills the process
    (SIGBUS), and one that somebody edits after it was verified is walked unverified.  Filling the pages has brought them in, so
    that no first row waits for one; then they lose the right to be written, so that a stray write anywhere in the process is a
    crash at that write and never a wrong margin.  (Windows has no `mprotect`; there they stay writable.)

    Parameters
    ----------
    content : array, C-contiguous
        What to copy.

    Attributes
    ----------
    address : int
        Where the copy begins.  Valid as long as this object lives.

    Raises
    ------
    ConfigurationError
        The system refuses to protect the pages.
    """

    def __init__(self, content: npt.NDArray[Any]) -> None:
        data = content.reshape(-1).view(np.uint8)
        self._pages = mmap.mmap(-1, data.size)
        copy = np.frombuffer(self._pages, np.uint8)
        copy[:] = data
        self.address = int(copy.ctypes.data)
        make_read_only(self.address, data.size)
