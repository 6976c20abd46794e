"""
Column mappings: which column of a table is which field, and what must be done to it first.

A mapping is a TOML file, shipped or the user's own, or a few ``field=COLUMN`` pairs::

    user_id = "CUSTOMER_ID"
    amount = { column = "TX_AMOUNT", rounding = "nearest" }
    event_time = { column = "TX_DATETIME", zone = "UTC" }
    currency = { value = "EUR" }
    [custom]
    points = "LOYALTY"

A column that already bears the name of a field is that field, unless the mapping says something else about it
(``currency = false``: leave it out).  The mapping renames and repairs; whether a value is right is for the encoder to say.
"""

from __future__ import annotations

import difflib
import hashlib
import string
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from itertools import repeat
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from fraudsdk.domain.card_number import is_sensitive_name
from fraudsdk.domain.masking import shown
from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.domain.transaction import MAPPING_FIELDS, TransactionType, parse_type
from fraudsdk.encoding.encoder import TIME_UNITS
from fraudsdk.errors import ConfigurationError

MAX_FILE_BYTES: Final = 1 << 20

_LABEL_FIELDS: Final = frozenset({"is_fraud", *(f"label_time{suffix}" for suffix in TIME_UNITS)})
TABLE_FIELDS: Final = (MAPPING_FIELDS - {"custom"}) | _LABEL_FIELDS
# A table that maps one of these has no use for the others, even where a column bears its name.
_ALTERNATIVES: Final = (
    frozenset({"amount", "amount_minor"}),
    frozenset({"pan", "card_id"}),
    frozenset(f"event_time{suffix}" for suffix in TIME_UNITS),
    frozenset(f"label_time{suffix}" for suffix in TIME_UNITS),
)
_TIME_FIELDS: Final = ("event_time", "label_time")

_Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class FieldSource:
    """
    Where one field comes from; at most one of the first four, and then repairs in the order of the attributes.

    Attributes
    ----------
    column : str or None
        Column to read.
    template : str or None
        Text made of several columns, such as ``"{Year}-{Month:02}-{Day:02}T{Time}:00"``.
    value : str, int, float, bool or None
        The same value in every row.
    generate : {"row"} or None
        The number of the row.
    columns : tuple of str
        The columns of `template`; may be left out, being named in it.
    missing : tuple
        Values that mean "absent".
    strip : str
        Characters to remove from text, such as ``"$,"``.
    negative : {"refund"} or None
        For amounts: a negative one becomes its absolute value, with type refund.
    rounding : {"nearest"} or None
        For amounts: round binary dust off, to the currency's minor unit.
    true : tuple
        For flags: values that mean true; any other value means false.
    present : bool
        For flags: true where the column has a value, false where it has none.
    hash : bool
        For text: replace it by its SHA-256, as for an e-mail address that nobody else needs to read.
    unit : {"s", "ms", "us"} or None
        For times: unit of a number since the epoch.
    zone : str or None
        For times: IANA zone of naive timestamps.  An hour that a clock change repeats is its first occurrence.
    """

    column: str | None = None
    template: str | None = None
    value: str | int | float | bool | None = None
    generate: str | None = None
    columns: tuple[str, ...] = ()
    missing: tuple[Any, ...] = ()
    strip: str = ""
    negative: str | None = None
    rounding: str | None = None
    true: tuple[Any, ...] = ()
    present: bool = False
    hash: bool = False
    unit: str | None = None
    zone: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return (self.column,) if self.column is not None else self.columns


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """
    Which column of a table is which field.

    Attributes
    ----------
    sources : Mapping of str to FieldSource or None
        Canonical field -> source; None leaves the field out although a column bears its name.
    custom : tuple of str
        Those of the fields that are custom ones.

    Examples
    --------
    >>> mapping = ColumnMapping.from_pairs(["user_id=CUSTOMER", "amount=TOTAL"])
    >>> sorted(mapping.apply({"CUSTOMER": np.array(["u-1"]), "TOTAL": np.array([12.5]), "transaction_id": np.array([7])}))
    ['amount', 'transaction_id', 'user_id']
    """

    sources: Mapping[str, FieldSource | None] = field(default_factory=dict)
    custom: tuple[str, ...] = ()

    @classmethod
    def load(cls, name_or_path: str | Path) -> ColumnMapping:
        """
        A shipped mapping by its name (see `shipped`), or a TOML file by its path.

        Raises
        ------
        ConfigurationError
            No such mapping or file, or something in it that means nothing.
        """
        path = Path(name_or_path)
        if path.suffix == ".toml" or path.exists():
            if not path.is_file():
                raise ConfigurationError(f"mapping file {path} does not exist; check the path")
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ConfigurationError(f"mapping file {path} is larger than {MAX_FILE_BYTES} bytes; is it a table?")
            try:
                return cls.from_toml(path.read_text("utf-8"), whose=str(path))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"mapping file {path} cannot be read: {error}; is it TOML in UTF-8?"
                ) from error
        if str(name_or_path) not in shipped():
            close = _did_you_mean(str(name_or_path), shipped())
            raise ConfigurationError(f"mapping {shown(str(name_or_path))} is neither shipped nor a .toml file; {close}")
        text = resources.files(__package__).joinpath("mappings", f"{name_or_path}.toml").read_text("utf-8")
        return cls.from_toml(text, whose=f"mapping {name_or_path}")

    @classmethod
    def from_toml(cls, text: str, *, whose: str = "mapping") -> ColumnMapping:
        """
        Read a mapping from TOML; see the head of this module.

        Raises
        ------
        ConfigurationError
            Not TOML, or something in it that means nothing.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{whose} is not valid TOML: {error}; correct it") from error
        custom = table.pop("custom", {})
        if not isinstance(custom, dict):
            raise ConfigurationError(f"{whose}: custom must be a table of fields; write [custom]")
        sources = {name: _source(name, entry, whose, TABLE_FIELDS) for name, entry in table.items()}
        sources |= {name: _source(name, entry, whose, None) for name, entry in custom.items()}
        return cls(sources, tuple(custom))

    @classmethod
    def from_pairs(cls, pairs: Iterable[str], base: ColumnMapping | None = None) -> ColumnMapping:
        """
        Read ``field=COLUMN`` pairs; ``custom.points=LOYALTY`` maps a custom field.

        Parameters
        ----------
        pairs : iterable of str
            As given on a command line.
        base : ColumnMapping or None
            What the pairs are laid over.

        Raises
        ------
        ConfigurationError
            Not a pair, or an unknown field.
        """
        sources: dict[str, FieldSource | None] = dict(base.sources) if base else {}
        custom = list(base.custom) if base else []
        for pair in pairs:
            name, equals, column = (part.strip() for part in pair.partition("="))
            if not equals or not name or not column:
                raise ConfigurationError(f"mapping {shown(pair)} is no pair; write field=COLUMN")
            if name.startswith("custom."):
                name = name.removeprefix("custom.")
                custom.append(name)
            sources[name] = _source(name, column, "mapping", None if name in custom else TABLE_FIELDS)
        return cls(sources, tuple(dict.fromkeys(custom)))

    def apply(
        self, columns: _Columns, *, currency: str | None = None, custom: Collection[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """
        The canonical columns of a table, for `Encoder.encode_columns`.

        Parameters
        ----------
        columns : Mapping of str to array
            The table, by its own column names.
        currency : str or None
            Currency of amounts where neither mapping nor table names one; needed for ``rounding`` alone.
        custom : collection of str
            Further custom fields to take from columns of their name.

        Raises
        ------
        ConfigurationError
            The mapping names a column that the table lacks, or a repair does not fit its values.
        """
        sensitive = next((name for name in columns if is_sensitive_name(name)), None)
        if sensitive is not None:
            raise ConfigurationError(
                f"the table has a column {sensitive!r}, which nobody may keep after authorisation; take it out of the table"
            )
        n_rows = len(next(iter(columns.values()))) if columns else 0
        taken = self._taken(columns, custom)
        canonical: dict[str, NDArray[Any]] = {name: columns[name] for name in taken}
        for name, source in self.sources.items():
            if source is not None:
                canonical[_canonical_name(name, source)] = _repaired(name, _raw(name, source, columns, n_rows), source)
        source = self.sources.get("amount")
        if source is not None and source.negative:
            _negative_to_refund(canonical)
        if source is not None and source.rounding:
            canonical["amount"] = _rounded(canonical, currency)
        return canonical

    def unused(self, columns: Collection[str], *, custom: Collection[str] = ()) -> tuple[str, ...]:
        """Columns of a table that nothing reads, in the table's order."""
        read = {column for source in self.sources.values() if source for column in source.reads}
        read |= set(self._taken(columns, custom))
        return tuple(name for name in columns if name not in read)

    def _taken(self, columns: Collection[str], custom: Collection[str]) -> list[str]:
        """Columns that are read by their own name."""
        settled = set(self.sources)
        for name, source in self.sources.items():
            for alternatives in _ALTERNATIVES:
                if source is not None and name in alternatives:
                    settled |= alternatives
        return [name for name in columns if (name in TABLE_FIELDS or name in custom) and name not in settled]


