"""Small JSON documents of an artefact, read with their types checked: a wrong one is an error with a field name in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from fraudsdk.errors import ModelError

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024


def parse(data: bytes, what: str, error: type[ModelError]) -> Mapping[str, Any]:
    """
    Parse a JSON object.

    Raises
    ------
    ModelError
        Of the given type: too long, not JSON, or not an object.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise error(f"{what} has {len(data):,} bytes, the cap is {MAX_DOCUMENT_BYTES:,}; compile the model again")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as cause:
        raise error(f"{what} is not valid JSON: {cause}; compile the model again") from cause
    if not isinstance(value, dict):
        raise error(f"{what} must be a JSON object, was {type(value).__name__}; compile the model again")
    return value


def to_json(value: Mapping[str, Any]) -> bytes:
    """
    Bytes of a JSON object, one way only, so that equal documents have equal hashes.

    Raises
    ------
    ValueError, TypeError
        A value is not JSON; NaN and infinity are none.
    """
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


class DocumentReader:
    """
    Reads the fields of one object.

    Parameters
    ----------
    value : mapping
        The object.
    what : str
        Names it in messages.
    error : type
        What to raise.
    """

    def __init__(self, value: Mapping[str, Any], what: str, error: type[ModelError]) -> None:
        self._value = value
        self._what = what
        self._error = error

    def _refuse(self, name: str, expected: str) -> NoReturn:
        was = repr(self._value.get(name))[:80] if name in self._value else "absent"
        raise self._error(f"{self._what}: {name} must be {expected}, was {was}; compile the model again")

    def constant(self, name: str, expected: int) -> None:
        """A field that has one legal value."""
        if type(self._value.get(name)) is not int or self._value[name] != expected:
            self._refuse(name, str(expected))

    def text(self, name: str) -> str:
        """A text."""
        value = self._value.get(name)
        if not isinstance(value, str):
            self._refuse(name, "a text")
        return value

    def count(self, name: str) -> int:
        """A whole number >= 0."""
        value = self._value.get(name)
        if type(value) is not int or value < 0:
            self._refuse(name, "a whole number >= 0")
        return value

    def number(self, name: str) -> float:
        """A finite number."""
        value = self._value.get(name)
        if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
            self._refuse(name, "a finite number")
        return float(value)  # type: ignore[arg-type]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._value.get(name)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            self._refuse(name, "a list of texts")
        return tuple(value)

    def items(self, name: str) -> tuple[Mapping[str, Any], ...]:
        """A list of objects."""
        value = self._value.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._refuse(name, "a list of objects")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """An object."""
        value = self._value.get(name)
        if not isinstance(value, dict):
            self._refuse(name, "an object")
        return value

    def optional_mapping(self, name: str) -> Mapping[str, Any] | None:
        """An object or null."""
        return None if self._value.get(name) is None else self.mapping(name)
