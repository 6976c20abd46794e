"""
A plain `dict` becomes one encoded row in one call, where every value of it is spelt as most hosts spell it.

Two passes: the first finds the field of each key and keeps the address of its value, the second reads field by field and
settles what depends on several (amount and currency, one time of four, at least one entity).  The GIL is held and nothing
runs that could change the dict: every object stays where it is.

Status 0: the row is written.  Status 1: something is not everyday, the row holds anything, and `Encoder.prepare` decides.
"""

import numpy as np

from fraudsdk._cpython import (
    COMPACT_ASCII,
    FLOAT_VALUE,
    MOMENT_FIELDS,
    MOMENT_HAS_ZONE,
    MOMENT_ZONE,
    TEXT_BYTES,
    TEXT_HASH,
    TEXT_LENGTH,
    TEXT_STATE,
    TYPE,
    float_of,
    integer_of,
    load_byte,
    load_float,
    load_half_word,
    load_integer,
    next_item,
    store_byte,
)
from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.domain import fields as f
from fraudsdk.domain.money import MAX_AMOUNT_MINOR
from fraudsdk.encoding import words as w
from fraudsdk.encoding.kernels import (
    converted,
    find_spelling,
    in_range,
    read_decimal,
    read_text,
    read_time,
    same_letters,
    scaled,
    scaled_float,
    time_of,
)

WRITTEN, FOR_PYTHON, NO_SUCH_ROW = 0, 1, 2

_ABSENT, _ODD = -1, -2  # of a flag
_COMPACT_ASCII = np.uint64(COMPACT_ASCII)
_LOOKALIKE = 1e12  # no number below it is a card number


@device
def is_plain_text(program, value):
    if load_integer(value + TYPE) != program[w.STR]:
        return False
    return load_half_word(value + TEXT_STATE) & _COMPACT_ASCII == _COMPACT_ASCII


@device
def slot_of(program, key):
    """The slot of the field that a key names; -1 where there is none."""
    if not is_plain_text(program, key):
        return -1
    wanted = load_integer(key + TEXT_HASH)  # a key of a dict was hashed
    names, mask = program[w.NAMES], program[w.NAMES_MASK]
    place = wanted & mask
    while True:
        slot = program[names + 2 * place + 1] - 1
        if slot < 0:
            return -1
        if program[names + 2 * place] == wanted:
            record = program[w.RECORDS] + w.RECORD * slot
            if program[record + w.NAME] == key:
                return slot
            n = load_integer(key + TEXT_LENGTH)
            is_same = n == program[record + w.NAME_LENGTH]
            if is_same and same_letters(program, program[record + w.NAME_LETTERS], key + TEXT_BYTES, n):
                return slot
        place = (place + 1) & mask


@device
def collect(program, mapping):
    """Keep the address of every value that is not None under its field; False where a key names no field."""
    for slot in range(program[w.END]):
        program[w.VALUES + slot] = 0
    found, position, key, value = next_item(mapping, 0)
    while found:
        slot = slot_of(program, key)
        if slot < 0:
            return False
        if value != program[w.NONE]:
            program[w.VALUES + slot] = value
        found, position, key, value = next_item(mapping, position)
    return True


@device
def written_out(program, number, width):
    """
    Write an integer in decimal, padded with zeros to `width`, into the room for it.

    Returns
    -------
    address, n : int64
        n = -1 for a number that does not fit an int64, and for a negative one that would be padded.
    """
    value, does_not_fit = integer_of(number)
    end = program.ctypes.data + 8 * (w.DIGITS + 4)
    if does_not_fit != 0 or value == -(2**63) or (width > 0 and value < 0):
        return end, -1
    rest, n = abs(value), 0
    while rest > 0 or n == 0 or n < width:
        n += 1
        store_byte(end - n, ord("0") + rest % 10)
        rest //= 10
    if value < 0:
        n += 1
        store_byte(end - n, ord("-"))
    return end - n, n


@device
def text_of(program, value, width):
    """Address and length of text, or of an integer in decimal; the length is -1 for anything else."""
    if is_plain_text(program, value):
        return value + TEXT_BYTES, load_integer(value + TEXT_LENGTH)
    if load_integer(value + TYPE) == program[w.INT]:
        return written_out(program, value, width)
    return value, -1


@device
def write_texts(program, ints, numbers, row):
    """
    Read every text, write its key and its code, and keep where its spelling was found.

    False: one is for the parser.
    """
    for slot in range(w.FIRST_TEXT, program[w.FIRST_NUMBER]):
        value, record = program[w.VALUES + slot], program[w.RECORDS] + w.RECORD * slot
        spelling, key, code = w.NO_TEXT, 0, np.nan
        if value != 0:
            address, n = text_of(program, value, program[record + w.WIDTH])
            if n < 0:
                return False
            if n > 0:
                is_read, spelling, key = read_text(program, record, address, n)
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
def code_of(program, spelling):
    """The vocabulary's code; 0, unknown, for what no table lists."""
    return 0.0 if spelling == w.UNLISTED else float_of(program[spelling + w.CODE])


