"""
Vector registers in LLVM: what `fraudsdk._simd` names for kernels, imported when one is compiled.

Numba knows neither vector types nor byte permutes, and LLVM does not find them by itself in a loop over bytes.  The byte
permute exists once per instruction set.  Which one a kernel is compiled for is a type, `avx512` or `avx2`, handed down from its
entry point: a kernel holds the instructions of one set only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj

_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTES: Final = 64
_HALF: Final = 32
_FLOATS: Final = 16


class _Vector(types.Type):
    def __init__(self, name: str, element: ir.Type, count: int) -> None:
        self.llvm = ir.VectorType(element, count)
        super().__init__(name=name)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: _Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


class _InstructionSet(types.Type):
    """A value that is only a type: it chooses among intrinsics and costs nothing at run time."""


register_model(_InstructionSet)(models.OpaqueModel)

bytes64: Final = _Vector("bytes64", _I8, _BYTES)
bytes32: Final = _Vector("bytes32", _I8, _HALF)
floats16: Final = _Vector("floats16", _F32, _FLOATS)
_avx512: Final = _InstructionSet("avx512")
_avx2: Final = _InstructionSet("avx2")


def _splat(value: int, vector: ir.VectorType) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _at(builder: Any, address: Any, llvm_type: ir.Type) -> Any:
    return builder.inttoptr(address, llvm_type.as_pointer())


def _loader(numba_type: Any, stored: ir.Type, align: int, extend: Callable[..., Any] | None = None) -> Any:
    @intrinsic
    def load(typing_context, address):
        def generate(context, builder, signature, arguments):
            value = builder.load(_at(builder, arguments[0], stored))
            value.align = align
            return value if extend is None else extend(builder, value, _I64)

        return numba_type(types.int64), generate

    return load


def _unsigned(builder: Any, value: Any, to: ir.Type) -> Any:
    return builder.zext(value, to)


def _signed(builder: Any, value: Any, to: ir.Type) -> Any:
    return builder.sext(value, to)


load_bytes = _loader(bytes64, bytes64.llvm, _BYTES)
load_floats = _loader(floats16, floats16.llvm, _BYTES)
load_float32 = _loader(types.float32, _F32, 4)
load_int64 = _loader(types.int64, _I64, 8)
load_int32 = _loader(types.int64, _I32, 4, _signed)
load_uint16 = _loader(types.int64, _I16, 2, _unsigned)


@intrinsic
def store_uint8(typing_context, address, value):
    """Write the low byte of a value."""

    def generate(context, builder, signature, arguments):
        builder.store(builder.trunc(arguments[1], _I8), _at(builder, arguments[0], _I8))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def store_float32(typing_context, address, value):
    """Write a float32."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[1], _at(builder, arguments[0], _F32))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@intrinsic
def in_its_own_frame(typing_context):
    """The device function that says this is called, not inlined."""

    def generate(context, builder, signature, arguments):
        builder.function.attributes.discard("alwaysinline")
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def clear_bytes(typing_context, address):
    """Write 64 zeros."""

    def generate(context, builder, signature, arguments):
        zeros = builder.store(_splat(0, bytes64.llvm), _at(builder, arguments[0], bytes64.llvm))
        zeros.align = _BYTES
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def unite_bytes(typing_context, address, first, second, third, fourth):
    """Add the bits of 64 bytes at each of four addresses to those at `address`."""

    def generate(context, builder, signature, arguments):
        places = [_at(builder, argument, bytes64.llvm) for argument in arguments]
        loaded = [builder.load(place) for place in places]
        united = builder.store(functools.reduce(builder.or_, loaded), places[0])
        for each in (*loaded, united):
            each.align = _BYTES
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


def on_stack(n_bytes: int) -> Any:
    """For kernels to call: the address of `n_bytes` on their own stack, aligned for any register, until they return."""

    @intrinsic
    def buffer(typing_context):
        def generate(context, builder, signature, arguments):
            # Numba's own `alloca_once` also writes zeros: 16 KB of them take longer than the walk that follows.
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(_I8, n_bytes))
            memory.align = _BYTES
            return builder.ptrtoint(memory, _I64)

        return types.int64(), generate

    return buffer


