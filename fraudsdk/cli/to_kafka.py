"""
A table as a stream of messages: transactions in event-time order, keyed by their user, and each label once it is known.

A message is one JSON object, as `Scorer.score` takes it.  A label is one with ``transaction_id``, ``is_fraud`` and
``label_time_us``, sent before the first transaction that is not older than it; those due after the last transaction are not sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from fraudsdk.cli.data import Table, transactions_of
from fraudsdk.cli.progress import Counter

if TYPE_CHECKING:
    from fraudsdk.adapters.kafka.producer import MessageProducer

# Rows that are messages at a time: bounds what a large table costs as Python objects.
_BLOCK_ROWS: Final = 5_000
_TICK_S: Final = 0.002

_Message = tuple[str, bytes | None, bytes]


@dataclass(frozen=True, slots=True)
class Sent:
    """
    What was delivered.

    Attributes
    ----------
    n_transactions, n_labels : int
    elapsed_s : float
        From the first message to the last report of a delivery.
    """

    n_transactions: int
    n_labels: int
    elapsed_s: float


def send_table(
    table: Table,
    producer: MessageProducer,
    topic: str,
    *,
    labels_topic: str | None = None,
    rate: float | None = None,
    progress: Counter = lambda done: None,
) -> Sent:
    """
    Send a simulated table, and return once brokers have all of it.

    Parameters
    ----------
    table : Table
        In event-time order.
    producer : MessageProducer
    topic : str
        For transactions.
    labels_topic : str or None
        For labels; None: they are not sent.
    rate : float or None
        Transactions per second, over the whole; None: as many as brokers take.
    progress : Counter
        Told how many transactions were sent.

    Raises
    ------
    StreamUnavailableError
        Something was not delivered.
    """
    labels = _Labels(table, labels_topic)
    started_s = time.perf_counter()
    for first in range(0, len(table), _BLOCK_ROWS):
        rows = np.arange(first, min(first + _BLOCK_ROWS, len(table)))
        for row, transaction in enumerate(transactions_of(table, rows), first):
            if rate is not None:
                _wait_until(started_s + row / rate, producer)
            for label in labels.due(row):
                producer.send(*label)
            producer.send(topic, _key(transaction.get("user_id")), orjson.dumps(transaction))
        progress(first + len(rows))
    producer.finish()
    return Sent(len(table), labels.n_sent, time.perf_counter() - started_s)


class _Labels:
    """Labels of a table in the order they become known, each in front of a row."""

    def __init__(self, table: Table, topic: str | None) -> None:
        self.n_sent = 0
        self._table = table
        self._topic = topic
        known = np.flatnonzero(~np.isnat(table.columns["label_time"])) if topic is not None else np.empty(0, np.int64)
        self._rows = known[np.argsort(table.columns["label_time"][known], kind="stable")]
        event_time = table.columns["event_time"]
        self._due = np.searchsorted(event_time, table.columns["label_time"][self._rows], side="left").tolist()

    def due(self, row: int) -> Iterator[_Message]:
        while self.n_sent < len(self._due) and self._due[self.n_sent] <= row:
            yield self._message(int(self._rows[self.n_sent]))
            self.n_sent += 1

    def _message(self, row: int) -> _Message:
        assert self._topic is not None
        columns = self._table.columns
        label = {
            "transaction_id": columns["transaction_id"][row],
            "is_fraud": bool(columns["is_fraud"][row]),
            "label_time_us": int(columns["label_time"][row].astype("datetime64[us]").astype(np.int64)),
        }
        return self._topic, _key(columns["user_id"][row]), orjson.dumps(label)


def _wait_until(due_s: float, producer: MessageProducer) -> None:
    # By the schedule and not by the last message: who falls behind catches up, and the rate is that of the whole.
    while (left_s := due_s - time.perf_counter()) > 0:
        producer.wait(min(left_s, _TICK_S))


def _key(user_id: Any) -> bytes | None:
    return None if user_id is None else str(user_id).encode()
