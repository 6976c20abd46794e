"""
One parser per kind of field: a value from outside becomes the one spelling that is kept.

A parser returns None (or NaN, for a number) for a value that is absent (None, NaN, NaT, empty text), and raises
`RefusedValue` for one that is wrong.  Unknown is not absent is not zero: nothing here invents a value.
"""

from __future__ import annotations

import ipaddress
import math
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from fraudsdk.domain.card_number import (
    SHORTEST_LOOKALIKE,
    digits_of,
    looks_like_card_number,
    looks_like_track_data,
)
from fraudsdk.domain.masking import masked, shown
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.scalars import is_absent, is_boolean, is_integer, is_number

NAN: Final = math.nan
MAX_IDENTIFIER_CHARACTERS: Final = 128
MAX_CATEGORY_CHARACTERS: Final = 64
MAX_QUANTITY: Final = 1e15
_MAX_NUMBER_CHARACTERS: Final = 40
_LONGEST_PLAIN: Final = 1 << 63

Parser = Callable[[Any], Any]


def parse_identifier(value: object) -> str | None:
    """
    Text that names something: surrounding blanks removed, at most 128 characters, never a card number.

    Raises
    ------
    RefusedValue
        Neither text nor an integer, too long, with control characters, or card data.
    """
    text = value.strip() if type(value) is str else _text_of(value)
    if not text:
        return None
    if len(text) > MAX_IDENTIFIER_CHARACTERS or not text.isprintable():
        _check_text(text, MAX_IDENTIFIER_CHARACTERS)
    if len(text) >= SHORTEST_LOOKALIKE:
        refuse_card_data(text)
    return text


def parse_category(value: object) -> str | None:
    """Short free text from a small set, in lower case, at most 64 characters."""
    text = parse_custom_category(value)
    return None if text is None else text.lower()


def parse_custom_category(value: object) -> str | None:
    """Short text from a small set, as it was sent, at most 64 characters."""
    text = value.strip() if type(value) is str else _text_of(value)
    if not text:
        return None
    if len(text) > MAX_CATEGORY_CHARACTERS or not text.isprintable():
        _check_text(text, MAX_CATEGORY_CHARACTERS)
    if len(text) >= SHORTEST_LOOKALIKE:
        refuse_card_data(text)
    return text


def parse_card_id(value: object, tokenise: Callable[[str], str] | None) -> str | None:
    """
    A card's identifier; a card number in its place becomes its token.

    Raises
    ------
    RefusedValue
        A card number where there is no key to tokenise it with, or what `parse_identifier` refuses.
    """
    text = value.strip() if type(value) is str else _text_of(value)
    if text and len(text) >= SHORTEST_LOOKALIKE and looks_like_card_number(text):
        return parse_pan(text, tokenise)
    return parse_identifier(text) if text else None


def parse_pan(value: object, tokenise: Callable[[str], str] | None) -> str | None:
    """
    The token of a card number of 12 to 19 digits, which may be grouped by blanks or dashes.

    The check digit is not asked for: test numbers and format-preserving tokens fail it.

    Raises
    ------
    RefusedValue
        Not a card number, or no key to tokenise it with.
    """
    text = value.strip() if type(value) is str else _text_of(value)
    if not text:
        return None
    digits = digits_of(text)
    if digits is None or not 12 <= len(digits) <= 19:
        raise RefusedValue(
            "must be a card number of 12 to 19 digits (the value is not shown)", "send a token in card_id instead"
        )
    if tokenise is None:
        raise RefusedValue(
            f"is a card number, was {masked(digits)}, and there is no key here to tokenise it with",
            "let the encoder or the scorer read the mapping, or send a token in card_id",
        )
    return tokenise(digits)


def parse_ip(value: object) -> str | None:
    """An IPv4 or IPv6 address in its canonical spelling; an IPv4 address mapped into IPv6 is the IPv4 address."""
    if not isinstance(value, str):
        if is_absent(value):
            return None
        raise RefusedValue(f"must be text, was {type(value).__name__}", 'send an address such as "203.0.113.7"')
    if not value.strip():
        return None
    try:
        if len(value) <= MAX_CATEGORY_CHARACTERS:
            return _canonical_address(value)
    except ValueError:
        pass
    raise RefusedValue(
        f"must be an IPv4 or IPv6 address, was {masked(value)}", "send it without port, mask or brackets"
    )


def parse_mcc(value: object) -> str | None:
    """A merchant category code: four digits (ISO 18245); an integer is padded with zeros."""
    if type(value) is str and len(value) == 4 and value.isdecimal() and value.isascii():
        return value
    text = _text_of(value)
    if text and not isinstance(value, str):
        text = text.zfill(4)
    if not text:
        return None
    if len(text) != 4 or not (text.isdecimal() and text.isascii()):
        raise RefusedValue(f"must be four digits, was {shown(text)}", 'send a merchant category code such as "5411"')
    return text


