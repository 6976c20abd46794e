"""
What Numba cannot say by itself: arrays from addresses, prefetches, and a few words of LLVM.

Compiled kernels only; nothing here checks what it is given.  An address must belong to an array that its owner keeps
alive and in place for as long as a kernel may run.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import deferred, device, intrinsic

carray = deferred("numba:carray")

# Words of a context per array: address, rows, columns (1 for a vector).
ADDRESS_WORDS = 3


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer."""
    from numba.core import types

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@device
def ints_of(context, field):  # type: ignore[no-untyped-def]
    """The vector ``int64[n]`` that a context knows by this field; without a reference count."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1],), np.int64)


@device
def floats_of(context, field):  # type: ignore[no-untyped-def]
    """The vector ``float64[n]`` of a field."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1],), np.float64)


@device
def int_rows_of(context, field):  # type: ignore[no-untyped-def]
    """The table ``int64[n, m]`` of a field."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1], context[at + 2]), np.int64)


@device
def float_rows_of(context, field):  # type: ignore[no-untyped-def]
    """The table ``float64[n, m]`` of a field."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1], context[at + 2]), np.float64)


@device
def row_of(context, field):  # type: ignore[no-untyped-def]
    """The row ``float32[n]`` of a field."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1],), np.float32)


@device
def bytes_of(context, field):  # type: ignore[no-untyped-def]
    """The table ``int64[n, m]`` of a field as the vector ``uint8[8 * n * m]`` of its bytes."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1] * context[at + 2] * 8,), np.uint8)


@intrinsic
def call_float32(typing_context, function, one, other):  # type: ignore[no-untyped-def]
    """Call ``float f(int64_t, int64_t)`` at an address."""
    from llvmlite import ir
    from numba.core import types

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.FloatType(), [word, word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.float32(types.int64, types.int64, types.int64), generate


# Vectors of eight words; what each does is said in `fraudsdk._vectors`.
matching8 = deferred("fraudsdk._vectors:matching8")
later8 = deferred("fraudsdk._vectors:later8")
consecutive8 = deferred("fraudsdk._vectors:consecutive8")
ones = deferred("fraudsdk._vectors:ones")
highest_bit = deferred("fraudsdk._vectors:highest_bit")
lowest_bit = deferred("fraudsdk._vectors:lowest_bit")
sum_words = deferred("fraudsdk._vectors:sum_words")
add_tiles = deferred("fraudsdk._vectors:add_tiles")
add_values = deferred("fraudsdk._vectors:add_values")
