"""
Vectors of eight words, written in LLVM: what `fraudsdk._native` names for kernels, imported when one is compiled.

Compiled kernels only; nothing here checks what it is given.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

# --- eight words at a time -------------------------------------------------------------------------------------------
#
# Written as LLVM vectors of eight, which every CPU can do: one AVX-512 register, two of AVX2, four of SSE2.  A *mask* is
# one bit per word, the first word's lowest.  All may read up to seven words past what is meant, and ignore them.

_LANES = 8
_I1, _I8, _I16, _I32, _I64, _F64 = (*(ir.IntType(bits) for bits in (1, 8, 16, 32, 64)), ir.DoubleType())
_I64S, _F64S, _I1S = (ir.VectorType(each, _LANES) for each in (_I64, _F64, _I1))
_IOTA = ir.Constant(_I64S, list(range(_LANES)))
_UNKNOWN, _MOST = -(2**63), 2**63 - 1


def _splat(builder, scalar, vector_type):
    """A vector of eight times the same."""
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, _LANES), [0] * _LANES))


def _data(context, builder, array_type, array):
    """Pointer to the first word of an array."""
    return context.make_array(array_type)(context, builder, array).data


def _load(builder, words, at, vector_type=_I64S):
    """Eight words from an index on."""
    pointer = builder.bitcast(builder.gep(words, [at]), vector_type.as_pointer())
    return builder.load(pointer, align=8)


def _as_bits(builder, mask):
    """The mask as an integer."""
    return builder.zext(builder.bitcast(mask, _I8), _I64)


@intrinsic
def matching8(typing_context, words, at, mask, want):
    """Mask of the words from `at` on with ``word & mask == want``."""

    def generate(context, builder, signature, arguments):
        data = _data(context, builder, signature.args[0], arguments[0])
        masked = builder.and_(_load(builder, data, arguments[1]), _splat(builder, arguments[2], _I64S))
        return _as_bits(builder, builder.icmp_signed("==", masked, _splat(builder, arguments[3], _I64S)))

    return types.int64(words, types.int64, types.int64, types.int64), generate


@intrinsic
def later8(typing_context, words, at, limit):
    """Mask of the words from `at` on that are greater than a limit."""

    def generate(context, builder, signature, arguments):
        data = _data(context, builder, signature.args[0], arguments[0])
        limits = _splat(builder, arguments[2], _I64S)
        return _as_bits(builder, builder.icmp_signed(">", _load(builder, data, arguments[1]), limits))

    return types.int64(words, types.int64, types.int64), generate


@intrinsic
def leave_chunks8(typing_context, words, at, n, now, ages, ages_at, out, out_at):
    """
    How many of `n` ascending words from `at` on are left without the chunks of eight, from the end, that are later than a limit.

    For eight limits at once, ``now - age``, into eight words of `out`: a chunk is later when its first word is.
    """

    def generate(context, builder, signature, arguments):
        data, limits_of, result = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 4, 6))
        at, n, now, ages_at, out_at = (arguments[k] for k in (1, 2, 3, 5, 7))
        limits = builder.sub(_splat(builder, now, _I64S), _load(builder, limits_of, ages_at))
        left = cgutils.alloca_once_value(builder, _splat(builder, n, _I64S))
        eight, none = (ir.Constant(_I64S, [value] * _LANES) for value in (_LANES, 0))
        with cgutils.for_range(builder, builder.lshr(n, _I64(3))) as loop:
            back = builder.shl(builder.add(loop.index, _I64(1)), _I64(3))
            first = builder.load(builder.gep(data, [builder.sub(builder.add(at, n), back)]))
            later = builder.icmp_signed(">", _splat(builder, first, _I64S), limits)
            with builder.if_then(builder.icmp_unsigned("==", builder.bitcast(later, _I8), _I8(0))):
                loop.do_break()
            builder.store(builder.sub(builder.load(left), builder.select(later, eight, none)), left)
        pointer = builder.bitcast(builder.gep(result, [out_at]), _I64S.as_pointer())
        builder.store(builder.load(left), pointer, align=8)
        return context.get_dummy_value()

    word = types.int64
    return types.void(words, word, word, word, ages, word, out, word), generate


@intrinsic
def consecutive8(typing_context, words, at, first):
    """Mask of the words from `at` on that are `first`, `first` + 1 and so on."""

    def generate(context, builder, signature, arguments):
        data = _data(context, builder, signature.args[0], arguments[0])
        wanted = builder.add(_splat(builder, arguments[2], _I64S), _IOTA)
        return _as_bits(builder, builder.icmp_signed("==", _load(builder, data, arguments[1]), wanted))

    return types.int64(words, types.int64, types.int64), generate


@intrinsic
def ones(typing_context, bits):
    """How many bits are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), generate


