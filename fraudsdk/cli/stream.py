"""
A table as a scorer hears it: transactions in event-time order, each label at the moment it is known.

    label due at 10:00 ──┐
    09:58   10:00   10:03│  ->  score(09:58), feedback(...), score(10:00), score(10:03)

The order is replay's, so that both give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from fraudsdk.cli.data import Table, Timeline, transactions_of
from fraudsdk.cli.progress import Counter
from fraudsdk.domain.decision import Decision
from fraudsdk.domain.decisions import Decisions
from fraudsdk.encoding.encoder import LABEL_NEVER
from fraudsdk.errors import InvalidTransactionError
from fraudsdk.scorer import Scorer

# Rows that are turned into mappings at a time: bounds what a large table costs as Python objects.
BLOCK_ROWS: Final = 10_000


class Stream:
    """
    Feeds one table to one scorer, once, from front to back.

    Parameters
    ----------
    scorer : Scorer
    table : Table
    timeline : Timeline
        Of that table.
    """

    def __init__(self, scorer: Scorer, table: Table, timeline: Timeline) -> None:
        self._scorer = scorer
        self._table = table
        self._timeline = timeline
        known = np.flatnonzero(timeline.label_time_us != LABEL_NEVER)
        self._labels = known[np.argsort(timeline.label_time_us[known], kind="stable")]
        # The position in front of which each label is due; those due after the last transaction are never needed.
        due_us = timeline.label_time_us[self._labels]
        self._due = np.searchsorted(timeline.event_time_us, due_us, side="left").tolist()
        self._next_label = 0

    def __len__(self) -> int:
        return len(self._timeline.order)

    def score(self, start: int, stop: int, progress: Counter | None = None) -> Iterator[Decision]:
        """
        Decide on the transactions from `start` to `stop`, in batches between labels.

        Raises
        ------
        InvalidTransactionError
            Names the row of the file.
        """
        for first, transactions in self._blocks(start, stop):
            done = 0
            while done < len(transactions):
                self.deliver_labels(first + done)
                until = min(len(transactions), self._next_due() - first)
                yield from self._score_batch(transactions[done:until], first + done)
                done = until
            if progress is not None:
                progress(first + done - start)

    def one_by_one(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Positions and transactions, for a caller who scores them; labels are delivered in between."""
        for first, transactions in self._blocks(start, stop):
            for position, transaction in enumerate(transactions, first):
                self.deliver_labels(position)
                yield position, transaction

    def deliver_labels(self, position: int) -> None:
        """Tell the labels that are known before the transaction at `position` is looked at."""
        while self._next_due() <= position:
            row = self._labels[self._next_label]
            is_fraud = bool(self._timeline.label[row] == 1)
            self._scorer.feedback(self._timeline.transaction_id[row], is_fraud=is_fraud)
            self._next_label += 1

    def _next_due(self) -> int:
        """Position in front of which the next label is due; past the end when there is none."""
        return self._due[self._next_label] if self._next_label < len(self._due) else len(self) + 1

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        for first in range(start, stop, BLOCK_ROWS):
            rows = self._timeline.order[first : min(stop, first + BLOCK_ROWS)]
            yield first, transactions_of(self._table, rows)

    def _score_batch(self, transactions: list[dict[str, Any]], first: int) -> Decisions:
        try:
            return self._scorer.score_batch(transactions)
        except InvalidTransactionError as error:
            if error.row is None:
                raise
            row = int(self._table.file_rows[self._timeline.order[first + error.row]])
            raise error.in_row(row) from None
