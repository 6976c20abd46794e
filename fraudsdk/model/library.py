"""
A model compiled to a C library, loaded and called through ctypes.

Refuses a library whose bytes are not those in the manifest, or that other users may write to: loading one runs its code.
The ABI is the three functions of ``fraudsdk_model.h``; tl2cgen's own predictor is not used, as it is not thread-safe.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.errors import CertificateError, InvalidModelError, ModelNotFoundError

ABI: Final = 1
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
MAX_LIBRARY_BYTES: Final = 1024 * 1024 * 1024


class LibraryEngine:
    """
    Margins from a C library.

    Thread-safe: the library keeps its working copy of a row on the caller's stack and writes nothing else.

    Parameters
    ----------
    path : Path
        The shared library.
    sha256 : str
        Of its bytes, from the manifest.
    n_features : int
        Length of a row, from the manifest.

    Raises
    ------
    ModelNotFoundError
        No such file.
    CertificateError
        Its bytes are others.
    InvalidModelError
        It is writable by others, or not a library of this ABI.
    """

    name: Final = "c"

    def __init__(self, path: Path, *, sha256: str, n_features: int) -> None:
        self._library = _open_verified(path, sha256)
        try:
            abi = int(self._library.fraudsdk_model_abi())
            has_features = int(self._library.fraudsdk_model_n_features())
            self._margins = self._library.fraudsdk_model_margins
        except AttributeError as error:
            raise InvalidModelError(f"{path} is not a model library: {error}; compile the model again") from error
        if (abi, has_features) != (ABI, n_features):
            raise InvalidModelError(
                f"{path} has ABI {abi} and {has_features} features, expected {ABI} and {n_features}; compile the model again"
            )
        self._margins.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        self._margins.restype = None

    def margin(self, row: npt.NDArray[np.float32]) -> float:
        """
        Margin of one row.

        Raises
        ------
        TypeError
            Not a C-contiguous float32 row: C would read other memory.
        """
        if row.dtype != np.float32 or not row.flags.c_contiguous:
            raise TypeError(f"a row must be C-contiguous float32, was {row.dtype}")
        out = ctypes.c_float()
        self._margins(row.ctypes.data, 1, ctypes.byref(out))
        return out.value

    def margins(self, rows: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
        """Margins of ``rows``, into ``out``."""
        self._margins(rows.ctypes.data, len(rows), out.ctypes.data)


def _open_verified(path: Path, sha256: str) -> ctypes.CDLL:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_LIBRARY_BYTES:
                raise InvalidModelError(
                    f"{path} is not a file of at most {MAX_LIBRARY_BYTES:,} bytes; compile the model again"
                )
            if status.st_mode & _WRITABLE_BY_OTHERS:
                raise InvalidModelError(
                    f"{path} is writable by other users (mode {stat.filemode(status.st_mode)}); run: chmod go-w {path.name}"
                )
            data = file.read()
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no model library at {path}; compile the model again") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise CertificateError(
            f"{path} has SHA-256 {digest[:16]}, its manifest says {sha256[:16]}; compile the model again"
        )
    try:
        return _load_bytes(data, path)
    except OSError as error:
        raise InvalidModelError(f"{path} cannot be loaded on this machine: {error}; compile the model here") from error


def _load_bytes(data: bytes, path: Path) -> ctypes.CDLL:
    if not hasattr(os, "memfd_create"):
        return ctypes.CDLL(str(path))
    # Load the bytes that were hashed, not whatever the path names by now.  The descriptor stays open for good, as the
    # library stays loaded: a second library on a reused number has a path that the loader knows, and it would hand out
    # the first one again.
    descriptor = os.memfd_create("fraudsdk-model", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError:
        os.close(descriptor)
        raise