@intrinsic
def highest_bit(typing_context, bits):
    """Position of the highest bit that is set; there must be one."""

    def generate(context, builder, signature, arguments):
        return builder.sub(_I64(63), builder.ctlz(arguments[0], _I1(1)))

    return types.int64(types.int64), generate


@intrinsic
def lowest_bit(typing_context, bits):
    """Position of the lowest bit that is set; there must be one."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], _I1(1))

    return types.int64(types.int64), generate


class _Sums:
    """Accumulators of eight lanes each over a loop, and what they come to."""

    def __init__(self, builder):
        self.builder = builder
        self.slots: list[Any] = []

    def start(self, value, vector_type=_I64S):
        """A new accumulator with the same value in each lane."""
        slot = cgutils.alloca_once_value(self.builder, ir.Constant(vector_type, [value] * _LANES))
        self.slots.append(slot)
        return slot

    def update(self, slot, change):
        """Replace an accumulator by a function of it."""
        self.builder.store(change(self.builder.load(slot)), slot)

    def reduced(self, slot, operation):
        """The lanes of integers together, by LLVM's name of the operation."""
        name = f"llvm.vector.reduce.{operation}.v{_LANES}i64"
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(_I64, [_I64S]), name)
        return self.builder.call(function, [self.builder.load(slot)])

    def total(self, slot):
        """The lanes of floats together, always in the same order: ((0+4)+(2+6)) + ((1+5)+(3+7))."""
        builder, lanes = self.builder, self.builder.load(slot)
        each = [builder.extract_element(lanes, _I32(lane)) for lane in range(_LANES)]
        while len(each) > 1:
            half = len(each) // 2
            each = [builder.fadd(each[lane], each[lane + half]) for lane in range(half)]
        return each[0]


def _lanes_of(builder, bits, first_bit, chunk, n):
    """Which of the words ``8 * chunk ...`` are meant: their bits are set, and they are among the first `n`."""
    octets = builder.bitcast(bits, _I8.as_pointer())
    at = builder.gep(octets, [builder.add(builder.lshr(first_bit, _I64(3)), chunk)])
    two = builder.load(builder.bitcast(at, _I16.as_pointer()), align=1)
    shift = builder.trunc(builder.and_(first_bit, _I64(7)), _I16)
    lanes = builder.bitcast(builder.trunc(builder.lshr(two, shift), _I8), _I1S)
    positions = builder.add(_splat(builder, builder.shl(chunk, _I64(3)), _I64S), _IOTA)
    return builder.and_(lanes, builder.icmp_signed("<", positions, _splat(builder, n, _I64S)))


def _chunks(builder, n):
    """Loop over the chunks of eight that hold `n` words."""
    return cgutils.for_range(builder, builder.lshr(builder.add(n, _I64(_LANES - 1)), _I64(3)))


def _larger(builder, one, other):
    return builder.select(builder.icmp_signed(">", one, other), one, other)


def _smaller(builder, one, other):
    return builder.select(builder.icmp_signed("<", one, other), one, other)


