"""
Event time: integer microseconds since the Unix epoch, UTC.

The unit of a number is stated by the field that carries it (``event_time_s``, ``_ms``, ``_us``), never guessed.  Text and
`datetime` must say their offset.  Anything finer than a microsecond is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from fraudsdk.domain.masking import shown
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.scalars import integer_of, is_absent, is_boolean, is_integer, is_number, is_numpy_datetime

MIN_EVENT_TIME_US: Final = 631_152_000_000_000  # 1990-01-01
MAX_EVENT_TIME_US: Final = 7_258_118_400_000_000  # 2200-01-01

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_REMEDY = 'send RFC 3339 text such as "2026-11-23T10:00:00Z", an aware datetime, or event_time_s, _ms or _us'


def parse_event_time(value: object) -> int | None:
    """
    Microseconds of RFC 3339 text or of an aware `datetime`; None for empty text and NaT.

    A leap second (``23:59:60`` UTC at the end of a month) is read as the instant after it, as POSIX clocks do.

    Raises
    ------
    RefusedValue
        Another spelling, no offset, or a time outside 1990 to 2200.

    Examples
    --------
    >>> parse_event_time("2026-11-23T10:00:00Z") == parse_event_time("2026-11-23T11:00:00+01:00") == 1795428000000000
    True
    """
    if isinstance(value, str):
        moment = _moment_of(value) if _has_rfc_3339_shape(value) else None
        if moment is None:
            return _time_of_rare_text(value)
    elif isinstance(value, datetime):
        if value != value:
            return None  # pandas.NaT calls itself a datetime
        moment = value
        if moment.utcoffset() is None:
            raise RefusedValue(f"has no offset from UTC, was {shown(value.isoformat())}", _REMEDY)
    else:
        return _time_of_other(value)
    elapsed = moment - _EPOCH
    event_time_us = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
    if MIN_EVENT_TIME_US <= event_time_us < MAX_EVENT_TIME_US:
        return event_time_us
    return _refuse_range(shown(value))


def parse_epoch_us(value: object) -> int | None:
    """Microseconds since the epoch, an integer."""
    return _within_range(value, 1, "event_time_us")


def parse_epoch_ms(value: object) -> int | None:
    """Microseconds of integer milliseconds since the epoch."""
    return _within_range(value, 1_000, "event_time_ms")


def parse_epoch_s(value: object) -> int | None:
    """Microseconds of seconds since the epoch: an integer, a decimal string, or a float through its shortest form."""
    if is_integer(value):
        return _within_range(value, 1_000_000, "event_time_s")
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return None
    text = float.__repr__(value) if isinstance(value, float) else str(value)
    number = _decimal_seconds(text) if isinstance(value, (str, float, Decimal)) else None
    if number is None:
        raise RefusedValue(f"must be seconds since 1970, was {shown(value)}", _REMEDY)
    return _within_range(int(number * 1_000_000), 1, "event_time_s")


EPOCH_PARSERS: Final[dict[str, Callable[[object], int | None]]] = {
    "us": parse_epoch_us,
    "ms": parse_epoch_ms,
    "s": parse_epoch_s,
}


def _has_rfc_3339_shape(text: str) -> bool:
    # fromisoformat also reads basic format, week dates, commas and offsets with seconds; a payment message has none.
    if len(text) < 20 or not (text[4] == "-" == text[7] and text[13] == ":" == text[16] and text[10] in "Tt "):
        return False
    tail = text[19:]
    if tail == "Z":
        return True
    return (
        tail[0] in ".z+-" and (tail[-1] in "Zz" or (tail[-6:-5] in ("+", "-") and tail[-3] == ":")) and " " not in tail
    )


def _moment_of(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _time_of_rare_text(text: str) -> int | None:
    stripped = text.strip()
    if not stripped:
        return None
    upper = stripped.upper()
    if len(upper) <= 40 and _has_rfc_3339_shape(upper):
        moment = _moment_of(upper)
        if moment is not None:
            return parse_event_time(moment)
        if upper[17:19] == "60":
            return _leap_second(upper)
    naive = len(upper) >= 19 and upper[10] in "T " and upper[-1] != "Z" and _moment_of(upper[:19]) is not None
    problem = "has no offset from UTC" if naive and "+" not in upper[19:] else "must be RFC 3339"
    raise RefusedValue(f"{problem}, was {shown(text)}", _REMEDY)


def _leap_second(text: str) -> int | None:
    before = _moment_of(text[:17] + "59" + text[19:])
    if before is not None:
        after = before.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        if (after.day, after.hour, after.minute, after.second) == (1, 0, 0, 0):
            return parse_event_time(after)
    raise RefusedValue(
        f"has a second 60 that is no leap second, was {shown(text)}",
        "leap seconds fall on 23:59:60 UTC at the end of a month; send the second that was meant",
    )


def _time_of_other(value: object) -> int | None:
    if is_absent(value):
        return None
    if is_numpy_datetime(value):
        # numpy.datetime64 has no zone; its documentation calls it UTC.
        return parse_epoch_us(int(value.astype("datetime64[us]").astype("int64")))  # type: ignore[attr-defined]
    if is_number(value) or is_boolean(value):
        raise RefusedValue(
            f"is a number without a unit, was {shown(value)}", "send it as event_time_s, event_time_ms or event_time_us"
        )
    raise RefusedValue(f"must be text or a datetime, was {type(value).__name__}", _REMEDY)


def _within_range(value: object, unit_us: int, name: str) -> int | None:
    if type(value) is not int:
        if is_absent(value) or (isinstance(value, str) and not value.strip()):
            return None
        number = integer_of(value)
        if number is None:
            raise RefusedValue(f"must be an integer, was {type(value).__name__}", _REMEDY)
        value = number
    event_time_us = value * unit_us
    if MIN_EVENT_TIME_US <= event_time_us < MAX_EVENT_TIME_US:
        return event_time_us
    digits = len(str(abs(value))) if abs(value) < 10**40 else 40
    return _refuse_range(f"{shown(value)} ({digits} digits) read as {name.removeprefix('event_time_')}")


def _decimal_seconds(text: str) -> Decimal | None:
    text = text.strip()
    if len(text) > 40 or not text.isascii() or not text.replace(".", "", 1).isdigit():
        return None
    return Decimal(text)


def _refuse_range(was: str) -> int:
    raise RefusedValue(
        f"must be between 1990 and 2200, was {was}",
        "check the unit: a time in seconds goes in event_time_s, milliseconds in event_time_ms, "
        "microseconds in event_time_us",
    )
