"""
Values of fields out of Python objects by their address; the caller holds the GIL and the objects.

Only exact types count: what a subclass prints or compares as is for Python to say.  As in `kernels`, nothing is refused here.
"""

import numpy as np

from fraudsdk._cpython import (
    COMPACT_ASCII,
    FLOAT_VALUE,
    MOMENT_FIELDS,
    MOMENT_HAS_ZONE,
    MOMENT_ZONE,
    TEXT_BYTES,
    TEXT_LENGTH,
    TEXT_STATE,
    TYPE,
    float_of,
    integer_of,
    load_byte,
    load_float,
    load_half_word,
    load_integer,
    store_byte,
)
from fraudsdk._jit import device
from fraudsdk.domain.money import MAX_AMOUNT_MINOR
from fraudsdk.encoding import words as w
from fraudsdk.encoding.kernels import find_spelling, in_range, read_decimal, read_time, scaled, scaled_float, time_of

ABSENT, ODD = -1, -2  # of a flag: there is none; it is for the parser

_COMPACT_ASCII = np.uint64(COMPACT_ASCII)
_LOOKALIKE = 1e12  # no number below it is a card number


@device
def is_plain_text(program, value):
    if load_integer(value + TYPE) != program[w.STR]:
        return False
    return load_half_word(value + TEXT_STATE) & _COMPACT_ASCII == _COMPACT_ASCII


@device
def written_out(program, value, width):
    """
    Write an integer in decimal, padded with zeros to `width`, into the room for it.

    Returns
    -------
    address, n : int64
        n = -1 for the least number of all, which has no absolute value, and for a negative one that would be padded.
    """
    end = program.ctypes.data + 8 * (w.DIGITS + 4)
    if value == -(2**63) or (width > 0 and value < 0):
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
        number, does_not_fit = integer_of(value)
        return (value, -1) if does_not_fit else written_out(program, number, width)
    return value, -1


@device
def is_nan(program, value):
    """Whether it is the float that stands for a missing value."""
    if load_integer(value + TYPE) != program[w.FLOAT]:
        return False
    number = load_float(value + FLOAT_VALUE)
    return number != number


@device
def flag_of_number(number):
    if number == 0.0:
        return 0
    if number == 1.0:
        return 1
    return ABSENT if number != number else ODD


@device
def flag_of_text(program, record, address, n):
    spelling = find_spelling(program, record, address, n)
    if spelling != 0:
        return program[spelling + w.MEANING]
    return ABSENT if n == 0 else ODD


@device
def flag_of(program, record, value):
    """1, 0, `ABSENT`, or `ODD`."""
    if value == program[w.TRUE]:
        return 1
    if value == program[w.FALSE]:
        return 0
    if is_plain_text(program, value):
        return flag_of_text(program, record, value + TEXT_BYTES, load_integer(value + TEXT_LENGTH))
    kind = load_integer(value + TYPE)
    if kind == program[w.FLOAT]:
        return flag_of_number(load_float(value + FLOAT_VALUE))
    if kind != program[w.INT]:
        return ODD
    number, does_not_fit = integer_of(value)
    return ODD if does_not_fit else flag_of_number(np.float64(number))


@device
def is_number(program, record, number):
    """Whether a float is a number of the field and nothing else."""
    if program[record + w.KIND] == w.QUANTITY and abs(number) >= _LOOKALIKE:
        return False
    return float_of(program[record + w.LOW]) <= number <= float_of(program[record + w.HIGH])


@device
def number_of(program, record, value):
    """Whether a number is read, and the number, NaN where there is none."""
    kind = load_integer(value + TYPE)
    if kind == program[w.FLOAT]:
        number = load_float(value + FLOAT_VALUE)
        if number != number:
            return True, np.nan  # one NaN for all: the payload of another would be other bits
    elif kind == program[w.INT]:
        whole, does_not_fit = integer_of(value)
        number = np.float64(whole)
        if does_not_fit != 0:
            return False, np.nan
    else:
        return False, np.nan
    return is_number(program, record, number), number


@device
def moment_of(program, value):
    """Microseconds of a `datetime` in UTC; -1 for one in any other zone."""
    if load_byte(value + MOMENT_HAS_ZONE) != 1:
        return -1
    zone = load_integer(value + MOMENT_ZONE)
    if zone != program[w.UTC_ZONE] and zone != program[w.SECOND_UTC_ZONE]:
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
def time_of_object(program, value):
    """Microseconds of RFC 3339 text or a `datetime` in UTC; -1: for the parser."""
    if is_plain_text(program, value):
        return read_time(value + TEXT_BYTES, load_integer(value + TEXT_LENGTH))
    return moment_of(program, value) if load_integer(value + TYPE) == program[w.DATETIME] else -1


@device
def epoch_of(program, value, unit_us):
    """Microseconds of an integer of some unit, of a whole float too where the unit is a second; -1: for the parser."""
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
def minor_of(program, value):
    """An integer of minor units; -1: for the parser."""
    if load_integer(value + TYPE) != program[w.INT]:
        return -1
    number, does_not_fit = integer_of(value)
    return number if does_not_fit == 0 and 0 <= number <= MAX_AMOUNT_MINOR else -1


@device
def major_of(program, value, currency):
    """Minor units of an amount in major units of a currency; -1: for the parser."""
    kind = load_integer(value + TYPE)
    if kind == program[w.INT]:
        number, does_not_fit = integer_of(value)
        return -1 if does_not_fit else scaled(number, program[currency + w.EXPONENT])
    if kind == program[w.FLOAT]:
        return scaled_float(load_float(value + FLOAT_VALUE), np.float64(program[currency + w.POWER_OF_TEN]))
    if is_plain_text(program, value):
        return read_decimal(value + TEXT_BYTES, load_integer(value + TEXT_LENGTH), program[currency + w.EXPONENT])
    return -1
