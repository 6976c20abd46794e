"""
Keyed hashes: what remains of an identifier after the border.

The hash is SipHash-2-4, a keyed function made for short text that strangers choose; its key is derived from the host's.
Without the key a hash says nothing about the identifier, and two fields hash the same text differently, so that a user
``42`` and a merchant ``42`` never meet; fields that name the same kind of thing share a space and can be compared.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import Final

import numpy as np

from fraudsdk._cpython import LAYOUT_IS_KNOWN
from fraudsdk.encoding import kernels
from fraudsdk.errors import ConfigurationError

MIN_KEY_BYTES: Final = 16
# A counterparty may be a user of ours, and the three countries of a transaction are compared with one another.
_SHARED_SPACES: Final = {
    "counterparty_id": "user_id",
    "merchant_country": "country",
    "card_country": "country",
    "ip_country": "country",
    "transaction_id": "transaction",
    "original_transaction_id": "transaction",
}

Hasher = Callable[[str | None], int]


def checked_key(key: bytes) -> bytes:
    """
    The key, if it can be one.

    Raises
    ------
    ConfigurationError
        Not bytes, or fewer than `MIN_KEY_BYTES`.
    """
    if not isinstance(key, bytes):
        raise ConfigurationError(
            f"key must be bytes, was {type(key).__name__}; read {MIN_KEY_BYTES} random bytes or more"
        )
    if len(key) < MIN_KEY_BYTES:
        raise ConfigurationError(f"key must have at least {MIN_KEY_BYTES} bytes, had {len(key)}; use 32 random bytes")
    return key


def hash_space(field: str) -> str:
    """The space a field is hashed in; fields of one space can be compared."""
    return _SHARED_SPACES.get(field, field)


def keyed_hasher(field: str, key: bytes) -> Hasher:
    """
    A function from text to a signed 64-bit hash that is never 0; None, which is absent, gives 0.

    Parameters
    ----------
    field : str
        Whose values are hashed; see `hash_space`.
    key : bytes
        At least `MIN_KEY_BYTES`.

    Examples
    --------
    >>> user, counterparty = (keyed_hasher(field, b"sixteen byte key") for field in ("user_id", "counterparty_id"))
    >>> user("u-1") == counterparty("u-1") != keyed_hasher("merchant_id", b"sixteen byte key")("u-1")
    True
    """
    k0, k1 = hash_key(field, key)

    def hash_text(text: str | None) -> int:
        if text is None:
            return 0
        if LAYOUT_IS_KNOWN and type(text) is str and text.isascii():
            hashed: int = kernels.hash_plain_text(id(text), k0, k1)
        else:
            hashed = kernels.hash_bytes(np.frombuffer(bytearray(text.encode()), np.uint8), k0, k1)
        return hashed

    return hash_text


def hash_key(field: str, key: bytes) -> tuple[int, int]:
    """The two words of the SipHash key of a field's space, as kernels take them: signed."""
    label = b"fraudsdk identifier hash: " + hash_space(field).encode()
    subkey = hmac.digest(checked_key(key), label, "sha256")
    k0, k1, *_ = struct.unpack("<4q", subkey)
    return k0, k1


def pan_token(pan: str, key: bytes) -> str:
    """
    The token of a card number: HMAC-SHA256 of all its digits, in hexadecimal.

    Parameters
    ----------
    pan : str
        Digits only.
    key : bytes
        At least `MIN_KEY_BYTES`.  Whoever has it can test a guess: keep it like a card number.
    """
    return hmac.digest(checked_key(key), pan.encode("ascii"), "sha256").hex()
