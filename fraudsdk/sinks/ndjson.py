"""
Decisions as lines of JSON in an append-only file.

A line is whole or absent: a write that fails half-way is cut off again, and a tail torn by a crash is cut when the file
is opened next, and said so.  A transaction id may have several equal lines (a retry after a failed flush): read the
first.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fraudsdk.domain.decision import Decision, Reason
from fraudsdk.errors import (
    ConfigurationError,
    DeadlineExceededError,
    SinkBackpressureError,
    SinkDeliveryError,
    SinkError,
)
from fraudsdk.telemetry import Deadline

_READ_BACK_BYTES: Final = 1 << 16
# Cutting the torn tail of a file that is not ours would destroy it.
_LINE_START: Final = b'{"transaction_id":'
# Owner and group: decisions are personal data.
_FILE_MODE: Final = 0o640


def decision_json(decision: Decision) -> str:
    """
    Write a decision as one line of JSON.

    A number that is not one (no model spoke, a feature was missing) is ``null``: JSON has no NaN.

    Examples
    --------
    >>> from fraudsdk.domain.decision import Decision, Outcome
    >>> line = decision_json(Decision("t-1", Outcome.APPROVE, 0.01, -4.5, (), "reference/1", "band"))
    >>> json.loads(line)["outcome"]
    'APPROVE'
    """
    return json.dumps(
        {
            "transaction_id": decision.transaction_id,
            "outcome": decision.outcome.value,
            "score": _number(decision.score),
            "margin": _number(decision.margin),
            "reasons": [_reason(reason) for reason in decision.reasons],
            "model_version": decision.model_version,
            "decided_by": decision.decided_by,
            "degraded": decision.degraded,
            "degraded_because": decision.degraded_because,
            "duplicate": decision.duplicate,
        },
        separators=(",", ":"),
    )


def _reason(reason: Reason) -> dict[str, Any]:
    return {
        "code": reason.code,
        "text": reason.text,
        "customer_text": reason.customer_text,
        "feature": reason.feature,
        "value": _number(reason.value),
        "contribution": _number(reason.contribution),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


class NdjsonSink:
    """
    Appends decisions to a file; `flush` is an ``fsync``.

    Parameters
    ----------
    path : str or Path
        Created if absent, in a directory that exists.  One sink per file: another writer's bytes could be cut.
    max_unflushed : int
        Accepted decisions whose ids are remembered until the next flush, so that a loss can be named.  When that many
        wait, `write` flushes by itself before it accepts more.

    Attributes
    ----------
    torn_bytes : int
        Bytes of a half-written line that were cut off when the file was opened.

    Warning
    -------
    Holds identifiers and verdicts.  The file is created with mode 0640; retention is the operator's.
    """

    def __init__(self, path: str | Path, *, max_unflushed: int = 100_000) -> None:
        if max_unflushed < 1:
            raise ConfigurationError(f"max_unflushed must be >= 1, was {max_unflushed}")
        self._path = Path(path)
        self._max_unflushed = max_unflushed
        self._unflushed: list[str] = []
        try:
            self._file: int | None = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE
            )
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be opened for appending: {error.strerror}; name a file in a writable directory"
            ) from error
        self.torn_bytes = self._cut_torn_tail(self._file)

    def write(self, decisions: Sequence[Decision]) -> None:
        """Append one line per decision, all of them or none."""
        file = self._open_file()
        if not decisions:
            return
        if len(self._unflushed) >= self._max_unflushed:
            self._fsync(file)
        lines = "".join(decision_json(decision) + "\n" for decision in decisions).encode()
        length = os.fstat(file).st_size
        try:
            _write_all(file, lines)
        except OSError as error:
            self._cut_back(file, length)
            raise SinkBackpressureError(
                f"{self._path} does not take more now: {error.strerror}; free space, nothing was accepted",
                retry_after_s=1.0,
            ) from error
        self._unflushed.extend(decision.transaction_id for decision in decisions)

    def flush(self, deadline: Deadline) -> None:
        """Return when every accepted line is on the disk."""
        file = self._open_file()
        if not self._unflushed:
            return
        if deadline.passed():
            raise DeadlineExceededError(
                f"{len(self._unflushed)} decisions in {self._path} are not durable yet; flush again with more time"
            )
        self._fsync(file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_file(self) -> int:
        if self._file is None:
            raise SinkError(f"the sink on {self._path} is closed; open another one")
        return self._file

    def _fsync(self, file: int) -> None:
        unflushed, self._unflushed = self._unflushed, []
        try:
            os.fsync(file)
        except OSError as error:
            # The kernel may drop the dirty pages and report success next time, so trying again would lie.
            raise SinkDeliveryError(
                f"{len(unflushed)} decisions may not be on disk: fsync of {self._path} failed: {error.strerror}; "
                "write them again to another disk",
                tuple(unflushed),
            ) from error

    def _cut_back(self, file: int, length: int) -> None:
        try:
            os.ftruncate(file, length)
        except OSError as error:
            # A half line followed by whole ones would corrupt both, so this file takes no more.
            self.close()
            raise SinkError(f"{self._path} ends in a torn line that cannot be cut: {error.strerror}") from error

    def _cut_torn_tail(self, file: int) -> int:
        length = os.fstat(file).st_size
        head = os.pread(file, len(_LINE_START), 0)
        if head != _LINE_START[: len(head)]:
            os.close(file)
            raise ConfigurationError(f"{self._path} holds something else than decisions; name a new file")
        end = _end_of_last_line(file, length)
        if end < length:
            os.ftruncate(file, end)
        return length - end


def _end_of_last_line(file: int, length: int) -> int:
    end = length
    while end > 0:
        start = max(end - _READ_BACK_BYTES, 0)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _write_all(file: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.write(file, data[written:])
