"""
Columns of values: one kernel per kind of storage and kind of field, each value by the same code as in a single mapping.

A status per row says what came of it: `READ` (written), `ABSENT` (nothing is there), or `FOR_PYTHON` (the parser of single
values decides).  Kernels over buffers release the GIL; kernels over Python objects hold it, so they are called for a range
of rows at a time.
"""

import numpy as np

from fraudsdk._cpython import load_byte, load_half_word, load_integer
from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.domain.fields import AUTHORISATION, CARD_NOT_PRESENT, CARD_PRESENT, DECLINED, FLAGS
from fraudsdk.encoding import words as w
from fraudsdk.encoding.kernels import code_of, converted, read_decimal, read_text, read_time
from fraudsdk.encoding.object_kernels import (
    epoch_of,
    flag_of,
    is_nan,
    is_number,
    major_of,
    minor_of,
    number_of,
    text_of,
    time_of_object,
    written_out,
)

FOR_PYTHON, READ, ABSENT = range(3)

# Words that describe the text of an Arrow array.
VALIDITY, OFFSETS, OFFSET_BYTES, DATA, FIRST, N_TEXTS = range(6)


@device
def is_missing(program, value):
    return value == program[w.NONE] or is_nan(program, value)


@device
def cell_of(text, indices, row):
    """Address and length of a row's text; the length is -1 where it is null."""
    place = row
    if len(indices) > 0:
        place = indices[row]
        if place < 0 or place >= text[N_TEXTS]:
            return 0, -1
    place += text[FIRST]
    if text[VALIDITY] != 0 and (load_byte(text[VALIDITY] + (place >> 3)) >> (place & 7)) & 1 == 0:
        return 0, -1
    if text[OFFSET_BYTES] == 8:
        begin, end = load_integer(text[OFFSETS] + 8 * place), load_integer(text[OFFSETS] + 8 * place + 8)
    else:
        begin = np.int64(load_half_word(text[OFFSETS] + 4 * place))
        end = np.int64(load_half_word(text[OFFSETS] + 4 * place + 4))
    return text[DATA] + begin, end - begin


@device
def write_cell(program, record, address, n, ints, numbers, row, meanings):
    """Read one text and write its key, its code and what it means; its status."""
    if n <= 0:
        return ABSENT
    is_read, spelling, key = read_text(program, record, address, n)
    if not is_read:
        return FOR_PYTHON
    if program[record + w.INT_AT] >= 0:
        ints[row, program[record + w.INT_AT]] = key
    if program[record + w.NUMBER_AT] >= 0:
        numbers[row, program[record + w.NUMBER_AT]] = code_of(program, spelling)
    if spelling != w.UNLISTED:
        meanings[row] = program[spelling + w.MEANING]
    return READ


@kernel(
    "void(int64, int64, int64, int64, int64, int64,"
    " int64[::1], int64, int64[::1], int64, int64[:, ::1], float64[:, ::1], int64[::1], uint8[::1])"
)
def read_texts(
    valid, offsets, offset_bytes, data, first, n_texts, indices, at, program, record, ints, numbers, meanings, statuses
):
    """
    Text of an Arrow array into the rows from `at` on.

    Parameters
    ----------
    valid, offsets, offset_bytes, data, first, n_texts : int64
        See `VALIDITY` and what follows it.
    indices : int64[n] or int64[0]
        Which text each row has, -1 for none; empty where row `i` has text `i`.
    at : int64
    program : int64[:]
    record : int64
        Of the field.
    ints, numbers, meanings, statuses : arrays of all rows
    """
    program, ints, numbers = borrowed(program), borrowed(ints), borrowed(numbers)
    indices, meanings, statuses = borrowed(indices), borrowed(meanings), borrowed(statuses)
    text = valid, offsets, offset_bytes, data, first, n_texts
    for i in range(len(indices) if len(indices) > 0 else text[N_TEXTS]):
        address, n = cell_of(text, indices, i)
        statuses[at + i] = write_cell(program, record, address, n, ints, numbers, at + i, meanings)


@kernel(
    "void(int64, int64, int64, int64[::1], int64, int64[:, ::1], float64[:, ::1], int64[::1], uint8[::1])", nogil=False
)
def read_objects(objects, first, end, program, record, ints, numbers, meanings, statuses):
    """Text and integers among Python objects, `objects` being the address of the first one's address."""
    program, ints, numbers = borrowed(program), borrowed(ints), borrowed(numbers)
    meanings, statuses = borrowed(meanings), borrowed(statuses)
    for row in range(first, end):
        value = load_integer(objects + 8 * row)
        if is_missing(program, value):
            statuses[row] = ABSENT
        else:
            address, n = text_of(program, value, program[record + w.WIDTH])
            if n < 0:
                statuses[row] = FOR_PYTHON
            else:
                statuses[row] = write_cell(program, record, address, n, ints, numbers, row, meanings)