class _Window:
    """The statistics of one window while it is read: number, sum, squares, largest, smallest."""

    def __init__(self, builder):
        self.builder, self.sums = builder, _Sums(builder)
        self.count, self.total, self.square = (self.sums.start(0, each) for each in (_I64S, _I64S, _F64S))
        self.largest, self.smallest = self.sums.start(_UNKNOWN), self.sums.start(_MOST)

    def add(self, lanes, count, total, square, largest, smallest):
        """Eight more contributions, of which some lanes are meant."""
        builder, update = self.builder, self.sums.update
        none, no_float = ir.Constant(_I64S, [0] * _LANES), ir.Constant(_F64S, [0.0] * _LANES)
        least, most = ir.Constant(_I64S, [_UNKNOWN] * _LANES), ir.Constant(_I64S, [_MOST] * _LANES)
        update(self.count, lambda sum_: builder.add(sum_, builder.select(lanes, count, none)))
        update(self.total, lambda sum_: builder.add(sum_, builder.select(lanes, total, none)))
        update(self.square, lambda sum_: builder.fadd(sum_, builder.select(lanes, square, no_float)))
        update(self.largest, lambda best: _larger(builder, best, builder.select(lanes, largest, least)))
        update(self.smallest, lambda best: _smaller(builder, best, builder.select(lanes, smallest, most)))

    def store(self, out, out_at, squares, squares_at):
        """Merge into memory: number, sum, largest, smallest, one after another, and the squares elsewhere."""
        builder, sums = self.builder, self.sums
        for offset, slot, operation in (
            (0, self.count, "add"),
            (1, self.total, "add"),
            (2, self.largest, "smax"),
            (3, self.smallest, "smin"),
        ):
            pointer = builder.gep(out, [builder.add(out_at, _I64(offset))])
            combine = {"add": builder.add, "smax": partial(_larger, builder), "smin": partial(_smaller, builder)}[
                operation
            ]
            builder.store(combine(builder.load(pointer), sums.reduced(slot, operation)), pointer)
        pointer = builder.gep(squares, [squares_at])
        builder.store(builder.fadd(builder.load(pointer), sums.total(self.square)), pointer)


@intrinsic
def sum_words(typing_context, words, at, n, bits, first_bit):
    """Sum of those of `n` words from `at` on whose bits, from `first_bit` on, are set."""

    def generate(context, builder, signature, arguments):
        data, marks = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 3))
        at, n, first_bit = (arguments[k] for k in (1, 2, 4))
        sums = _Sums(builder)
        total, none = sums.start(0), ir.Constant(_I64S, [0] * _LANES)
        with _chunks(builder, n) as loop:
            word = _load(builder, data, builder.add(at, builder.shl(loop.index, _I64(3))))
            meant = builder.select(_lanes_of(builder, marks, first_bit, loop.index, n), word, none)
            sums.update(total, lambda sum_: builder.add(sum_, meant))
        return sums.reduced(total, "add")

    return types.int64(words, types.int64, types.int64, bits, types.int64), generate


@intrinsic
def sum_consecutive(typing_context, words, numbers_at, first, at, n):
    """Sum of those of `n` words from `at` on of which the words from `numbers_at` on are `first`, `first` + 1 and so on."""

    def generate(context, builder, signature, arguments):
        data = _data(context, builder, signature.args[0], arguments[0])
        numbers_at, first, at, n = arguments[1:]
        sums, none = _Sums(builder), ir.Constant(_I64S, [0] * _LANES)
        total = sums.start(0)
        with _chunks(builder, n) as loop:
            begin = builder.shl(loop.index, _I64(3))
            positions = builder.add(_splat(builder, begin, _I64S), _IOTA)
            wanted = builder.add(_splat(builder, first, _I64S), positions)
            number = _load(builder, data, builder.add(numbers_at, begin))
            meant = builder.and_(
                builder.icmp_signed("==", number, wanted),
                builder.icmp_signed("<", positions, _splat(builder, n, _I64S)),
            )
            word = builder.select(meant, _load(builder, data, builder.add(at, begin)), none)
            sums.update(total, partial(builder.add, word))
        return sums.reduced(total, "add")

    return types.int64(words, *(types.int64,) * 4), generate