@device
def has_text(program, slot):
    return program[program[w.FOUND] + slot] != w.NO_TEXT


@device
def meaning_of(program, slot):
    """What listed text means; 0 where there is none."""
    spelling = program[program[w.FOUND] + slot]
    return 0 if spelling == w.NO_TEXT else program[spelling + w.MEANING]


@device
def flag_of(program, slot):
    """1, 0, `_ABSENT`, or `_ODD` for a value that the parser must judge."""
    value = program[w.VALUES + slot]
    if value == 0:
        return _ABSENT
    if value == program[w.TRUE]:
        return 1
    if value == program[w.FALSE]:
        return 0
    kind = load_integer(value + TYPE)
    if is_plain_text(program, value):
        n = load_integer(value + TEXT_LENGTH)
        record = program[w.RECORDS] + w.RECORD * slot
        spelling = find_spelling(program, record, value + TEXT_BYTES, n)
        if n == 0 or spelling != 0:
            return _ABSENT if n == 0 else program[spelling + w.MEANING]
        return _ODD
    number = np.nan
    if kind == program[w.FLOAT]:
        number = load_float(value + FLOAT_VALUE)
        if number != number:
            return _ABSENT
    elif kind == program[w.INT]:
        number = np.float64(integer_of(value)[0])
    if number == 0.0:
        return 0
    return 1 if number == 1.0 else _ODD


@device
def number_of(program, slot):
    """Whether a number is read, and the number, NaN where there is none."""
    value = program[w.VALUES + slot]
    if value == 0:
        return True, np.nan
    record = program[w.RECORDS] + w.RECORD * slot
    kind = load_integer(value + TYPE)
    if kind == program[w.FLOAT]:
        number = load_float(value + FLOAT_VALUE)
        if number != number:
            return True, np.nan
    elif kind == program[w.INT]:
        whole, does_not_fit = integer_of(value)
        number = np.float64(whole)
        if does_not_fit != 0:
            return False, np.nan
    else:
        return False, np.nan
    if program[record + w.KIND] == w.QUANTITY and abs(number) >= _LOOKALIKE:
        return False, np.nan
    return float_of(program[record + w.LOW]) <= number <= float_of(program[record + w.HIGH]), number


@device
def moment_of(program, value):
    """Microseconds of a `datetime` in `timezone.utc`; -1 for any other."""
    if load_byte(value + MOMENT_HAS_ZONE) != 1 or load_integer(value + MOMENT_ZONE) != program[w.UTC_ZONE]:
        return -1
    at = value + MOMENT_FIELDS
    return in_range(
        time_of(
            256 * load_byte(at) + load_byte(at + 1),
            load_byte(at + 2),
            load_byte(at + 3),
            load_byte(at + 4),
            load_byte(at + 5),
            load_byte(at + 6),
            (256 * load_byte(at + 7) + load_byte(at + 8)) * 256 + load_byte(at + 9),
        )
    )


@device
def epoch_of(program, slot, unit_us):
    """Microseconds of an integer of some unit, of a whole float too where the unit is a second; -1: for the parser."""
    value = program[w.VALUES + slot]
    kind = load_integer(value + TYPE)
    if kind == program[w.INT]:
        number, does_not_fit = integer_of(value)
    elif kind == program[w.FLOAT] and unit_us == 1_000_000:
        seconds = load_float(value + FLOAT_VALUE)
        if not (0.0 <= seconds < 1e11) or seconds != np.floor(seconds):
            return -1
        number, does_not_fit = np.int64(seconds), 0
    else:
        return -1
    if does_not_fit != 0 or number < 0 or number > 10**16 // unit_us:
        return -1
    return in_range(number * unit_us)


@device
def event_time_of(program):
    """Microseconds of the one time that is given; -1: for the parser."""
    n_given = 0
    for slot in range(w.EVENT_TIME, w.EVENT_TIME_S + 1):
        n_given += program[w.VALUES + slot] != 0
    if n_given != 1:
        return -1
    value = program[w.VALUES + w.EVENT_TIME]
    if value != 0:
        if is_plain_text(program, value):
            return read_time(value + TEXT_BYTES, load_integer(value + TEXT_LENGTH))
        return moment_of(program, value) if load_integer(value + TYPE) == program[w.DATETIME] else -1
    if program[w.VALUES + w.EVENT_TIME_US] != 0:
        return epoch_of(program, w.EVENT_TIME_US, 1)
    if program[w.VALUES + w.EVENT_TIME_MS] != 0:
        return epoch_of(program, w.EVENT_TIME_MS, 1_000)
    return epoch_of(program, w.EVENT_TIME_S, 1_000_000)


