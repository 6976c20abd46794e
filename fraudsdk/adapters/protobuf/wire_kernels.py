"""
Transactions out of the bytes of a message, and approvals into them, without an object per field.

A message is walked once: every field's place is kept under its slot, then the fields are read by the code that reads a mapping.
Nothing is refused here: whatever is not everyday (a field that no table lists, one given twice, a card number, text beyond
ASCII, a number out of its bounds, bytes that are no message) is `FOR_PYTHON`, which reads that transaction by itself and says
what is wrong.
"""

import numpy as np

from fraudsdk._cpython import float_of, load_byte, load_integer
from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.domain import fields as f
from fraudsdk.domain.money import MAX_AMOUNT_MINOR
from fraudsdk.encoding import words as w
from fraudsdk.encoding.kernels import code_of, converted, in_range, read_decimal, read_text
from fraudsdk.encoding.mapping_kernels import is_complete, write_number
from fraudsdk.encoding.object_kernels import is_number

WRITTEN, FOR_PYTHON = 0, 1

# Wire types.
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
N_FIELDS = 64  # numbers of fields are below
UNKNOWN = -1  # of a field: Python reads the transaction

# Fields of messages.
TRANSACTIONS, RECORD = 1, 2
SECONDS, NANOS = 1, 2
TYPE_FLAGS = (f.AUTHORISATION, f.AUTHORISATION, f.REVERSAL, f.REFUND, f.CHARGEBACK)
CREDIT = 2

# What is kept of each slot: its value or address, and whether it is there or, of text, its length.
VALUE, LENGTH, CELL = 0, 1, 2
ABSENT = -1

# What is kept of each transaction: where it begins and how long it is, and the same of its id.
BEGIN, SIZE, ID_BEGIN, ID_SIZE, SPAN = 0, 1, 2, 3, 4

_LONGEST_VARINT = 10
_LONGEST_TAG = 5
_LARGEST_NUMBER = 2**29 - 1
# Tag and length of a decision, outcome, and tags of id, score and margin: what a decision has besides its id and its tail.
_DECISION, _ID, _OUTCOME, _SCORE, _MARGIN = 0x0A, 0x0A, 0x10, 0x19, 0x21
_MOST_ID_BYTES = 128
MOST_BYTES = (
    4 + 3 + 2 + 9 + 9
)  # of an approval, besides its id and its tail: its own tag and length, then those of id, outcome, ...


