"""A partition whose state is kept on this machine: in a directory of its own, with its place in the same log."""

from __future__ import annotations

from collections.abc import Sequence

from fraudsdk.config import ScorerConfig
from fraudsdk.domain.decisions import Decisions
from fraudsdk.errors import (
    CorruptStateError,
    InvalidTransactionError,
    StateError,
    StateInUseError,
    StateUnavailableError,
)
from fraudsdk.scorer.streamed_log import StreamedLog
from fraudsdk.scorer.streamed_parts import Batch, Said

_ROWS_AT_ONCE = 10_000


class LocalState:
    """
    A `StreamState` without a store.

    What is decided is told before it is committed: a crash between the two tells it once more, with the same bytes.

    Parameters
    ----------
    config : ScorerConfig
        Its ``state_dir`` is of this partition alone.
    origin : bytes
        Which stream it is.
    """

    def __init__(self, config: ScorerConfig, origin: bytes) -> None:
        self._config = config
        self._origin = origin
        self._log: StreamedLog | None = None
        self._place = 0
        self._was_told = False  # something that no place tells of

    @property
    def place(self) -> int:
        """As `StreamState`."""
        return self._place

    @property
    def n_rows_at_once(self) -> int:
        """As `StreamState`."""
        return _ROWS_AT_ONCE

    @property
    def is_due(self) -> bool:
        """As `StreamState`."""
        return self._log is not None and (self._was_told or self._place != self._log.place)

    @property
    def keeps_alerts(self) -> bool:
        """As `StreamState`."""
        return False

    def claim(self) -> int:
        """As `StreamState`; what is in memory and was not committed is forgotten."""
        self.close()
        self._was_told = False
        try:
            self._log = StreamedLog.open(self._config, self._origin)
        except StateInUseError as error:  # of the process that had it before, and is about to end
            raise StateUnavailableError(f"{error}; it is waited for") from error
        self._place = self._log.place
        return self._place

    def begin_at(self, place: int) -> None:
        """As `StreamState`."""
        if self._place:
            raise CorruptStateError(f"the state is of the messages before {self._place}; it cannot begin at {place}")
        self._place = place

    def score(self, first: int, until: int, batch: Batch) -> Decisions | None:
        """As `StreamState`."""
        if first != self._place:
            raise CorruptStateError(f"messages {self._place} to {first - 1} are missing; read the stream from there")
        scorer, place = self._open_log.scorer, self._place
        self._place = -1  # some of it may be remembered when something breaks
        try:
            decisions = scorer.score_batch(batch.rows, sent_us=batch.sent_us)
            batch.alerts_of(decisions)
        except InvalidTransactionError:
            self._place = place
            raise
        self._place = until
        return decisions

    def feedback(self, said: Said) -> bool:
        """As `StreamState`."""
        is_known = self._open_log.scorer.feedback(said.transaction_id, is_fraud=said.is_fraud, declined=said.declined)
        self._was_told |= is_known
        return is_known

    def commit(self) -> int:
        """As `StreamState`."""
        self._open_log.commit(self._place)
        self._was_told = False
        return self._place

    def outbox(self, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """As `StreamState`: alerts were told before the commit."""
        return []

    def acknowledge(self, names: Sequence[str]) -> None:
        """As `StreamState`."""

    def must_leave(self) -> bool:
        """As `StreamState`: whoever erases somebody needs the directory to himself."""
        return False

    def leave(self) -> None:
        """As `StreamState`: the directory is let go, for whoever goes on."""
        self.close()

    def counters(self) -> dict[str, int]:
        """As `StreamState`."""
        return {} if self._log is None else self._log.scorer.counters()

    def close(self) -> None:
        """As `StreamState`."""
        if self._log is not None:
            log, self._log = self._log, None
            log.close()

    @property
    def _open_log(self) -> StreamedLog:
        if self._log is None or self._place < 0:
            raise StateError("the partition must be claimed first, and again after something broke")
        return self._log
