"""
A clock for native code: what a stage of a few hundred nanoseconds can be timed with.

The processor's own counter where it runs at one rate and never stops, else the system's monotonic clock.  Which of them is
decided per process, since the same machine code may run on several machines; `fraudsdk.telemetry.ticks` decides.
"""

from __future__ import annotations

import sys
from typing import Final

from fraudsdk._jit import device, intrinsic, kernel

SYSTEM_CLOCK: Final = 0
CYCLE_COUNTER: Final = 1
# Nanoseconds per tick are a fraction of 2**TICK_SHIFT: exact to 3e-6.
TICK_SHIFT: Final = 20
# Longest pause that is told from a longer one, in ticks: three weeks of a counter of 5 GHz.  A machine that was suspended, or
# moved to another, may seem to have slept for centuries, and an overflow would make a negative number of it, hence a
# bucket of a histogram that does not exist.  Safe for every counter of 1 MHz and more.
LONGEST_TICKS: Final = 1 << 53
_FRACTION: Final = (1 << TICK_SHIFT) - 1

_CLOCK_MONOTONIC: Final = 6 if sys.platform == "darwin" else 1


@intrinsic
def _cycles(typing_context):  # type: ignore[no-untyped-def]
    """The processor's counter: TSC on x86-64, the virtual timer on ARM, whose cycle counter is closed to programs."""
    from llvmlite import ir
    from numba.core import types

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        is_x86 = builder.module.triple.startswith(("x86_64", "i686"))
        name = "llvm.readcyclecounter" if is_x86 else "llvm.readsteadycounter"
        return builder.call(builder.module.declare_intrinsic(name, fnty=ir.FunctionType(ir.IntType(64), [])), [])

    return types.int64(), generate


@intrinsic
def _system_ns(typing_context):  # type: ignore[no-untyped-def]
    """Nanoseconds of the system's monotonic clock, as `time.monotonic_ns`."""
    from llvmlite import ir
    from numba.core import cgutils, types

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        moment = cgutils.alloca_once(builder, ir.ArrayType(word, 2))
        read_type = ir.FunctionType(ir.IntType(32), [ir.IntType(32), moment.type])
        read = cgutils.get_or_insert_function(builder.module, read_type, "clock_gettime")
        builder.call(read, [ir.IntType(32)(_CLOCK_MONOTONIC), moment])
        seconds = builder.load(cgutils.gep_inbounds(builder, moment, 0, 0))
        return builder.add(
            builder.mul(seconds, word(1_000_000_000)), builder.load(cgutils.gep_inbounds(builder, moment, 0, 1))
        )

    return types.int64(), generate


@device
def ticks(source):  # type: ignore[no-untyped-def]
    """
    The clock's reading now.

    Parameters
    ----------
    source : int64
        `CYCLE_COUNTER` or `SYSTEM_CLOCK`, as `fraudsdk.telemetry.ticks` found it.
    """
    return _cycles() if source == CYCLE_COUNTER else _system_ns()


@device
def elapsed_ns(ticks_before, ticks_after, multiplier):  # type: ignore[no-untyped-def]
    """
    Nanoseconds between two readings, of `LONGEST_TICKS` at most.

    Never negative, though counters of two cores may differ by a few ticks.
    """
    elapsed = min(max(ticks_after - ticks_before, 0), LONGEST_TICKS)
    # The product of all of it would not fit into a word after two hours.
    return (elapsed >> TICK_SHIFT) * multiplier + ((elapsed & _FRACTION) * multiplier >> TICK_SHIFT)


@kernel("int64(int64)", nogil=False)
def read_ticks(source):  # type: ignore[no-untyped-def]
    """`ticks`, for Python: to calibrate with."""
    return ticks(source)
