"""
Keyed hashes: what remains of an identifier after the border.

Without the key a hash says nothing about the identifier, and two fields hash the same text differently, so that a user
``42`` and a merchant ``42`` never meet; fields that name the same kind of thing share a space and can be compared.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from fraudsdk.errors import ConfigurationError

MIN_KEY_BYTES: Final = 16
# 250 bytes an entry, so 8 MB a field when full.  The least recently used identifier makes room for the next.
CACHED_HASHES: Final = 1 << 15

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
    subkey = hmac.digest(checked_key(key), b"fraudsdk identifier hash: " + hash_space(field).encode(), "sha256")
    # Keying costs as much as hashing; a copy of the keyed state skips it.
    keyed = hashlib.blake2b(key=subkey, digest_size=8)

    def hash_text(text: str | None) -> int:
        if text is None:
            return 0
        state = keyed.copy()
        state.update(text.encode())
        return int.from_bytes(state.digest(), "little", signed=True) or 1

    return hash_text


def cached(hasher: Hasher) -> Hasher:
    """`hasher` with the last `CACHED_HASHES` results remembered."""
    return lru_cache(maxsize=CACHED_HASHES)(hasher)


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
