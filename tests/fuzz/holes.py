"""Readers with a hole: each leaves one check out, which the fuzzer must then find."""

from __future__ import annotations

from fraudsdk._jit import device


@device
def anything_is_sound(words, at, n, kind):
    return True


def leave_out(check: str) -> None:
    """Before the kernels are compiled; the caller has seen to a cache of kernels of its own."""
    if check == "soundness of parts":
        from fraudsdk.entity_state import part_kernels

        part_kernels.is_sound = anything_is_sound
    else:
        raise ValueError(f"no check is called {check!r}")