@kernel(
    "void(int64[::1], int64, int64, int64[::1], int64, int64[:, ::1], float64[:, ::1], int64[::1], uint8[::1])",
    nogil=False,
)
def read_integers(values, first, end, program, record, ints, numbers, meanings, statuses):
    """Integers as the text that spells them.  The GIL guards the room they are written out in."""
    program, ints, numbers, values = borrowed(program), borrowed(ints), borrowed(numbers), borrowed(values)
    meanings, statuses = borrowed(meanings), borrowed(statuses)
    for row in range(first, end):
        address, n = written_out(program, values[row], program[record + w.WIDTH])
        if n < 0:
            statuses[row] = FOR_PYTHON
        else:
            statuses[row] = write_cell(program, record, address, n, ints, numbers, row, meanings)


@kernel("void(int64, int64, int64, int64[::1], int64, int64[::1], uint8[::1])", nogil=False)
def read_flags(objects, first, end, program, record, flags, statuses):
    """True, false, and how else they are spelt, among Python objects."""
    program, flags, statuses = borrowed(program), borrowed(flags), borrowed(statuses)
    for row in range(first, end):
        value = load_integer(objects + 8 * row)
        flag = -1 if value == program[w.NONE] else flag_of(program, record, value)
        flags[row] = max(flag, 0)
        statuses[row] = READ if flag >= 0 else (ABSENT if flag == -1 else FOR_PYTHON)


@kernel("void(int64, int64, int64, int64, int64, int64, int64[::1], int64, int64[::1], uint8[::1])")
def read_times(valid, offsets, offset_bytes, data, first, n_texts, indices, at, times_us, statuses):
    """RFC 3339 text of an Arrow array."""
    indices, times_us, statuses = borrowed(indices), borrowed(times_us), borrowed(statuses)
    text = valid, offsets, offset_bytes, data, first, n_texts
    for i in range(len(indices) if len(indices) > 0 else text[N_TEXTS]):
        address, n = cell_of(text, indices, i)
        status = ABSENT
        if n >= 0:
            time_us = read_time(address, n)
            status = FOR_PYTHON if time_us < 0 else READ
            if time_us >= 0:
                times_us[at + i] = time_us
        statuses[at + i] = status


@kernel("void(int64, int64, int64, int64[::1], int64, int64[::1], uint8[::1])", nogil=False)
def read_time_objects(objects, first, end, program, unit_us, times_us, statuses):
    """Times among Python objects: numbers of a unit, or text and datetimes where `unit_us` is 0."""
    program, times_us, statuses = borrowed(program), borrowed(times_us), borrowed(statuses)
    for row in range(first, end):
        value = load_integer(objects + 8 * row)
        if is_missing(program, value):
            statuses[row] = ABSENT
        else:
            time_us = time_of_object(program, value) if unit_us == 0 else epoch_of(program, value, unit_us)
            statuses[row] = FOR_PYTHON if time_us < 0 else READ
            if time_us >= 0:
                times_us[row] = time_us


@kernel(
    "void(int64, int64, int64, int64, int64, int64, int64[::1], int64, int64[::1], int64[::1], int64[::1], uint8[::1])"
)
def read_amounts(valid, offsets, offset_bytes, data, first, n_texts, indices, at, program, currencies, minor, statuses):
    """Amounts in major units, as text of an Arrow array; `currencies` is which one each row has."""
    program, indices, currencies = borrowed(program), borrowed(indices), borrowed(currencies)
    minor, statuses = borrowed(minor), borrowed(statuses)
    text = valid, offsets, offset_bytes, data, first, n_texts
    for i in range(len(indices) if len(indices) > 0 else text[N_TEXTS]):
        address, n = cell_of(text, indices, i)
        exponent = program[program[w.CURRENCIES] + w.CURRENCY_WORDS * currencies[at + i] + w.EXPONENT]
        amount = read_decimal(address, n, exponent)
        minor[at + i] = amount
        statuses[at + i] = FOR_PYTHON if amount < 0 else READ


