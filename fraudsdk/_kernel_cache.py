"""
Compiled kernels on disk: found by what they depend on, verified before they are used, written whole.

Machine code is executed, so what is read must be what was written and its folder must belong to somebody trusted.  A
folder or file that others may write is not used; nor is a file whose bytes do not add up.

    file     magic, SHA-256 of the rest, one line of JSON, object file
    folder   FRAUDSDK_CACHE_DIR, or fraudsdk/ in NUMBA_CACHE_DIR, or fraudsdk/kernels/ in the user's cache folder
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

MAGIC: Final = b"fraudsdk kernel 2\n"
SUFFIX: Final = ".kernel"
# Files kept per kernel: several interpreters, CPUs and versions may share a home.
MAX_FILES_PER_KERNEL: Final = 16
MAX_FILE_BYTES: Final = 64 << 20
_DIGEST_BYTES: Final = 32
_WRITABLE_BY_OTHERS: Final = 0o022
_IMPORT: Final = re.compile(rb"^[ \t]*from\s+(fraudsdk(?:\.\w+)*)\s+import\s+(\([^)]*\)|[^\n]*)", re.MULTILINE)
_NAME: Final = re.compile(rb"\w+")
# What changes no code: where it is cached, how many threads there are, and whether anything is compiled at all.
_HARMLESS_SETTINGS: Final = ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER")
# Writing takes milliseconds: a part that is older than this is of a process that was killed.
_ABANDONED_AFTER_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class CompiledObject:
    """
    An object file and the symbols that it leaves to the process.

    Attributes
    ----------
    code : bytes
    externals : tuple of str
        What must be found when it is loaded: functions of CPython and of the C library.
    has_native : bool
        Whether it holds a C function of the kernel's scalars beside the one for Python.
    """

    code: bytes
    externals: tuple[str, ...]
    has_native: bool = False


class KernelCache:
    """
    The kernels in one folder.

    Parameters
    ----------
    folder : Path or None
        Made when something is written.  None: there is no place, and every process compiles for itself.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    def of_environment(cls) -> KernelCache:
        """The cache of this process's user and environment."""
        return cls(_folder())

    def problem(self) -> str:
        """Why nothing can be read from or kept in the folder; empty when all is well."""
        if self.folder is None:
            return "there is no home folder to keep compiled kernels in; set FRAUDSDK_CACHE_DIR"
        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        if place == self.folder and (doubt := _doubt(os.stat(place))):
            return f"{place} {doubt}"
        if not os.access(place, os.W_OK | os.X_OK):
            return f"{self.folder} is not writable; run fraudsdk warmup as its owner, or set FRAUDSDK_CACHE_DIR"
        return ""

    def read(self, name: str, key: str) -> CompiledObject | None:
        """What was kept under a key; None when nothing was, or when it cannot be trusted."""
        if self.folder is None:
            return None
        try:
            if _doubt(os.stat(self.folder)):
                return None
            with self._path(name, key).open("rb") as file:
                if _doubt(os.fstat(file.fileno())):
                    return None
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError:
            return None  # absent or unreadable: as good as not there
        return _parsed(data, name, key)

    def write(self, name: str, key: str, compiled: CompiledObject) -> str:
        """
        Keep what was compiled.

        Written aside and renamed: another process sees the whole file or none.

        Returns
        -------
        str
            Why it was not kept; empty when it was.
        """
        if self.folder is None:
            return self.problem()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _doubt(os.stat(self.folder)):
                return self.problem()
            self._replace(self._path(name, key), _serialised(name, key, compiled))
            self._forget_old(name)
        except OSError as error:
            return f"{self.folder}: {error.strerror or type(error).__name__}"
        return ""

    def _path(self, name: str, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}-{key[:32]}{SUFFIX}"

    def _replace(self, path: Path, data: bytes) -> None:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(aside, 0o644)  # an image is built by one user and run by another
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise

    def _forget_old(self, name: str) -> None:
        assert self.folder is not None
        files = sorted(self.folder.glob(f"{name}-{'[0-9a-f]' * 32}{SUFFIX}"), key=_modified_s, reverse=True)
        parts = [path for path in self.folder.glob(".*.part") if time.time() - _modified_s(path) > _ABANDONED_AFTER_S]
        for path in (*files[MAX_FILES_PER_KERNEL:], *parts):
            path.unlink(missing_ok=True)


