"""
Identifiers become keyed hashes, card numbers become keyed tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk._jit import warm_up
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS
from fraudsdk.encoding import kernels
from fraudsdk.encoding.hashing import hash_key, hash_space, keyed_hasher, pan_token
from fraudsdk.errors import ConfigurationError

KEY = b"sixteen byte key"
MASK = 2**64 - 1
# ``vectors.h`` of https://github.com/veorq/SipHash
OFFICIAL_VECTORS = [
    int(word, 16)
    for word in """
    726fdb47dd0e0e31 74f839c593dc67fd 0d6c8009d9a94f5a 85676696d7fb7e2d cf2794e0277187b7 18765564cd99a68d cbc9466e58fee3ce
    ab0200f58b01d137 93f5f5799a932462 9e0082df0ba9e4b0 7a5dbbc594ddb9f3 f4b32f46226bada7 751e8fbc860ee5fb 14ea5627c0843d90
    f723ca908e7af2ee a129ca6149be45e5 3f2acc7f57c29bdb 699ae9f52cbe4794 4bc1b3f0968dd39c bb6dc91da77961bd bed65cf21aa2ee98
    d0f2cbb02e3b67c7 93536795e3a33e88 a80c038ccd5ccec8 b8ad50c6f649af94 bce192de8a85b8ea 17d835b85bbb15f3 2f2e6163076bcfad
    de4daaaca71dc9a5 a6a2506687956571 ad87a3535c49ef28 32d892fad841c342 7127512f72f27cce a7f32346f95978e3 12e0b01abb051238
    15e034d40fa197ae 314dffbe0815a3b4 027990f029623981
    """.split()
]


warm_up("fraudsdk.encoding.")


class OwnText(str):
    """Text that another library made."""

    __slots__ = ()


def siphash_by_the_book(message, k0, k1):
    """
    SipHash-2-4 as the paper has it, written for obviousness.
    """

    def rotated(word, n):
        return (word << n | word >> (64 - n)) & MASK

    def rounds(n):
        for _ in range(n):
            v[0], v[2] = (v[0] + v[1]) & MASK, (v[2] + v[3]) & MASK
            v[1], v[3] = rotated(v[1], 13) ^ v[0], rotated(v[3], 16) ^ v[2]
            v[0] = rotated(v[0], 32)
            v[2], v[0] = (v[2] + v[1]) & MASK, (v[0] + v[3]) & MASK
            v[1], v[3] = rotated(v[1], 17) ^ v[2], rotated(v[3], 21) ^ v[0]
            v[2] = rotated(v[2], 32)

    constants = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    v = [(key ^ constant) & MASK for key, constant in zip((k0, k1, k0, k1), constants, strict=True)]
    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) % 256])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@given(st.text(max_size=128, alphabet=st.characters(exclude_categories=("Cs",))))
def test_a_hash_is_a_signed_64_bit_number_and_never_zero(text):
    hashed = keyed_hasher("user_id", KEY)(text)

    assert -(2**63) <= hashed < 2**63
    assert hashed != 0


def test_a_digest_of_zeros_is_not_taken_for_absent():
    assert [1, 7, -7] == [kernels.never_zero(key) for key in (0, 7, -7)]


@pytest.mark.parametrize(("n", "expected"), list(enumerate(OFFICIAL_VECTORS)))
def test_the_hash_is_siphash_2_4(n, expected):
    """
    The vectors of the reference implementation: key and message are the bytes 0, 1, 2, ...
    """
    message, (k0, k1) = bytes(range(n)), struct.unpack("<2q", bytes(range(16)))

    assert expected == kernels.hash_bytes(np.frombuffer(bytearray(message), np.uint8), k0, k1) & MASK
    assert expected == siphash_by_the_book(message, k0, k1)


@given(st.text(max_size=200, alphabet=st.characters(exclude_categories=("Cs",))))
def test_text_hashes_as_its_utf_8_however_the_interpreter_keeps_it(text):
    k0, k1 = hash_key("user_id", KEY)
    expected = siphash_by_the_book(text.encode(), k0, k1)

    assert expected == keyed_hasher("user_id", KEY)(text) & MASK == keyed_hasher("user_id", KEY)(OwnText(text)) & MASK


def test_absent_is_zero():
    assert 0 == keyed_hasher("user_id", KEY)(None)


def test_the_same_text_in_two_fields_has_two_hashes():
    spaces = {hash_space(name) for name in (*IDENTIFIERS, *CATEGORIES)}
    hashes = {keyed_hasher(name, KEY)("42") for name in (*IDENTIFIERS, *CATEGORIES)}

    assert len(spaces) == len(hashes) == len(IDENTIFIERS) + len(CATEGORIES) - 3


@pytest.mark.parametrize(
    "fields",
    [
        ("user_id", "counterparty_id"),
        ("merchant_country", "card_country", "ip_country"),
        ("transaction_id", "original_transaction_id"),
    ],
)
def test_fields_that_name_the_same_kind_of_thing_can_be_compared(fields):
    assert 1 == len({keyed_hasher(name, KEY)("GB") for name in fields})


def test_another_key_gives_another_hash_and_token():
    assert keyed_hasher("user_id", KEY)("u-1") != keyed_hasher("user_id", KEY[::-1])("u-1")
    assert pan_token("4111111111111111", KEY) != pan_token("4111111111111111", KEY[::-1])


def test_hashes_do_not_change_between_releases():
    """
    State on disk is keyed by them: another value here would orphan every entity.
    """
    assert -2_106_279_357_475_911_932 == keyed_hasher("user_id", KEY)("u-1")


def test_a_token_is_the_hmac_of_the_whole_card_number():
    expected = hmac.new(KEY, b"4111111111111111", hashlib.sha256).hexdigest()

    assert expected == pan_token("4111111111111111", KEY)


@pytest.mark.parametrize("key", [b"", b"fifteen byte ke", "sixteen byte key", None])
def test_a_short_key_is_refused(key):
    with pytest.raises(ConfigurationError):
        keyed_hasher("user_id", key)
    with pytest.raises(ConfigurationError):
        pan_token("4111111111111111", key)


def test_a_key_may_be_longer_than_a_hash_function_takes():
    assert keyed_hasher("user_id", b"k" * 100)("u-1") != keyed_hasher("user_id", b"k" * 101)("u-1")
