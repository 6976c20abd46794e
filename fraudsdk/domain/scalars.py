"""
What kind of scalar a value is, whichever library made it.

The domain does not import numpy: its scalars are recognised by their ``dtype``, and arrays are no scalars.
"""

from __future__ import annotations

from decimal import Decimal
from typing import SupportsIndex, TypeGuard


def is_absent(value: object) -> bool:
    """Whether the value is None, NaN or NaT."""
    if value is None:
        return True
    if isinstance(value, Decimal):
        return value.is_nan()  # a signalling NaN refuses to be compared
    # NaN and NaT are the only scalars that differ from themselves; an array would answer with an array.
    if getattr(value, "ndim", 0) != 0:
        return False
    differs = value != value
    try:
        return bool(differs)
    except TypeError:  # pandas.NA is neither true nor false, and compares to itself
        return differs is value


def is_boolean(value: object) -> bool:
    """Whether the value is true or false.  Booleans are no numbers here: a flag in the wrong column would score as 1."""
    return isinstance(value, bool) or _kind(value) == "b"


def is_integer(value: object) -> TypeGuard[SupportsIndex]:
    """Whether the value is an integer and no boolean."""
    if hasattr(value, "dtype"):
        return _kind(value) in ("i", "u")
    return hasattr(type(value), "__index__") and not isinstance(value, bool)


def integer_of(value: object) -> int | None:
    """
    The integer that a value is or spells; None for anything else.

    Text counts: one bad cell of a CSV column makes text of all its neighbours.
    """
    if is_integer(value):
        return int(value.__index__())
    if isinstance(value, str) and len(value) <= 40 and value.isascii() and value.strip().removeprefix("-").isdigit():
        return int(value)
    return None


def is_number(value: object) -> bool:
    """Whether the value is an integer, a float or a Decimal."""
    return is_integer(value) or isinstance(value, (float, Decimal)) or is_numpy_float(value)


def is_numpy_float(value: object) -> bool:
    """Whether the value is a float of numpy, of whatever width."""
    return _kind(value) == "f"


def is_numpy_datetime(value: object) -> bool:
    """Whether the value is a `numpy.datetime64`."""
    return _kind(value) == "M"


def _kind(value: object) -> str:
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return kind if isinstance(kind, str) and getattr(value, "ndim", 1) == 0 else ""