_TRUE: Final = frozenset(("true", "t", "yes", "y", "1", "1.0"))
_FALSE: Final = frozenset(("false", "f", "no", "n", "0", "0.0"))
FLAG_SPELLINGS: Final = _TRUE | _FALSE


def parse_flag(value: object) -> bool | None:
    """True or false, however it is spelt: a boolean, 0 or 1, or "true", "yes", "y", "t" and their opposites."""
    if value is True or value is False:
        return value
    if is_absent(value):
        return None
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if not text:
            return None
    elif (is_number(value) or is_boolean(value)) and (value == 0 or value == 1):
        return bool(value)
    raise RefusedValue(f"must be true or false, was {_briefly(value)}", "send true, false, or leave the field out")


def number_parser(low: float, high: float, wanted: str) -> Callable[[object], float]:
    """
    A parser of finite numbers from `low` to `high`, both included; NaN where the value is absent.

    Parameters
    ----------
    low, high : float
        Bounds, in the unit of the field.
    wanted : str
        What a message asks for, such as ``"degrees from -90 to 90"``.
    """

    def parse(value: object) -> float:
        number = value if type(value) is float else _number_of(value, wanted)
        if low <= number <= high:
            return number
        if number != number:
            return NAN
        raise RefusedValue(f"must be {wanted}, was {shown(number)}", "check the unit, or leave the field out")

    return parse


_quantity = number_parser(-MAX_QUANTITY, MAX_QUANTITY, f"a number within ±{MAX_QUANTITY:.0e}")


def parse_quantity(value: object) -> float:
    """A finite number without a unit of its own; one that is a card number is refused."""
    number = _quantity(value)
    if abs(number) >= 1e12 and looks_like_card_number(f"{number:.0f}"):
        raise RefusedValue(f"looks like a card number, was {masked(f'{number:.0f}')}", "send a card number as pan")
    return number


def refuse_card_data(text: str) -> None:
    """
    Refuse text that is, as a whole, a card number or track data.

    Raises
    ------
    RefusedValue
        The message shows at most the last four digits.
    """
    # Card data begins with a digit or a sentinel; most names do not, and are done here.
    if text[0] not in "0123456789;%bB" and text.isascii():
        return
    if looks_like_card_number(text):
        raise RefusedValue(
            f"looks like a card number, was {masked(text)}",
            'send a card number as pan; put a letter before an identifier that only looks like one ("u4111…")',
        )
    if (text[0] in ";%bB" or text[:12].isdecimal()) and looks_like_track_data(text):
        raise RefusedValue("holds track data (the value is not shown)", "never send track data; send pan alone")


@lru_cache(maxsize=1 << 14)
def _canonical_address(text: str) -> str:
    # Raises, so that the cache never keeps what is no address: it may be a card number in the wrong field.
    address = ipaddress.ip_address(text.strip())
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _text_of(value: object) -> str:
    if type(value) is int and -_LONGEST_PLAIN < value < _LONGEST_PLAIN:
        return str(value)
    if isinstance(value, str):
        return str(value).strip()
    if is_absent(value):
        return ""
    if not is_integer(value):
        raise RefusedValue(f"must be text or an integer, was {_briefly(value)}", "send text")
    number = int(value.__index__())
    if abs(number) >= 10**MAX_IDENTIFIER_CHARACTERS:
        raise RefusedValue(f"must have at most {MAX_IDENTIFIER_CHARACTERS} digits", "send text")
    return str(number)


def _number_of(value: object, wanted: str) -> float:
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return NAN
    number = NAN
    if isinstance(value, str):
        plain = value.isascii() and "_" not in value and len(value) <= _MAX_NUMBER_CHARACTERS
        number = _float_or_nan(value) if plain else NAN
    elif is_number(value):
        number = _float_or_nan(value)
    if number != number:
        raise RefusedValue(f"must be {wanted}, was {_briefly(value)}", "send a number, or leave the field out")
    return number


def _float_or_nan(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return NAN


def _check_text(text: str, limit: int) -> None:
    if len(text) > limit:
        raise RefusedValue(f"must have at most {limit} characters, had {len(text)}", "send a shorter name or its hash")
    # Control characters, line and paragraph separators forge log lines; lone surrogates have no UTF-8.
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise RefusedValue(f"must have no control characters, was {masked(text)}", "remove them before sending")


def _briefly(value: object) -> str:
    return (
        f"{shown(value)} ({type(value).__name__})"
        if isinstance(value, (str, bool, int, float))
        else (type(value).__name__)
    )
