"""
Recognising what PCI DSS forbids to keep: card numbers outside their field, track data, and verification codes.

It recognises whole values, never a number inside longer text: one hexadecimal digest in ten holds thirteen decimal
digits in a row, and refusing those would refuse customers.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

SHORTEST_LOOKALIKE: Final = 13

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_GROUPING = re.compile(r"[\W_]+")
_TRACK_DATA = re.compile(r"%?[Bb]\d{12,19}\^.*|;?\d{12,19}=\d{4,}.*|\d{12,19}D\d{7,}F?", re.DOTALL)

# Names under which hosts and ISO 8583 / EMV dialects carry what must never be stored after authorisation.
_SENSITIVE_NAMES: Final = frozenset(
    "cvv cvv2 cvc cvc2 csc csc2 cid cav cav2 cvn cvn2 cvvcode cvccode cvvnumber securitycode verificationcode "
    "verificationvalue pin pinblock pindata pincode pinnumber encryptedpin encryptedpinblock "
    "track track1 track2 track3 trackdata track1data track2data track3data trackone tracktwo fulltrack "
    "track2equivalent track2equivalentdata magstripe magstripedata magneticstripe magneticstripedata stripedata "
    "57 tag57 emv57 emvtag57 9f6b tag9f6b emvtag9f6b de35 de36 de45 de52 field35 field45 field52".split()
)


def is_sensitive_name(name: str) -> bool:
    """
    Whether a field of this name would carry a verification code, a PIN or track data.

    Examples
    --------
    >>> is_sensitive_name("CVV2"), is_sensitive_name("card_pin_block"), is_sensitive_name("pinned")
    (True, True, False)
    """
    plain = "".join(character for character in name.lower() if character.isalnum())
    return plain in _SENSITIVE_NAMES or plain.removeprefix("card") in _SENSITIVE_NAMES


def digits_of(text: str) -> str | None:
    """The decimal digits of a number that may be grouped by blanks or dashes; None where there is anything else."""
    compact = text if text.isascii() else unicodedata.normalize("NFKC", text)
    if not compact.isdecimal():
        compact = _GROUPING.sub("", compact)
    if not compact.isdecimal():
        return None
    return compact if compact.isascii() else "".join(str(int(digit)) for digit in compact)


def passes_luhn(digits: str) -> bool:
    """Whether the last of `digits` (ASCII) is their Luhn check digit (ISO/IEC 7812-1, annex B)."""
    numbers = [ord(digit) - 48 for digit in digits]
    return (sum(numbers[-1::-2]) + sum(_DOUBLED[number] for number in numbers[-2::-2])) % 10 == 0


def looks_like_card_number(text: str) -> bool:
    """
    Whether the whole text is 13 to 19 digits that pass Luhn and begin like an issued card (2 to 6).

    Examples
    --------
    >>> looks_like_card_number("4111 1111 1111 1111"), looks_like_card_number("4111 1111 1111 1112")
    (True, False)
    """
    if len(text) < SHORTEST_LOOKALIKE:
        return False
    digits = digits_of(text)
    return digits is not None and 13 <= len(digits) <= 19 and digits[0] in "23456" and passes_luhn(digits)


def looks_like_track_data(text: str) -> bool:
    """Whether the whole text is track 1, track 2, or the track 2 equivalent of an EMV chip (tag 57)."""
    return _TRACK_DATA.fullmatch(text) is not None
