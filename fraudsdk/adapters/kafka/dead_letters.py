"""
What is kept of a message that is no transaction.

    masked      the bytes that came, with ``*`` for all that could be card data (see `digit_runs`), in value and key
    encrypted   with a key of 32 bytes, AES-256-GCM, value and key of the message together; the letter has no key of its own

An encrypted value is ``FDL1``, 8 bytes that name the key (of a hash of it), a nonce of 12 random bytes, and the ciphertext with its
tag.  Plain, that is the length of the message's key in 4 bytes (big-endian; ``ffffffff``: it had none), the key, and the value.
Where the message came from is authenticated with it, so that no letter passes for another.  One key is good for 2**32 letters.

The headers say why, and where the message is: `HEADERS`.  Headers of the message itself are dropped; they were not asked for,
and nobody has looked at them.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fraudsdk.adapters.kafka.digit_runs import struck_out
from fraudsdk.errors import ConfigurationError, MissingExtraError, PoisonMessageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEADERS: Final = {
    "fraudsdk.reason": "word for programs, such as bad_json",
    "fraudsdk.error": "sentence for people, masked",
    "fraudsdk.topic": "topic of the message",
    "fraudsdk.partition": "its partition",
    "fraudsdk.offset": "its offset",
    "fraudsdk.timestamp_ms": "its time, where it has one",
    "fraudsdk.failed_at_us": "when it was given up, microseconds since 1970, UTC",
    "fraudsdk.protection": "masked/1 or aes-256-gcm/1",
    "fraudsdk.original_bytes": "bytes of its value; -1: it had none",
    "fraudsdk.truncated": "true where the value is cut; absent otherwise",
}
MASKED: Final = "masked/1"
ENCRYPTED: Final = "aes-256-gcm/1"
# As much as any message may have that is read at all; to look for digits in 10 MB would hold a partition up for half a minute.
MAX_VALUE_BYTES: Final = 1 << 16
_MAX_KEY_BYTES: Final = 1_024
_MAX_ERROR_BYTES: Final = 2_048
# Cut once before masking and once after: what is left of a run that the first cut went through is past the second.
_SLACK_BYTES: Final = 4_096

_MAGIC: Final = b"FDL1"
_SECRET_BYTES: Final = 32
_KEY_NAME_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_NO_KEY: Final = 0xFFFFFFFF
_LENGTH: Final = struct.Struct(">I")

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a message is.

    Attributes
    ----------
    topic : str
    partition, offset : int
    timestamp_ms : int or None
        Milliseconds since the Unix epoch, as the message has it.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """
    What goes to the topic of dead letters.

    Attributes
    ----------
    key, value : bytes or None
    headers : list of (str, bytes)
        See `HEADERS`.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True)
class DeadLetters:
    """
    Writes dead letters.

    Attributes
    ----------
    secret : bytes or None
        32 bytes to encrypt with; None: they are masked.
    max_value_bytes : int
        Longer values are cut, and a header says so.

    Raises
    ------
    ConfigurationError
        A secret of another length, or no room for a value.
    MissingExtraError
        There is a secret, and cryptography is not installed.

    Examples
    --------
    >>> poison = PoisonMessageError("bad_json", "is no JSON", "send one JSON object")
    >>> letter = DeadLetters().letter(poison, Origin("transactions", 3, 17), None, b"4111 1111 1111 1111", failed_at_us=0)
    >>> letter.value, dict(letter.headers)["fraudsdk.reason"]
    (b'**** **** **** ****', b'bad_json')
    """

    secret: bytes | None = field(default=None, repr=False)
    max_value_bytes: int = MAX_VALUE_BYTES

    def __post_init__(self) -> None:
        if self.max_value_bytes < _SLACK_BYTES:
            raise ConfigurationError(f"max_value_bytes must be at least {_SLACK_BYTES}, was {self.max_value_bytes}")
        if self.secret is not None:
            _cipher(self.secret)

    def letter(
        self, error: PoisonMessageError, origin: Origin, key: bytes | None, value: bytes | None, *, failed_at_us: int
    ) -> DeadLetter:
        """
        The dead letter of a message.

        Parameters
        ----------
        error : PoisonMessageError
            Why it is one.
        origin : Origin
        key, value : bytes or None
            Of the message.
        failed_at_us : int
            Now, microseconds since the Unix epoch, UTC.
        """
        headers = _headers(error, origin, value, failed_at_us)
        headers.append(("fraudsdk.protection", (MASKED if self.secret is None else ENCRYPTED).encode()))
        if value is not None and len(value) > self.max_value_bytes:
            headers.append(("fraudsdk.truncated", b"true"))
        if self.secret is not None:
            cut = None if value is None else value[: self.max_value_bytes]
            return DeadLetter(None, _encrypted(self.secret, origin, _cut(key), cut), headers)
        return DeadLetter(_masked(key, _MAX_KEY_BYTES), _masked(value, self.max_value_bytes), headers)


