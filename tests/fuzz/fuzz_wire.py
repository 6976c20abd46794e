"""The reader of messages of transactions: `WireTransactions`, whose kernels read bytes of the network by their address."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz_material import Violation
from google.protobuf.message import DecodeError
from plain_kernels import OutsideError, PlainKernels, Words

from fraudsdk.adapters.protobuf import mapping_of, message_of
from fraudsdk.adapters.protobuf import wire_kernels as kernels
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.adapters.protobuf.wire import WireTransactions, _slots_of, warm_up_wire
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.encoding import Encoder, Vocabulary
from fraudsdk.encoding import words as w
from fraudsdk.errors import InvalidTransactionError

MOST = 200
VARINT_AT = kernels.varint_at
_WORD = 1 << 64
# Lengths and numbers at the edges of what a varint may say; the last two are longer than any may be.
_VARINTS = (
    *(b"\x00", b"\x01", b"\x7f", b"\x80\x01", b"\xff\x7f", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f"),
    *(b"\xff" * 8 + b"\x7f", b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x01", b"\xf8" + b"\xff" * 8 + b"\x01"),
    *(b"\x80" * 10 + b"\x01", b"\xff" * 20),
)
_TAGS = (b"\x0a", b"\x10", b"\x12", b"\x1a", b"\x0b", b"\x0c", b"\x0d", b"\x09", b"\x07", b"\x8a\x02", b"\x82\x01")
_SENT = {
    "transaction_id": "t-1",
    "card_id": "c-1",
    "user_id": "u-1",
    "amount_minor": 1250,
    "currency": "GBP",
    "event_time_us": 1_795_428_000_123_456,
    "mcc": "5411",
    "latitude": 1.5,
    "card_present": True,
}


class _Message:
    """Bytes at an address of their own: whoever reads beside them is found out."""

    def __init__(self) -> None:
        self.begin, self.octets = 0, b""

    def byte(self, address: int) -> int:
        if not self.begin <= address < self.begin + len(self.octets):
            raise OutsideError(f"byte {address - self.begin} of {len(self.octets)} is read")
        return self.octets[address - self.begin]

    def eight(self, address: int) -> int:
        return int.from_bytes(bytes(self.byte(address + i) for i in range(8)), "little", signed=True)


class _Spans:
    """Places that are found, kept within their room."""

    def __init__(self, n: int) -> None:
        self.rows = np.zeros((n, kernels.SPAN), np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __setitem__(self, at: tuple[int, int], value: int) -> None:
        if not 0 <= at[0] < len(self.rows):
            raise OutsideError(f"span {at[0]} of {len(self.rows)} is written")
        self.rows[at] = value


class WireReader:
    """
    Promises: not a byte beside the message is read; rows are those that the library of protocol buffers leads to, or a refusal.
    """

    def __init__(self, instrument: Callable[[Any], Any]) -> None:
        warm_up_wire()
        layout = RecordLayout((*IDENTIFIERS, "mcc"), (*NUMBERS, *CATEGORIES), (), ())
        vocabulary = Vocabulary({"channel": ("ecommerce", "pos"), "mcc": ("5411",), "currency": ("EUR", "GBP")})
        self._encoder = Encoder(
            layout, key=b"sixteen byte key", vocabulary=vocabulary, currency="EUR", rates={"GBP": "1.17"}
        )
        self._message = _Message()
        loads = {"load_byte": self._message.byte, "load_integer": self._message.eight}
        varint_at = PlainKernels(instrument, loads).of(VARINT_AT)

        def wrapped(at: int, end: int) -> tuple[int, int]:
            """Bits beyond 64 fall off, as they do for the library."""
            value, after = varint_at(at, end)
            return (value + _WORD // 2) % _WORD - _WORD // 2, after

        plain = PlainKernels(instrument, loads | {"varint_at": wrapped})
        self._find, self._collect = plain.of(kernels.find_transactions), plain.of(kernels.collect)
        assert self._encoder.program is not None
        self._slots = Words(_slots_of(int(self._encoder.program[w.FIRST_NUMBER])).tolist())
        self._program = Words(self._encoder.program.tolist())

    def seeds(self) -> list[bytes]:
        """One, several, none, and what goes by Python."""
        several = [message_of(_SENT | {"transaction_id": f"t-{i}"}) for i in range(5)]
        odd = message_of(_SENT | {"user_id": "é", "balance": -3.0, "type": "refund", "ip": "::1"})
        sent = [several[:1], several, [], [odd, several[0]]]
        return [pb.ScoreBatchRequest(transactions=each, record=False).SerializeToString() for each in sent]

    def changed(self, octets: bytes, draw: random.Random) -> bytes:
        """With a few tags, lengths or pieces in other places."""
        for _ in range(draw.choice((1, 1, 2, 4))):
            at, n = draw.randrange(len(octets) + 1), draw.choice((0, 0, 1, 1, 2, 8))
            piece = draw.choice((draw.choice(_VARINTS), draw.choice(_TAGS), octets[at : at + 20], draw.randbytes(2)))
            octets = octets[:at] + piece + octets[at + n :]
            if draw.random() < 0.1:
                octets = octets[: draw.randrange(len(octets) + 1)]
        return octets

    def read(self, octets: bytes) -> None:
        self._read_plainly(octets)
        seen = self._seen(octets)
        if isinstance(seen, InvalidTransactionError):
            return
        try:
            parsed = pb.ScoreBatchRequest.FromString(octets).transactions
        except DecodeError:
            raise Violation("taken, and no message to the library of protocol buffers") from None
        expected = self._encoder.encode_mappings([mapping_of(each) for each in parsed])
        for name in ("ints", "numbers"):
            if getattr(seen, name).tobytes() != getattr(expected, name).tobytes():
                raise Violation(f"{name} are not those that the library of protocol buffers leads to")
        if seen.transaction_ids.tolist() != expected.transaction_ids.tolist():
            raise Violation("ids are not those that the library of protocol buffers leads to")

    def _seen(self, octets: bytes) -> Any:
        try:
            return WireTransactions(octets, MOST).encoded_by(self._encoder)
        except InvalidTransactionError as error:
            return error

    def _read_plainly(self, octets: bytes) -> None:
        """By the same source in Python, which sees every byte that is read."""
        self._message.begin, self._message.octets = 1 << 40, octets
        spans, native = _Spans(MOST), np.zeros((MOST, kernels.SPAN), np.int64)
        found = self._find(self._message.begin, len(octets), spans)
        held = np.frombuffer(octets, np.uint8)
        native_found = kernels.find_transactions(held.__array_interface__["data"][0], len(octets), native)
        if tuple(found) != tuple(native_found) or (spans.rows != native).any():
            raise Violation(f"Python finds {found}, and machine code {native_found}")
        cells = Words([0] * (kernels.CELL * self._program[w.END]))
        for begin, size in spans.rows[: max(found[0], 0), : kernels.ID_BEGIN].tolist():
            at = self._message.begin + begin
            self._collect(at, at + size, self._program, self._slots, cells)
