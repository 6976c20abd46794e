"""Where state is kept on one machine: a directory of log segments and snapshots, that one process at a time may write."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fraudsdk.errors import StateError, StateInUseError

_SEGMENT: Final = re.compile(r"log-(\d{20})\.fslog")
_SNAPSHOT: Final = re.compile(r"snapshot-(\d{20})\.fssnap")
# A snapshot that was not finished, and what a recovery cut off.
_LEFTOVER: Final = re.compile(r"(log|snapshot)-\d{20}(-\d+)?\.(tmp|torn|damaged)")
_LOCK: Final = "lock"
DIGEST_BYTES: Final = 16


def torn_off(segment: Path, n_intact_bytes: int) -> Path:
    """Where recovery puts what comes after the intact bytes of a segment."""
    return segment.with_name(f"{segment.stem}-{n_intact_bytes}.torn")


@dataclass(frozen=True, slots=True)
class StateIdentity:
    """
    What the numbers in a state directory mean; another meaning is refused.

    Attributes
    ----------
    record : bytes
        Digest of the record layout, the vocabulary and the currency: what a log record says.
    state : bytes
        Digest of `record` and of what the feature set remembers: what a snapshot says.
    key : bytes
        Digest by the hash key, which does not tell it.
    """

    record: bytes
    state: bytes
    key: bytes

    @classmethod
    def of(cls, record: bytes, state: bytes, hash_key: bytes) -> Self:
        """Of the canonical bytes of what is to be told apart."""
        return cls(
            hashlib.blake2b(record, digest_size=DIGEST_BYTES).digest(),
            hashlib.blake2b(record + b"\0" + state, digest_size=DIGEST_BYTES).digest(),
            hashlib.blake2b(
                b"fraudsdk state", key=hashlib.blake2b(hash_key).digest(), digest_size=DIGEST_BYTES
            ).digest(),
        )


class StateFiles:
    """
    What is kept in a directory, by name; neither locked nor made, so a scorer may be writing to it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def segments(self) -> list[tuple[int, Path]]:
        """First sequence number and path of each segment of the log, oldest first."""
        return self._named(_SEGMENT)

    def snapshots(self) -> list[tuple[int, Path]]:
        """Sequence number of the next record, and path, of each snapshot, oldest first."""
        return self._named(_SNAPSHOT)

    def segment(self, sequence: int) -> Path:
        """Path of the segment that begins with a record."""
        return self.path / f"log-{sequence:020d}.fslog"

    def snapshot(self, sequence: int) -> Path:
        """Path of the snapshot of everything before a record."""
        return self.path / f"snapshot-{sequence:020d}.fssnap"

    def leftovers(self) -> list[Path]:
        """Files that were left by something unfinished, and that nothing reads."""
        return sorted(path for path in self.path.iterdir() if _LEFTOVER.fullmatch(path.name))

    def files(self) -> list[Path]:
        """Every file but the lock, which is empty."""
        return sorted(path for path in self.path.iterdir() if path.is_file() and path.name != _LOCK)

    def strangers(self) -> list[Path]:
        """Whatever else is there."""
        known = (_SEGMENT, _SNAPSHOT, _LEFTOVER)
        names = ((path, path.name) for path in self.path.iterdir())
        return sorted(path for path, name in names if name != _LOCK and not any(each.fullmatch(name) for each in known))

    def require_state(self) -> None:
        """
        Raises
        ------
        StateError
            It is no directory, or nothing is kept in it.
        """
        try:
            is_kept = bool(self.segments() or self.snapshots())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StateError(
                f"state directory {self.path} is none: {error.strerror}; name the one that a scorer keeps state in"
            ) from error
        if not is_kept:
            raise StateError(
                f"{self.path} holds no state, neither a segment of a log nor a snapshot; name a scorer's state directory"
            )

    def _named(self, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
        found = ((pattern.fullmatch(path.name), path) for path in self.path.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)


class StateDirectory(StateFiles):
    """
    A directory, locked for as long as this object is open.

    Parameters
    ----------
    path : Path
        Made if it is not there, readable by its owner alone.

    Raises
    ------
    StateError
        Another process has it open, or it cannot be made or locked.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if os.name != "posix":
            raise StateError(f"state directory {path} cannot be locked on this system; keep no state here")
        import fcntl

        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"state directory {path} cannot be used: {error.strerror}; name another one") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StateInUseError(
                f"state directory {path} is in use by another process; one scorer at a time keeps state in it"
            ) from error

    def sync(self) -> None:
        """Make names of files that were made, renamed or removed outlast a power cut."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let another process have it."""
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)