def shipped() -> tuple[str, ...]:
    """Names of the mappings that come with the library, for tables that others published."""
    folder = resources.files(__package__).joinpath("mappings")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


_OPTION_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "column": str,
    "template": str,
    "value": (str, int, float, bool),
    "generate": str,
    "columns": list,
    "missing": list,
    "strip": str,
    "negative": str,
    "rounding": str,
    "true": list,
    "present": bool,
    "hash": bool,
    "unit": str,
    "zone": str,
}
_OPTION_VALUES: Final = {
    "generate": ("row",),
    "negative": ("refund",),
    "rounding": ("nearest",),
    "unit": ("s", "ms", "us"),
}
# Which fields an option makes sense for; the others make sense for all.
_OPTION_FIELDS: Final = {
    "negative": ("amount",),
    "rounding": ("amount",),
    "unit": _TIME_FIELDS,
    "zone": _TIME_FIELDS,
    "generate": ("transaction_id",),
}


def _source(name: str, entry: object, whose: str, known: Collection[str] | None) -> FieldSource | None:
    """Check one entry of a mapping; `known` is None for a custom field, whose name the feature set will check."""
    if is_sensitive_name(name):
        raise ConfigurationError(f"{whose}: {shown(name)} is card verification, PIN or track data; never read it")
    if known is not None and name not in known:
        raise ConfigurationError(f"{whose}: {shown(name)} is not a known field; {_did_you_mean(name, known)}")
    if entry is False:
        return None
    if isinstance(entry, str):
        entry = {"column": entry}
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{whose}: {name} must be a column name or a table, was {type(entry).__name__}")
    options: dict[str, Any] = {}
    for option, value in entry.items():
        _check_option(name, option, value, whose)
        options[option] = tuple(value) if isinstance(value, list) else value
    if sum(option in options for option in ("column", "template", "value", "generate")) != 1:
        raise ConfigurationError(f"{whose}: {name} needs exactly one of column, template, value and generate")
    if "template" in options:
        options["columns"] = _template_columns(name, options["template"], options.get("columns", ()), whose)
    source = FieldSource(**options)
    for column in source.reads:
        if is_sensitive_name(column):
            raise ConfigurationError(
                f"{whose}: {name} reads {shown(column)}, which is card verification data; never read it"
            )
    return source


