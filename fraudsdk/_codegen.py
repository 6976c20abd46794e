"""
From a Python function and its signature to machine code in an object file: the only module that makes Numba compile.

The object holds the function and, around it, a C function of CPython's fast calling convention:

    PyObject *entry(PyObject *self, PyObject *const *args, Py_ssize_t n_args)

which checks each argument, calls, and wraps the result.  Numba's own wrapper needs Numba in the process, allocates a
reference-counted record per array and looks the overload up by the types of all arguments; this one needs CPython and
the layout of an array object, which is compared with an array before anything is compiled, and is loaded by
`fraudsdk._loader` without Numba.

Imported only when something has to be compiled: `import numba` takes longer than loading everything that was compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from ctypes import c_int32, c_int64, string_at
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import cgutils, compiler, sigutils, types
from numba.core.codegen import AOTCodeLibrary, AOTCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.types.containers import BaseTuple
from numba.np.arrayobj import populate_array

from fraudsdk._kernel_cache import CompiledObject
from fraudsdk._loader import ENTRY_SYMBOL, NATIVE_SYMBOL, NDARRAY_SYMBOL, Target, host_target
from fraudsdk.errors import ConfigurationError

FLAGS: Final[dict[str, Any]] = {
    "error_model": "numpy",  # x / 0 is inf or NaN, as in the training code; no branch per division
    "fastmath": False,  # NaN means "missing" here, and fastmath may assume there are none
}

_SCALARS: Final = (types.int64, types.float64, types.float32)

_WORD: Final = ir.IntType(64)
_INT: Final = ir.IntType(32)
_BYTE: Final = ir.IntType(8)
_POINTER: Final = _BYTE.as_pointer()
_DOUBLE: Final = ir.DoubleType()

# Offsets in PyArrayObject and PyArray_Descr, in bytes, on 64 bits since NumPy 2.0; `_array_layout_is_known` looks.
_OBJECT_TYPE: Final = 8
_ARRAY_DATA, _ARRAY_NDIM, _ARRAY_SHAPE, _ARRAY_STRIDES, _ARRAY_DESCR, _ARRAY_FLAGS = 16, 24, 32, 40, 56, 64
_DESCR_KIND, _DESCR_ORDER, _DESCR_ITEMSIZE = 24, 26, 40
_C_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x0001, 0x0100, 0x0400

# The five functions of Numba's runtime that a kernel with scratch arrays, or with a message to format, calls.  Defined here
# so that code can be loaded without Numba, and so that LLVM sees through them.  A record in front of the data is what
# Numba's code reads: count, destructor and its argument, address and size of the data, allocator (none).
_RUNTIME: Final = """
declare noalias ptr @malloc(i64)
declare void @free(ptr)

define ptr @NRT_Allocate(i64 %size) {
  %base = call ptr @malloc(i64 %size)
  ret ptr %base
}

define void @NRT_Free(ptr %base) {
  call void @free(ptr %base)
  ret void
}

define ptr @NRT_MemInfo_alloc(i64 %size) {
  %record = call ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 16)
  ret ptr %record
}

define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %alignment = zext i32 %align to i64
  %head = add i64 %alignment, 48
  %total = add i64 %head, %size
  %overflows = icmp ult i64 %total, %size
  br i1 %overflows, label %failed, label %allocate
allocate:
  %record = call ptr @malloc(i64 %total)
  %is_null = icmp eq ptr %record, null
  br i1 %is_null, label %failed, label %fill
fill:
  %start = ptrtoint ptr %record to i64
  %unaligned = add i64 %start, 48
  %below = add i64 %alignment, -1
  %raised = add i64 %unaligned, %below
  %mask = sub i64 0, %alignment
  %address = and i64 %raised, %mask
  %data = inttoptr i64 %address to ptr
  store i64 1, ptr %record
  %destructor_at = getelementptr i8, ptr %record, i64 8
  store ptr null, ptr %destructor_at
  %argument_at = getelementptr i8, ptr %record, i64 16
  store ptr null, ptr %argument_at
  %data_at = getelementptr i8, ptr %record, i64 24
  store ptr %data, ptr %data_at
  %size_at = getelementptr i8, ptr %record, i64 32
  store i64 %size, ptr %size_at
  %allocator_at = getelementptr i8, ptr %record, i64 40
  store ptr null, ptr %allocator_at
  ret ptr %record