@device
def amount_of(program, currency):
    """Minor units of the transaction's own currency; -1: for the parser."""
    major, minor = program[w.VALUES + w.AMOUNT], program[w.VALUES + w.AMOUNT_MINOR]
    if (major != 0) == (minor != 0):
        return -1
    value = major if major != 0 else minor
    kind = load_integer(value + TYPE)
    if kind == program[w.INT]:
        number, does_not_fit = integer_of(value)
        if does_not_fit != 0 or number < 0 or number > MAX_AMOUNT_MINOR:
            return -1
        return number if minor != 0 else scaled(number, program[currency + w.EXPONENT])
    if minor != 0:
        return -1
    if kind == program[w.FLOAT]:
        return scaled_float(load_float(value + FLOAT_VALUE), np.float64(program[currency + w.POWER_OF_TEN]))
    if is_plain_text(program, value):
        return read_decimal(value + TEXT_BYTES, load_integer(value + TEXT_LENGTH), program[currency + w.EXPONENT])
    return -1


@device
def write_number(program, slot, number, numbers, row):
    column = program[program[w.RECORDS] + w.RECORD * slot + w.NUMBER_AT]
    if column >= 0:
        numbers[row, column] = number


@device
def write_money(program, ints, numbers, row):
    """Amount in minor units and in major units of the reference currency; False: for the parser."""
    currency = meaning_of(program, w.CURRENCY)
    amount = amount_of(program, currency)
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
def write_flags(program, ints, numbers, row):
    """What happened; False: for the parser."""
    declined, present = flag_of(program, w.DECLINED), flag_of(program, w.CARD_PRESENT)
    if declined == _ODD or present == _ODD:
        return False
    flags = meaning_of(program, w.TYPE) | meaning_of(program, w.DIRECTION)
    if not has_text(program, w.TYPE):
        flags |= f.AUTHORISATION
    if declined == 1:
        flags |= f.DECLINED
    if present == 1:
        flags |= f.CARD_PRESENT
    elif present == 0:
        flags |= f.CARD_NOT_PRESENT
    ints[row, f.FLAGS] = flags
    write_number(program, w.CARD_PRESENT, np.nan if present == _ABSENT else np.float64(present), numbers, row)
    return True


@device
def is_complete(program, ints, row):
    """Whether it names itself, an entity, and what it undoes if it undoes something; not itself, though."""
    any_entity = False
    for slot in range(w.FIRST_ENTITY, w.END_OF_ENTITIES):
        any_entity |= has_text(program, slot)
    needs_original = (ints[row, f.FLAGS] & (f.REVERSAL | f.CHARGEBACK)) != 0
    if not has_text(program, w.TRANSACTION_ID) or (needs_original and not has_text(program, w.ORIGINAL_ID)):
        return False
    return any_entity and ints[row, f.TRANSACTION_KEY] != ints[row, f.ORIGINAL_KEY]


@device
def write_numbers(program, numbers, row):
    """Measures and quantities; False: for the parser."""
    for slot in range(program[w.FIRST_NUMBER], program[w.END]):
        is_read, number = number_of(program, slot)
        if not is_read:
            return False
        write_number(program, slot, number, numbers, row)
    return True


@device
def read_mapping(mapping, program, ints, numbers, row):
    """
    Read an object, which may be anything, into one row.

    Parameters
    ----------
    mapping : int64
        ``id`` of the object; the caller holds it and the GIL.
    program : int64[n]
        `Program.words`; its values are overwritten.
    ints : int64[n, n_ints]
    numbers : float64[n, n_numbers]
    row : int64

    Returns
    -------
    int64
        `WRITTEN` or `FOR_PYTHON`.
    """
    if load_integer(mapping + TYPE) != program[w.DICT] or not collect(program, mapping):
        return FOR_PYTHON
    if program[w.VALUES + w.PAN] != 0 or program[w.VALUES + w.CUSTOM] != 0:
        return FOR_PYTHON
    event_time_us = event_time_of(program)
    ints[row, f.EVENT_TIME_US] = event_time_us
    if (
        event_time_us < 0
        or not write_texts(program, ints, numbers, row)
        or not write_money(program, ints, numbers, row)
    ):
        return FOR_PYTHON
    if not write_flags(program, ints, numbers, row) or not write_numbers(program, numbers, row):
        return FOR_PYTHON
    if not is_complete(program, ints, row):
        return FOR_PYTHON
    return WRITTEN


@kernel("int64(int64, int64[::1], int64[:, ::1], float64[:, ::1], int64)", nogil=False)
def encode_mapping(mapping, program, ints, numbers, row):
    """`read_mapping` for Python; `NO_SUCH_ROW` where the arrays do not fit."""
    if not (0 <= row < len(ints) and row < len(numbers)):
        return NO_SUCH_ROW
    if ints.shape[1] != program[w.N_INTS] or numbers.shape[1] != program[w.N_NUMBERS]:
        return NO_SUCH_ROW
    return read_mapping(mapping, borrowed(program), borrowed(ints), borrowed(numbers), row)