def source_stamp(source: Path, *settings: Any) -> str:
    """
    Digest of all that decides what machine code a kernel becomes.

    Parameters
    ----------
    source : Path
        File that holds the kernel.
    *settings
        Whatever else matters: its name and signature, the CPU.

    Notes
    -----
    Of the *contents* of every source that its kernels may inline: times and sizes would serve a stale kernel after an edit
    of a helper in another file, and miss after a reinstallation of the same bytes.
    """
    digest = hashlib.sha256(_digest_of_sources(source) + _platform())
    digest.update(repr(settings).encode())
    return digest.hexdigest()


@functools.cache
def _digest_of_sources(source: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(_sources_of(source)):
        digest.update(path.name.encode() + b"\0" + _contents(path))
    return digest.digest()


def _sources_of(source: Path) -> set[Path]:
    """The source, what it imports from this package and what that imports in turn: nothing else can be inlined."""
    root = Path(__file__).parent
    # Modules of native code name each other in strings as well.
    pending = {source, *root.glob("_[a-z]*.py")}
    if root not in source.parents:
        pending.update(source.parent.rglob("*.py"))  # somebody else's kernels, with helpers of their own beside them
    found: set[Path] = set()
    while pending:
        path = pending.pop()
        found.add(path)
        pending.update(_imports_of(path) - found)
    return found


@functools.cache
def _imports_of(path: Path) -> frozenset[Path]:
    return frozenset(_imported_by(_contents(path), Path(__file__).parent))


def _imported_by(text: bytes, root: Path) -> set[Path]:
    imported: set[Path] = set()
    for module, names in _IMPORT.findall(text):
        place = root.joinpath(*module.decode().split(".")[1:])
        candidates = [place / f"{name.decode()}.py" for name in _NAME.findall(names)]
        if place != root:  # the package itself holds nothing but the way to all of it
            candidates += [place.with_suffix(".py"), place / "__init__.py"]
        imported.update(filter(_exists, candidates))
    return imported


@functools.cache
def _exists(path: Path) -> bool:
    return path.is_file()


@functools.cache
def _contents(path: Path) -> bytes:
    return path.read_bytes()


@functools.cache
def _platform() -> bytes:
    libraries = [version(package) for package in ("numba", "llvmlite", "numpy")]
    settings = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in _HARMLESS_SETTINGS
    )
    interpreter = (sys.implementation.cache_tag, sysconfig.get_config_var("SOABI"), platform.machine(), sys.platform)
    return repr((interpreter, libraries, settings)).encode()


def _folder() -> Path | None:
    if named := os.environ.get("FRAUDSDK_CACHE_DIR"):
        return Path(named)
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(named) / "fraudsdk"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "fraudsdk" / "kernels"


def _doubt(status: os.stat_result) -> str:
    """Why somebody else than we, or the system, can have written it; empty when nobody can."""
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user, so that its code is not run; chown it, or name another folder"
    if status.st_mode & _WRITABLE_BY_OTHERS:
        return "may be written by others, so that its code is not run; chmod go-w it, or name another folder"
    return ""


def _modified_s(path: Path) -> float:
    """When a file was last written; 0, long ago, if another process has removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _serialised(name: str, key: str, compiled: CompiledObject) -> bytes:
    head = json.dumps(
        {"name": name, "key": key, "externals": compiled.externals, "has_native": compiled.has_native}
    ).encode()
    payload = head + b"\n" + compiled.code
    return MAGIC + hashlib.sha256(payload).digest() + payload


def _parsed(data: bytes, name: str, key: str) -> CompiledObject | None:
    start = len(MAGIC) + _DIGEST_BYTES
    digest, payload = data[len(MAGIC) : start], data[start:]
    if not data.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        return None  # truncated or altered
    head, _, code = payload.partition(b"\n")
    stated = json.loads(head)
    if (stated["name"], stated["key"]) != (name, key):
        return None  # a copy under another name
    return CompiledObject(code, tuple(stated["externals"]), stated["has_native"])