@device
def varint_at(at, end):
    """A number and where it ends; -1 where it does not."""
    value, shift = np.int64(0), 0
    while at < end and shift < 7 * _LONGEST_VARINT:
        byte = load_byte(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return value, np.int64(-1)


@device
def field_at(at, end):
    """
    One field of a message.

    Returns
    -------
    number, kind, value, n, next : int64
        `value` is the number or the bits of one, or the address of `n` bytes; next = -1: these bytes are no field.
    """
    begin = at
    key, at = varint_at(at, end)
    number, kind, value, n = key >> 3, key & 7, np.int64(0), np.int64(0)
    if at < 0 or at - begin > _LONGEST_TAG or number < 1 or number > _LARGEST_NUMBER:
        return number, kind, value, n, np.int64(-1)
    if kind == VARINT:
        value, at = varint_at(at, end)
    elif kind == EIGHT_BYTES:
        if end - at < 8:
            return number, kind, value, n, np.int64(-1)
        value, at = load_integer(at), at + 8
    elif kind == BYTES:
        n, at = varint_at(at, end)
        if at < 0 or n < 0 or n > end - at:
            return number, kind, value, n, np.int64(-1)
        value, at = at, at + n
    elif kind == FOUR_BYTES and end - at >= 4:
        at += 4
    else:
        return number, kind, value, n, np.int64(-1)
    return number, kind, value, n, at


@device
def moment_at(at, n):
    """Microseconds of a Timestamp; -1: for Python."""
    end, seconds, nanos = at + n, np.int64(0), np.int64(0)
    while at < end:
        number, kind, value, _, at = field_at(at, end)
        if at < 0 or kind != VARINT:
            return np.int64(-1)
        if number == SECONDS:
            seconds = value
        elif number == NANOS:
            nanos = value
        else:
            return np.int64(-1)
    if seconds < 0 or seconds > 10**11 or nanos < 0 or nanos >= 10**9:
        return np.int64(-1)
    return in_range(seconds * 1_000_000 + nanos // 1_000)


@device
def collect(at, end, program, slots, cells):
    """Keep where each field of a transaction is; False: for Python."""
    for slot in range(program[w.END]):
        cells[CELL * slot + LENGTH] = ABSENT
    while at < end:
        number, kind, value, n, at = field_at(at, end)
        if at < 0 or number >= N_FIELDS or slots[2 * number] == UNKNOWN or slots[2 * number + 1] != kind:
            return False
        cell = CELL * slots[2 * number]
        if cells[cell + LENGTH] != ABSENT:
            return False
        cells[cell + VALUE], cells[cell + LENGTH] = value, n
    return True


@device
def write_texts(program, cells, ints, numbers, row):
    """As of a mapping: every key and code, and where each spelling was found.  False: one is for Python."""
    for slot in range(w.FIRST_TEXT, program[w.FIRST_NUMBER]):
        record, n = program[w.RECORDS] + w.RECORD * slot, cells[CELL * slot + LENGTH]
        spelling, key, code = w.NO_TEXT, 0, np.nan
        if n > 0 and slot != w.TYPE and slot != w.DIRECTION:
            is_read, spelling, key = read_text(program, record, cells[CELL * slot + VALUE], n)
            if not is_read:
                return False
            code = code_of(program, spelling)
        if slot == w.CURRENCY and spelling == w.NO_TEXT:
            spelling = program[w.REFERENCE]
            key, code = program[spelling + w.KEY], code_of(program, spelling)
        program[program[w.FOUND] + slot] = spelling
        if program[record + w.INT_AT] >= 0:
            ints[row, program[record + w.INT_AT]] = key
        if program[record + w.NUMBER_AT] >= 0:
            numbers[row, program[record + w.NUMBER_AT]] = code
    return True


@device
def amount_of(program, cells, currency):
    """Minor units of the transaction's own currency; -1: for Python."""
    minor, major = CELL * w.AMOUNT_MINOR, CELL * w.AMOUNT
    if (cells[minor + LENGTH] == ABSENT) == (cells[major + LENGTH] == ABSENT):
        return np.int64(-1)
    if cells[major + LENGTH] != ABSENT:
        return np.int64(read_decimal(cells[major + VALUE], cells[major + LENGTH], program[currency + w.EXPONENT]))
    value = cells[minor + VALUE]
    return value if 0 <= value <= MAX_AMOUNT_MINOR else np.int64(-1)


@device
def write_money(program, cells, ints, numbers, row):
    spelling = program[program[w.FOUND] + w.CURRENCY]
    currency = program[w.CURRENCIES] + w.CURRENCY_WORDS * program[spelling + w.MEANING]
    amount = amount_of(program, cells, currency)
    if amount < 0:
        return False
    amount = converted(program, currency, amount)
    if amount == -1:
        return False
    ints[row, f.AMOUNT_MINOR] = amount
    major = amount / float_of(program[w.MINOR_PER_MAJOR]) if amount >= 0 else np.nan
    write_number(program, w.AMOUNT, major, numbers, row)
    return True


@device
def write_flags(program, cells, ints, numbers, row):
    """What happened; False: for Python."""
    kind, direction, flags = np.int64(0), np.int64(0), np.int64(0)
    if cells[CELL * w.TYPE + LENGTH] != ABSENT:
        kind = cells[CELL * w.TYPE + VALUE]
    if cells[CELL * w.DIRECTION + LENGTH] != ABSENT:
        direction = cells[CELL * w.DIRECTION + VALUE]
    if kind < 0 or kind >= len(TYPE_FLAGS) or direction < 0 or direction > CREDIT:
        return False
    flags = np.int64(TYPE_FLAGS[kind])
    if direction == CREDIT:
        flags |= f.CREDIT
    if cells[CELL * w.DECLINED + LENGTH] != ABSENT and cells[CELL * w.DECLINED + VALUE] != 0:
        flags |= f.DECLINED
    present = np.nan
    if cells[CELL * w.CARD_PRESENT + LENGTH] != ABSENT:
        is_present = cells[CELL * w.CARD_PRESENT + VALUE] != 0
        present = np.float64(is_present)
        flags |= f.CARD_PRESENT if is_present else f.CARD_NOT_PRESENT
    ints[row, f.FLAGS] = flags
    write_number(program, w.CARD_PRESENT, present, numbers, row)
    return True


@device
def write_numbers(program, cells, numbers, row):
    """Measures and quantities; False: for Python."""
    for slot in range(program[w.FIRST_NUMBER], program[w.END]):
        number = np.nan
        if cells[CELL * slot + LENGTH] != ABSENT:
            value = float_of(cells[CELL * slot + VALUE])
            if value == value:
                number = value
                if not is_number(program, program[w.RECORDS] + w.RECORD * slot, number):
                    return False
        write_number(program, slot, number, numbers, row)
    return True


@device
def read_transaction(at, n, program, slots, cells, ints, numbers, row):
    """Read the bytes of one transaction into one row; `WRITTEN` or `FOR_PYTHON`."""
    if not collect(at, at + n, program, slots, cells) or cells[CELL * w.EVENT_TIME + LENGTH] == ABSENT:
        return FOR_PYTHON
    event_time_us = moment_at(cells[CELL * w.EVENT_TIME + VALUE], cells[CELL * w.EVENT_TIME + LENGTH])
    ints[row, f.EVENT_TIME_US] = event_time_us
    if event_time_us < 0 or not write_texts(program, cells, ints, numbers, row):
        return FOR_PYTHON
    if not write_money(program, cells, ints, numbers, row) or not write_flags(program, cells, ints, numbers, row):
        return FOR_PYTHON
    if not write_numbers(program, cells, numbers, row) or not is_complete(program, ints, row):
        return FOR_PYTHON
    return WRITTEN


@kernel("UniTuple(int64, 2)(int64, int64, int64[:, ::1])")
def find_transactions(address, size, spans):
    """
    Where the transactions of a message are that holds many.

    Parameters
    ----------
    address, size : int64
        Of the message's bytes.
    spans : int64[n, SPAN]
        The first n are written, as offsets from the address.

    Returns
    -------
    count, record : int64
        How many there are, n or not; -1: these bytes are no message.  `record` is 0, 1, or -1 where it is not said.
    """
    spans = borrowed(spans)
    at, end, count, record = address, address + size, np.int64(0), np.int64(-1)
    while at < end:
        number, kind, value, n, at = field_at(at, end)
        if at < 0:
            return np.int64(-1), record
        if number == TRANSACTIONS and kind == BYTES:
            if count < len(spans):
                spans[count, BEGIN], spans[count, SIZE] = value - address, n
            count += 1
        elif number == RECORD and kind == VARINT:
            record = np.int64(value != 0)
    return count, record


@kernel(
    "void(int64, int64[:, ::1], int64[::1], int64[::1], int64[::1], int64[:, ::1], float64[:, ::1], uint8[::1])",
    nogil=False,  # it writes into the encoder's program
)
def read_transactions(address, spans, program, slots, cells, ints, numbers, statuses):
    """
    Read transactions into the rows of the same number.

    Parameters
    ----------
    address : int64
    spans : int64[n, SPAN]
        Of `find_transactions`; the places of the ids are written.
    program : int64[:]
        Of the encoder.
    slots : int64[2 * N_FIELDS]
        Slot and wire type of each number of a field.
    cells : int64[CELL * slots]
        Room for one transaction.
    ints, numbers, statuses : arrays of n rows
    """
    spans, program, slots, cells = borrowed(spans), borrowed(program), borrowed(slots), borrowed(cells)
    ints, numbers, statuses = borrowed(ints), borrowed(numbers), borrowed(statuses)
    for row in range(len(spans)):
        begin, size = spans[row, BEGIN], spans[row, SIZE]
        statuses[row] = read_transaction(address + begin, size, program, slots, cells, ints, numbers, row)
        spans[row, ID_BEGIN] = cells[CELL * w.TRANSACTION_ID + VALUE] - address
        spans[row, ID_SIZE] = cells[CELL * w.TRANSACTION_ID + LENGTH]


@device
def put_varint(out, at, value):
    """A number below 2 ** 14."""
    if value < 0x80:
        out[at] = value
        return at + 1
    out[at], out[at + 1] = (value & 0x7F) | 0x80, value >> 7
    return at + 2


@device
def put_number(out, at, bits):
    """Eight bytes of a number, the lowest first."""
    for i in range(8):
        out[at + i] = (bits >> (8 * i)) & 0xFF
    return at + 8


@kernel("int64(int64, int64[:, ::1], int64[:, ::1], uint8[::1], uint8[::1], uint8[::1], int64[::1])")
def write_approvals(address, spans, bits, is_other, tail, out, ends):
    """
    Write a response of approvals by the score.

    Parameters
    ----------
    address : int64
        Of the request, whose bytes the ids are.
    spans : int64[n, SPAN]
    bits : int64[2, n]
        Bits of margins, then of scores.
    is_other : uint8[n]
        What is no such approval: left out.
    tail : uint8[:]
        What ends every approval: model, who decided, rung.
    out : uint8[:]
        Room for all of them.
    ends : int64[n]
        Where each ends is written.

    Returns
    -------
    int64
        Bytes written; -1 where they might not fit.
    """
    spans, bits, is_other = borrowed(spans), borrowed(bits), borrowed(is_other)
    tail, out, ends = borrowed(tail), borrowed(out), borrowed(ends)
    at = np.int64(0)
    for row in range(len(spans)):
        if is_other[row] == 0:
            begin, n_id = address + spans[row, ID_BEGIN], spans[row, ID_SIZE]
            if n_id > _MOST_ID_BYTES or len(tail) > 1_000 or len(out) - at < MOST_BYTES + n_id + len(tail):
                return np.int64(-1)
            n = (2 if n_id < 0x80 else 3) + n_id + 2 + 9 + 9 + len(tail)
            out[at] = _DECISION
            at = put_varint(out, at + 1, n)
            out[at] = _ID
            at = put_varint(out, at + 1, n_id)
            for i in range(n_id):
                out[at + i] = load_byte(begin + i)
            at += n_id
            out[at], out[at + 1], out[at + 2] = _OUTCOME, 1, _SCORE
            at = put_number(out, at + 3, bits[1, row])
            out[at] = _MARGIN
            at = put_number(out, at + 1, bits[0, row])
            for i in range(len(tail)):
                out[at + i] = tail[i]
            at += len(tail)
        ends[row] = at
    return at