@intrinsic
def address_of(typing_context, array):
    """Address of an array's first element; the caller keeps the array alive."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(view.data, _I64)

    return types.int64(array), generate


def _array_at(element: Any, n_bytes: int) -> Any:
    @intrinsic
    def array_at(typing_context, address, size):
        array_type = types.Array(element, 1, "C")

        def generate(context, builder, signature, arguments):
            array = context.make_array(array_type)(context, builder)
            width = context.get_constant(types.intp, n_bytes)
            data = builder.inttoptr(arguments[0], array.data.type)
            arrayobj.populate_array(
                array, data=data, shape=[arguments[1]], strides=[width], itemsize=width, meminfo=None
            )
            return array._getvalue()

        return array_type(types.int64, types.int64), generate

    return array_at


int32_array = _array_at(types.int32, 4)  # (address, size): a view that owns nothing
float32_array = _array_at(types.float32, 4)


@intrinsic
def shifted_right(typing_context, value, count):
    """Logical shift by ``count & 63``, which is what the instruction does."""

    def generate(context, builder, signature, arguments):
        return builder.lshr(arguments[0], builder.and_(arguments[1], ir.Constant(_I64, 63)))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def count_at_most(typing_context, cuts, value):
    """How many of 16 cuts are at most `value`.  A NaN on either side is not."""

    def generate(context, builder, signature, arguments):
        undefined = ir.Constant(floats16.llvm, ir.Undefined)
        first = builder.insert_element(undefined, arguments[1], ir.Constant(_I32, 0))
        everywhere = builder.shuffle_vector(first, undefined, _splat(0, ir.VectorType(_I32, _FLOATS)))
        passed = builder.bitcast(builder.fcmp_ordered(">=", everywhere, arguments[0]), ir.IntType(_FLOATS))
        return builder.ctpop(builder.zext(passed, _I64))

    return types.int64(floats16, types.float32), generate


@intrinsic
def plus_sign_bit(typing_context, values, flags):
    """Bytes plus one where the byte of `flags` has its highest bit; 255 becomes 0."""

    def generate(context, builder, signature, arguments):
        marked = builder.icmp_signed("<", arguments[1], _splat(0, values.llvm))
        return builder.sub(arguments[0], builder.sext(marked, values.llvm))

    return values(values, values), generate


def _comparison(compare: Callable[..., Any]) -> Any:
    @intrinsic
    def mask(typing_context, left, right):
        def generate(context, builder, signature, arguments):
            mask = builder.bitcast(compare(builder, *arguments), ir.IntType(left.llvm.count))
            return mask if left is bytes64 else builder.zext(mask, _I64)

        return types.int64(left, left), generate

    return mask


def _is_at_least(builder: Any, left: Any, right: Any) -> Any:
    return builder.icmp_unsigned(">=", left, right)


def _shares_a_bit(builder: Any, left: Any, right: Any) -> Any:
    return builder.icmp_unsigned("!=", builder.and_(left, right), _splat(0, left.type))


at_least = _comparison(_is_at_least)  # bit k: byte k of the first is at least byte k of the second, unsigned
shares_bit = _comparison(_shares_a_bit)  # bit k: byte k of both have a bit in common


@intrinsic
def replaced_where_equal(typing_context, values, others, keys, key):
    """`values`, with those of `others` where the byte of `keys` is `key`."""

    def generate(context, builder, signature, arguments):
        undefined = ir.Constant(values.llvm, ir.Undefined)
        first = builder.insert_element(undefined, builder.trunc(arguments[3], _I8), ir.Constant(_I32, 0))
        everywhere = builder.shuffle_vector(first, undefined, _splat(0, ir.VectorType(_I32, values.llvm.count)))
        return builder.select(builder.icmp_unsigned("==", arguments[2], everywhere), arguments[1], arguments[0])

    return values(values, values, values, types.int64), generate


def _instruction_set(chosen: _InstructionSet) -> Any:
    @intrinsic
    def choose(typing_context):
        def generate(context, builder, signature, arguments):
            return context.get_dummy_value()

        return chosen(), generate

    return choose


avx512 = _instruction_set(_avx512)
avx2 = _instruction_set(_avx2)


@intrinsic
def fetched(typing_context, instruction_set, table, index):
    """Byte ``index & 127`` of the 128 bytes at the address `table`, for each of 64 indexes."""

    def generate(context, builder, signature, arguments):
        emit = _fetch_avx512 if signature.args[0] is _avx512 else _fetch_avx2
        return emit(builder, arguments[1], arguments[2])

    return bytes64(instruction_set, types.int64, bytes64), generate


def _fetch_avx512(builder: Any, table: Any, index: Any) -> Any:
    vector = bytes64.llvm
    permute = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpermi2var.qi.512"
    )
    halves = [builder.load(_at(builder, builder.add(table, ir.Constant(_I64, at)), vector)) for at in (0, _BYTES)]
    return builder.call(permute, [halves[0], index, halves[1]])


def _fetch_avx2(builder: Any, table: Any, index: Any) -> Any:
    parts = _parts_of(builder, table)
    return _joined(builder, [_shuffled(builder, parts, half) for half in _halved(builder, index)])


def _halved(builder: Any, whole: Any) -> list[Any]:
    undefined = ir.Constant(bytes64.llvm, ir.Undefined)
    lanes = ir.VectorType(_I32, _HALF)
    return [
        builder.shuffle_vector(whole, undefined, ir.Constant(lanes, [*range(begin, begin + _HALF)]))
        for begin in (0, _HALF)
    ]


def _joined(builder: Any, halves: list[Any]) -> Any:
    return builder.shuffle_vector(halves[0], halves[1], ir.Constant(ir.VectorType(_I32, _BYTES), [*range(_BYTES)]))


def _parts_of(builder: Any, table: Any) -> list[Any]:
    """The 128 bytes of a table as eight registers, sixteen bytes twice in each."""
    lane = ir.VectorType(_I8, 16)
    twice = ir.Constant(ir.VectorType(_I32, _HALF), [*range(16)] * 2)
    parts = []
    for at in range(0, 128, 16):
        part = builder.load(_at(builder, builder.add(table, ir.Constant(_I64, at)), lane))
        parts.append(builder.shuffle_vector(part, ir.Constant(lane, ir.Undefined), twice))
    return parts


def _shuffled(builder: Any, parts: list[Any], index: Any) -> Any:
    """Eight shuffles of sixteen bytes; bits 4, 5 and 6 of an index choose among them."""
    register, words_type = bytes32.llvm, ir.VectorType(_I16, _HALF // 2)
    shuffle, blend = (
        cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(register, [register] * n), f"llvm.x86.avx2.{name}"
        )
        for name, n in (("pshuf.b", 2), ("pblendvb", 3))
    )
    # A set highest bit would make the shuffle answer zero.
    within = builder.and_(index, _splat(127, register))
    found = [builder.call(shuffle, [part, within]) for part in parts]
    words = builder.bitcast(index, words_type)
    for bit in (4, 5, 6):
        # The blend looks at the highest bit of each byte only; what a shift of words carries into others is no matter.
        chosen = builder.bitcast(builder.shl(words, _splat(7 - bit, words_type)), register)
        found = [builder.call(blend, [found[k], found[k + 1], chosen]) for k in range(0, len(found), 2)]
    return found[0]


@intrinsic
def fetched_half(typing_context, table, index):
    """`fetched` for 32 indexes, with AVX2."""

    def generate(context, builder, signature, arguments):
        return _shuffled(builder, _parts_of(builder, arguments[0]), arguments[1])

    return bytes32(types.int64, bytes32), generate


@intrinsic
def four_eights(typing_context, first, second, third, fourth):
    """Eight bytes from each of four addresses, of any alignment."""

    def generate(context, builder, signature, arguments):
        quarters = ir.Constant(ir.VectorType(_I64, 4), ir.Undefined)
        for k, address in enumerate(arguments):
            eight = builder.load(_at(builder, address, _I64))
            eight.align = 1
            quarters = builder.insert_element(quarters, eight, ir.Constant(_I32, k))
        return builder.bitcast(quarters, bytes32.llvm)

    return bytes32(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def picked_from_eights(typing_context, eights, index):
    """Byte ``index & 7`` of each lane's own eight bytes, with AVX2."""

    def generate(context, builder, signature, arguments):
        return _picked(builder, *arguments)

    return bytes32(bytes32, bytes32), generate