def decrypted(
    value: bytes | None, headers: Iterable[tuple[str, bytes | str | None]], secrets: Sequence[bytes]
) -> tuple[bytes | None, bytes]:
    """
    Key and value of the message that an encrypted dead letter was made of.

    Parameters
    ----------
    value : bytes or None
        Of the letter.
    headers : iterable of (str, bytes)
        Of the letter.
    secrets : sequence of bytes
        Those that were in use; the letter names its own.

    Raises
    ------
    ConfigurationError
        No such letter, none of these secrets, or not the letter that was written.
    """
    named = {name: text.encode() if isinstance(text, str) else text or b"" for name, text in headers}
    if named.get("fraudsdk.protection") != ENCRYPTED.encode() or value is None or not value.startswith(_MAGIC):
        raise ConfigurationError("the dead letter is not encrypted; read its value as it is")
    by_name = {_name_of(each): each for each in secrets}
    begin = len(_MAGIC) + _KEY_NAME_BYTES
    secret = by_name.get(value[len(_MAGIC) : begin])
    if secret is None:
        raise ConfigurationError("the dead letter is encrypted with another key; give the one that was configured then")
    cipher = _cipher(secret)
    from cryptography.exceptions import InvalidTag

    try:
        plain = cipher.decrypt(
            value[begin : begin + _NONCE_BYTES], value[begin + _NONCE_BYTES :], _authenticated(value[:begin], named)
        )
    except (InvalidTag, ValueError) as error:
        raise ConfigurationError(
            "the dead letter is not as it was written, or its headers are another's; fetch it again"
        ) from error
    (n_key,) = _LENGTH.unpack_from(plain)
    if n_key == _NO_KEY:
        return None, plain[_LENGTH.size :]
    return plain[_LENGTH.size : _LENGTH.size + n_key], plain[_LENGTH.size + n_key :]


def _headers(error: PoisonMessageError, origin: Origin, value: bytes | None, failed_at_us: int) -> Headers:
    texts = {
        "fraudsdk.reason": error.reason,
        "fraudsdk.topic": origin.topic,
        "fraudsdk.partition": origin.partition,
        "fraudsdk.offset": origin.offset,
        "fraudsdk.timestamp_ms": origin.timestamp_ms,
        "fraudsdk.failed_at_us": failed_at_us,
        "fraudsdk.original_bytes": -1 if value is None else len(value),
    }
    headers = [(name, str(text).encode()) for name, text in texts.items() if text is not None]
    return [*headers, ("fraudsdk.error", struck_out(str(error).encode(errors="replace")[:_MAX_ERROR_BYTES]))]


def _masked(octets: bytes | None, n_bytes_max: int) -> bytes | None:
    return None if octets is None else struck_out(octets[: n_bytes_max + _SLACK_BYTES])[:n_bytes_max]


def _cut(key: bytes | None) -> bytes | None:
    return None if key is None else key[:_MAX_KEY_BYTES]


def _encrypted(secret: bytes, origin: Origin, key: bytes | None, value: bytes | None) -> bytes:
    begin = _MAGIC + _name_of(secret)
    nonce = os.urandom(_NONCE_BYTES)
    n_key = _NO_KEY if key is None else len(key)
    plain = _LENGTH.pack(n_key) + (key or b"") + (value or b"")
    whose = {
        "fraudsdk.topic": origin.topic.encode(),
        "fraudsdk.partition": b"%d" % origin.partition,
        "fraudsdk.offset": b"%d" % origin.offset,
    }
    return begin + nonce + _cipher(secret).encrypt(nonce, plain, _authenticated(begin, whose))


def _authenticated(begin: bytes, headers: Mapping[str, bytes]) -> bytes:
    parts = (headers.get(f"fraudsdk.{each}", b"") for each in ("topic", "partition", "offset"))
    return begin + b"".join(_LENGTH.pack(len(each)) + each for each in parts)


def _name_of(secret: bytes) -> bytes:
    return hashlib.sha256(b"fraudsdk dead letters" + secret).digest()[:_KEY_NAME_BYTES]


def _cipher(secret: bytes) -> AESGCM:
    if len(secret) != _SECRET_BYTES:
        raise ConfigurationError(
            f"the key of the dead letters must have {_SECRET_BYTES} bytes, has {len(secret)}; draw one at random"
        )
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtraError("cryptography", "kafka") from error
    return AESGCM(secret)