@kernel("void(int64, int64, int64, int64[::1], int64[::1], int64[::1], uint8[::1])", nogil=False)
def read_amount_objects(objects, first, end, program, currencies, minor, statuses):
    """Amounts among Python objects: in major units of each row's currency, or in minor units if there are no currencies."""
    program, currencies, minor, statuses = borrowed(program), borrowed(currencies), borrowed(minor), borrowed(statuses)
    for row in range(first, end):
        value = load_integer(objects + 8 * row)
        if len(currencies) == 0:
            amount = minor_of(program, value)
        else:
            amount = major_of(program, value, program[w.CURRENCIES] + w.CURRENCY_WORDS * currencies[row])
        minor[row] = amount
        statuses[row] = FOR_PYTHON if amount < 0 else READ


@kernel("void(int64[::1], int64[::1], int64[::1], uint8[::1])")
def convert_amounts(program, currencies, minor, statuses):
    """Minor units of each row's currency become those of the reference currency."""
    program, currencies, minor, statuses = borrowed(program), borrowed(currencies), borrowed(minor), borrowed(statuses)
    for row in range(len(minor)):
        currency = program[w.CURRENCIES] + w.CURRENCY_WORDS * currencies[row]
        amount = converted(program, currency, minor[row])
        statuses[row] = FOR_PYTHON if amount == -1 else READ
        if amount != -1:
            minor[row] = amount


@device
def write_number(program, record, is_read, number, numbers, row):
    """Write a number where the layout has a place for it; its status."""
    if program[record + w.NUMBER_AT] >= 0:
        numbers[row, program[record + w.NUMBER_AT]] = number
    return READ if is_read else FOR_PYTHON


@kernel("void(float64[::1], int64[::1], int64, float64[:, ::1], uint8[::1])")
def read_numbers(values, program, record, numbers, statuses):
    """Numbers, NaN where there is none."""
    values, program, numbers, statuses = borrowed(values), borrowed(program), borrowed(numbers), borrowed(statuses)
    for row in range(len(values)):
        is_read, number = True, np.nan  # one NaN for all: the payload of another would be other bits
        if values[row] == values[row]:
            is_read, number = is_number(program, record, values[row]), values[row]
        statuses[row] = write_number(program, record, is_read, number, numbers, row)


@kernel("void(int64, int64, int64, int64[::1], int64, float64[:, ::1], uint8[::1])", nogil=False)
def read_number_objects(objects, first, end, program, record, numbers, statuses):
    """Numbers among Python objects, NaN where there is none."""
    program, numbers, statuses = borrowed(program), borrowed(numbers), borrowed(statuses)
    for row in range(first, end):
        value = load_integer(objects + 8 * row)
        is_read, number = True, np.nan
        if value != program[w.NONE]:
            is_read, number = number_of(program, record, value)
        statuses[row] = write_number(program, record, is_read, number, numbers, row)


@kernel("void(float64[::1], int64[::1], uint8[::1])")
def read_flag_numbers(values, flags, statuses):
    """Flags as 1 and 0, NaN where there is none."""
    values, flags, statuses = borrowed(values), borrowed(flags), borrowed(statuses)
    for row in range(len(values)):
        value = values[row]
        flags[row] = value == 1.0
        if value == 1.0 or value == 0.0:
            statuses[row] = READ
        else:
            statuses[row] = FOR_PYTHON if value == value else ABSENT


@kernel("void(int64[::1], uint8[::1], int64[::1], int64[::1], int64[::1], uint8[::1], int64[:, ::1])")
def write_flags(types, type_statuses, directions, declined, present, present_statuses, ints):
    """
    What kind of transaction each row is, in the bits of ``ints[:, FLAGS]``.

    Parameters
    ----------
    types, directions : int64[n]
        Bits of the type, where `type_statuses` is `READ`, and of the direction.
    declined, present : int64[n]
        1 or 0; `present` where `present_statuses` is `READ`.
    ints : int64[n, :]
    """
    types, type_statuses, directions = borrowed(types), borrowed(type_statuses), borrowed(directions)
    declined, present, present_statuses = borrowed(declined), borrowed(present), borrowed(present_statuses)
    ints = borrowed(ints)
    for row in range(len(types)):
        flags = types[row] if type_statuses[row] == READ else AUTHORISATION
        flags |= directions[row]
        if declined[row] == 1:
            flags |= DECLINED
        if present_statuses[row] == READ:
            flags |= CARD_PRESENT if present[row] == 1 else CARD_NOT_PRESENT
        ints[row, FLAGS] = flags
