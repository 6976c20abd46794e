"""The frame that a schema registry's serialisers put around a payload: 0x00, then the id of the schema in four bytes."""

from __future__ import annotations

from typing import Final

from fraudsdk.errors import PoisonMessageError

_MAGIC: Final = 0
_HEADER_BYTES: Final = 5
_MAX_INDEXES: Final = 16
_MAX_VARINT_BYTES: Final = 5


def unframed(value: bytes) -> tuple[int, bytes]:
    """
    Id of the schema, and the payload.

    Raises
    ------
    PoisonMessageError
        No such frame.
    """
    if len(value) < _HEADER_BYTES or value[0] != _MAGIC:
        raise PoisonMessageError(
            "bad_frame", "does not begin with 0x00 and a schema id", "use the serialiser of a schema registry"
        )
    return int.from_bytes(value[1:_HEADER_BYTES], "big"), value[_HEADER_BYTES:]


def without_indexes(payload: bytes) -> tuple[tuple[int, ...], bytes]:
    """
    Which message of a Protobuf schema follows (index within each level, outermost first), and the message.

    A count and that many numbers, zigzag varints; the single byte 0 stands for the first message of the file.

    Raises
    ------
    PoisonMessageError
        No such list.
    """
    n_indexes, at = _zigzag(payload, 0)
    if n_indexes == 0:
        return (0,), payload[at:]
    if not 0 < n_indexes <= _MAX_INDEXES:
        raise _bad_indexes()
    indexes = []
    for _ in range(n_indexes):
        index, at = _zigzag(payload, at)
        indexes.append(index)
    return tuple(indexes), payload[at:]


def _zigzag(payload: bytes, at: int) -> tuple[int, int]:
    number = 0
    for nth, octet in enumerate(payload[at : at + _MAX_VARINT_BYTES]):
        number |= (octet & 0x7F) << 7 * nth
        if octet < 0x80:
            return (number >> 1) ^ -(number & 1), at + nth + 1
    raise _bad_indexes()


def _bad_indexes() -> PoisonMessageError:
    return PoisonMessageError(
        "bad_frame", "does not say which message of its schema it is", "use the serialiser of a schema registry"
    )
