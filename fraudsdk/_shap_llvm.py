"""
Sixteen floats side by side in LLVM: what `fraudsdk._simd_shap` names for kernels, imported when one is compiled.

A `floats16` is one 512-bit register with AVX-512, two registers with AVX2, four with SSE or NEON; the meaning is the same
everywhere.  Only `look_up` differs, and answers the same bits either way.  Which way a kernel is compiled for is a type,
`by_gathers` or `by_permutes`, handed down from its entry point: Numba types a helper once, whichever CPU its kernels are for.
A mask is an uint16, bit k for lane k.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from fraudsdk._simd_shap import LANES, TABLE_FLOATS

_FLOATS: Final = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS: Final = ir.VectorType(ir.IntType(32), LANES)
_FLAGS: Final = ir.VectorType(ir.IntType(1), LANES)
_MASK: Final = ir.IntType(16)
_NO_INTEGERS: Final = ir.Constant(_INTEGERS, [0] * LANES)


class Floats16(types.Type):
    """Type of sixteen float32."""

    def __init__(self) -> None:
        super().__init__("Floats16")


class Integers16(types.Type):
    """Type of sixteen int32."""

    def __init__(self) -> None:
        super().__init__("Integers16")


class _Way(types.Type):
    """A value that is only a type: it chooses how `look_up` is done and costs nothing at run time."""


register_model(_Way)(models.OpaqueModel)


@register_model(Floats16)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


@register_model(Integers16)
class _IntegersModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _INTEGERS)


floats16: Final = Floats16()
integers16: Final = Integers16()
_gathering: Final = _Way("by_gathers")
_permuting: Final = _Way("by_permutes")


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _loading(result: Any, vector: Any) -> Callable[..., Any]:
    @intrinsic
    def load(typing_context, array, index):
        def generate(context, builder, signature, arguments):
            address = _address(context, builder, signature.args[0], arguments[0], arguments[1], vector)
            return builder.load(address, align=4)

        return result(array, types.intp), generate

    return load


def _storing(kind: Any, vector: Any) -> Callable[..., Any]:
    @intrinsic
    def store(typing_context, array, index, value):
        def generate(context, builder, signature, arguments):
            address = _address(context, builder, signature.args[0], arguments[0], arguments[1], vector)
            builder.store(arguments[2], address, align=4)
            return context.get_dummy_value()

        return types.void(array, types.intp, kind), generate

    return store


def _lane_by_lane(operation: str, kind: Any) -> Callable[..., Any]:
    @intrinsic
    def combine(typing_context, left, right):
        def generate(context, builder, signature, arguments):
            return getattr(builder, operation)(arguments[0], arguments[1])

        return kind(kind, kind), generate

    return combine


def _choosing(kind: Any) -> Callable[..., Any]:
    @intrinsic
    def choose(typing_context, mask, if_set, if_clear):
        def generate(context, builder, signature, arguments):
            flags = builder.bitcast(arguments[0], _FLAGS)
            return builder.select(flags, arguments[1], arguments[2])

        return kind(types.uint16, kind, kind), generate

    return choose


# f(array, index): elements ``array[index : index + 16]``; the array holds 32-bit words of that type.
load_floats = _loading(floats16, _FLOATS)
load_integers = _loading(integers16, _INTEGERS)
# f(array, index, value)
store_floats = _storing(floats16, _FLOATS)
store_integers = _storing(integers16, _INTEGERS)
# f(left, right), lane by lane
add = _lane_by_lane("fadd", floats16)
subtract = _lane_by_lane("fsub", floats16)
multiply = _lane_by_lane("fmul", floats16)
divide = _lane_by_lane("fdiv", floats16)
union = _lane_by_lane("or_", integers16)
# f(mask, if_set, if_clear)
choose_floats = _choosing(floats16)
choose_integers = _choosing(integers16)


def _repeated(builder: Any, scalar: Any, vector: Any) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), _NO_INTEGERS)


@intrinsic
def repeat(typing_context, scalar):
    """The same float32 in every lane."""

    def generate(context, builder, signature, arguments):
        return _repeated(builder, arguments[0], _FLOATS)

    return floats16(types.float32), generate


@intrinsic
def no_bits(typing_context):
    """Zero in every integer lane."""

    def generate(context, builder, signature, arguments):
        return _NO_INTEGERS

    return integers16(), generate


@intrinsic
def multiply_add(typing_context, left, right, addend):
    """``left * right + addend``, rounded once where the CPU has such an instruction and twice where it has none."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        return builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v16f32"), list(arguments)
        )

    return floats16(floats16, floats16, floats16), generate


