"""
What kernels read of the interpreter's own objects.

An object is its address, ``id(object)``, as an int64.  Kernels that are called with one hold the GIL and its owner, so that
every reference is borrowed: no count is read or changed, nothing is allocated, no Python code runs.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

from fraudsdk._jit import intrinsic

# Where the interpreters that are supported keep what is read here, in bytes from an object's address.  The header of every
# object ends with its type; `LAYOUT_IS_KNOWN` tells whether this interpreter agrees with all of it.
TYPE: Final = object.__basicsize__ - 8
TEXT_LENGTH: Final = TYPE + 8
TEXT_HASH: Final = TYPE + 16
TEXT_STATE: Final = TYPE + 24
TEXT_BYTES: Final = sys.getsizeof("") - 1
COMPACT_ASCII: Final = 0x60  # bits of the state: one block of memory, all of it ASCII


@intrinsic
def load_word(typing_context: Any, address: Any) -> Any:
    """The eight bytes at an address, aligned or not, as an unsigned little-endian number."""
    from numba.core import types

    return types.uint64(types.int64), _loader(64)


@intrinsic
def load_integer(typing_context: Any, address: Any) -> Any:
    """The eight bytes at an address as a signed number."""
    from numba.core import types

    return types.int64(types.int64), _loader(64)


@intrinsic
def load_byte(typing_context: Any, address: Any) -> Any:
    """The byte at an address, 0 to 255."""
    from numba.core import types

    return types.int64(types.int64), _loader(8)


@intrinsic
def load_half_word(typing_context: Any, address: Any) -> Any:
    """The four bytes at an address, aligned or not, as an unsigned number."""
    from numba.core import types

    return types.uint64(types.int64), _loader(32)


def _loader(bits: int) -> Any:
    """Reads so many bits and widens them."""
    from llvmlite import ir

    kind, word = ir.IntType(bits), ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()), align=1)
        return builder.zext(value, word) if bits < 64 else value

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
