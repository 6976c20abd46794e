"""
`TrainingMatrix`: one row per transaction, in event-time order, with its label and the moment the label was known.

It is what replay writes and what the split, the trainer and the evaluation read.  It refuses what would make a figure
a lie later: rows out of order, a row layout that is not the schema's, infinities, labels that are not 0, 1 or unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.errors import ConfigurationError

DAY_US = 86_400_000_000
NEVER_US = int(np.iinfo(np.int64).max)
UNKNOWN = -1
"""Label of a transaction of which nobody has said whether it was fraud."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingMatrix:
    """
    Point-in-time rows with their labels.

    Attributes
    ----------
    rows : float32[n, n_features], C-contiguous
        As the feature kernel wrote them; NaN = missing.
    label : int8[n]
        1 fraud, 0 genuine, -1 unknown: the final word, with hindsight.
    event_time_us : int64[n], ascending
        Microseconds since the Unix epoch, UTC.
    label_time_us : int64[n]
        When `label` was known; `NEVER_US` = nobody ever said so.
    card_key : int64[n]
        The card (or customer) that card precision and the bootstrap group by; 0 = absent.
    amount_major : float64[n]
        For value detection; in one currency, or already converted to one.
    schema : FeatureSchema
        Names and fingerprint of the columns of `rows`.
    segments : mapping of str to object[n]
        Text columns such as ``channel`` or ``fraud_pattern`` for per-segment tables.  Never features.
    transaction_id : object[n] or None
        For naming rows in reports.

    Raises
    ------
    ConfigurationError
        Names the column and what is wrong with it.
    """

    rows: NDArray[np.float32]
    label: NDArray[np.int8]
    event_time_us: NDArray[np.int64]
    label_time_us: NDArray[np.int64]
    card_key: NDArray[np.int64]
    amount_major: NDArray[np.float64]
    schema: FeatureSchema
    segments: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    transaction_id: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        _check_rows(self.rows, self.schema)
        n_rows = self.rows.shape[0]
        _check_column("label", self.label, np.int8, n_rows)
        _check_column("event_time_us", self.event_time_us, np.int64, n_rows)
        _check_column("label_time_us", self.label_time_us, np.int64, n_rows)
        _check_column("card_key", self.card_key, np.int64, n_rows)
        _check_column("amount_major", self.amount_major, np.float64, n_rows)
        for name, values in self.segments.items():
            _check_column(f"segment {name!r}", values, np.object_, n_rows)
        if self.transaction_id is not None:
            _check_column("transaction_id", self.transaction_id, np.object_, n_rows)
        _check_labels(self.label)
        _check_order(self.event_time_us)

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def n_frauds(self) -> int:
        """Rows labelled as fraud."""
        return int(np.count_nonzero(self.label == 1))

    def take(self, index: NDArray[np.int64]) -> TrainingMatrix:
        """The rows at `index` (ascending positions), as a matrix of their own."""
        return replace(
            self,
            rows=np.ascontiguousarray(self.rows[index]),
            label=self.label[index],
            event_time_us=self.event_time_us[index],
            label_time_us=self.label_time_us[index],
            card_key=self.card_key[index],
            amount_major=self.amount_major[index],
            segments={name: values[index] for name, values in self.segments.items()},
            transaction_id=None if self.transaction_id is None else self.transaction_id[index],
        )


def _check_rows(rows: NDArray[np.float32], schema: FeatureSchema) -> None:
    n_features = len(schema.features)
    if rows.ndim != 2 or rows.dtype != np.float32 or rows.shape[1] != n_features or not rows.flags.c_contiguous:
        raise ConfigurationError(
            f"rows must be C-contiguous float32[n, {n_features}], was {rows.dtype} of shape {rows.shape}; "
            "pass the rows that replay wrote for this feature set"
        )
    infinite = np.isinf(rows).any(axis=0)
    if infinite.any():
        name = schema.names[int(np.argmax(infinite))]
        raise ConfigurationError(f"feature {name!r} holds an infinity; a missing value is NaN, bound the rest")


def _check_column(name: str, values: NDArray[Any], dtype: type[np.generic], n_rows: int) -> None:
    if values.dtype != np.dtype(dtype) or values.shape != (n_rows,):
        raise ConfigurationError(
            f"{name} must be {np.dtype(dtype).name}[{n_rows}], was {values.dtype} of shape {values.shape}; "
            "give every column one value a row"
        )


def _check_labels(label: NDArray[np.int8]) -> None:
    unfit = (label < UNKNOWN) | (label > 1)
    if unfit.any():
        raise ConfigurationError(
            f"label must be 1 (fraud), 0 (genuine) or -1 (unknown), was {int(label[unfit][0])} "
            f"in row {int(np.argmax(unfit))}; map the labels before training"
        )


def _check_order(event_time_us: NDArray[np.int64]) -> None:
    backwards = np.diff(event_time_us) < 0
    if backwards.any():
        raise ConfigurationError(
            f"event_time_us must ascend, went back in row {int(np.argmax(backwards)) + 1}; "
            "sort the transactions by event time before replay"
        )