@intrinsic
def sum_values(typing_context, words, at, n, bits, first_bit, out, out_at):
    """`add_values` of number and sum alone, which most windows are asked for."""

    def generate(context, builder, signature, arguments):
        data, marks, result = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 5))
        at, n, first_bit, out_at = (arguments[k] for k in (1, 2, 4, 6))
        sums, none = _Sums(builder), ir.Constant(_I64S, [0] * _LANES)
        unknown, total = ir.Constant(_I64S, [_UNKNOWN] * _LANES), sums.start(0)
        count = cgutils.alloca_once_value(builder, _I64(0))
        with _chunks(builder, n) as loop:
            value = _load(builder, data, builder.add(at, builder.shl(loop.index, _I64(3))))
            lanes = _lanes_of(builder, marks, first_bit, loop.index, n)
            known = builder.and_(lanes, builder.icmp_signed("!=", value, unknown))
            sums.update(total, partial(builder.add, builder.select(known, value, none)))
            builder.store(builder.add(builder.load(count), builder.ctpop(_as_bits(builder, known))), count)
        for offset, change in ((0, builder.load(count)), (1, sums.reduced(total, "add"))):
            pointer = builder.gep(result, [builder.add(out_at, _I64(offset))])
            builder.store(builder.add(builder.load(pointer), change), pointer)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64, bits, types.int64, out, types.int64), generate


@intrinsic
def add_tiles(typing_context, words, at, stride, n, bits, first_bit, out, out_at, squares, squares_at):
    """
    Add to a window the statistics of those of `n` tiles from `at` on whose bits, from `first_bit` on, are set.

    Parameters
    ----------
    at, stride : int64
        Number of values of the first tile; the sum, the sum of squares (float64), the largest and the smallest value
        follow `stride` words apart.
    out, out_at, squares, squares_at
        As `add_values`.
    """

    def generate(context, builder, signature, arguments):
        data, marks, result, floats = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 4, 6, 8))
        at, stride, n, first_bit, out_at, squares_at = (arguments[k] for k in (1, 2, 3, 5, 7, 9))
        window = _Window(builder)
        with _chunks(builder, n) as loop:
            lanes = _lanes_of(builder, marks, first_bit, loop.index, n)
            count_at = builder.add(at, builder.shl(loop.index, _I64(3)))
            sum_at, squares_from, largest_at, smallest_at = (
                builder.add(count_at, builder.mul(stride, _I64(k))) for k in (1, 2, 3, 4)
            )
            window.add(
                lanes,
                _load(builder, data, count_at),
                _load(builder, data, sum_at),
                _load(builder, data, squares_from, _F64S),
                _load(builder, data, largest_at),
                _load(builder, data, smallest_at),
            )
        window.store(result, out_at, floats, squares_at)
        return context.get_dummy_value()

    return types.void(words, *(types.int64,) * 3, bits, types.int64, out, types.int64, squares, types.int64), generate


@intrinsic
def add_values(typing_context, words, at, n, bits, first_bit, out, out_at, squares, squares_at):
    """
    Add to a window the known ones of `n` values from `at` on whose bits, from `first_bit` on, are set.

    Parameters
    ----------
    out, out_at : int64[...], int64
        Four words that are added to: number of values, sum, largest, smallest; the unknown value is none.
    squares, squares_at : float64[...], int64
        Where the sum of squares is.  It is summed in eight lanes, by position, and then across, on every CPU alike.
    """

    def generate(context, builder, signature, arguments):
        data, marks, result, floats = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 5, 7))
        at, n, first_bit, out_at, squares_at = (arguments[k] for k in (1, 2, 4, 6, 8))
        window, unknown = _Window(builder), ir.Constant(_I64S, [_UNKNOWN] * _LANES)
        one = ir.Constant(_I64S, [1] * _LANES)
        with _chunks(builder, n) as loop:
            value = _load(builder, data, builder.add(at, builder.shl(loop.index, _I64(3))))
            lanes = _lanes_of(builder, marks, first_bit, loop.index, n)
            known = builder.and_(lanes, builder.icmp_signed("!=", value, unknown))
            exact = builder.sitofp(value, _F64S)
            window.add(known, one, value, builder.fmul(exact, exact), value, value)
        window.store(result, out_at, floats, squares_at)
        return context.get_dummy_value()

    return types.void(
        words, types.int64, types.int64, bits, types.int64, out, types.int64, squares, types.int64
    ), generate
