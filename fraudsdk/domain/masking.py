"""
What of a value may appear in a message.

Two strengths: `masked` for names of people and things, `shown` for amounts, times and codes.  Neither ever shows more
than the last four digits of a long number, however it is grouped.
"""

from __future__ import annotations

import re

MAX_SHOWN = 40
_MASKED_DIGITS = 4

# Twelve digits make the shortest card number in use (Maestro), whatever people group them with.
_LONG_DIGIT_RUN = re.compile(r"\d(?:[\W_]{0,4}\d){11,}")


def masked(value: object) -> str:
    """
    Enough of an identifier to find it again, too little to use it.

    Examples
    --------
    >>> masked("customer-20491"), masked("4111 1111 1111 1111"), masked("t-1")
    ('cu…91', '…1111', 't-1')
    """
    text = _printable(value)
    if _LONG_DIGIT_RUN.search(text):
        return "…" + "".join(character for character in text if character.isdecimal())[-_MASKED_DIGITS:]
    if len(text) <= _MASKED_DIGITS:
        return text
    return f"{text[:2]}…{text[-2:]}"


def shown(value: object) -> str:
    """
    A value in full where that is harmless: quoted, cut to `MAX_SHOWN` characters, long digit runs hidden.

    Examples
    --------
    >>> shown("12.345"), shown("4111-1111-1111-1111")
    ("'12.345'", "'…1111'")
    """
    text = _LONG_DIGIT_RUN.sub(_last_four, _printable(value))
    if len(text) > MAX_SHOWN:
        text = text[: MAX_SHOWN - 1] + "…"
    return f"'{text}'" if isinstance(value, str) else text


def _last_four(run: re.Match[str]) -> str:
    return "…" + "".join(character for character in run.group() if character.isdecimal())[-_MASKED_DIGITS:]


def _printable(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of over 40 digits"  # Python refuses to print the largest ones
    text = str(value)
    # A line break would let a hostile value forge log lines.
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
