"""
Digits that could be a card number, found in bytes of any kind and struck out in place.

    a run      12 or more decimal digits with up to `_GAP_BYTES` bytes between two, none of these a letter
    a digit    of ASCII, in UTF-8, 16 or 32, or as an escape in JSON, a URL or HTML (``\\u0031``, ``%31``, ``&#49;``);
               any other decimal digit of Unicode in UTF-8, or as an escape in JSON or HTML
    Base64     a word that decodes to a run is struck out whole

Luhn is not asked for: the digits of a mistyped card number are those of a card but one.  So times and long ids are struck out
too.  Beside runs go the values of names that stand for verification codes, PINs and tracks, and names on track 1.

Not found: digits in words, as binary integers or packed two in a byte, compressed, or encrypted.  Formats other than text have
these: dead letters of such a stream should be encrypted (`dead_letters`).
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Final

from fraudsdk.domain.card_number import is_sensitive_name

SHORTEST_RUN: Final = 12

_STRUCK: Final = b"*"
# A blank, a dash and a blank are 12 bytes in UTF-32, and 18 as JSON escapes, which are told from letters.
_GAP_BYTES: Final = 24
_BASE64_DEPTH: Final = 2

_GAP: Final = re.compile(rb"[^0-9A-Za-z]{0,%d}" % _GAP_BYTES)
# Whatever the digits mean where they are part of an escape: ``4111%11…`` is a card number to whoever sees it.
_PLAIN_RUN: Final = re.compile(rb"[0-9](?:[^0-9A-Za-z]{0,%d}[0-9]){%d,}" % (_GAP_BYTES, SHORTEST_RUN - 1))
_DIGITS: Final = re.compile(rb"[0-9]+")
_ESCAPE: Final = re.compile(
    rb"\\{1,8}u([0-9A-Fa-f]{4})(?:\\{1,8}u([Dd][C-Fc-f][0-9A-Fa-f]{2}))?"  # JSON, or JSON as text in JSON
    rb"|\\{1,8}x([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})|&#([0-9]{1,7});|&#[xX]([0-9A-Fa-f]{1,6});"
    rb"|\\{1,8}([bfnrt])|&(nbsp|ensp|emsp|thinsp|ndash|mdash|shy|minus|hyphen|dash);"
)
_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/_-]|\\/){16,}={0,2}")
_TRACK_1: Final = re.compile(rb"[Bb][0-9* -]{12,30}\^[^\"\r\n?]{0,120}")
# A name and what it names: in JSON (or JSON as text in JSON), in a form or a header, in XML.
_NAME: Final = re.compile(
    rb'"((?:[^"\\]|\\{1,8}u[0-9A-Fa-f]{4}){1,64})\\{0,8}"[ \t\r\n]*:[ \t\r\n]*'
    rb"|([A-Za-z0-9_.-]{2,64})[ \t]{0,4}[=:][ \t]{0,4}|<([A-Za-z0-9_.:-]{2,64})[^<>]{0,64}>"
)
_VALUE: Final = re.compile(
    rb'(?P<level>\\{0,8})"(?P<text>.*?)(?:(?<!\\)(?P=level)"|\Z)|[\[{](?P<several>[^\]}]*)|(?P<word>[^,;&}\]\s<"\\]+)',
    re.DOTALL,
)


def struck_out(octets: bytes) -> bytes:
    """
    The same bytes with ``*`` for everything that could be a card number; as long as before.

    Examples
    --------
    >>> struck_out(b'{"pan": "4111 1111-1111 1111", "mcc": "5411"}')
    b'{"pan": "**** ****-**** ****", "mcc": "5411"}'
    """
    # Runs last: what the others strike out is no letter, so that digits on both sides of it may be a run.
    return _without_runs(_without_base64(_without_secrets(octets), _BASE64_DEPTH))


def has_run(octets: bytes) -> bool:
    """Whether a run of digits is in there."""
    return _PLAIN_RUN.search(octets) is not None or next(_runs(octets), None) is not None


def _without_runs(octets: bytes) -> bytes:
    found = [place for run in _runs(octets) for place in run]
    found += [match.span() for run in _PLAIN_RUN.finditer(octets) for match in _DIGITS.finditer(octets, *run.span())]
    return _strike(octets, found)


def _runs(octets: bytes) -> Iterator[list[tuple[int, int]]]:
    """Where the digits of each run are."""
    run: list[tuple[int, int]] = []
    n_digits = gap_begins = 0
    for begin, end, n in _pieces(octets):
        if not _GAP.fullmatch(octets, gap_begins, begin) or (run and begin - run[-1][1] > _GAP_BYTES):
            if n_digits >= SHORTEST_RUN:
                yield run
            run, n_digits = [], 0
        gap_begins = end
        if n:
            run.append((begin, end))
            n_digits += n
    if n_digits >= SHORTEST_RUN:
        yield run


def _pieces(octets: bytes) -> Iterator[tuple[int, int, int]]:
    """
    What may stand in a run and has letters or digits in it: where it is, and how many digits it means.

    None is meant by an escape of what is neither digit nor letter.
    """
    for match in _PIECE.finditer(octets):
        begin, end = match.span()
        if match.lastgroup is not None:
            yield begin, end, end - begin if match.lastgroup == "ascii" else 1
            continue
        meant = _meaning(match[0])
        if meant.isdecimal():
            yield begin, end, 1
        elif not (meant.isascii() and meant.isalpha()):  # past ASCII it may be one byte of a blank
            yield begin, end, 0


def _meaning(escape: bytes) -> str:
    """The character that an escape stands for; a blank where it is one of several blanks or dashes."""
    parts = _ESCAPE.fullmatch(escape)
    assert parts is not None
    high, low, x, percent, decimal, hexadecimal = parts.group(1, 2, 3, 4, 5, 6)
    if low is not None:
        return bytes.fromhex((high + low).decode()).decode("utf-16-be", errors="replace")[:1]
    if decimal is not None:
        code = int(decimal)
    else:
        named = high or x or percent or hexadecimal
        code = 0x20 if named is None else int(named, 16)
    return chr(code) if code <= sys.maxunicode else " "


def _without_secrets(octets: bytes) -> bytes:
    """Strike out what must not be kept under the names it was sent by, and the names of card holders on tracks."""
    found = [match.span() for match in _TRACK_1.finditer(octets)]
    end = 0
    for name in _NAME.finditer(octets):
        if name.start() >= end and _is_secret(name[name.lastindex or 0]):
            value = _VALUE.match(octets, name.end())
            if value is not None:
                begin, end = value.span(value.lastgroup or 0)
                found.append((begin, end))
    return _strike(octets, found)


def _is_secret(name: bytes) -> bool:
    whole = _plain(name)
    return is_sensitive_name(whole) or is_sensitive_name(re.split("[.:]", whole)[-1])


def _plain(name: bytes) -> str:
    return _ESCAPE.sub(lambda escape: _meaning(escape[0]).encode("utf-8", errors="replace"), name).decode(
        errors="replace"
    )


def _without_base64(octets: bytes, depth: int) -> bytes:
    found = [match.span() for match in _BASE64.finditer(octets) if _hides_a_run(match[0], depth)]
    return _strike(octets, found)


def _hides_a_run(word: bytes, depth: int) -> bool:
    plain = word.replace(b"\\/", b"/").rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    for begin in range(4):  # the word may have begun with letters that are none of it
        whole = plain[begin : begin + (len(plain) - begin) // 4 * 4]
        rest = plain[begin + len(whole) :]
        try:
            meant = base64.b64decode(whole + (rest + b"==")[:4] if len(rest) > 1 else whole)
        except binascii.Error:
            continue
        if has_run(meant) or (depth > 1 and _without_base64(meant, depth - 1) != meant):
            return True
    return False


def _strike(octets: bytes, places: list[tuple[int, int]]) -> bytes:
    if not places:
        return octets
    struck = bytearray(octets)
    for begin, end in places:
        struck[begin:end] = _STRUCK * (end - begin)
    return bytes(struck)


def _digits_in_utf8() -> bytes:
    """A pattern of all decimal digits past ASCII: ten neighbours at a time, which differ in their last byte."""
    blocks: dict[bytes, list[int]] = {}
    for code in range(0x80, sys.maxunicode + 1):
        if unicodedata.category(chr(code)) == "Nd":
            spelling = chr(code).encode()
            blocks.setdefault(spelling[:-1], []).append(spelling[-1])
    return b"|".join(
        re.escape(prefix) + b"[" + b"".join(b"\\x%02x" % last for last in lasts) + b"]"
        for prefix, lasts in blocks.items()
    )


_PIECE: Final = re.compile(_ESCAPE.pattern + rb"|(?P<ascii>[0-9]+)|(?P<other>" + _digits_in_utf8() + rb")")
