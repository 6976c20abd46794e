"""One partition of a stream, scored: its state is parts in a store, which holds their place in the stream as well."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fraudsdk.config import ScorerConfig
from fraudsdk.domain.decisions import Decisions
from fraudsdk.entity_state.store import JournalChange, JournalPage, StreamStore
from fraudsdk.entity_state.writer import Load, PartWriter
from fraudsdk.errors import InvalidTransactionError, StateError, StateUnavailableError
from fraudsdk.scorer.scorer import Scorer
from fraudsdk.scorer.streamed_state import StreamedState
from fraudsdk.sinks.port import DecisionSink
from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock

AlertsOf = Callable[[Decisions], list[bytes]]


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Transactions that follow each other in a stream.

    Attributes
    ----------
    rows : sequence of mappings
        As for `Scorer.score_batch`.
    sent_us : int64[n]
        When each was sent, microseconds since the Unix epoch.
    alerts_of : callable
        What must be told of the decisions: written with the state, and told after that.
    """

    rows: Sequence[Any]
    sent_us: npt.NDArray[np.int64]
    alerts_of: AlertsOf


@dataclass(frozen=True, slots=True)
class Said:
    """
    What was said of a transaction: it takes no place in the stream, and may be said again.

    Attributes
    ----------
    transaction_id : str
    is_fraud, declined : bool or None
        As for `Scorer.feedback`.
    """

    transaction_id: str
    is_fraud: bool | None = None
    declined: bool | None = None