def _check_option(name: str, option: str, value: object, whose: str) -> None:
    if option not in _OPTION_TYPES:
        raise ConfigurationError(
            f"{whose}: {name} has no option {shown(option)}; {_did_you_mean(option, _OPTION_TYPES)}"
        )
    wanted = _OPTION_TYPES[option]
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool and option != "value"):
        raise ConfigurationError(f"{whose}: {option} of {name} cannot be {shown(value)} ({type(value).__name__})")
    if value not in _OPTION_VALUES.get(option, (value,)):
        raise ConfigurationError(
            f"{whose}: {option} of {name} must be one of {_OPTION_VALUES[option]}, was {shown(value)}"
        )
    if name not in _OPTION_FIELDS.get(option, (name,)):
        raise ConfigurationError(
            f"{whose}: {option} means nothing for {name}; it is for {', '.join(_OPTION_FIELDS[option])}"
        )
    if option == "hash" and name in ("card_id", "pan"):
        raise ConfigurationError(f"{whose}: a hash without a key betrays card numbers; map the column to pan, as it is")
    if option == "zone":
        _zone(str(value), whose)


def _template_columns(name: str, template: str, declared: tuple[str, ...], whose: str) -> tuple[str, ...]:
    columns = []
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"{whose}: template of {name} is malformed: {error}; write {{COLUMN}}") from error
    for _, column, spec, conversion in parts:
        if column is None:
            continue
        # Python's format language reaches into attributes; a file of somebody else gets column names and widths only.
        wild = conversion or (spec and not spec.isalnum()) or any(character in column for character in ".[]{}")
        if not column or wild:
            raise ConfigurationError(f"{whose}: template of {name} may hold {{COLUMN}} and {{COLUMN:02}} only")
        columns.append(column)
    if not columns or (declared and set(declared) != set(columns)):
        raise ConfigurationError(f"{whose}: template of {name} must use its columns: {', '.join(declared) or 'none'}")
    return tuple(dict.fromkeys(columns))


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


def _zone(name: str, whose: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{whose}: zone {shown(name)} is unknown here; use an IANA name, or install tzdata"
        ) from error


def _canonical_name(name: str, source: FieldSource) -> str:
    return f"{name}_{source.unit}" if source.unit else name


def _raw(name: str, source: FieldSource, columns: _Columns, n_rows: int) -> NDArray[Any]:
    for column in source.reads:
        if column not in columns:
            close = _did_you_mean(column, columns)
            raise ConfigurationError(f"mapping of {name} reads column {shown(column)}, which the table lacks; {close}")
    if source.column is not None:
        return columns[source.column]
    if source.template is not None:
        return _formatted(name, source, columns)
    if source.generate is not None:
        return np.arange(n_rows)
    return _objects(repeat(source.value, n_rows), n_rows)


def _formatted(name: str, source: FieldSource, columns: _Columns) -> NDArray[Any]:
    assert source.template is not None
    lists = [_values(columns[column]) for column in source.columns]
    render = source.template.format_map
    try:
        texts = [
            None
            if None in row or any(part != part for part in row)
            else render(dict(zip(source.columns, row, strict=True)))
            for row in zip(*lists, strict=True)
        ]
    except (ValueError, TypeError):
        texts = None
    if texts is None:
        raise ConfigurationError(f"template of {name} does not fit the columns' values; check the widths in it")
    return _objects(texts, len(texts))


def _repaired(name: str, values: NDArray[Any], source: FieldSource) -> NDArray[Any]:
    if source.missing:
        values = _mapped(values, lambda value: None if value in source.missing else value)
    if source.strip:
        values = _mapped(values, _stripper(source.strip))
    if source.true:
        values = _mapped(values, lambda value: value in source.true)
    if source.present:
        values = np.array([not (_is_missing(value) or _is_blank(value)) for value in values.tolist()], np.bool_)
    if source.hash:
        values = _mapped(
            values, lambda value: hashlib.sha256(str(value).strip().encode("utf-8", "replace")).hexdigest()
        )
    if source.zone is not None:
        values = _zoned(values, _zone(source.zone, f"mapping of {name}"))
    return values


