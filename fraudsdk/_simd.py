"""
Vector registers inside kernels: what they are called here; what each does is said in `fraudsdk._simd_llvm`.

Kernels that use these work on addresses, as a table of many parts is one argument then.  A kernel for an instruction set says
so (``kernel(..., needs=AVX512)``): LLVM ends the process when it is asked for an instruction that the target lacks.
"""

from __future__ import annotations

from typing import Any, Final

from fraudsdk._jit import Deferred, deferred
from fraudsdk._loader import host_has
from fraudsdk.errors import ConfigurationError

AVX512: Final = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "bmi2", "popcnt")
AVX2: Final = ("avx2", "bmi2", "popcnt")


def supports(instruction_set: tuple[str, ...]) -> bool:
    """Whether this CPU has an instruction set."""
    return host_has(instruction_set)


def require(instruction_set: tuple[str, ...]) -> None:
    """
    Refuse to go on where an instruction set is absent.

    Raises
    ------
    ConfigurationError
        Names what the CPU lacks.
    """
    missing = [name for name in instruction_set if not supports((name,))]
    if missing:
        raise ConfigurationError(f"this CPU lacks {', '.join(missing)}; let the engine be chosen, or force another")


def on_stack(n_bytes: int) -> Any:
    """For kernels to call: the address of `n_bytes` on their own stack, aligned for any register, until they return."""
    return Deferred(lambda: deferred("fraudsdk._simd_llvm:on_stack").made(n_bytes))


in_its_own_frame = deferred("fraudsdk._simd_llvm:in_its_own_frame")
load_bytes = deferred("fraudsdk._simd_llvm:load_bytes")
load_floats = deferred("fraudsdk._simd_llvm:load_floats")
load_float32 = deferred("fraudsdk._simd_llvm:load_float32")
load_int64 = deferred("fraudsdk._simd_llvm:load_int64")
load_int32 = deferred("fraudsdk._simd_llvm:load_int32")
load_uint16 = deferred("fraudsdk._simd_llvm:load_uint16")
clear_bytes = deferred("fraudsdk._simd_llvm:clear_bytes")
unite_bytes = deferred("fraudsdk._simd_llvm:unite_bytes")
store_uint8 = deferred("fraudsdk._simd_llvm:store_uint8")
store_float32 = deferred("fraudsdk._simd_llvm:store_float32")
address_of = deferred("fraudsdk._simd_llvm:address_of")
int32_array = deferred("fraudsdk._simd_llvm:int32_array")
float32_array = deferred("fraudsdk._simd_llvm:float32_array")
shifted_right = deferred("fraudsdk._simd_llvm:shifted_right")
count_at_most = deferred("fraudsdk._simd_llvm:count_at_most")
plus_sign_bit = deferred("fraudsdk._simd_llvm:plus_sign_bit")
at_least = deferred("fraudsdk._simd_llvm:at_least")
spread = deferred("fraudsdk._simd_llvm:spread")
shares_bit = deferred("fraudsdk._simd_llvm:shares_bit")
replaced_where_equal = deferred("fraudsdk._simd_llvm:replaced_where_equal")
avx512 = deferred("fraudsdk._simd_llvm:avx512")
avx2 = deferred("fraudsdk._simd_llvm:avx2")
fetched = deferred("fraudsdk._simd_llvm:fetched")
fetched_half = deferred("fraudsdk._simd_llvm:fetched_half")
four_eights = deferred("fraudsdk._simd_llvm:four_eights")
picked_from_eights = deferred("fraudsdk._simd_llvm:picked_from_eights")
