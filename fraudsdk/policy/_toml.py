"""Reading a TOML table strictly, and writing the few forms that a policy file has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final, TypeVar

from fraudsdk.domain.masking import shown
from fraudsdk.errors import ConfigurationError

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE_NAMES: Final[dict[type, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array",
}


class Table:
    """
    One table of a file, every key of which must be asked for.

    Parameters
    ----------
    content : object
        What the file has; must be a table.
    where : str
        What a message calls it, such as ``"rules[2]"``; empty for the file itself.
    """

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, dict):
            raise ConfigurationError(f"{where} must be a table, was {type(content).__name__}")
        self._content: dict[str, Any] = content
        self._where = where
        self._asked: list[str] = []

    def get(self, key: str, kind: type[T], default: T) -> T:
        """The value of a key; `default` where it is absent."""
        value = self.optional(key, kind)
        return default if value is None else value

    def require(self, key: str, kind: type[T]) -> T:
        """The value of a key that must be there."""
        value = self.optional(key, kind)
        if value is None:
            raise ConfigurationError(f"{self._where or 'the policy'} lacks {key!r}; give it {_TYPE_NAMES[kind]}")
        return value

    def optional(self, key: str, kind: type[T]) -> T | None:
        """The value of a key, of exactly this type (a whole number will do for a float); None where it is absent."""
        value = self.raw(key)
        if kind is float and type(value) is int:
            value = float(value)
        if value is not None and type(value) is not kind:
            raise ConfigurationError(f"{self._path(key)} must be {_TYPE_NAMES[kind]}, was {shown(value)}")
        return value

    def raw(self, key: str) -> Any:
        """The value of a key, whatever it is; None where it is absent."""
        self._asked.append(key)
        return self._content.get(key)

    def choice(self, key: str, kind: type[E], default: E | None = None) -> E:
        """The member of an enumeration whose value the key has; required where there is no default."""
        given = self.require(key, str) if default is None else self.get(key, str, default.value)
        try:
            return kind(given)
        except ValueError as error:
            choices = ", ".join(member.value for member in kind)
            raise ConfigurationError(f"{self._path(key)} must be one of {choices}, was {shown(given)}") from error

    def tables(self, key: str) -> list[Table]:
        """An array of tables; empty where the key is absent."""
        return [Table(item, f"{self._path(key)}[{i}]") for i, item in enumerate(self.get(key, list, []))]

    def table(self, key: str) -> Table | None:
        """A table; None where the key is absent."""
        content = self.raw(key)
        return None if content is None else Table(content, self._path(key))

    def named_tables(self) -> list[tuple[str, Table]]:
        """All sub-tables with their names, where the names are the user's own."""
        self._asked.extend(self._content)
        return [(name, Table(content, self._path(name))) for name, content in self._content.items()]

    def end(self) -> None:
        """Refuse keys that nobody asked for: a misspelt key would silently be a default."""
        unknown = next((key for key in self._content if key not in self._asked), None)
        if unknown is not None:
            closest = get_close_matches(unknown, self._asked, n=1)
            hint = f"did you mean {closest[0]!r}?" if closest else f"known are {', '.join(self._asked)}"
            raise ConfigurationError(f"{self._where or 'the policy'} has the unknown key {shown(unknown)}; {hint}")

    def _path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key


def microseconds(value: object, where: str) -> int:
    """Microseconds since the Unix epoch of a TOML date-time with an offset."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigurationError(f"{where} must be a date-time with an offset, such as 2026-12-31T00:00:00Z")
    return (value - _EPOCH) // timedelta(microseconds=1)


def date_time(event_time_us: int) -> datetime:
    """The inverse of `microseconds`."""
    return _EPOCH + timedelta(microseconds=event_time_us)


def dumps(content: Mapping[str, Any]) -> str:
    """
    Write a mapping of values, tables and arrays of tables as TOML.

    Arrays of anything but tables are written one item per line, so that a change of a list is a change of a line.
    """
    lines: list[str] = []
    _write_table(lines, (), content)
    return "\n".join(lines).lstrip("\n") + "\n"


def _write_table(lines: list[str], path: tuple[str, ...], content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if not _is_tables(value):
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in content.items():
        if _is_tables(value):
            inner = (*path, key)
            name = ".".join(_key(part) for part in inner)
            for table in value if isinstance(value, Sequence) else (value,):
                lines += ["", f"[[{name}]]" if isinstance(value, Sequence) else f"[{name}]"]
                _write_table(lines, inner, table)


class Inline(dict[str, Any]):
    """A table that is written on one line, inside an array."""


def _is_tables(value: object) -> bool:
    if isinstance(value, Inline):
        return False
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict) and not isinstance(value[0], Inline)
    return isinstance(value, dict)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's; DEL alone is allowed raw in one and not in the other.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Inline):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + "".join(f"\n    {_value(item)}," for item in value) + ("\n]" if value else "]")
    # numpy's float is a float, and its repr is no TOML.
    return repr(float(value)) if isinstance(value, float) else repr(value)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "_").isidentifier() else _value(key)
