"""
What kernels read of the interpreter's own objects.

An object is its address, ``id(object)``, as an int64.  Kernels that are called with one hold the GIL and its owner, so that
every reference is borrowed: no count is read or changed, nothing is allocated, no Python code runs.
"""

from __future__ import annotations

import sys
from ctypes import c_double, c_int64, c_uint8, c_uint32, string_at
from datetime import UTC, datetime
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
FLOAT_VALUE: Final = TYPE + 8
MOMENT_HAS_ZONE: Final = TYPE + 16
# Year in two bytes, month, day, hour, minute, second, microsecond in three; big-endian.
MOMENT_FIELDS: Final = TYPE + 17
MOMENT_ZONE: Final = TYPE + 32
LIST_LENGTH: Final = TYPE + 8
LIST_ITEMS: Final = TYPE + 16


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


@intrinsic
def load_float(typing_context: Any, address: Any) -> Any:
    """The float64 at an address."""
    from llvmlite import ir
    from numba.core import types

    load = _loader(64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(load(context, builder, signature, arguments), ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def float_of(typing_context: Any, bits: Any) -> Any:
    """The float64 of the same bits."""
    from llvmlite import ir
    from numba.core import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def store_byte(typing_context: Any, address: Any, byte: Any) -> Any:
    """Write the low byte of a number to an address."""
    from llvmlite import ir
    from numba.core import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(8)
        builder.store(builder.trunc(arguments[1], kind), builder.inttoptr(arguments[0], kind.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def next_item(typing_context: Any, mapping: Any, position: Any) -> Any:
    """
    The item of a dict at or after a position: whether there is one, the next position, key and value (``PyDict_Next``).
    """
    from llvmlite import ir
    from numba.core import cgutils, types

    word, pointer = ir.IntType(64), ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = [cgutils.alloca_once(builder, kind) for kind in (word, pointer, pointer)]
        builder.store(arguments[1], places[0])
        kind = ir.FunctionType(ir.IntType(32), [pointer, *(place.type for place in places)])
        function = cgutils.get_or_insert_function(builder.module, kind, "PyDict_Next")
        found = builder.call(function, [builder.inttoptr(arguments[0], pointer), *places])
        position, key, value = (builder.load(place) for place in places)
        key, value = builder.ptrtoint(key, word), builder.ptrtoint(value, word)
        return context.make_tuple(builder, signature.return_type, [builder.zext(found, word), position, key, value])

    return types.containers.UniTuple(types.int64, 4)(types.int64, types.int64), generate


@intrinsic
def integer_of(typing_context: Any, number: Any) -> Any:
    """
    The value of an exact `int`, and whether it does not fit (``PyLong_AsLongLongAndOverflow``).
    """
    from llvmlite import ir
    from numba.core import cgutils, types

    word, pointer = ir.IntType(64), ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        overflow = cgutils.alloca_once(builder, ir.IntType(32))
        kind = ir.FunctionType(word, [pointer, overflow.type])
        function = cgutils.get_or_insert_function(builder.module, kind, "PyLong_AsLongLongAndOverflow")
        value = builder.call(function, [builder.inttoptr(arguments[0], pointer), overflow])
        return context.make_tuple(builder, signature.return_type, [value, builder.zext(builder.load(overflow), word)])

    return types.containers.UniTuple(types.int64, 2)(types.int64), generate


def _loader(bits: int) -> Any:
    """What reads so many bits at an address, and widens them to a word."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer()), align=1)
        return builder.zext(value, ir.IntType(64)) if bits < 64 else value

    return generate


def _layout_is_known() -> bool:
    if sys.byteorder != "little" or sys.maxsize != 2**63 - 1 or object.__basicsize__ != 16:
        return False
    texts = ("", "a", "transaction_id", "x" * 300, "é", "€", "😀")
    moment = datetime(2026, 11, 23, 10, 1, 2, 345_678, tzinfo=UTC)
    return (
        all(_text_is_where_expected(text) for text in texts)
        and all(_peek(c_double, number, FLOAT_VALUE) == number for number in (0.5, -1e300))
        and _peek(c_int64, [moment], LIST_LENGTH) == 1
        and _moment_is_where_expected(moment)
        and _peek(c_uint8, moment.replace(tzinfo=None), MOMENT_HAS_ZONE) == 0
    )


def _text_is_where_expected(text: str) -> bool:
    is_plain = _peek(c_uint32, text, TEXT_STATE) & COMPACT_ASCII == COMPACT_ASCII
    return (
        _peek(c_int64, text, TYPE) == id(str)
        and _peek(c_int64, text, TEXT_LENGTH) == len(text)
        and _peek(c_int64, text, TEXT_HASH) in (hash(text), -1)
        and is_plain == text.isascii()
        and (not is_plain or string_at(id(text) + TEXT_BYTES, len(text)) == text.encode())
    )


def _moment_is_where_expected(moment: datetime) -> bool:
    items = [moment]
    return (
        c_int64.from_address(_peek(c_int64, items, LIST_ITEMS)).value == id(moment)
        and _peek(c_uint8, moment, MOMENT_HAS_ZONE) == 1
        and string_at(id(moment) + MOMENT_FIELDS, 10) == b"\x07\xea\x0b\x17\x0a\x01\x02\x05\x46\x4e"
        and _peek(c_int64, moment, MOMENT_ZONE) == id(UTC)
    )


def _peek(kind: Any, value: object, offset: int) -> Any:
    return kind.from_address(id(value) + offset).value


LAYOUT_IS_KNOWN: Final = _layout_is_known()
