"""
What kernels read of the interpreter's own objects, beside `_jit` the only module that imports numba.

An object is its address, ``id(object)``, as an int64.  Kernels that are called with one hold the GIL and its owner, so that
every reference is borrowed: no count is read or changed, nothing is allocated, no Python code runs.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_I8, _I32, _I64, _F64 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()

# Where the interpreters that are supported keep what is read here, in bytes from an object's address.  The header of every
# object ends with its type; `LAYOUT_IS_KNOWN` tells whether this interpreter agrees with all of it.
TYPE: Final = object.__basicsize__ - 8
TEXT_LENGTH: Final = TYPE + 8
TEXT_HASH: Final = TYPE + 16
TEXT_STATE: Final = TYPE + 24
TEXT_BYTES: Final = sys.getsizeof("") - 1
COMPACT_ASCII: Final = 0x60  # bits of the state: one block of memory, all of it ASCII


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typing_context: Any, address: Any) -> Any:
    """The eight bytes at an address, aligned or not, as an unsigned little-endian number."""
    return types.uint64(types.int64), _loader(_I64)


@intrinsic  # type: ignore[untyped-decorator]
def load_integer(typing_context: Any, address: Any) -> Any:
    """The eight bytes at an address as a signed number."""
    return types.int64(types.int64), _loader(_I64)


@intrinsic  # type: ignore[untyped-decorator]
def load_byte(typing_context: Any, address: Any) -> Any:
    """The byte at an address, 0 to 255."""
    return types.int64(types.int64), _loader(_I8, widened=True)


@intrinsic  # type: ignore[untyped-decorator]
def load_half_word(typing_context: Any, address: Any) -> Any:
    """The four bytes at an address, aligned or not, as an unsigned number."""
    return types.uint64(types.int64), _loader(_I32, widened=True)


def _loader(kind: Any, *, widened: bool = False) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()), align=1)
        return builder.zext(value, _I64) if widened else value

    return generate


def _layout_is_known() -> bool:
    if sys.byteorder != "little" or sys.maxsize != 2**63 - 1 or object.__basicsize__ != 16:
        return False
    return all(_text_is_where_expected(text) for text in ("", "a", "transaction_id", "é", "€", "😀", "x" * 300))


def _text_is_where_expected(text: str) -> bool:
    where = id(text)
    is_plain = ctypes.c_uint32.from_address(where + TEXT_STATE).value & COMPACT_ASCII == COMPACT_ASCII
    return (
        ctypes.c_int64.from_address(where + TYPE).value == id(str)
        and ctypes.c_int64.from_address(where + TEXT_LENGTH).value == len(text)
        and ctypes.c_int64.from_address(where + TEXT_HASH).value in (hash(text), -1)
        and is_plain == text.isascii()
        and (not is_plain or ctypes.string_at(where + TEXT_BYTES, len(text)) == text.encode())
    )


LAYOUT_IS_KNOWN: Final = _layout_is_known()
