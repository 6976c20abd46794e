"""
What goes in: a `Transaction`, checked once at the border.

Absent is None for text and flags and NaN for numbers; it is never zero.  No card number, verification code, PIN or track
data gets into a `Transaction`: a field ``pan`` is tokenised before one is made, the others are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Final, NoReturn

from fraudsdk.domain.card_number import is_sensitive_name
from fraudsdk.domain.countries import parse_country
from fraudsdk.domain.equality import EqualWithNan
from fraudsdk.domain.event_time import parse_epoch_ms, parse_epoch_s, parse_epoch_us, parse_event_time
from fraudsdk.domain.fields import IDENTIFIERS
from fraudsdk.domain.masking import masked, shown
from fraudsdk.domain.money import parse_amount, parse_amount_minor, parse_currency
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.values import (
    NAN,
    Parser,
    number_parser,
    parse_card_id,
    parse_category,
    parse_custom_category,
    parse_flag,
    parse_identifier,
    parse_ip,
    parse_mcc,
    parse_pan,
    parse_quantity,
)
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

ENTITY_FIELDS: Final = ("user_id", "card_id", "merchant_id", "device_id", "ip")


class TransactionType(Enum):
    """What happened, in the words of card payments."""

    AUTHORISATION = "authorisation"
    REVERSAL = "reversal"
    REFUND = "refund"
    CHARGEBACK = "chargeback"


@dataclass(frozen=True, slots=True, eq=False)
class Transaction(EqualWithNan):
    """
    One financial event.

    Made from what a host sends by `from_mapping`; made directly, it checks its fields just the same.

    Attributes
    ----------
    transaction_id : str
        The host's own id; the same id again is the same transaction.
    event_time_us : int
        Microseconds since the Unix epoch, UTC.
    amount_minor : int
        Minor units of `currency`, >= 0.
    currency : str or None
        ISO 4217 alphabetic code; None means the currency of the feature set.
    type : TransactionType
        Authorisation by default.
    credit : bool
        True for money into the user's account.  In mappings: ``direction``, ``"debit"`` or ``"credit"``.
    declined : bool or None
        The host's final answer, where it is known.
    original_transaction_id : str or None
        What a reversal or chargeback undoes (required for these two).
    user_id, card_id, merchant_id, device_id, ip, session_id, counterparty_id : str or None
        Entities.  `card_id` is a token; at least one of the first five is required.
    device_fingerprint, user_agent_hash, email_hash, phone_hash : str or None
        More about the user's side.
    channel, entry_mode, three_ds : str or None
        Short text in lower case.
    mcc : str or None
        Four digits, ISO 18245.
    merchant_country, card_country, ip_country : str or None
        ISO 3166-1 alpha-2.
    latitude, longitude, home_latitude, home_longitude : float
        Degrees, WGS 84.
    card_present : bool or None
        Whether card and terminal met.
    account_age_days : float
        Days since the account was opened.
    balance : float
        Major units, before the transaction.
    custom : Mapping of str to float or str
        Declared custom fields that are present.  Not to be changed.

    Raises
    ------
    InvalidTransactionError
        A field is wrong; the message names it, shows the masked value and says what to send.
    """

    transaction_id: str
    event_time_us: int
    amount_minor: int
    currency: str | None = None
    type: TransactionType = TransactionType.AUTHORISATION
    credit: bool = False
    declined: bool | None = None
    original_transaction_id: str | None = None
    user_id: str | None = None
    card_id: str | None = None
    merchant_id: str | None = None
    device_id: str | None = None
    ip: str | None = None
    session_id: str | None = None
    counterparty_id: str | None = None
    device_fingerprint: str | None = None
    user_agent_hash: str | None = None
    email_hash: str | None = None
    phone_hash: str | None = None
    channel: str | None = None
    entry_mode: str | None = None
    mcc: str | None = None
    merchant_country: str | None = None
    card_country: str | None = None
    ip_country: str | None = None
    three_ds: str | None = None
    latitude: float = NAN
    longitude: float = NAN
    home_latitude: float = NAN
    home_longitude: float = NAN
    card_present: bool | None = None
    account_age_days: float = NAN
    balance: float = NAN
    custom: Mapping[str, float | str] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        name = "transaction_id"
        try:
            for name, parse in _ATTRIBUTE_PARSERS.items():
                value = getattr(self, name)
                object.__setattr__(self, name, parse(value) if value is not None else _ABSENT[name])
            name = "custom"
            object.__setattr__(self, "custom", _checked_custom(self.custom))
            name, refused = "transaction_id", _what_is_missing(self)
        except RefusedValue as error:
            refused = error
        if refused is not None:
            name = getattr(refused, "field", name)
            raise _invalid(name, refused, self.transaction_id)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        custom_numbers: Collection[str] = (),
        custom_categories: Collection[str] = (),
        default_currency: str | None = None,
        tokenise: Callable[[str], str] | None = None,
    ) -> Transaction:
        """
        Check what a host sent.

        Parameters
        ----------
        mapping : Mapping
            Fields by name.  Required: ``transaction_id``, one of `ENTITY_FIELDS` (or ``pan``), ``amount`` (major units)
            or ``amount_minor``, and ``event_time`` or one of ``event_time_s``, ``event_time_ms``, ``event_time_us``.
        custom_numbers, custom_categories : collection of str
            Names of declared custom fields; sent by name, or in a mapping ``custom``.
        default_currency : str or None
            Currency of an amount that names none.
        tokenise : callable or None
            Turns the digits of a card number into a token.  Without it, a card number is refused.

        Raises
        ------
        InvalidTransactionError
            A field is wrong, missing or unknown.

        Examples
        --------
        >>> transaction = Transaction.from_mapping({"transaction_id": "t-1", "user_id": "u-1", "amount": "12.50",
        ...     "currency": "GBP", "event_time": "2026-11-23T10:00:00Z"})
        >>> transaction.amount_minor, transaction.event_time_us
        (1250, 1795428000000000)
        """
        reader = _reader(tuple(custom_numbers), tuple(custom_categories), default_currency, tokenise)
        return reader.read(mapping)


def parse_type(value: object) -> TransactionType:
    """A `TransactionType` by its name (in British or American spelling); absent is an authorisation."""
    if isinstance(value, TransactionType):
        return value
    kind = _TYPES.get(value.strip().lower()) if isinstance(value, str) else None
    if kind is not None:
        return kind
    if parse_category(value) is None:
        return TransactionType.AUTHORISATION
    raise RefusedValue(
        f"must be a transaction type, was {shown(value)}", "send authorisation, reversal, refund or chargeback"
    )


def parse_direction(value: object) -> bool:
    """True for credit, False for debit; absent is a debit."""
    text = parse_category(value)
    if text is None or text in ("debit", "credit"):
        return text == "credit"
    raise RefusedValue(f"must be debit or credit, was {shown(value)}", 'send "debit" or "credit"')


_TYPES: Final = {kind.value: kind for kind in TransactionType} | {"authorization": TransactionType.AUTHORISATION}
TYPE_SPELLINGS: Final = tuple(_TYPES)

# Least and greatest value, both included, and what a message asks for.
NUMBER_BOUNDS: Final = {
    **dict.fromkeys(("latitude", "home_latitude"), (-90.0, 90.0, "degrees from -90 to 90")),
    **dict.fromkeys(("longitude", "home_longitude"), (-180.0, 180.0, "degrees from -180 to 180")),
    "account_age_days": (0.0, 73_000.0, "days from 0 to 73000"),
}

# Every field that means the same in a mapping, in a table and as an attribute.
FIELD_PARSERS: Final[dict[str, Parser]] = {
    "transaction_id": parse_identifier,
    "currency": parse_currency,
    "type": parse_type,
    "declined": parse_flag,
    "original_transaction_id": parse_identifier,
    **dict.fromkeys(IDENTIFIERS, parse_identifier),
    "ip": parse_ip,
    "card_id": partial(parse_card_id, tokenise=None),
    **dict.fromkeys(("channel", "entry_mode", "three_ds"), parse_category),
    "mcc": parse_mcc,
    **dict.fromkeys(("merchant_country", "card_country", "ip_country"), parse_country),
    **{name: number_parser(*bounds) for name, bounds in NUMBER_BOUNDS.items()},
    "card_present": parse_flag,
    "balance": parse_quantity,
}

# How a mapping or a table spells what an attribute of another name holds.
EVENT_TIME_PARSERS: Final[dict[str, Parser]] = {
    "event_time": parse_event_time,
    "event_time_us": parse_epoch_us,
    "event_time_ms": parse_epoch_ms,
    "event_time_s": parse_epoch_s,
}
MAPPING_FIELDS: Final = frozenset(
    {*FIELD_PARSERS, *EVENT_TIME_PARSERS, "amount", "amount_minor", "direction", "pan", "custom"}
)

_ATTRIBUTE_PARSERS: Final[dict[str, Parser]] = {
    **FIELD_PARSERS,
    "event_time_us": parse_epoch_us,
    "amount_minor": parse_amount_minor,
    "credit": parse_flag,
}
_ATTRIBUTES: Final = tuple(field.name for field in dataclasses.fields(Transaction))
_ABSENT: Final[dict[str, Any]] = {
    field.name: None if field.default is dataclasses.MISSING else field.default
    for field in dataclasses.fields(Transaction)
}
_NEED_ORIGINAL: Final = (TransactionType.REVERSAL, TransactionType.CHARGEBACK)

# A frozen dataclass sets each attribute through object.__setattr__: 2.3 us for these 34.  A twin that is not frozen and has
# the same base and slots takes 0.2 us, and becomes a Transaction by changing its class.
_Draft: Any = dataclasses.make_dataclass("_Draft", _ATTRIBUTES, bases=(EqualWithNan,), slots=True)


class TransactionReader:
    """
    Reads many mappings that follow one declaration; `Transaction.from_mapping` for the hot path.

    Parameters
    ----------
    custom_numbers, custom_categories, default_currency, tokenise
        As for `Transaction.from_mapping`.

    Raises
    ------
    ConfigurationError
        A custom field bears a name that is taken or that stands for card data, or the currency is unknown.
    """

    def __init__(
        self,
        custom_numbers: Collection[str] = (),
        custom_categories: Collection[str] = (),
        default_currency: str | None = None,
        tokenise: Callable[[str], str] | None = None,
    ) -> None:
        check_custom_names(custom_numbers, custom_categories)
        self._custom: dict[str, Parser] = {
            **dict.fromkeys(custom_numbers, parse_quantity),
            **dict.fromkeys(custom_categories, parse_custom_category),
        }
        self._default_currency = checked_currency(default_currency)
        self._has_key = tokenise is not None
        parsers: dict[str, Parser] = {
            **{name: FIELD_PARSERS.get(name, _ATTRIBUTE_PARSERS.get(name, _as_sent)) for name in _ATTRIBUTES},
            "card_id": partial(parse_card_id, tokenise=tokenise),
            "direction": parse_direction,
            "event_time": parse_event_time,
            "event_time_ms": parse_epoch_ms,
            "event_time_s": parse_epoch_s,
            "amount": _as_sent,
            "pan": partial(parse_pan, tokenise=tokenise),
            **self._custom,
        }
        del parsers["credit"]
        # Attributes in their own order, then what becomes an attribute, then custom fields.
        extras = ("event_time", "event_time_ms", "event_time_s", "amount", "pan", *self._custom)
        position = {name: index for index, name in enumerate((*_ATTRIBUTES, *extras))}
        position["direction"] = position["credit"]
        self._slots: dict[str, tuple[int, Parser]] = {name: (position[name], parsers[name]) for name in parsers}
        self._absent = [*_ABSENT.values(), *(None for _ in extras)]

    def read(self, mapping: Mapping[str, Any]) -> Transaction:
        """
        Check one mapping.

        Raises
        ------
        InvalidTransactionError
            A field is wrong, missing or unknown.
        """
        if type(mapping) is not dict and not isinstance(mapping, Mapping):
            raise InvalidTransactionError(
                "transaction", f"must be a mapping of fields, was {type(mapping).__name__}", "send a dict"
            )
        values: list[Any] = self._absent.copy()
        slots = self._slots
        name: str = "transaction_id"
        try:
            for name, value in mapping.items():
                slot = slots.get(name)
                if slot is None:
                    self._refuse_name(name)
                elif value is not None:
                    values[slot[0]] = slot[1](value)
            name = "amount"
            _settle_amount(values, self._default_currency)
            name = "event_time"
            _settle_event_time(values)
            if values[_PAN] is not None:
                name = "pan"
                _settle_pan(values)
            name = "custom"
            values[_CUSTOM] = self._custom_of(values) if self._custom or values[_CUSTOM] is not None else {}
            transaction: Transaction = _Draft(*values[: len(_ATTRIBUTES)])
            transaction.__class__ = Transaction
            refused = _what_is_missing(transaction)
        except RefusedValue as error:
            refused = error
        if refused is not None:
            raise _invalid(getattr(refused, "field", name), refused, mapping.get("transaction_id"))
        return transaction

    def _custom_of(self, values: list[Any]) -> dict[str, float | str]:
        bag = {} if values[_CUSTOM] is None else values[_CUSTOM]
        if not isinstance(bag, Mapping):
            raise RefusedValue(f"must be a mapping, was {type(bag).__name__}", "send the custom fields by name")
        custom: dict[str, Any] = dict(zip(self._custom, values[_FIRST_CUSTOM:], strict=True))
        for name, value in bag.items():
            if name not in self._custom:
                self._refuse_name(name)
            if custom[name] is not None:
                raise _FieldRefused(name, "is given twice", "send it by name or in custom, not both")
            custom[name] = _parse_named(name, self._custom[name], value)
        return {name: value for name, value in custom.items() if value is not None and value == value}

    def _refuse_name(self, name: object) -> NoReturn:
        if isinstance(name, str) and is_sensitive_name(name):
            raise _FieldRefused(
                name,
                "must never be sent: it is card verification, PIN or track data",
                "leave it out of the transaction",
            )
        if name in ("is_fraud", "label_time"):
            raise _FieldRefused(str(name), "is a label, not a field of a transaction", "report it through feedback")
        import difflib  # only a mistake pays for it

        known = difflib.get_close_matches(str(name)[:64], [*self._slots, "custom"], n=1)
        raise _FieldRefused(
            shown(name).strip("'"),
            "is not a known field",
            f"did you mean {known[0]}?" if known else "leave it out, or declare it as a custom field",
        )


def checked_currency(currency: str | None) -> str | None:
    """
    A currency out of a configuration.

    Raises
    ------
    ConfigurationError
        Not an ISO 4217 code.
    """
    try:
        return parse_currency(currency)
    except RefusedValue as refused:
        raise ConfigurationError(f"currency {refused.problem}; {refused.remedy}") from None


def check_custom_names(custom_numbers: Collection[str], custom_categories: Collection[str]) -> None:
    """
    Check the names that a feature set gives its custom fields.

    Raises
    ------
    ConfigurationError
        A custom field bears a name that is taken, is declared twice, or stands for card data.
    """
    seen: set[str] = set()
    for name in (*custom_numbers, *custom_categories):
        if is_sensitive_name(name):
            raise ConfigurationError(f"custom field {shown(name)} would carry card verification data; do not send it")
        if name in MAPPING_FIELDS or name in _ABSENT or not name.isidentifier():
            raise ConfigurationError(f"custom field {shown(name)} is taken or is no identifier; choose another name")
        if name in seen:
            raise ConfigurationError(f"custom field {shown(name)} is declared twice; declare it once")
        seen.add(name)


class _FieldRefused(RefusedValue):
    """A refusal that knows its field better than the loop it came from."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.field = field


