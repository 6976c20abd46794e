"""
Bytes of a model file -> plain Python values, for files that may have been written to hurt.

JSON and UBJSON readers with a bound on everything: bytes, nesting, values, length of a text.  Both refuse duplicate keys,
trailing bytes and numbers that are not numbers.  Neither is recursive in a way that input can exhaust: UBJSON stops at
`MAX_NESTING`, and JSON is scanned for its nesting before the recursive standard parser may see it.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any, Final, NoReturn

import numpy as np

from fraudsdk.errors import InvalidModelError

MAX_BYTES: Final = 256 * 1024 * 1024
# XGBoost nests seven deep.
MAX_NESTING: Final = 16
# Twelve for each of the nodes that a forest may have.  Refusing so many takes ten seconds and a gigabyte, no more.
MAX_VALUES: Final = 24_000_000
MAX_TEXT_BYTES: Final = 65_536

_JSON_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)

# UBJSON marker -> big-endian numpy type.
_NUMBERS: Final[dict[bytes, np.dtype[Any]]] = {
    b"i": np.dtype(">i1"),
    b"U": np.dtype(">u1"),
    b"I": np.dtype(">i2"),
    b"l": np.dtype(">i4"),
    b"L": np.dtype(">i8"),
    b"d": np.dtype(">f4"),
    b"D": np.dtype(">f8"),
}
_INTEGERS: Final = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_CONSTANTS: Final = {b"Z": None, b"T": True, b"F": False}


def parse_document(data: bytes) -> dict[str, Any]:
    """
    Parse a model file, JSON or UBJSON.

    Returns
    -------
    dict
        Objects are dicts; arrays are lists, or numpy arrays where UBJSON declares one numeric type for all elements.

    Raises
    ------
    InvalidModelError
        The bytes are neither, or exceed a bound.
    """
    if len(data) > MAX_BYTES:
        _refuse(f"the model file has {len(data):,} bytes, the cap is {MAX_BYTES:,}")
    # Both begin with "{".  In JSON a quote, a closing brace or white space follows; in UBJSON the length of a key.
    document = _parse_json(data) if re.match(rb'\s*\{\s*["}]', data[:4096]) else _UBJSONReader(data).document()
    if not isinstance(document, dict):
        _refuse(f"a model file must hold an object, held {type(document).__name__}")
    return document


def _refuse(problem: str) -> NoReturn:
    raise InvalidModelError(f"{problem}; save the model again with Booster.save_model")


def _parse_json(data: bytes) -> Any:
    _check_json_shape(data)
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except ValueError as error:  # also JSONDecodeError, UnicodeDecodeError, and an integer of over 4,300 digits
        raise InvalidModelError(f"the model file is not valid JSON: {error}; save it again") from error


def _check_json_shape(data: bytes) -> None:
    if data.count(b",") > MAX_VALUES:
        _refuse(f"the model file holds over {MAX_VALUES:,} values")
    nesting = 0
    for match in _JSON_TOKEN.finditer(data):
        token = match.group()
        if token in (b"{", b"["):
            nesting += 1
            if nesting > MAX_NESTING:
                _refuse(f"the model file nests deeper than {MAX_NESTING} levels, at byte {match.start()}")
        elif token in (b"}", b"]"):
            nesting -= 1
        elif len(token) > MAX_TEXT_BYTES:
            _refuse(f"a text of the model file is longer than {MAX_TEXT_BYTES:,} bytes, at byte {match.start()}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The last of two equal keys wins in some parsers, the first in others: what was checked is then not what is loaded.
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        _refuse(f"the key {repeated[:80]!r} occurs twice in one object")
    return result


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"the model file holds {name}, which is not a finite number")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _refuse(f"the model file holds {text[:40]}, which is too large for a number")
    return value


class _UBJSONReader:
    """
    UBJSON (draft 12), the part of it that XGBoost writes: no optional types on objects, no typed arrays but of numbers.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._n_values = 0

    def document(self) -> Any:
        value = self._value(self._take(1), 0)
        if self._at != len(self._data):
            self._refuse(f"{len(self._data) - self._at} bytes follow the end of the document")
        return value

    def _refuse(self, problem: str) -> NoReturn:
        _refuse(f"the model file is not valid UBJSON at byte {self._at}: {problem}")

    def _take(self, n: int) -> bytes:
        if n > len(self._data) - self._at:
            self._refuse(f"it ends where {n:,} more bytes were announced")
        taken = self._data[self._at : self._at + n]
        self._at += n
        return taken

    def _value(self, marker: bytes, nesting: int) -> Any:
        self._n_values += 1
        if self._n_values > MAX_VALUES:
            self._refuse(f"it holds over {MAX_VALUES:,} values")
        if marker in _INTEGERS:
            return self._integer(marker)
        if marker == b"{":
            return self._object(nesting + 1)
        if marker == b"[":
            return self._array(nesting + 1)
        if marker == b"S":
            return self._text()
        if marker in (b"d", b"D"):
            return float(np.frombuffer(self._take(_NUMBERS[marker].itemsize), _NUMBERS[marker])[0])
        if marker not in _CONSTANTS:
            self._refuse(f"unknown marker {marker!r}")
        return _CONSTANTS[marker]

    def _integer(self, marker: bytes) -> int:
        form = _INTEGERS[marker]
        value: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _length(self) -> int:
        marker = self._take(1)
        if marker not in _INTEGERS:
            self._refuse(f"a length must be an integer, its marker was {marker!r}")
        length = self._integer(marker)
        if length < 0:
            self._refuse(f"a length must be >= 0, was {length}")
        return length

    def _text(self) -> str:
        length = self._length()
        if length > MAX_TEXT_BYTES:
            self._refuse(f"a text of {length:,} bytes, the cap is {MAX_TEXT_BYTES:,}")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            self._refuse("a text is not UTF-8")

    def _nest(self, nesting: int) -> None:
        if nesting > MAX_NESTING:
            self._refuse(f"it nests deeper than {MAX_NESTING} levels")

    def _object(self, nesting: int) -> dict[str, Any]:
        self._nest(nesting)
        result: dict[str, Any] = {}
        while self._data[self._at : self._at + 1] != b"}":
            if self._data[self._at : self._at + 1] in (b"$", b"#"):
                self._refuse("an object with a declared type or size, which XGBoost does not write")
            key = self._text()
            if key in result:
                self._refuse(f"the key {key[:80]!r} occurs twice in one object")
            result[key] = self._value(self._take(1), nesting)
        self._take(1)
        return result

    def _array(self, nesting: int) -> Any:
        self._nest(nesting)
        head = self._data[self._at : self._at + 1]
        if head == b"$":
            return self._typed_array()
        if head == b"#":
            self._take(1)
            length = self._length()
            # Every element takes a byte or more: an announced length beyond that is a bomb, not an array.
            if length > len(self._data) - self._at:
                self._refuse(f"an array of {length:,} elements in {len(self._data) - self._at:,} remaining bytes")
            return [self._value(self._take(1), nesting) for _ in range(length)]
        elements = []
        while self._data[self._at : self._at + 1] != b"]":
            elements.append(self._value(self._take(1), nesting))
        self._take(1)
        return elements

    def _typed_array(self) -> Any:
        self._take(1)
        marker = self._take(1)
        if marker not in _NUMBERS:
            self._refuse(f"an array of type {marker!r}; only numbers may be declared")
        if self._take(1) != b"#":
            self._refuse("an array with a type must also have a size")
        dtype = _NUMBERS[marker]
        length = self._length()
        array = np.frombuffer(self._take(length * dtype.itemsize), dtype)
        return array.astype(dtype.newbyteorder("="))
