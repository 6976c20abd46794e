"""
What the border does natively: keyed hashes, the everyday spellings of values, columns of them.

Whatever is not an everyday spelling is left to the parsers of `fraudsdk.domain`, which alone refuse: a kernel answers
"not me", never "wrong".
"""

import numpy as np

from fraudsdk._cpython import TEXT_BYTES, TEXT_LENGTH, load_byte, load_half_word, load_integer, load_word
from fraudsdk._jit import borrowed, device, kernel

_U8, _U13, _U16, _U17, _U21, _U32, _U56 = (np.uint64(n) for n in (8, 13, 16, 17, 21, 32, 56))
_U64 = np.uint64(64)
_FINALISE = np.uint64(0xFF)
_C0, _C1, _C2, _C3 = (
    np.uint64(int.from_bytes(word, "big")) for word in (b"somepseu", b"dorandom", b"lygenera", b"tedbytes")
)


@device
def rotated(word, n):
    return (word << n) | (word >> (_U64 - n))


@device
def sip_round(v0, v1, v2, v3):
    v0 = v0 + v1
    v2 = v2 + v3
    v1 = rotated(v1, _U13) ^ v0
    v3 = rotated(v3, _U16) ^ v2
    v0 = rotated(v0, _U32)
    v2 = v2 + v1
    v0 = v0 + v3
    v1 = rotated(v1, _U17) ^ v2
    v3 = rotated(v3, _U21) ^ v0
    v2 = rotated(v2, _U32)
    return v0, v1, v2, v3


@device
def tail_word(address, n):
    """The last ``n % 8`` of `n` bytes, and nothing beyond them, as the low end of a word."""
    rest = n & 7
    start = address + (n - rest)
    if rest == 0:
        return np.uint64(0)
    if n >= 8:
        return load_word(address + n - 8) >> np.uint64(8 * (8 - rest))
    if rest >= 4:
        return load_half_word(start) | (load_half_word(start + rest - 4) << np.uint64(8 * (rest - 4)))
    word = np.uint64(load_byte(start))
    word |= np.uint64(load_byte(start + (rest >> 1))) << np.uint64(8 * (rest >> 1))
    return word | (np.uint64(load_byte(start + rest - 1)) << np.uint64(8 * (rest - 1)))


@device
def never_zero(key):
    """0 is what an absent identifier hashes to."""
    return np.int64(1) if key == 0 else key


@device
def siphash(address, n, k0, k1):
    """
    SipHash-2-4 of `n` bytes, as a signed number that is never 0.

    Source
    ------
    Aumasson and Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012.
    """
    k0, k1 = np.uint64(k0), np.uint64(k1)
    v0, v1, v2, v3 = k0 ^ _C0, k1 ^ _C1, k0 ^ _C2, k1 ^ _C3
    for offset in range(0, n - 7, 8):
        word = load_word(address + offset)
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
        v0 ^= word
    word = tail_word(address, n) | (np.uint64(n) << _U56)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0 ^ word, v1, v2 ^ _FINALISE, v3)
    for _ in range(3):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return never_zero(np.int64(v0 ^ v1 ^ v2 ^ v3))


@kernel("int64(uint8[::1], int64, int64)")
def hash_bytes(text, k0, k1):
    """`siphash` of an array of bytes."""
    text = borrowed(text)
    return siphash(text.ctypes.data, len(text), k0, k1)


@kernel("int64(int64, int64, int64)", nogil=False)
def hash_plain_text(text, k0, k1):
    """`siphash` of a `str` by its address; it must be ASCII, and the layout of objects be known."""
    return siphash(text + TEXT_BYTES, load_integer(text + TEXT_LENGTH), k0, k1)