def _mapped(values: NDArray[Any], change: Callable[[Any], Any]) -> NDArray[Any]:
    """`change` of each value that is there, computed once per distinct value."""
    seen: dict[Any, Any] = {}
    changed: list[Any] = []
    for value in _values(values):
        if _is_missing(value) or isinstance(value, (list, dict, np.ndarray)):
            changed.append(None if _is_missing(value) else value)  # the encoder refuses a nested value by its row
            continue
        key = (type(value), value)  # 1, 1.0 and True are different answers
        if key not in seen:
            seen[key] = change(value)
        changed.append(seen[key])
    return _objects(changed, len(changed))


def _values(column: NDArray[Any]) -> list[Any]:
    # Nanoseconds would come out as integers.
    values: list[Any] = (column.astype("datetime64[us]") if column.dtype.kind == "M" else column).tolist()
    return values


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, (float, datetime)) and value != value)


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _stripper(characters: str) -> Callable[[Any], Any]:
    table = str.maketrans("", "", characters)
    return lambda value: value.translate(table) if isinstance(value, str) else value


def _zoned(values: NDArray[Any], zone: ZoneInfo) -> NDArray[Any]:
    """Naive times as UTC; a time that says its offset keeps it."""
    if values.dtype.kind == "M" and zone.key == "UTC":
        return values
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
    return _mapped(values, lambda value: _in_zone(value, zone))


def _in_zone(value: Any, zone: ZoneInfo) -> Any:
    moment = _naive_moment(value) if isinstance(value, str) else value
    if isinstance(moment, datetime) and moment.tzinfo is None:
        return moment.replace(tzinfo=zone).astimezone(UTC)
    return value  # with an offset of its own, or for the encoder to refuse


def _naive_moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None


def _negative_to_refund(canonical: dict[str, NDArray[Any]]) -> None:
    amounts = canonical["amount"]
    n = len(amounts)
    types = canonical["type"].tolist() if "type" in canonical else [None] * n
    if amounts.dtype.kind in "fi":
        negative = amounts < 0
        canonical["amount"] = np.abs(amounts)
    else:
        values = amounts.tolist()
        negative = np.array([_is_negative(value) for value in values], np.bool_)
        canonical["amount"] = _objects(
            (
                _without_sign(value) if is_negative else value
                for value, is_negative in zip(values, negative, strict=True)
            ),
            n,
        )
    for row in np.flatnonzero(negative).tolist():
        if parse_type(types[row]) is TransactionType.AUTHORISATION:  # a negative reversal stays one
            types[row] = "refund"
    canonical["type"] = _objects(types, n)


def _is_negative(value: Any) -> bool:
    return value.strip().startswith("-") if isinstance(value, str) else value is not None and value < 0


def _without_sign(value: Any) -> Any:
    return value.strip()[1:].strip() if isinstance(value, str) else -value


def _rounded(canonical: dict[str, NDArray[Any]], default_currency: str | None) -> NDArray[Any]:
    amounts = canonical["amount"]
    if amounts.dtype.kind == "i":
        return amounts
    if amounts.dtype.kind != "f":
        raise ConfigurationError("rounding of amount is for floats, the column holds text; leave rounding out")
    n = len(amounts)
    currencies = canonical["currency"].tolist() if "currency" in canonical else [None] * n
    exponents = {currency: _exponent(currency, default_currency) for currency in dict.fromkeys(currencies)}
    scale = np.array([10.0 ** exponents[currency] for currency in currencies])
    rounded: NDArray[np.float64] = np.rint(amounts.astype(np.float64) * scale) / scale
    return rounded


def _exponent(currency: Any, default_currency: str | None) -> int:
    named = currency.strip().upper() if isinstance(currency, str) and currency.strip() else default_currency
    if named not in CURRENCY_EXPONENTS:
        raise ConfigurationError(
            f'rounding of amount needs a currency, was {shown(named)}; add currency = {{ value = "EUR" }} or the like'
        )
    return CURRENCY_EXPONENTS[named]


def _objects(values: Iterable[Any], n: int) -> NDArray[Any]:
    array = np.empty(n, object)
    array[:] = list(values)
    return array