class StreamedParts:
    """
    Scores one partition, and keeps state, place and what must be told together.

    Not thread-safe: one thread at a time calls it.

    Parameters
    ----------
    config : ScorerConfig
        With a `hash_key`.
    store : StreamStore
    origin : bytes
        Which stream it is: state of another one is refused.

    Attributes
    ----------
    scorer : Scorer
        For what does not move the stream on: what-ifs, counters, a new model.

    Raises
    ------
    ConfigurationError, ModelError
        As `Scorer.open`.
    """

    def __init__(
        self,
        config: ScorerConfig,
        store: StreamStore,
        origin: bytes,
        *,
        sink: DecisionSink | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._origin = origin
        self._state = StreamedState()
        self.scorer = Scorer.open(config, sink=sink, shared=self._state, clock=clock)
        self._writer: PartWriter[Batch | Said] = PartWriter(store, self, secrets.token_hex(16).encode())
        self._decisions: Decisions | None = None
        self._was_known = self._has_forgotten = False
        self._is_whole = False  # memory is what the store and the batches since make of the stream

    @property
    def place(self) -> int:
        """The message to go on with."""
        return self._writer.next

    @property
    def n_rows_at_once(self) -> int:
        """Transactions between two commits, at most."""
        return self._state.n_rows_at_once

    @property
    def keeps_alerts(self) -> bool:
        """Whether a commit keeps alerts until they have been told."""
        return True

    @property
    def is_due(self) -> bool:
        """Whether there is something to commit."""
        return self._writer.is_due

    def claim(self) -> int:
        """
        Take the partition over from whoever has it; the message to go on with.

        Raises
        ------
        StateError
            The store has state of another stream, of other features, or is written by processes that share it.
        StateUnavailableError
            The store does not answer, or somebody is being erased: claim again.
        """
        self._is_whole = False
        self._store.enter(self._state.schema, self._origin)
        self._writer.claim()
        self._learn()
        self._is_whole = True
        return self.place

    def begin_at(self, place: int) -> None:
        """Begin a stream whose first messages are gone, or are not wanted."""
        self._writer.begin_at(place)

    def score(self, first: int, until: int, batch: Batch) -> Decisions | None:
        """
        Decide on the messages from `first` to before `until`, of which some may not be in the batch.

        Returns
        -------
        Decisions or None
            None where they were not taken: the stream goes on from `place`.

        Raises
        ------
        InvalidTransactionError
            Names the row.  Nothing was remembered.
        CorruptStateError
            Messages before them were left out, or the store holds half of a commit.
        Lost
            Another process has the partition.
        StateUnavailableError
            The store does not answer: claim again, and go on from there.
        """
        self._decisions = None
        return self._decisions if self._feed(first, batch, until) else None

    def feedback(self, said: Said) -> bool:
        """
        Take a label, or the host's final answer; it is written with the next commit.

        Returns
        -------
        bool
            False where the transaction is not remembered here.

        Raises
        ------
        InvalidTransactionError, Lost, StateUnavailableError
            As `score`.
        """
        self._was_known = False
        self._feed(self.place, said, self.place)
        return self._was_known

    def _feed(self, first: int, change: Batch | Said, until: int) -> bool:
        self._require_whole()
        self._is_whole = False  # some of it may be remembered when something breaks
        try:
            self._learn_again()
            was_taken = self._writer.feed(first, change, until)
            self._go_on_learning()
        except InvalidTransactionError:
            self._is_whole = True
            raise
        self._is_whole = True
        return was_taken

    def commit(self) -> int:
        """
        Have everything so far written; the message to go on with, further back where the store had lost some.

        Raises
        ------
        Lost
            Another process has the partition.
        StateUnavailableError
            No answer: it may have been written or not.  Commit again.
        """
        self._require_whole()
        place = self._writer.commit()
        self._go_on_learning()
        return place

    def outbox(self, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """As `StateStore`."""
        return self._store.outbox(limit, after)

    def acknowledge(self, names: Sequence[str]) -> None:
        """As `StateStore`."""
        self._store.acknowledge(names)

    def must_leave(self) -> bool:
        """As `StreamStore`."""
        return self._store.must_leave()

    def leave(self) -> None:
        """As `StreamStore`."""
        self._is_whole = False
        self._store.leave()

    def counters(self) -> dict[str, int]:
        """As `Scorer`."""
        return self.scorer.counters()

    def close(self) -> None:
        """What was not committed is forgotten, and comes again to whoever goes on."""
        self._is_whole = False
        self.scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_whole(self) -> None:
        if not self._is_whole:
            raise StateError("the partition must be claimed first, and again after something broke")

    # --- what the writer asks ------------------------------------------------------------------------------------------

    def apply(self, sequence: int, change: Batch | Said, load: Load) -> tuple[list[int], list[bytes]]:
        """As `State`."""
        self._state.reading(load, self._writer.committed)
        alerts: list[bytes] = []
        if isinstance(change, Batch):
            self._decisions = self.scorer.score_batch(change.rows, sent_us=change.sent_us)
            alerts = change.alerts_of(self._decisions)
        else:
            self._was_known = self.scorer.feedback(
                change.transaction_id, is_fraud=change.is_fraud, declined=change.declined
            )
        return self._state.take_changes(), alerts

    def pack(self, keys: Sequence[int], place: int) -> list[bytes]:
        """As `State`."""
        return self._state.pack(keys, place)

    def journalled(self) -> JournalChange:
        """As `State`."""
        return self._state.journalled()

    def recall(self, page: JournalPage) -> None:
        """As `State`."""
        self._state.recall(page)

    def forget(self) -> None:
        """As `State`."""
        self._state.forget()
        self._has_forgotten = True

    def _go_on_learning(self) -> None:
        self._learn_again()
        try:
            self._state.go_on_with_survey()
        except StateUnavailableError:
            # What broke off would pass for what has come to its end, and entities that it has not named for new ones.
            self._state.begin_survey(self._store.entity_keys())

    def _learn_again(self) -> None:
        if self._has_forgotten:  # the store had lost changes, and was claimed again
            self._learn()

    def _learn(self) -> None:
        """What a memory that is empty must know of the store."""
        self._state.learn_tombstones(self._store.tombstones())
        self._state.begin_survey(self._store.entity_keys())
        self._has_forgotten = False