@intrinsic
def less_than(typing_context, left, right):
    """Mask of the lanes where left < right; NaN is less than nothing."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.fcmp_ordered("<", arguments[0], arguments[1]), _MASK)

    return types.uint16(floats16, floats16), generate


@intrinsic
def missing(typing_context, value):
    """Mask of the lanes that are NaN."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.fcmp_unordered("uno", arguments[0], arguments[0]), _MASK)

    return types.uint16(floats16), generate


@intrinsic
def disjoint(typing_context, left, right):
    """Mask of the lanes whose integers have no bit in common."""

    def generate(context, builder, signature, arguments):
        common = builder.and_(arguments[0], arguments[1])
        return builder.bitcast(builder.icmp_signed("==", common, _NO_INTEGERS), _MASK)

    return types.uint16(integers16, integers16), generate


@intrinsic
def gather(typing_context, array, positions):
    """``array[position]`` in each lane."""

    def generate(context, builder, signature, arguments):
        return _gathered(context, builder, signature.args[0], arguments[0], arguments[1])

    return floats16(array, integers16), generate


def _choice(way: _Way) -> Callable[..., Any]:
    @intrinsic
    def chosen(typing_context):
        def generate(context, builder, signature, arguments):
            return context.get_dummy_value()

        return way(), generate

    return chosen


# f(), for entry points to hand down.
by_gathers = _choice(_gathering)
by_permutes = _choice(_permuting)


@intrinsic
def look_up(typing_context, way, array, positions, a, b, c, d, e, f, g, h):
    """
    ``array[position]`` in each lane, for positions below `TABLE_FLOATS`.

    Registers a to h hold these 128 floats too: with AVX-512 four permutes replace sixteen loads.
    """

    def generate(context, builder, signature, arguments):
        if way is not _permuting:
            return _gathered(context, builder, signature.args[1], arguments[1], arguments[2])
        positions = arguments[2]
        pairs = [
            _permuted(builder, arguments[k], positions, arguments[k + 1])
            for k in range(3, 3 + TABLE_FLOATS // LANES, 2)
        ]
        odd_pair, upper_half = _has_bit(builder, positions, 32), _has_bit(builder, positions, 64)
        return builder.select(
            upper_half,
            builder.select(odd_pair, pairs[3], pairs[2]),
            builder.select(odd_pair, pairs[1], pairs[0]),
        )

    return floats16(way, array, integers16, *[floats16] * 8), generate


def _gathered(context: Any, builder: Any, kind: Any, array: Any, positions: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    result = ir.Constant(_FLOATS, ir.Undefined)
    for lane in range(LANES):
        position = builder.extract_element(positions, ir.IntType(32)(lane))
        address = builder.gep(data, [builder.zext(position, ir.IntType(64))])
        result = builder.insert_element(result, builder.load(address), ir.IntType(32)(lane))
    return result


def _permuted(builder: Any, low: Any, positions: Any, high: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS, _INTEGERS, _FLOATS])
    name = "llvm.x86.avx512.vpermi2var.ps.512"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [low, positions, high])


def _has_bit(builder: Any, integers: Any, bit: int) -> Any:
    bits = ir.Constant(_INTEGERS, [bit] * LANES)
    return builder.icmp_signed("!=", builder.and_(integers, bits), _NO_INTEGERS)
