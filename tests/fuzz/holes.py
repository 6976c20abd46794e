"""Readers with a hole: each leaves one check out, which the fuzzer must then find."""

from __future__ import annotations

from types import FunctionType
from typing import Final

from fraudsdk._cpython import load_byte
from fraudsdk._jit import device, kernel


@device
def anything_is_sound(words, at, n, kind):
    return True


def _parts() -> None:
    """A kernel of another name, so that nobody finds it in the cache instead of the whole one."""
    from fraudsdk.entity_state import part_kernels

    whole, looks = part_kernels.unpack, part_kernels.problem_with._function
    names = {**whole.function.__globals__, "is_sound": anything_is_sound}
    names["problem_with"] = device(FunctionType(looks.__code__, names, looks.__name__))
    holed = FunctionType(whole.function.__code__, names, "unpack_what_is_not_sound")
    holed.__module__, holed.__qualname__ = whole.function.__module__, "unpack_what_is_not_sound"
    part_kernels.unpack = kernel(whole.signature)(holed)


def _log() -> None:
    from fraudsdk.scorer import recovery

    recovery._require_layout = lambda segment, engine: None


def _snapshot() -> None:
    from fraudsdk.entity_state import snapshot

    snapshot._require_sound = lambda found, sections, memory: None


@device
def any_varint_at(at, end):
    """A length is believed, though bytes end before it does."""
    value, shift = 0, 0
    while shift < 63:
        byte = load_byte(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return value, -1


def _wire() -> None:
    """Of the source alone, which sees every byte that is read: machine code would read beside the message without a word."""
    import fuzz_wire

    fuzz_wire.VARINT_AT = any_varint_at


_HOLES: Final = {
    "soundness of parts": _parts,
    "layout of transactions": _log,
    "soundness of snapshots": _snapshot,
    "lengths of messages": _wire,
}


def leave_out(check: str) -> None:
    """Make the hole."""
    _HOLES[check]()
