"""
State in one file, to move it to another machine: a plain tar, written whole or not at all.

::

    contents.json | the newest whole snapshot, if any | the segments of the log after it, as far as they count

What a stream has not marked does not count.

An import verifies every checksum before there is a directory, which then appears with everything in it.  Checksums find
accidents; they do not tell who wrote a file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from fraudsdk.entity_state.log_format import HEADER_WORDS
from fraudsdk.entity_state.log_reader import has_record, read_segment
from fraudsdk.entity_state.marks import last_mark, unmarked
from fraudsdk.entity_state.place import Mark, Place
from fraudsdk.entity_state.snapshot import read_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateFiles
from fraudsdk.entity_state.survey import Verified, verify
from fraudsdk.errors import CorruptStateError, StateError

CONTENTS: Final = "contents.json"
FORMAT_VERSION: Final = 1
_MAX_CONTENTS_BYTES: Final = 1 << 20  # some 10,000 files, of 64 MiB each
_CHUNK_BYTES: Final = 1 << 20
# What a hostile or broken tar makes the standard library raise.
_NOT_A_TAR: Final = (tarfile.TarError, ValueError, EOFError)

Counter = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Moved:
    """
    What was exported or imported.

    Attributes
    ----------
    start, stop : int
        Number of the first change that is not in the snapshot, and after the last change.
    n_bytes : int
        Of all files.
    n_torn_bytes : int
        Left out at the end of the log, for they are no whole change, or of a stream come after its last place.
    problems : tuple of str
        Snapshots that could not be used, and why.
    place : Place or None
        How far in its stream it is; None where it is of none.
    """

    start: int
    stop: int
    n_bytes: int
    n_torn_bytes: int = 0
    problems: tuple[str, ...] = ()
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    n_bytes: int  # that count


def export_state(directory: StateDirectory, out: Path, progress: Counter = lambda n_bytes: None) -> Moved:
    """
    Write what a recovery would read into one file.

    Parameters
    ----------
    directory : StateDirectory
    out : Path
        Replaced if it is there; readable by its owner alone.
    progress : callable
        Told how many bytes have been written.

    Raises
    ------
    CorruptStateError
        Records are missing or were changed.
    StateError
        A later version wrote them, or there is not one whole change.
    OSError
        The file cannot be written.  What was there before still is.
    """
    parts, moved = _parts_of(directory)
    aside = out.with_name(f".partial-{out.name}")
    try:
        with open(aside, "wb", opener=_private) as file:
            _write_tar(file, parts, progress)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    _sync(out.parent)
    return moved


def import_state(exported: Path, into: Path, progress: Counter = lambda n_bytes: None) -> Moved:
    """
    Make a state directory of what was exported.

    Parameters
    ----------
    exported : Path
    into : Path
        Made; if it is there, it must be empty.
    progress : callable
        Told how many bytes have been read.

    Raises
    ------
    StateError
        It is no export, was cut off or changed, or holds what does not belong there; or something is in `into`.
    OSError
        It cannot be read, or the directory cannot be written.  Nothing is left there.
    """
    _require_nothing_in(into)
    aside = Path(tempfile.mkdtemp(prefix=f".partial-{into.name}-", dir=into.absolute().parent))
    try:
        n_bytes = _unpack(exported, aside, progress)
        verified = _require_whole(exported, StateFiles(aside))
        _sync(aside)
        try:
            aside.rename(into)  # onto an empty directory or none: never over what came meanwhile
        except OSError as error:
            raise StateError(f"{into} cannot be made: {error.strerror}; name a new directory") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _sync(into.absolute().parent)
    return Moved(verified.start, verified.stop, n_bytes, place=_place_at(verified.mark))


# --- out --------------------------------------------------------------------------------------------------------------


def _parts_of(directory: StateDirectory) -> tuple[list[_Part], Moved]:
    """The files that a recovery would read, verified."""
    start, parts, problems = _newest_snapshot(directory)
    stop, n_torn, mark = start, 0, last_mark(directory)
    segments = directory.segments()
    for place, (first, path) in enumerate(segments):
        until = segments[place + 1][0] if place + 1 < len(segments) else None
        if mark is not None:
            until = mark.sequence if until is None else min(until, mark.sequence)
        if until is not None and (until <= start or until <= first):
            continue
        if until is None and not has_record(path, first):
            n_torn = max(0, path.stat().st_size - 8 * HEADER_WORDS)
            continue
        if first > stop:
            raise CorruptStateError(
                f"{directory.path} lacks the changes {stop} to {first - 1} of state: the log goes on in {path.name}; put "
                f"the missing segments back{''.join(f'; {problem}' for problem in problems)}"
            )
        segment = read_segment(path, first, until)
        n_torn = segment.n_torn_bytes if until is None else 0
        if segment.stop > start:
            parts.append(_Part(path, segment.words.nbytes))
            stop = segment.stop
    if mark is not None:
        n_torn = sum(path.stat().st_size - n_marked for path, n_marked in unmarked(directory, mark))
        _require_all_until(mark, stop, directory, problems)
    if stop == 1:
        raise StateError(f"{directory.path} holds not one whole change of state; there is nothing to export")
    return parts, Moved(start, stop, sum(part.n_bytes for part in parts), n_torn, tuple(problems), _place_at(mark))


def _place_at(mark: Mark | None) -> Place | None:
    return None if mark is None else mark.place


def _require_all_until(mark: Mark, stop: int, directory: StateDirectory, problems: list[str]) -> None:
    if stop != mark.sequence:
        raise CorruptStateError(
            f"{directory.path} lacks the changes {stop} to {mark.sequence - 1} of state, up to {mark.place.said}; put a copy of "
            f"its files back{''.join(f'; {problem}' for problem in problems)}"
        )


def _newest_snapshot(directory: StateDirectory) -> tuple[int, list[_Part], list[str]]:
    """Where the newest whole snapshot ends, that snapshot if there is one, and what is wrong with newer ones."""
    problems: list[str] = []
    for sequence, path in reversed(directory.snapshots()):
        try:
            read_snapshot(path)
        except CorruptStateError as error:
            problems.append(str(error))
        else:
            return sequence, [_Part(path, path.stat().st_size)], problems
    return 1, [], problems


def _write_tar(file: IO[bytes], parts: Sequence[_Part], progress: Counter) -> None:
    n_written = 0
    contents = {
        "format": FORMAT_VERSION,
        "files": [{"name": part.path.name, "n_bytes": part.n_bytes} for part in parts],
    }
    with tarfile.open(fileobj=file, mode="w") as tar:
        text = json.dumps(contents, indent=1).encode()
        tar.addfile(_member(CONTENTS, len(text)), io.BytesIO(text))
        for part in parts:
            with part.path.open("rb") as source:
                tar.addfile(_member(part.path.name, part.n_bytes), source)
            progress(n_written := n_written + part.n_bytes)


def _member(name: str, n_bytes: int) -> tarfile.TarInfo:
    """Of nobody and of no time: the same state gives the same file."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = n_bytes, 0o600
    return member


