"""A user's table: read, mapped, in event-time order, and as the mappings that a scorer takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraudsdk.cli.options import mapping_of, note
from fraudsdk.domain.fields import EVENT_TIME_US, RecordLayout
from fraudsdk.domain.masking import masked
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import EVENT_TIME_PARSERS, TransactionReader
from fraudsdk.domain.values import parse_flag
from fraudsdk.encoding.encoder import LABEL_UNKNOWN, Encoder
from fraudsdk.encoding.hashing import pan_token
from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import ConfigurationError, InvalidTransactionError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.spec import FeatureSet
from fraudsdk.simulation import PATTERNS
from fraudsdk.training.replay import label_times
from fraudsdk.training.tables import length_of, read_columns

Columns = Mapping[str, NDArray[Any]]

# Columns that tables are cut by in reports; the last is the simulator's answer and never a feature.
SEGMENTS: Final = ("channel", "type", "fraud_pattern")
_LABEL_TIMES: Final = {name.replace("event_time", "label_time"): parse for name, parse in EVENT_TIME_PARSERS.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """
    A table that was read and mapped.

    Attributes
    ----------
    source : str
        Where it came from.
    columns : mapping of str to array
        Under the names of a transaction's fields.
    raw : mapping of str to array
        As the file has them.
    unused : tuple of str
        Columns of the file that nothing reads.
    file_rows : int64[n]
        Row of the file at each place.
    """

    source: str
    columns: Columns
    raw: Columns
    unused: tuple[str, ...]
    file_rows: NDArray[np.int64]

    def __len__(self) -> int:
        return length_of(self.columns)

    @property
    def simulated(self) -> bool:
        """Whether it is the simulator's: nobody else knows the patterns of his frauds by these names."""
        patterns = self.raw.get("fraud_pattern")
        return patterns is not None and set(patterns.tolist()) <= set(PATTERNS)

    def segments(self, more: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
        """
        Columns to cut figures by, those that there are.

        Raises
        ------
        ConfigurationError
            One of `more` is no column of the file.
        """
        for name in more:
            if name not in self.raw:
                raise ConfigurationError(
                    f"--segment names {name!r}, which {self.source} lacks; it has {_listed(self.raw)}"
                )
        found = {name: self.columns.get(name, self.raw.get(name)) for name in (*SEGMENTS, *more)}
        return {name: values for name, values in found.items() if values is not None}

    def where(self, kept: NDArray[np.bool_]) -> Table:
        """The rows that `kept` marks."""
        return replace(
            self,
            columns={name: values[kept] for name, values in self.columns.items()},
            raw={name: values[kept] for name, values in self.raw.items()},
            file_rows=self.file_rows[kept],
        )

    def in_file(self, error: InvalidTransactionError) -> InvalidTransactionError:
        """An error about one of these rows, with the row of the file."""
        return error if error.row is None else error.in_row(int(self.file_rows[error.row]))


def read_table(
    path: Path, words: list[str], *, currency: str | None = None, feature_set: FeatureSet | None = None
) -> Table:
    """
    Read and map a table.

    Parameters
    ----------
    path : Path
    words : list of str
        What ``--map`` was given.
    currency : str or None
        Currency of amounts that name none.
    feature_set : FeatureSet or None
        Declares the custom fields to take along, and the currency where `currency` does not.

    Raises
    ------
    ConfigurationError
        No such file, or the mapping does not fit it.
    """
    table = map_columns(read_columns(path), mapping_of(words), str(path), currency=currency, feature_set=feature_set)
    if feature_set is not None:
        _note_other_currencies(table, feature_set.currency)
    return table


def map_columns(
    raw: Columns,
    mapping: ColumnMapping,
    source: str,
    *,
    currency: str | None = None,
    feature_set: FeatureSet | None = None,
) -> Table:
    """The table of columns that are in memory; see `read_table`."""
    custom: tuple[str, ...] = ()
    if feature_set is not None:
        custom = (*feature_set.custom_numbers, *feature_set.custom_categories)
        currency = currency or feature_set.currency
    n = length_of(raw)
    if n == 0:
        raise ConfigurationError(f"{source} has no rows; give a table of transactions")
    columns = mapping.apply(raw, currency=currency, custom=custom)
    return Table(source, columns, raw, mapping.unused(tuple(raw), custom=custom), np.arange(n))


def currency_of(table: Table) -> str:
    """
    The commonest currency of a table.

    Raises
    ------
    ConfigurationError
        It names none.
    """
    named = _currencies(table)
    if not named:
        raise ConfigurationError(f"{table.source} names no currency; add --currency GBP, or map a column to currency")
    return named.most_common(1)[0][0]


def read_with_features(
    path: Path, words: list[str], features: Path | None, currency: str | None
) -> tuple[Table, FeatureSet]:
    """
    A table, and the feature set to compute on it: a file, or the shipped catalogue in the table's currency.

    Raises
    ------
    ConfigurationError
        Either cannot be read, or no currency can be had.
    """
    if features is not None:
        if currency is not None:
            raise ConfigurationError("--features and --currency are both given; the file names its currency, drop one")
        feature_set = FeatureSet.load(features)
        return read_table(path, words, feature_set=feature_set), feature_set
    table = read_table(path, words, currency=currency)
    feature_set = reference_feature_set(currency or currency_of(table))
    _note_other_currencies(table, feature_set.currency)
    return table, feature_set


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """
    When the transactions of a table happened, and when their labels are known.

    Attributes
    ----------
    order : int64[n]
        Rows of the table by event time, equal times in the table's order, as replay presents them.
    transaction_id : object[n]
        Text, as the scorer reads it; in that order.
    event_time_us : int64[n]
        In that order.
    label : int8[n]
        1 fraud, 0 genuine, -1 unknown; in that order.
    label_time_us : int64[n]
        `LABEL_NEVER` = it will not be; in that order.
    """

    order: NDArray[np.int64]
    transaction_id: NDArray[np.object_]
    event_time_us: NDArray[np.int64]
    label: NDArray[np.int8]
    label_time_us: NDArray[np.int64]


def timeline_of(table: Table, feature_set: FeatureSet, hash_key: bytes, label_delay_us: int) -> Timeline:
    """
    Order a table, having checked every value in it.

    Raises
    ------
    InvalidTransactionError
        Names the first bad row.
    """
    layout = RecordLayout((), (), feature_set.custom_numbers, feature_set.custom_categories)
    encoder = Encoder(layout, key=hash_key, vocabulary=Vocabulary(), currency=feature_set.currency)
    try:
        encoded = encoder.encode_columns(table.columns)
    except InvalidTransactionError as error:
        raise table.in_file(error) from None
    event_time_us = encoded.ints[:, EVENT_TIME_US]
    label = np.full(len(table), LABEL_UNKNOWN, np.int8) if encoded.labels is None else encoded.labels
    order = np.argsort(event_time_us, kind="stable")
    return Timeline(
        order=order,
        transaction_id=encoded.transaction_ids[order],
        event_time_us=event_time_us[order],
        label=label[order],
        label_time_us=label_times(encoded, label_delay_us)[order],
    )


def transactions_of(table: Table, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Rows of a table as mappings for `Scorer`: what is absent is left out, and so is what only a label knows."""
    sent = [_sent(name, values[rows]) for name, values in table.columns.items() if _is_sent(name)]
    transactions: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    for name, values in sent:
        for transaction, value in zip(transactions, values, strict=True):
            if value is not None and value == value:
                transaction[name] = value
    return transactions


def bad_rows_of(
    table: Table, feature_set: FeatureSet, hash_key: bytes, *, latest_us: int
) -> dict[int, InvalidTransactionError]:
    """
    Every row that a scorer would refuse, and why; a table's own encoder stops at the first.

    Parameters
    ----------
    latest_us : int
        Event times after it lie in the future.

    Returns
    -------
    dict of int to InvalidTransactionError
        By row of the table; the errors name the row of the file.
    """
    reader = TransactionReader(
        feature_set.custom_numbers,
        feature_set.custom_categories,
        feature_set.currency,
        partial(pan_token, key=hash_key),
    )
    labels = _label_checks(table)
    bad = {}
    for row, mapping in enumerate(transactions_of(table, np.arange(len(table)))):
        try:
            transaction = reader.read(mapping)
            for check in labels:
                check(row)
        except InvalidTransactionError as error:
            bad[row] = error.in_row(int(table.file_rows[row]))
            continue
        if transaction.event_time_us > latest_us:
            problem, remedy = "lies in the future", "check the unit and the sender's clock"
            whose = masked(transaction.transaction_id)
            bad[row] = InvalidTransactionError(
                "event_time", problem, remedy, transaction_id=whose, row=int(table.file_rows[row])
            )
    return bad


def _note_other_currencies(table: Table, reference: str) -> None:
    named = _currencies(table)
    n_others = named.total() - named[reference]
    if n_others:
        note(f"{n_others:,} of {len(table):,} amounts are in other currencies than {reference} and count as unknown")


def _currencies(table: Table) -> Counter[str]:
    texts = table.columns.get("currency", np.empty(0)).tolist()
    return Counter(text.strip().upper() for text in texts if isinstance(text, str) and text.strip())


def _label_checks(table: Table) -> list[Callable[[int], None]]:
    parsers = {"is_fraud": parse_flag, **_LABEL_TIMES}
    return [
        partial(_check_value, name, values, parsers[name]) for name, values in table.columns.items() if name in parsers
    ]


def _check_value(name: str, values: NDArray[Any], parse: Callable[[object], object], row: int) -> None:
    value = values[row]
    if isinstance(value, np.datetime64):
        return
    try:
        parse(value.item() if isinstance(value, np.generic) else value)
    except RefusedValue as refused:
        raise InvalidTransactionError(name, refused.problem, refused.remedy) from None


def _is_sent(name: str) -> bool:
    return name != "is_fraud" and name not in _LABEL_TIMES


def _sent(name: str, values: NDArray[Any]) -> tuple[str, list[Any]]:
    if name != "event_time" or values.dtype.kind != "M":
        return name, values.tolist()
    # datetime64 is UTC by declaration, a plain datetime would have to say so.
    times = values.astype("datetime64[us]")
    us = times.astype(np.int64).tolist()
    present = (~np.isnat(times)).tolist()
    return "event_time_us", [time if there else None for time, there in zip(us, present, strict=True)]


def _listed(columns: Columns) -> str:
    return ", ".join(columns)
