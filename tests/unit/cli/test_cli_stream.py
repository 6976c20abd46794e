"""
The order in which a scorer hears a table: replay's order.
"""

from __future__ import annotations

import numpy as np
import pytest

from fraudsdk.cli import stream as stream_module
from fraudsdk.cli.data import map_columns, timeline_of
from fraudsdk.cli.stream import Stream
from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.errors import InvalidTransactionError
from fraudsdk.features.spec import Feature, FeatureSet

KEY = b"sixteen byte key"
START_US = 1_735_689_600_000_000
MINUTE_US = 60_000_000
FEATURES = FeatureSet("one", (Feature("amount", "value", field="amount"),), currency="EUR")


class RecordingScorer:
    """Writes down what it hears."""

    def __init__(self, refuses: str = "") -> None:
        self.heard: list[str] = []
        self.batches: list[int] = []
        self.refuses = refuses

    def score_batch(self, transactions):
        self.batches.append(len(transactions))
        for row, transaction in enumerate(transactions):
            if transaction["transaction_id"] == self.refuses:
                raise InvalidTransactionError("amount", "is odd", "even it", row=row)
            self.heard.append(transaction["transaction_id"])
        return [transaction["transaction_id"] for transaction in transactions]

    def feedback(self, transaction_id, *, is_fraud):
        self.heard.append(f"{transaction_id} {'fraud' if is_fraud else 'genuine'}")


def stream_of(scorer, minutes, labels=None, known_minutes=None):
    n = len(minutes)
    columns = {
        "transaction_id": np.array([f"t{i}" for i in range(n)], dtype=object),
        "user_id": np.array(["u"] * n, dtype=object),
        "amount": np.ones(n),
        "event_time_us": START_US + np.array(minutes) * MINUTE_US,
    }
    if labels is not None:
        columns["is_fraud"] = np.array(labels, dtype=object)
        columns["label_time_us"] = np.array(
            [None if minute is None else START_US + minute * MINUTE_US for minute in known_minutes], dtype=object
        )
    table = map_columns(columns, ColumnMapping(), "table.csv", feature_set=FEATURES)
    return Stream(scorer, table, timeline_of(table, FEATURES, KEY, 0))


def test_transactions_are_heard_in_event_time_order():
    scorer = RecordingScorer()

    assert ["t1", "t2", "t0"] == list(stream_of(scorer, [9, 1, 5]).score(0, 3))
    assert [3] == scorer.batches


def test_a_label_is_heard_before_the_first_transaction_at_or_after_the_moment_it_is_known():
    scorer = RecordingScorer()
    stream = stream_of(scorer, [0, 5, 10], labels=[1, 0, None], known_minutes=[5, 7, None])
    list(stream.score(0, 3))

    assert ["t0", "t0 fraud", "t1", "t1 genuine", "t2"] == scorer.heard


def test_a_label_that_is_known_after_the_last_transaction_is_not_heard():
    scorer = RecordingScorer()
    list(stream_of(scorer, [0, 5], labels=[1, 0], known_minutes=[6, None]).score(0, 2))

    assert ["t0", "t1"] == scorer.heard


def test_a_stream_goes_on_where_it_stopped_one_by_one():
    scorer = RecordingScorer()
    stream = stream_of(scorer, [0, 5, 10], labels=[1, 0, None], known_minutes=[5, 7, None])
    list(stream.score(0, 1))
    for position, transaction in stream.one_by_one(1, 3):
        scorer.heard.append(f"{position}:{transaction['transaction_id']}")

    assert ["t0", "t0 fraud", "1:t1", "t1 genuine", "2:t2"] == scorer.heard


def test_blocks_bound_what_is_in_memory_and_change_nothing(monkeypatch):
    monkeypatch.setattr(stream_module, "BLOCK_ROWS", 2)
    scorer, progress = RecordingScorer(), []
    stream = stream_of(scorer, [0, 1, 2, 3, 4], labels=[1] + [None] * 4, known_minutes=[3] + [None] * 4)

    assert ["t0", "t1", "t2", "t3", "t4"] == list(stream.score(0, 5, progress.append))
    assert ["t0", "t1", "t2", "t0 fraud", "t3", "t4"] == scorer.heard
    assert [2, 4, 5] == progress


def test_a_refused_transaction_is_named_by_its_row_in_the_file():
    """
    The file is not in event-time order, so the row of the batch is another one.
    """
    with pytest.raises(InvalidTransactionError, match="in row 0"):
        list(stream_of(RecordingScorer(refuses="t0"), [9, 1, 5]).score(0, 3))


def test_a_label_known_with_its_transaction_is_heard_after_it():
    """
    A feed that stamps its labels with the transaction's time, or before it, would teach the memory nothing.
    """
    scorer = RecordingScorer()
    stream = stream_of(scorer, [0, 5, 10], labels=[1, 0, None], known_minutes=[0, 3, None])
    list(stream.score(0, 3))

    assert ["t0", "t0 fraud", "t1", "t1 genuine", "t2"] == scorer.heard
