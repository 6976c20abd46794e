"""
Replay: the rows that the scorer would have computed, for a whole table.

Transactions are presented in event-time order (rows of one microsecond in file order), and each label is delivered at
the moment it would have been known, so a row never holds what was not known then.  The kernels are the scorer's own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.fields import EVENT_TIME_US, FIRST_IDENTIFIER
from fraudsdk.encoding.encoder import LABEL_NEVER, LABEL_UNKNOWN, EncodedTransactions, Encoder
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.engine import DEFAULT_JOURNAL_CAPACITY, DEFAULT_MAX_ENTITIES, FeatureEngine
from fraudsdk.features.kernels import SCORED
from fraudsdk.features.spec import FeatureSet
from fraudsdk.training.matrix import DAY_US, TrainingMatrix

# Card precision and the bootstrap group by the card where there is one, else by the user.
_GROUPS = ("card_id", "user_id")
DEFAULT_LABEL_DELAY_US = 7 * DAY_US


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """
    A replayed table.

    Attributes
    ----------
    order : int64[n]
        Row of the input at each place; everything below is in this order.
    encoded : EncodedTransactions
    rows : float32[n, n_features]
        NaN where there is no row: duplicates, reversals, chargebacks.
    scored : bool[n]
        Where there is one.
    label_time_us : int64[n]
        When each label was delivered; `LABEL_NEVER` = it was not.
    engine : FeatureEngine
        With the memory as the replay left it.
    """

    order: npt.NDArray[np.int64]
    encoded: EncodedTransactions
    rows: npt.NDArray[np.float32]
    scored: npt.NDArray[np.bool_]
    label_time_us: npt.NDArray[np.int64]
    engine: FeatureEngine

    def matrix(self, segments: Mapping[str, npt.NDArray[Any]] | None = None) -> TrainingMatrix:
        """
        Rows and labels for training and evaluation.

        Parameters
        ----------
        segments : mapping of str to array[n]
            In the order of the input table, for per-segment figures; never features.
        """
        keep = np.flatnonzero(self.scored)
        encoded = self.encoded
        labels = np.full(len(encoded), LABEL_UNKNOWN, np.int8) if encoded.labels is None else encoded.labels
        return TrainingMatrix(
            rows=np.ascontiguousarray(self.rows[keep]),
            label=labels[keep],
            event_time_us=encoded.ints[keep, EVENT_TIME_US],
            label_time_us=self.label_time_us[keep],
            card_key=self._group_keys()[keep],
            amount_major=encoded.amount_major[keep],
            schema=self.engine.schema,
            segments={name: _as_text(values[self.order[keep]]) for name, values in (segments or {}).items()},
            transaction_id=encoded.transaction_ids[keep],
        )

    def _group_keys(self) -> npt.NDArray[np.int64]:
        """Key of the card, or where a transaction names none of the user; 0 where it names neither."""
        keys = np.zeros(len(self.encoded), dtype=np.int64)
        identifiers = self.engine.record_layout.identifiers
        for name in reversed(_GROUPS):
            if name in identifiers:
                own = self.encoded.ints[:, FIRST_IDENTIFIER + identifiers.index(name)]
                keys = np.where(own != 0, own, keys)
        return keys


def replay(
    columns: Mapping[str, npt.NDArray[Any]],
    feature_set: FeatureSet,
    vocabulary: Vocabulary,
    *,
    hash_key: bytes | None = None,
    rates: Mapping[str, Decimal | str] | None = None,
    label_delay_us: int = DEFAULT_LABEL_DELAY_US,
    max_entities: int = DEFAULT_MAX_ENTITIES,
    journal_capacity: int = DEFAULT_JOURNAL_CAPACITY,
    progress: Callable[[int], None] | None = None,
) -> Replayed:
    """
    Point-in-time features of a table.

    Parameters
    ----------
    columns : Mapping of str to array
        Canonical columns (see `fraudsdk.encoding.mapping`), optionally with ``is_fraud`` and ``label_time``.
    feature_set, vocabulary : FeatureSet, Vocabulary
    hash_key : bytes, optional
        Secret of at least 16 bytes; a random one by default.  Rows depend on it only where a distinct count is sketched.
    label_delay_us : int
        A label without a ``label_time`` is known this long after its transaction, microseconds.  See `label_times`.
    progress : callable, optional
        Called with the number of rows done.

    Raises
    ------
    InvalidTransactionError
        Names the first bad row.
    """
    engine = FeatureEngine(feature_set, vocabulary, max_entities=max_entities, journal_capacity=journal_capacity)
    engine.warm_up()
    encoder = Encoder(
        engine.record_layout,
        key=hash_key or secrets.token_bytes(32),
        vocabulary=vocabulary,
        currency=feature_set.currency,
        rates=rates,
    )
    encoded = encoder.encode_columns(columns)
    order = np.argsort(encoded.ints[:, EVENT_TIME_US], kind="stable")
    if (np.diff(order) < 0).any():  # most tables are in order already, and large
        encoded = encoded.take(order)
    label_time_us = label_times(encoded, label_delay_us)
    due = np.flatnonzero(label_time_us != LABEL_NEVER)
    due = due[np.argsort(label_time_us[due], kind="stable")]
    labels = np.zeros(len(encoded), np.int8) if encoded.labels is None else encoded.labels
    rows, statuses = engine.replay(
        encoded.ints,
        encoded.numbers,
        label_rows=due,
        label_values=labels[due],
        label_times_us=label_time_us[due],
        progress=progress,
    )
    return Replayed(order, encoded, rows, statuses == SCORED, label_time_us, engine)


def label_times(encoded: EncodedTransactions, delay_us: int) -> npt.NDArray[np.int64]:
    """
    When each label is known, `LABEL_NEVER` where there is none.

    Its own time where the row has one, else `delay_us` after its transaction; and never before its transaction: a label
    that arrives when the memory has not heard of the transaction would be lost.
    """
    if encoded.labels is None:
        return np.full(len(encoded), LABEL_NEVER, dtype=np.int64)
    event_time_us = encoded.ints[:, EVENT_TIME_US]
    known_us = event_time_us + delay_us
    if encoded.label_time_us is not None:
        known_us = np.where(encoded.label_time_us == LABEL_NEVER, known_us, encoded.label_time_us)
    return np.where(encoded.labels == LABEL_UNKNOWN, LABEL_NEVER, np.maximum(known_us, event_time_us + 1))


def _as_text(values: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    text = np.empty(len(values), dtype=object)
    text[:] = ["unknown" if value is None or value != value else str(value) for value in values]
    return text