# --- in ---------------------------------------------------------------------------------------------------------------


def _require_nothing_in(into: Path) -> None:
    try:
        there = next(into.iterdir(), None)
    except FileNotFoundError:
        if into.absolute().parent.is_dir():
            return
        raise StateError(f"folder {into.absolute().parent} does not exist; create it first") from None
    except NotADirectoryError as error:
        raise StateError(f"{into} is a file; name a new directory") from error
    if there is None:
        return
    files = StateFiles(into)
    what = "holds state already" if files.segments() or files.snapshots() else f"is not empty, it holds {there.name}"
    raise StateError(f"{into} {what}; name a new directory")


def _unpack(exported: Path, aside: Path, progress: Counter) -> int:
    """Put the files of an export into an empty directory, none of them verified yet; their bytes."""
    with exported.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = iter(tar)
                expected = _contents_of(tar, next(members, None), exported)
                n_bytes = 0
                for name, size in expected.items():
                    _unpack_one(tar, next(members, None), name, size, aside, exported)
                    progress(n_bytes := n_bytes + size)
                if (other := next(members, None)) is not None:
                    raise _refused(exported, f"holds {other.name[:100]!r}, which its contents do not name")
        except _NOT_A_TAR as error:
            raise _refused(exported, f"is no export of state, or was cut off or changed ({error})") from error
    return n_bytes


def _contents_of(tar: tarfile.TarFile, member: tarfile.TarInfo | None, exported: Path) -> dict[str, int]:
    """Name and size of each file that should follow."""
    if member is None or member.name != CONTENTS or not _is_plain(member) or member.size > _MAX_CONTENTS_BYTES:
        raise _refused(exported, f"is no export of state: it does not begin with {CONTENTS}")
    try:
        contents = json.loads(b"".join(_chunks_of(tar, member)))
        version, files = contents["format"], [(each["name"], each["n_bytes"]) for each in contents["files"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _refused(exported, f"has a {CONTENTS} that cannot be read") from error
    if version != FORMAT_VERSION:
        raise StateError(
            f"{exported} has format {version!r} and this version reads {FORMAT_VERSION}; import it with the fraudsdk that "
            "wrote it"
        )
    if not files:
        raise _refused(exported, "names no files")
    for name, size in files:
        if not _is_name_of_state(name):
            raise _refused(exported, f"names a file {str(name)[:100]!r}, which is no part of a state")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise _refused(exported, f"gives {name} a size of {str(size)[:100]!r}")
    if len(dict(files)) != len(files):
        raise _refused(exported, "names a file twice")
    return dict(files)


def _unpack_one(
    tar: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, size: int, aside: Path, exported: Path
) -> None:
    if member is None:
        raise _refused(exported, f"was cut off before {name}")
    if (member.name, member.size) != (name, size) or not _is_plain(member):
        raise _refused(exported, f"holds {member.name[:100]!r} where its contents say {name}")
    with open(aside / name, "xb", opener=_private) as file:
        for chunk in _chunks_of(tar, member):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if (aside / name).stat().st_size != size:
        raise _refused(exported, f"was cut off in {name}")


def _chunks_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    source = tar.extractfile(member)
    assert source is not None  # it is a plain file
    with source:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _is_name_of_state(name: Any) -> bool:
    """Whether it is exactly the name of a segment or snapshot, and so no path."""
    if not isinstance(name, str):
        return False
    files, digits = StateFiles(Path()), "".join(filter(str.isdigit, name))
    if not (digits.isascii() and len(digits) == 20):
        return False
    return name in (files.segment(int(digits)).name, files.snapshot(int(digits)).name)


def _require_whole(exported: Path, files: StateFiles) -> Verified:
    """Every checksum as it was, nothing missing and nothing torn: an export has none of what a crash leaves."""
    verified = verify(files)
    for report in verified.wrong:
        raise _refused(exported, f"does not hold what was kept: {report.name}, {report.found.partition(';')[0]}")
    for first, path in files.segments()[-1:]:
        if not has_record(path, first) or read_segment(path, first, None).n_torn_bytes:
            raise _refused(exported, f"holds {path.name}, which has bytes at its end that are no whole change")
    return verified


def _refused(exported: Path, problem: str) -> CorruptStateError:
    return CorruptStateError(f"{exported} {problem}; nothing was imported: export it again")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