def _picked(builder: Any, eights: Any, index: Any) -> Any:
    shuffle = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(bytes32.llvm, [bytes32.llvm] * 2), "llvm.x86.avx2.pshuf.b"
    )
    within = builder.and_(index, _splat(7, bytes32.llvm))
    # The shuffle looks at sixteen bytes at a time: two eights.
    second = ir.Constant(bytes32.llvm, [k & 8 for k in range(_HALF)])
    return builder.call(shuffle, [eights, builder.or_(within, second)])


@intrinsic
def spread(typing_context, instruction_set, word, lanes, index, bits):
    """
    The bits of a word in the lanes that they belong to.

    With AVX-512 the lowest ones, in order, where `lanes` has its bits (PDEP, which is microcoded and slow on AMD's CPUs before
    Zen 3, that have AVX2 alone); with AVX2, by lane, what byte ``index & 7`` of the word and the byte of `bits` share.
    """

    def generate(context, builder, signature, arguments):
        _, word, lanes, index, bits = arguments
        if signature.args[0] is _avx512:
            deposit = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_I64, [_I64, _I64]), "llvm.x86.bmi.pdep.64"
            )
            return builder.call(deposit, [word, lanes])
        first = builder.insert_element(ir.Constant(ir.VectorType(_I64, 4), ir.Undefined), word, ir.Constant(_I32, 0))
        eights = builder.bitcast(builder.shuffle_vector(first, first, _splat(0, ir.VectorType(_I32, 4))), bytes32.llvm)
        picked = _joined(builder, [_picked(builder, eights, half) for half in _halved(builder, index)])
        return builder.bitcast(_shares_a_bit(builder, picked, bits), _I64)

    return types.int64(instruction_set, types.int64, types.int64, bytes64, bytes64), generate
