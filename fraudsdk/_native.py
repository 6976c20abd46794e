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
def _pointer(typing_context, address):
    """An address as a pointer."""
    from numba.core import types

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


# Views of what a context points at, without reference counts.  Numba lets a signed index count from the end, and compiles a
# test of its sign into each access: a tenth of the feature kernel's time.  Views whose length nobody asks are therefore
# said to have none: the index is then the same either way, and the test is compiled away.  They cannot be sliced.


@device
def ints_of(context, field):
    """The vector ``int64[n]`` of a field; its length is not told."""
    return carray(_pointer(context[field * ADDRESS_WORDS]), (0,), np.int64)


@device
def floats_of(context, field):
    """The vector ``float64[n]`` of a field; its length is not told."""
    return carray(_pointer(context[field * ADDRESS_WORDS]), (0,), np.float64)


@device
def int_rows_of(context, field):
    """The table ``int64[n, m]`` of a field; the number of rows is not told."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (0, context[at + 2]), np.int64)


@device
def float_rows_of(context, field):
    """The table ``float64[n, m]`` of a field; the number of rows is not told."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (0, context[at + 2]), np.float64)


@device
def row_of(context, field):
    """The row ``float32[n]`` of a field; its length is not told."""
    return carray(_pointer(context[field * ADDRESS_WORDS]), (0,), np.float32)


@device
def bytes_of(context, field):
    """The memory of a field as the vector ``uint8[...]`` of its bytes; its length is not told."""
    return carray(_pointer(context[field * ADDRESS_WORDS]), (0,), np.uint8)


@device
def measured_ints_of(context, field):
    """The vector ``int64[n]`` of a field."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1],), np.int64)


@device
def measured_floats_of(context, field):
    """The vector ``float64[n]`` of a field."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1],), np.float64)


@device
def measured_rows_of(context, field):
    """The table ``int64[n, m]`` of a field."""
    at = field * ADDRESS_WORDS
    return carray(_pointer(context[at]), (context[at + 1], context[at + 2]), np.int64)


@intrinsic
def unmeasured(typing_context, array):
    """The same array without its length, as above."""
    from numba.core import types

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        shape = builder.insert_value(view.shape, context.get_constant(types.intp, 0), 0)
        view.shape = shape
        return view._getvalue()

    return array(array), generate


@intrinsic
def prefetch(typing_context, array, index):
    """Have the cache line of a word of an array fetched; never fails, wherever that is."""
    from llvmlite import ir
    from numba.core import cgutils, types

    def generate(context, builder, signature, arguments):
        words = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        octets = builder.bitcast(builder.gep(words, [arguments[1]]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [octets.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [octets, i32(0), i32(3), i32(1)])  # to be read, and again, as data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def call_float32(typing_context, function, one, other):
    """Call ``float f(int64_t, int64_t)`` at an address."""
    from llvmlite import ir
    from numba.core import types

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.FloatType(), [word, word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.float32(types.int64, types.int64, types.int64), generate


# Vectors of eight words; what each does is said in `fraudsdk._vectors`.
matching8 = deferred("fraudsdk._vectors:matching8")
later8 = deferred("fraudsdk._vectors:later8")
leave_chunks8 = deferred("fraudsdk._vectors:leave_chunks8")
consecutive8 = deferred("fraudsdk._vectors:consecutive8")
ones = deferred("fraudsdk._vectors:ones")
highest_bit = deferred("fraudsdk._vectors:highest_bit")
lowest_bit = deferred("fraudsdk._vectors:lowest_bit")
sum_words = deferred("fraudsdk._vectors:sum_words")
sum_consecutive = deferred("fraudsdk._vectors:sum_consecutive")
sum_values = deferred("fraudsdk._vectors:sum_values")
add_tiles = deferred("fraudsdk._vectors:add_tiles")
add_values = deferred("fraudsdk._vectors:add_values")