_reader = lru_cache(maxsize=64)(TransactionReader)

_CREDIT: Final = _ATTRIBUTES.index("credit")
_CARD_ID: Final = _ATTRIBUTES.index("card_id")
_CUSTOM: Final = _ATTRIBUTES.index("custom")
_EVENT_TIME: Final = len(_ATTRIBUTES)
_EVENT_TIME_MS: Final = _EVENT_TIME + 1
_EVENT_TIME_S: Final = _EVENT_TIME + 2
_AMOUNT: Final = _EVENT_TIME + 3
_PAN: Final = _EVENT_TIME + 4
_FIRST_CUSTOM: Final = _EVENT_TIME + 5


def _as_sent(value: object) -> object:
    return value


def _settle_amount(values: list[Any], default_currency: str | None) -> None:
    currency = values[3]
    if currency is None:
        currency = values[3] = default_currency
    amount = values[_AMOUNT]
    if amount is None:
        if values[2] is None:
            raise RefusedValue("is missing", "send amount in major units, or amount_minor")
        return
    if values[2] is not None:
        raise RefusedValue("is given twice", "send amount or amount_minor, not both")
    if currency is None:
        raise _FieldRefused("currency", "is missing", "an amount in major units needs it; send it, or amount_minor")
    values[2] = parse_amount(amount, currency)


