"""
Many transactions of one message: from its bytes into the rows of an encoder, and decisions into the bytes of the answer.

What `mapping_of` and `decision_message` do one by one, without a Python object per field; every bit is the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from fraudsdk._jit import warm_up
from fraudsdk.adapters.protobuf import wire_kernels as kernels
from fraudsdk.adapters.protobuf._generated import decision_pb2, scoring_service_pb2, transaction_pb2
from fraudsdk.adapters.protobuf.decisions import decision_message
from fraudsdk.adapters.protobuf.transactions import mapping_of
from fraudsdk.domain import fields
from fraudsdk.domain.decisions import Decisions
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS
from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.domain.transaction import ENTITY_FIELDS
from fraudsdk.encoding import EncodedTransactions, Encoder
from fraudsdk.encoding import words as w
from fraudsdk.errors import InvalidTransactionError

# Transactions that are read while the GIL is held: a millisecond.
_AT_ONCE: Final = 2_048
# Most messages have no more transactions; of others the places are looked for a second time, in the room that they need.
_MOSTLY: Final = 128
_WIRE_TYPES: Final = {
    FieldDescriptor.TYPE_STRING: kernels.BYTES,
    FieldDescriptor.TYPE_MESSAGE: kernels.BYTES,
    FieldDescriptor.TYPE_DOUBLE: kernels.EIGHT_BYTES,
    FieldDescriptor.TYPE_INT64: kernels.VARINT,
    FieldDescriptor.TYPE_BOOL: kernels.VARINT,
    FieldDescriptor.TYPE_ENUM: kernels.VARINT,
}
# Card numbers are tokenised, and custom fields looked up, where everything else is that is not everyday.
_FOR_PYTHON: Final = ("pan", "custom")


class WireTransactions:
    """
    The transactions of a `ScoreBatchRequest` or `ScoreStreamRequest`, for `Scorer.score_batch`.

    Parameters
    ----------
    data : bytes
        The message.
    max_transactions : int
        More are refused.

    Attributes
    ----------
    record : bool
        What the message says of recording.

    Raises
    ------
    InvalidTransactionError
        The bytes are no such message, or hold too many transactions.
    """

    def __init__(self, data: bytes, max_transactions: int) -> None:
        self._data = data
        self._bytes = np.frombuffer(data, np.uint8)
        self._address: int = self._bytes.__array_interface__["data"][0]
        # Zeros: where nothing reads the rows natively, no id is found.
        spans = np.zeros((_MOSTLY, kernels.SPAN), np.int64)
        count, record = kernels.find_transactions(self._address, len(data), spans)
        if _MOSTLY < count <= max_transactions:
            spans = np.zeros((count, kernels.SPAN), np.int64)
            kernels.find_transactions(self._address, len(data), spans)
        if count < 0:
            raise InvalidTransactionError(
                "transactions", "are in bytes that are no message", "send the contract's message"
            )
        if count > max_transactions:
            raise InvalidTransactionError(
                "transactions", f"must be at most {max_transactions}, were {count}", "send them in several messages"
            )
        self.record = record != 0
        self._spans = spans[:count]
        self._read_by_python: list[int] = []

    def __len__(self) -> int:
        return len(self._spans)

    def row(self, row: int) -> dict[str, Any]:
        """
        One transaction as a mapping.

        Raises
        ------
        InvalidTransactionError
            Its bytes are no transaction.
        """
        begin, size = self._spans[row, : kernels.ID_BEGIN].tolist()
        try:
            return mapping_of(transaction_pb2.Transaction.FromString(self._data[begin : begin + size]))
        except DecodeError:
            raise InvalidTransactionError(
                "transactions", "holds bytes that are no transaction", "send text as UTF-8, and the contract's message"
            ) from None

    def encoded_by(self, encoder: Encoder) -> EncodedTransactions:
        """
        The rows that an encoder makes of them; the same bits as of their mappings.

        Raises
        ------
        InvalidTransactionError
            Names the first row that is wrong.
        """
        n = len(self)
        ints, numbers = encoder.empty(n)
        statuses = np.full(n, kernels.FOR_PYTHON, np.uint8)
        if encoder.program is not None:
            slots = _slots_of(int(encoder.program[w.FIRST_NUMBER]))
            cells = np.empty(kernels.CELL * int(encoder.program[w.END]), np.int64)
            for first in range(0, n, _AT_ONCE):
                at = slice(first, first + _AT_ONCE)
                kernels.read_transactions(
                    self._address, self._spans[at], encoder.program, slots, cells, ints[at], numbers[at], statuses[at]
                )
        data = self._data
        transaction_ids = np.empty(n, object)
        transaction_ids[:] = [
            data[begin : begin + size].decode("ascii", "replace")
            for begin, size in self._spans[:, kernels.ID_BEGIN :].tolist()
        ]
        self._read_by_python = np.flatnonzero(statuses).tolist()
        for row in self._read_by_python:
            try:
                prepared = encoder.prepare(self.row(row))
                encoder.encode(prepared, ints, numbers, row)
            except InvalidTransactionError as error:
                raise error.in_row(row) from None
            transaction_ids[row] = prepared.transaction_id
        amount_minor = ints[:, fields.AMOUNT_MINOR]
        per_major = 10 ** CURRENCY_EXPONENTS[encoder.currency]
        return EncodedTransactions(
            transaction_ids, ints, numbers, np.where(amount_minor >= 0, amount_minor / per_major, np.nan)
        )

    def answer(self, decisions: Decisions) -> bytes:
        """The decisions on them as a `ScoreBatchResponse` or a `ScoreStreamResponse`."""
        others = sorted({*decisions.singled_out, *self._read_by_python})
        messages = [_in_response(decisions[row]) for row in others]
        if len(others) == len(self):
            return b"".join(messages)
        is_other = np.zeros(len(self), np.uint8)
        is_other[others] = 1
        tail = _tail_of(decisions[int(np.argmin(is_other))].model_version)
        approvals, ends = self._approvals(decisions, is_other, tail)
        pieces: list[bytes] = []
        done = 0
        for row, message in zip(others, messages, strict=True):
            pieces += (approvals[done : ends[row]], message)
            done = int(ends[row])
        pieces.append(approvals[done:])
        return b"".join(pieces)

    def _approvals(
        self, decisions: Decisions, is_other: npt.NDArray[np.uint8], tail: npt.NDArray[np.uint8]
    ) -> tuple[bytes, npt.NDArray[np.int64]]:
        bits = np.stack((decisions.margins, decisions.scores)).view(np.int64)
        room = int(self._spans[:, kernels.ID_SIZE].sum()) + (kernels.MOST_BYTES + len(tail)) * len(self)
        out, ends = np.empty(room, np.uint8), np.empty(len(self), np.int64)
        n = kernels.write_approvals(self._address, self._spans, bits, is_other, tail, out, ends)
        assert n >= 0, "a read id has at most 128 characters, and the room is for all of them"
        return out[:n].tobytes(), ends


def warm_up_wire() -> None:
    """Load or compile what reads and writes messages."""
    warm_up("fraudsdk.adapters.protobuf.")


@lru_cache(maxsize=8)
def _slots_of(first_number: int) -> npt.NDArray[np.int64]:
    """Slot and wire type of every field of a transaction, by its number; `UNKNOWN` is for Python."""
    texts = dict.fromkeys(name for name in (*ENTITY_FIELDS, *IDENTIFIERS, *CATEGORIES) if name != "currency")
    numbers = [name for name in NUMBERS if name not in w.SPECIAL_FIELDS]
    slots = {name: slot for slot, name in enumerate((*w.SPECIAL_FIELDS, *texts))}
    slots |= {name: first_number + i for i, name in enumerate(numbers)}
    table = np.full((kernels.N_FIELDS, 2), kernels.UNKNOWN, np.int64)
    for field in transaction_pb2.Transaction.DESCRIPTOR.fields:
        if field.name not in _FOR_PYTHON:
            table[field.number] = slots[field.name], _WIRE_TYPES[field.type]
    return table.ravel()


@lru_cache(maxsize=64)
def _tail_of(model_version: str) -> npt.NDArray[np.uint8]:
    """How an approval by the score of a model ends."""
    tail = decision_pb2.Decision(model_version=model_version, decided_by="band", rung=decision_pb2.RUNG_FULL)
    return np.frombuffer(bytearray(tail.SerializeToString()), np.uint8)


def _in_response(decision: Any) -> bytes:
    return scoring_service_pb2.ScoreBatchResponse(decisions=[decision_message(decision)]).SerializeToString()
