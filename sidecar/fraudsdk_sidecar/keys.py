"""
One key of the configuration: what it may be, and how its text is read.

A key is declared once, as a field of a dataclass in `fraudsdk_sidecar.settings`; its place in the file, its variable in the
environment and its flag follow from its name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from fraudsdk.errors import ConfigurationError

ENVIRONMENT_PREFIX: Final = "FRAUDSDK_SIDECAR_"
_MASK: Final = "***"
_TRUTHS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Key:
    """
    What a key may be.

    Attributes
    ----------
    help : str
        For ``--help``.
    read : callable
        From what the file, or text of a flag or variable, has to a value; `ValueError` says what it must be.
    metavar : str
        What stands for its value in the help; empty for true or false.
    is_secret : bool
        Has no flag, since every user of a machine reads the flags of all, and is masked where it is shown.
    may_change : bool
        Taken up when the configuration is reloaded; others need a restart.
    """

    help: str
    read: Callable[[object], Any]
    metavar: str
    is_secret: bool = False
    may_change: bool = False


def text(default: str, help: str, **more: Any) -> Any:
    """A field that is text; empty means none."""
    return _field(default, Key(help, _text, "TEXT", **more))


def path(help: str, **more: Any) -> Any:
    """A field that is a path, or none."""
    return _field(None, Key(help, _path, "PATH", **more))


def choice(default: str, choices: tuple[str, ...], help: str, **more: Any) -> Any:
    """A field that is one of some words."""

    def read(value: object) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return str(value)

    return _field(default, Key(f"{help}: {', '.join(choices)}", read, "WORD", **more))


def flag(default: bool, help: str, **more: Any) -> Any:
    """A field that is true or false."""
    return _field(default, Key(help, _truth, "", **more))


def whole(default: int, low: int, high: int, help: str, **more: Any) -> Any:
    """A field that is a whole number within bounds."""
    return _field(default, Key(help, lambda value: _whole(value, low, high), "N", **more))


def seconds(default: float, low: float, high: float, help: str, **more: Any) -> Any:
    """A field that is a number of seconds within bounds."""
    return _field(default, Key(help, lambda value: _number(value, low, high, " of seconds"), "SECONDS", **more))


def ratio(default: float, help: str, **more: Any) -> Any:
    """A field from 0 to 1."""
    return _field(default, Key(help, lambda value: _number(value, 0.0, 1.0, ""), "RATIO", **more))


def texts(default: tuple[str, ...], help: str, **more: Any) -> Any:
    """A field of several texts: an array in the file, with commas between them elsewhere."""
    return _field(default, Key(help, _texts, "TEXT,TEXT", **more))


def rates(help: str, **more: Any) -> Any:
    """A field that gives names a whole number each: a table in the file, ``NAME=N,NAME=N`` elsewhere."""
    return field(
        default_factory=lambda: MappingProxyType({}),
        metadata={"key": Key(help, _rates, "NAME=N", **more)},
    )


def toml_of(value: object) -> str:
    """A value of any key, as TOML writes it."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_of, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_of(name)} = {each}" for name, each in value.items()) + "}"
    return json.dumps("" if value is None else str(value), ensure_ascii=False)


def masked_toml_of(key: Key, value: object) -> str:
    """The same, of a secret only whether there is one."""
    return toml_of(_MASK) if key.is_secret and value else toml_of(value)


def variable_of(name: str) -> str:
    """
    The variable of the environment of a key.

    Examples
    --------
    >>> variable_of("tls.client_ca")
    'FRAUDSDK_SIDECAR_TLS_CLIENT_CA'
    """
    return ENVIRONMENT_PREFIX + name.replace(".", "_").upper()


def flag_of(name: str) -> str:
    """
    The flag of a key.

    Examples
    --------
    >>> flag_of("tls.client_ca")
    '--tls-client-ca'
    """
    return "--" + name.replace(".", "-").replace("_", "-")


def refused(name: str, origin: str, value: object, key: Key, wanted: str) -> ConfigurationError:
    """The error of a value that will not do.  What may be a secret is not shown."""
    said = "a secret that is not shown" if key.is_secret else repr(value)
    return ConfigurationError(f"{name} ({origin}) must be {wanted}, was {said}; correct it")


def _field(default: object, key: Key) -> Any:
    return field(default=default, metadata={"key": key})


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 4096:
        raise ValueError("text of at most 4,096 printable characters")
    return value.strip()


def _path(value: object) -> Path | None:
    said = _text(value)
    return Path(said) if said else None


def _truth(value: object) -> bool:
    known = value if isinstance(value, bool) else _TRUTHS.get(value.lower()) if isinstance(value, str) else None
    if known is None:
        raise ValueError("true or false")
    return known


def _whole(value: object, low: int, high: int) -> int:
    wanted = f"a whole number from {low} to {high}"
    if isinstance(value, str) and len(value) < 20 and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(wanted)
    return value


def _number(value: object, low: float, high: float, unit: str) -> float:
    wanted = f"a number{unit} from {low:g} to {high:g}"
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(wanted) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(wanted)
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(wanted)
    return float(value)


def _texts(value: object) -> tuple[str, ...]:
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or len(several) > 64:
        raise ValueError("at most 64 texts")
    return tuple(each for each in map(_text, several) if each)


def _rates(value: object) -> Mapping[str, int]:
    wanted = "names with a whole number from 0 to 100000000 each, at most 10000 of them"
    if isinstance(value, str):
        pairs = [each.rpartition("=") for each in value.split(",") if each]
        value = {name.strip(): number for name, _, number in pairs}
    if not isinstance(value, Mapping) or len(value) > 10_000 or "" in value:
        raise ValueError(wanted)
    try:
        return MappingProxyType({str(name): _whole(number, 0, 100_000_000) for name, number in value.items()})
    except ValueError:
        raise ValueError(wanted) from None
