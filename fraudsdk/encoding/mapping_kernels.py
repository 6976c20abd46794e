"""
A plain `dict` becomes one encoded row in one call, where every value of it is spelt as most hosts spell it.

Two passes: the first finds the field of each key and keeps the address of its value, the second reads field by field and
settles what depends on several (amount and currency, one time of four, at least one entity).  The GIL is held and nothing
runs that could change the dict: every object stays where it is.

Status 0: the row is written.  Status 1: something is not everyday, the row holds anything, and `Encoder.prepare` decides.
"""

import numpy as np

from fraudsdk._cpython import LIST_ITEMS, TEXT_BYTES, TEXT_HASH, TEXT_LENGTH, TYPE, float_of, load_integer, next_item
from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.domain import fields as f
from fraudsdk.encoding import words as w
from fraudsdk.encoding.kernels import code_of, converted, read_text, same_letters
from fraudsdk.encoding.object_kernels import (
    ABSENT,
    ODD,
    epoch_of,
    flag_of,
    is_plain_text,
    major_of,
    minor_of,
    number_of,
    text_of,
    time_of_object,
)

WRITTEN, FOR_PYTHON, NO_SUCH_ROW = 0, 1, 2


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
def has_text(program, slot):
    return program[program[w.FOUND] + slot] != w.NO_TEXT


@device
def meaning_of(program, slot):
    """What listed text means; 0 where there is none."""
    spelling = program[program[w.FOUND] + slot]
    return 0 if spelling == w.NO_TEXT else program[spelling + w.MEANING]


@device
def event_time_of(program):
    """Microseconds of the one time that is given; -1: for the parser."""
    n_given, event_time_us = 0, -1
    for slot in range(w.EVENT_TIME, w.EVENT_TIME_S + 1):
        value = program[w.VALUES + slot]
        if value != 0:
            n_given += 1
            if slot == w.EVENT_TIME:
                event_time_us = time_of_object(program, value)
            else:
                unit_us = 1 if slot == w.EVENT_TIME_US else (1_000 if slot == w.EVENT_TIME_MS else 1_000_000)
                event_time_us = epoch_of(program, value, unit_us)
    return event_time_us if n_given == 1 else -1


@device
def amount_of(program, currency):
    """Minor units of the transaction's own currency; -1: for the parser."""
    major, minor = program[w.VALUES + w.AMOUNT], program[w.VALUES + w.AMOUNT_MINOR]
    if (major != 0) == (minor != 0):
        return -1
    return major_of(program, major, currency) if major != 0 else minor_of(program, minor)


@device
def write_number(program, slot, number, numbers, row):
    column = program[program[w.RECORDS] + w.RECORD * slot + w.NUMBER_AT]
    if column >= 0:
        numbers[row, column] = number


@device
def write_money(program, ints, numbers, row):
    """Amount in minor units and in major units of the reference currency; False: for the parser."""
    currency = program[w.CURRENCIES] + w.CURRENCY_WORDS * meaning_of(program, w.CURRENCY)
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
def flag_at(program, slot):
    value = program[w.VALUES + slot]
    return ABSENT if value == 0 else flag_of(program, program[w.RECORDS] + w.RECORD * slot, value)


@device
def write_flags(program, ints, numbers, row):
    """What happened; False: for the parser."""
    declined, present = flag_at(program, w.DECLINED), flag_at(program, w.CARD_PRESENT)
    if declined == ODD or present == ODD:
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
    write_number(program, w.CARD_PRESENT, np.nan if present == ABSENT else np.float64(present), numbers, row)
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
        value, is_read, number = program[w.VALUES + slot], True, np.nan
        if value != 0:
            is_read, number = number_of(program, program[w.RECORDS] + w.RECORD * slot, value)
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


@kernel("void(int64, int64, int64, int64[::1], int64[:, ::1], float64[:, ::1], uint8[::1])", nogil=False)
def encode_mappings(mappings, first, end, program, ints, numbers, statuses):
    """`read_mapping` of the items `first` to `end` of a list, into the rows of the same number."""
    program, ints, numbers, statuses = borrowed(program), borrowed(ints), borrowed(numbers), borrowed(statuses)
    for row in range(first, end):
        mapping = load_integer(load_integer(mappings + LIST_ITEMS) + 8 * row)
        statuses[row] = read_mapping(mapping, program, ints, numbers, row)