def _settle_event_time(values: list[Any]) -> None:
    if values[_EVENT_TIME] is not None and values[1] is values[_EVENT_TIME_MS] is values[_EVENT_TIME_S] is None:
        values[1] = values[_EVENT_TIME]  # nearly always
        return
    given = [value for value in (values[1], *values[_EVENT_TIME : _EVENT_TIME_S + 1]) if value is not None]
    if len(given) != 1:
        raise RefusedValue(
            "is given twice" if given else "is missing",
            "send one of event_time, event_time_s, event_time_ms and event_time_us",
        )
    values[1] = given[0]


def _settle_pan(values: list[Any]) -> None:
    if values[_CARD_ID] is not None:
        raise RefusedValue("is given together with card_id", "send one of them: the token of pan becomes card_id")
    values[_CARD_ID] = values[_PAN]


def _what_is_missing(transaction: Any) -> RefusedValue | None:
    if transaction.transaction_id is None:
        return _FieldRefused("transaction_id", "is missing", "send the host's own id of the transaction")
    if (
        transaction.user_id is None
        and transaction.card_id is None
        and transaction.merchant_id is None
        and transaction.device_id is None
        and transaction.ip is None
    ):
        return _FieldRefused("user_id", "is missing", f"send at least one of {', '.join(ENTITY_FIELDS)}")
    if transaction.event_time_us is None or transaction.amount_minor is None:
        name = "event_time_us" if transaction.event_time_us is None else "amount_minor"
        return _FieldRefused(name, "is missing", "it is required")
    if (
        transaction.original_transaction_id is None
        and transaction.type is not TransactionType.AUTHORISATION
        and transaction.type in _NEED_ORIGINAL
    ):
        kind = transaction.type.value
        return _FieldRefused("original_transaction_id", f"is missing from a {kind}", "send the id of what it undoes")
    if transaction.original_transaction_id == transaction.transaction_id:
        return _FieldRefused(
            "original_transaction_id", "is the transaction's own id", "send what undoes it under an id of its own"
        )
    return None


def _checked_custom(bag: object) -> dict[str, float | str]:
    """Custom values of a transaction made directly: numbers and text, as they would be read from a mapping."""
    if not isinstance(bag, Mapping):
        raise RefusedValue(f"must be a mapping, was {type(bag).__name__}", "send the custom fields by name")
    custom: dict[str, float | str] = {}
    for name, value in bag.items():
        if not isinstance(name, str) or is_sensitive_name(name):
            raise _FieldRefused(shown(name).strip("'"), "must never be sent", "leave it out of the transaction")
        parsed = _parse_named(name, parse_custom_category if isinstance(value, str) else parse_quantity, value)
        if parsed is not None and parsed == parsed:
            custom[name] = parsed
    return custom


def _parse_named(name: str, parse: Parser, value: object) -> Any:
    try:
        return None if value is None else parse(value)
    except RefusedValue as refused:
        raise _FieldRefused(name, refused.problem, refused.remedy) from None


def _invalid(name: str, refused: RefusedValue, transaction_id: object) -> InvalidTransactionError:
    whose = masked(transaction_id) if isinstance(transaction_id, (str, int)) else None
    return InvalidTransactionError(name, refused.problem, refused.remedy, transaction_id=whose)