failed:
  ret ptr null
}

define void @NRT_MemInfo_call_dtor(ptr %record) {
  call void @free(ptr %record)
  ret void
}
"""


class _Library(AOTCodeLibrary):  # type: ignore[misc]
    """A library of which only its entries can be seen from outside, once it has one."""

    def _optimize_final_module(self) -> None:
        defined = [function for function in self._final_module.functions if not function.is_declaration]
        if any(function.name == ENTRY_SYMBOL for function in defined):
            # LLVM then sees that no array has an owner: reference counting goes, and Numba's runtime with it.
            for function in defined:
                if function.name not in (ENTRY_SYMBOL, NATIVE_SYMBOL):
                    function.linkage = "internal"
        super()._optimize_final_module()


class _Codegen(AOTCPUCodegen):  # type: ignore[misc]
    """Emits object files for a stated CPU that the loader can place anywhere in memory."""

    _library_class = _Library

    def __init__(self, target: Target) -> None:
        self._target = target
        super().__init__("fraudsdk", cpu_name=target.cpu)

    def _customize_tm_options(self, options: dict[str, Any]) -> None:
        super()._customize_tm_options(options)
        # Code and what it calls may lie over 2 GiB apart.
        options.update(reloc="static", codemodel="jitdefault", jit=True)

    def _customize_tm_features(self) -> str:
        return self._target.features


@functools.cache
def _codegen_of_helpers() -> _Codegen:
    """Emits nothing by itself, unlike Numba's own, which does so when one helper calls another."""
    return _Codegen(host_target())


class _TypedOnly(compiler.Compiler):  # type: ignore[misc]
    """
    Numba's compiler without its last step, machine code for this process.

    A helper is compiled again with each kernel that inlines it, and for that kernel's CPU.  Emitting it for this one as well
    takes long, and ends the process where this CPU lacks the instructions of the one that is compiled for.
    """

    def __init__(self, typing_context: Any, target_context: Any, *rest: Any) -> None:
        context = target_context.subtarget(_internal_codegen=_codegen_of_helpers())
        super().__init__(typing_context, context, *rest)

    def define_pipelines(self) -> Any:
        self.state.flags.no_compile = True
        return super().define_pipelines()

    def compile_extra(self, function: Any) -> Any:
        # Numba knows a function by its entry point.
        return super().compile_extra(function)._replace(entry_point=object())


class _Helper(CPUDispatcher):  # type: ignore[misc]
    """Knows its overloads by type, and has none that Python could call."""

    def add_overload(self, compiled: Any) -> None:
        self.targetctx.insert_user_function(compiled.entry_point, compiled.fndesc, [compiled.library])
        self.overloads[tuple(compiled.signature.args)] = compiled


