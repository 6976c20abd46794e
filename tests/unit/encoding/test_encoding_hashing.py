"""
Identifiers become keyed hashes, card numbers become keyed tokens.
"""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS
from fraudsdk.encoding.hashing import hash_space, keyed_hasher, pan_token
from fraudsdk.errors import ConfigurationError

KEY = b"sixteen byte key"


@given(st.text(max_size=128, alphabet=st.characters(exclude_categories=("Cs",))))
def test_a_hash_is_a_signed_64_bit_number_and_never_zero(text):
    hashed = keyed_hasher("user_id", KEY)(text)

    assert -(2**63) <= hashed < 2**63
    assert hashed != 0


def test_a_digest_of_zeros_is_not_taken_for_absent(monkeypatch):
    class ZeroDigest:
        def __init__(self, **_):
            pass

        def copy(self):
            return self

        def update(self, _):
            pass

        def digest(self):
            return bytes(8)

    monkeypatch.setattr(hashlib, "blake2b", ZeroDigest)

    assert 1 == keyed_hasher("user_id", KEY)("u-1")


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
    assert -7_859_257_062_430_533_586 == keyed_hasher("user_id", KEY)("u-1")


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