def dispatcher(function: Callable[..., Any]) -> Any:
    """Numba's dispatcher of a function, to be called from Python or to look at what LLVM makes of it."""
    return numba.njit(nogil=True, **FLAGS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """The dispatcher of a helper for kernels alone: without the two wrappers that Python and C would call it by, and never run."""
    options = {
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "nopython": True,
        "nogil": True,
        "forceinline": True,
    }
    return _Helper(function, targetoptions=options | FLAGS, pipeline_class=_TypedOnly)


@global_compiler_lock  # type: ignore[untyped-decorator]
def compile_object(
    function: Callable[..., Any], signature: str, name: str, *, nogil: bool, target: Target
) -> CompiledObject:
    """
    Compile one kernel.

    Parameters
    ----------
    function : callable
        Plain Python; what it calls may be marked `kernel` or `device`.
    signature : str
        ``"float64(int64, float32[::1])"``: arrays, 64-bit integers, floats and booleans; one of them, a tuple of them, or
        nothing as the result.
    name : str
        For messages.
    nogil : bool
        Whether other threads may run Python meanwhile.
    target : Target
        CPU to compile for.

    Raises
    ------
    ConfigurationError
        Numba has been told not to compile, or NumPy keeps its arrays in another way than is known here.
    """
    if numba.config.DISABLE_JIT:
        raise ConfigurationError("NUMBA_DISABLE_JIT is set, so that no kernel can be compiled; unset it")
    if not _array_layout_is_known():
        raise ConfigurationError(
            f"arrays of NumPy {np.__version__} are laid out in another way than kernels read them; "
            "install a NumPy that fraudsdk names in its requirements"
        )
    args, result = sigutils.normalize_signature(signature)
    context = cpu_target.target_context.subtarget(_internal_codegen=_Codegen(target), aot_mode=True)
    context.refresh()
    cpu_target.typing_context.refresh()
    library = context.codegen().create_library(name)
    compiled = compiler.compile_extra(
        cpu_target.typing_context, context, function, args, result, _flags(), locals={}, library=library
    )
    module = library.create_ir_module("entry")
    _Entry(context, module, compiled, name, nogil=nogil).build()
    has_native = _add_native(context, module, compiled)
    library.add_ir_module(module)
    library.add_llvm_module(llvm.parse_assembly(_RUNTIME))
    code = library.emit_native_object()
    return CompiledObject(code, _externals(library), has_native)


def _array_layout_is_known() -> bool:
    return all(
        _is_where_expected(array) for array in (np.zeros((2, 3)), np.zeros(5, np.int8), np.zeros((1, 1, 7), "f4"))
    )


def _is_where_expected(array: npt.NDArray[Any]) -> bool:
    place, described, n = id(array), id(array.dtype), array.ndim
    order = "|" if array.itemsize == 1 else "="
    shape = _word_at(place + _ARRAY_SHAPE)
    # Addresses are followed last: of an unknown layout they would be none.
    return (
        (_word_at(place + _OBJECT_TYPE), _word_at(place + _ARRAY_DATA)) == (id(np.ndarray), array.ctypes.data)
        and c_int32.from_address(place + _ARRAY_NDIM).value == n
        and _word_at(place + _ARRAY_DESCR) == described
        and c_int32.from_address(place + _ARRAY_FLAGS).value == array.flags.num
        and string_at(described + _DESCR_KIND, 1) == array.dtype.kind.encode()
        and string_at(described + _DESCR_ORDER, 1) == order.encode()
        and _word_at(described + _DESCR_ITEMSIZE) == array.itemsize
        and _word_at(place + _ARRAY_STRIDES) == shape + 8 * n
        and [_word_at(shape + 8 * axis) for axis in range(2 * n)] == [*array.shape, *array.strides]
    )


def _word_at(address: int) -> int:
    return c_int64.from_address(address).value


def type_of(thing: Any) -> Any:
    """Numba's type of something that a kernel names."""
    cpu_target.typing_context.refresh()
    return cpu_target.typing_context.resolve_value_type(thing)


def _flags() -> Any:
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = True
    flags.error_model = FLAGS["error_model"]
    return flags


def _externals(library: Any) -> tuple[str, ...]:
    module = library._final_module
    declared = [function.name for function in module.functions if function.is_declaration]
    declared += [variable.name for variable in module.global_variables if variable.is_declaration]
    return tuple(sorted(name for name in declared if not name.startswith("llvm.")))


def _add_native(context: Any, module: ir.Module, compiled: Any) -> bool:
    """A C function of the same scalars; False for a kernel of anything else."""
    args, result = compiled.signature.args, compiled.signature.return_type
    if any(type_ not in _SCALARS for type_ in (*args, result)):
        return False
    function_type = ir.FunctionType(context.get_value_type(result), [context.get_value_type(type_) for type_ in args])
    function = ir.Function(module, function_type, NATIVE_SYMBOL)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    convention = context.call_conv
    callee = cgutils.get_or_insert_function(
        module, convention.get_function_type(result, args), compiled.fndesc.llvm_func_name
    )
    # There is nobody to tell of an error: kernels are not to raise.
    _, value = convention.call_function(builder, callee, result, args, function.args)
    builder.ret(value)
    return True


class _Entry:
    """Builds the C function around one compiled kernel."""

    def __init__(self, context: Any, module: ir.Module, compiled: Any, name: str, *, nogil: bool) -> None:
        self._context = context
        self._module = module
        self._name = name
        self._nogil = nogil
        self._args = compiled.signature.args
        self._result = compiled.signature.return_type
        self._callee = compiled.fndesc.llvm_func_name
        function_type = ir.FunctionType(_POINTER, [_POINTER, _POINTER.as_pointer(), _WORD])
        self._function = ir.Function(module, function_type, ENTRY_SYMBOL)
        self._builder = ir.IRBuilder(self._function.append_basic_block("entry"))

    def build(self) -> None:
        builder = self._builder
        _, given, n_given = self._function.args
        with builder.if_then(builder.icmp_signed("!=", n_given, _WORD(len(self._args))), likely=False):
            self._refuse(f"{self._name} takes {len(self._args)} arguments, by position")
        values = []
        for i, type_ in enumerate(self._args):
            argument = builder.load(builder.gep(given, [_WORD(i)]))
            values.append(self._unwrapped(type_, argument, i))
        state = self._c_call("PyEval_SaveThread", _POINTER, []) if self._nogil else None
        status, value = self._call(values)
        if state is not None:
            self._c_call("PyEval_RestoreThread", ir.VoidType(), [state])
        with builder.if_then(status.is_error, likely=False):
            self._raise("PyExc_SystemError", f"{self._name} failed; kernels are not to raise")
        builder.ret(self._wrapped(self._result, value))

    def _call(self, values: list[Any]) -> Any:
        convention = self._context.call_conv
        callee_type = convention.get_function_type(self._result, self._args)
        callee = cgutils.get_or_insert_function(self._module, callee_type, self._callee)
        return convention.call_function(self._builder, callee, self._result, self._args, values)

    # --- arguments ---------------------------------------------------------------------------------------------------

    def _unwrapped(self, type_: Any, argument: Any, i: int) -> Any:
        if isinstance(type_, types.Array):
            return self._array(type_, argument, i)
        if type_ == types.int64:
            return self._number("PyLong_AsLongLong", _WORD, argument)
        if type_ == types.float64:
            return self._number("PyFloat_AsDouble", _DOUBLE, argument)
        if type_ == types.float32:
            return self._builder.fptrunc(self._number("PyFloat_AsDouble", _DOUBLE, argument), ir.FloatType())
        raise TypeError(f"{self._name}: argument {i} is {type_}; kernels take arrays, int64, float64 and float32")

    def _number(self, convert: str, type_: ir.Type, argument: Any) -> Any:
        """An error is -1 *and* a pending exception, which only then has to be asked for."""
        builder = self._builder
        value = self._c_call(convert, type_, [argument])
        if type_ is _WORD:
            suspect = builder.icmp_signed("==", value, type_(-1))
        else:
            suspect = builder.fcmp_ordered("==", value, type_(-1.0))
        with builder.if_then(suspect, likely=False):
            pending = self._c_call("PyErr_Occurred", _POINTER, [])
            with builder.if_then(cgutils.is_not_null(builder, pending)):
                builder.ret(_POINTER(None))
        return value

    def _array(self, type_: Any, argument: Any, i: int) -> Any:
        if type_.layout != "C" or not type_.aligned:
            raise TypeError(f"{self._name}: argument {i} is {type_}; kernels take C-contiguous arrays")
        self._check_array(type_, argument, i)
        builder, context = self._builder, self._context
        shape = self._words(argument, _ARRAY_SHAPE, type_.ndim)
        strides = self._words(argument, _ARRAY_STRIDES, type_.ndim)
        array = context.make_array(type_)(context, builder)
        data = builder.bitcast(self._field(argument, _ARRAY_DATA, _POINTER), array.data.type)
        # Without an owner: the caller holds its arguments until the call returns.
        populate_array(array, data, shape, strides, context.get_abi_sizeof(array.data.type.pointee), None)
        return array._getvalue()

    def _check_array(self, type_: Any, argument: Any, i: int) -> None:
        builder = self._builder
        problem = (
            f"argument {i} of {self._name} must be a {'' if not type_.mutable else 'writable '}{_described(type_)}"
        )
        actual = self._field(argument, _OBJECT_TYPE, _POINTER)
        ndarray = self._global(NDARRAY_SYMBOL)
        with builder.if_then(builder.icmp_unsigned("!=", actual, ndarray), likely=False):
            derived = self._c_call("PyType_IsSubtype", _INT, [actual, ndarray])
            with builder.if_then(builder.icmp_signed("==", derived, _INT(0))):
                self._refuse(problem)
        wanted_flags = _C_CONTIGUOUS | _ALIGNED | (_WRITEABLE if type_.mutable else 0)
        flags = builder.and_(self._field(argument, _ARRAY_FLAGS, _INT), _INT(wanted_flags))
        descr = self._field(argument, _ARRAY_DESCR, _POINTER)
        dtype = _numpy_dtype(type_)
        order = self._field(descr, _DESCR_ORDER, _BYTE)
        checks = [
            builder.icmp_signed("==", self._field(argument, _ARRAY_NDIM, _INT), _INT(type_.ndim)),
            builder.icmp_signed("==", flags, _INT(wanted_flags)),
            builder.icmp_signed("==", self._field(descr, _DESCR_KIND, _BYTE), _BYTE(ord(dtype.kind))),
            builder.icmp_signed("==", self._field(descr, _DESCR_ITEMSIZE, _WORD), _WORD(dtype.itemsize)),
            builder.or_(
                builder.icmp_signed("==", order, _BYTE(ord("="))), builder.icmp_signed("==", order, _BYTE(ord("|")))
            ),
        ]
        right = checks[0]
        for check in checks[1:]:
            right = builder.and_(right, check)
        with builder.if_then(builder.not_(right), likely=False):
            self._refuse(problem)

    def _words(self, argument: Any, offset: int, n: int) -> list[Any]:
        first = self._field(argument, offset, _WORD.as_pointer())
        return [self._builder.load(self._builder.gep(first, [_WORD(axis)])) for axis in range(n)]

    def _field(self, address: Any, offset: int, type_: ir.Type) -> Any:
        place = self._builder.gep(address, [_WORD(offset)])
        return self._builder.load(self._builder.bitcast(place, type_.as_pointer()))

    # --- results -----------------------------------------------------------------------------------------------------

    def _wrapped(self, type_: Any, value: Any) -> Any:
        builder = self._builder
        if type_ == types.none:
            none = self._global("_Py_NoneStruct")
            self._c_call("Py_IncRef", ir.VoidType(), [none])
            return none
        if type_ == types.int64:
            return self._c_call("PyLong_FromLongLong", _POINTER, [value])
        if type_ == types.float64:
            return self._c_call("PyFloat_FromDouble", _POINTER, [value])
        if type_ == types.float32:
            return self._c_call("PyFloat_FromDouble", _POINTER, [builder.fpext(value, _DOUBLE)])
        if type_ == types.boolean:
            return self._c_call("PyBool_FromLong", _POINTER, [builder.zext(value, _WORD)])
        if isinstance(type_, BaseTuple):
            return self._wrapped_tuple(type_, value)
        raise TypeError(
            f"{self._name} returns {type_}; kernels return int64, floats, booleans, tuples of them, or nothing"
        )

    def _wrapped_tuple(self, type_: Any, value: Any) -> Any:
        # Small numbers can only fail to be made when there is no memory at all: PyTuple_SetItem refuses no null.
        result = self._c_call("PyTuple_New", _POINTER, [_WORD(len(type_))])
        with self._builder.if_then(cgutils.is_null(self._builder, result), likely=False):
            self._builder.ret(_POINTER(None))
        for i, each in enumerate(type_):
            item = self._wrapped(each, self._builder.extract_value(value, i))
            self._c_call("PyTuple_SetItem", _INT, [result, _WORD(i), item])
        return result

    # --- the process around it ---------------------------------------------------------------------------------------

    def _refuse(self, problem: str) -> None:
        self._raise("PyExc_TypeError", problem)

    def _raise(self, kind: str, message: str) -> None:
        exception = self._builder.load(self._global(kind, _POINTER))
        text = self._builder.bitcast(cgutils.global_constant(self._module, "message", _text(message)), _POINTER)
        self._c_call("PyErr_SetString", ir.VoidType(), [exception, text])
        self._builder.ret(_POINTER(None))

    def _global(self, name: str, type_: ir.Type = _BYTE) -> Any:
        if name not in self._module.globals:
            ir.GlobalVariable(self._module, type_, name)
        return self._module.globals[name]

    def _c_call(self, name: str, result: ir.Type, arguments: list[Any]) -> Any:
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        return self._builder.call(cgutils.get_or_insert_function(self._module, function_type, name), arguments)


def _text(message: str) -> ir.Constant:
    encoded = bytearray(message.encode() + b"\0")
    return ir.Constant(ir.ArrayType(_BYTE, len(encoded)), encoded)


def _numpy_dtype(type_: Any) -> Any:
    return numba.np.numpy_support.as_dtype(type_.dtype)


def _described(type_: Any) -> str:
    axes = ", ".join([":"] * (type_.ndim - 1) + ["::1"])
    return f"C-contiguous {type_.dtype}[{axes}]"
