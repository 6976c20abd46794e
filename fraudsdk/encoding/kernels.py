"""
Text by its address: keyed hashes, and the everyday spellings of names, codes, times and amounts.

Nothing here refuses a value.  What is no everyday spelling is for the parsers of `fraudsdk.domain`: a kernel says "not me"
(False, or -1), and whatever it does take means what the parser would have said, to the bit.
"""

import numpy as np

from fraudsdk._cpython import TEXT_BYTES, TEXT_LENGTH, float_of, load_byte, load_half_word, load_integer, load_word
from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.domain.card_number import SHORTEST_LOOKALIKE
from fraudsdk.domain.event_time import MAX_EVENT_TIME_US, MIN_EVENT_TIME_US
from fraudsdk.domain.fields import AMOUNT_UNKNOWN
from fraudsdk.domain.money import MAX_AMOUNT_MINOR
from fraudsdk.encoding.words import (
    ADDRESS,
    AS_SENT,
    CARD,
    CODE,
    DENOMINATOR,
    FIRST_WORD,
    FOUR_DIGITS,
    IDENTIFIER,
    INT_AT,
    KEY,
    KEY_0,
    KEY_1,
    KIND,
    LARGEST,
    LENGTH,
    LETTERS,
    LOWER_CASE,
    MIX,
    MOST_CHARACTERS,
    NUMERATOR,
    SPELLING,
    SPELLINGS,
    SPELLINGS_MASK,
    UNLISTED,
)

# One byte eight times over.
_EACH = np.uint64(0x0101_0101_0101_0101)
_BLANKS = np.uint64(0x20) * _EACH
_DELETES = np.uint64(0x7F) * _EACH
_HIGH_BITS = np.uint64(0x80) * _EACH
_TO_CAPITALS = np.uint64(0x80 - ord("A")) * _EACH
_PAST_CAPITALS = np.uint64(0x80 - ord("Z") - 1) * _EACH
_MIX, _U40 = np.uint64(MIX), np.uint64(40)
_BLANK, _ZERO, _NINE = ord(" "), ord("0"), ord("9")
_POINT, _DASH, _COLON, _PLUS = ord("."), ord("-"), ord(":"), ord("+")

_U8, _U13, _U16, _U17, _U21, _U32, _U56 = (np.uint64(n) for n in (8, 13, 16, 17, 21, 32, 56))
_U64 = np.uint64(64)
_FINALISE = np.uint64(0xFF)
_C0, _C1, _C2, _C3 = (
    np.uint64(int.from_bytes(word, "big")) for word in (b"somepseu", b"dorandom", b"lygenera", b"tedbytes")
)


@device
def rotated(word, n):
    return (word << n) | (word >> (_U64 - n))


@device
def sip_round(v0, v1, v2, v3):
    v0 = v0 + v1
    v2 = v2 + v3
    v1 = rotated(v1, _U13) ^ v0
    v3 = rotated(v3, _U16) ^ v2
    v0 = rotated(v0, _U32)
    v2 = v2 + v1
    v0 = v0 + v3
    v1 = rotated(v1, _U17) ^ v2
    v3 = rotated(v3, _U21) ^ v0
    v2 = rotated(v2, _U32)
    return v0, v1, v2, v3


@device
def tail_word(address, n):
    """The last ``n % 8`` of `n` bytes, and nothing beyond them, as the low end of a word."""
    rest = n & 7
    start = address + (n - rest)
    if rest == 0:
        return np.uint64(0)
    if n >= 8:
        return load_word(address + n - 8) >> np.uint64(8 * (8 - rest))
    if rest >= 4:
        return load_half_word(start) | (load_half_word(start + rest - 4) << np.uint64(8 * (rest - 4)))
    word = np.uint64(load_byte(start))
    word |= np.uint64(load_byte(start + (rest >> 1))) << np.uint64(8 * (rest >> 1))
    return word | (np.uint64(load_byte(start + rest - 1)) << np.uint64(8 * (rest - 1)))


@device
def never_zero(key):
    """0 is what an absent identifier hashes to."""
    return np.int64(1) if key == 0 else key


@device
def siphash(address, n, k0, k1):
    """
    SipHash-2-4 of `n` bytes, as a signed number that is never 0.

    Source
    ------
    Aumasson and Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012.
    """
    k0, k1 = np.uint64(k0), np.uint64(k1)
    v0, v1, v2, v3 = k0 ^ _C0, k1 ^ _C1, k0 ^ _C2, k1 ^ _C3
    for offset in range(0, n - 7, 8):
        word = load_word(address + offset)
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
        v0 ^= word
    word = tail_word(address, n) | (np.uint64(n) << _U56)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0 ^ word, v1, v2 ^ _FINALISE, v3)
    for _ in range(3):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return never_zero(np.int64(v0 ^ v1 ^ v2 ^ v3))


@device
def is_digit(byte):
    return _ZERO <= byte <= _NINE


@device
def is_letter(byte):
    return ord("a") <= (byte | 0x20) <= ord("z")


@device
def unprintable(word):
    """Whether any of eight bytes is a control character, DEL, or not ASCII."""
    control = (word - _BLANKS) & ~word
    delete = word ^ _DELETES
    delete = (delete - _EACH) & ~delete
    return ((control | delete | word) & _HIGH_BITS) != 0


@device
def is_printable(address, n):
    bad = False
    for offset in range(0, n - 7, 8):
        bad |= unprintable(load_word(address + offset))
    rest = np.uint64(8 * (n & 7))
    return not (bad or unprintable(tail_word(address, n) | (_BLANKS << rest)))


@device
def may_be_card_data(address, n, anywhere):
    """
    Whether text of at least `SHORTEST_LOOKALIKE` characters, without blanks around it, may be a card number or track data.

    Exact for card numbers (`looks_like_card_number`); of track data it is enough that twelve digits lead and a separator
    follows.  `anywhere` says that a card number counts whatever precedes its digits.
    """
    first = load_byte(address)
    is_sentinel = first == ord("B") or first == ord("b")
    if first == ord(";") or first == ord("%"):
        return True
    if not (anywhere or is_digit(first) or is_sentinel):
        return False
    start = 1 if is_sentinel else 0
    leading = start
    while leading < n and is_digit(load_byte(address + leading)):
        leading += 1
    if leading - start >= 12 and leading < n:
        separator = load_byte(address + leading)
        if separator == ord("^") or separator == ord("=") or separator == ord("D"):
            return True
    n_digits, digit, total = 0, 0, 0
    for i in range(n - 1, -1, -1):
        byte = load_byte(address + i)
        if is_digit(byte):
            digit = byte - _ZERO
            doubled = 2 * digit - (9 if digit > 4 else 0)
            total += doubled if n_digits & 1 else digit
            n_digits += 1
        elif is_letter(byte):
            return False
    return 13 <= n_digits <= 19 and 2 <= digit <= 6 and total % 10 == 0


@device
def is_plain(address, n, most, anywhere):
    """Whether the parsers of names keep `n` > 0 bytes as they are: printable ASCII, no blanks around, no card data."""
    if n > most or load_byte(address) == _BLANK or load_byte(address + n - 1) == _BLANK:
        return False
    if not is_printable(address, n):
        return False
    return n < SHORTEST_LOOKALIKE or not may_be_card_data(address, n, anywhere)


@device
def has_capitals(address, n):
    found = np.uint64(0)
    for offset in range(0, n, 8):
        word = tail_word(address, n) if n - offset < 8 else load_word(address + offset)
        found |= (word + _TO_CAPITALS) ^ (word + _PAST_CAPITALS)
    return (found & _HIGH_BITS) != 0


@device
def is_ipv4(address, n):
    """Whether the text is an IPv4 address in its canonical spelling."""
    if n < 7 or n > 15:
        return False
    octet, n_digits, n_points = 0, 0, 0
    for i in range(n):
        byte = load_byte(address + i)
        if byte == _POINT:
            if n_digits == 0:
                return False
            n_points += 1
            octet, n_digits = 0, 0
        elif is_digit(byte) and not (n_digits > 0 and octet == 0):
            octet = 10 * octet + byte - _ZERO
            n_digits += 1
            if octet > 255:
                return False
        else:
            return False
    return n_points == 3 and n_digits > 0


@device
def hex_digit(byte):
    """The value of a hexadecimal digit in lower case; -1 for any other byte."""
    if is_digit(byte):
        return byte - _ZERO
    return byte - ord("a") + 10 if ord("a") <= byte <= ord("f") else -1


@device
def is_ipv6(address, n):
    """
    Whether the text is an IPv6 address in its canonical spelling, and none that holds an IPv4 address.

    The spelling is that of RFC 5952: no capitals, no leading zeros, and two colons in the place of the longest run of zero
    groups, the first of several, if it is longer than one.
    """
    if n < 2 or n > 39:
        return False
    n_groups, gap, run, longest, longest_before, group, after_gap = 0, -1, 0, 0, 0, 0, 0
    i = 0
    if load_byte(address) == _COLON:
        if load_byte(address + 1) != _COLON:
            return False
        gap, i = 0, 2
    while i < n:
        begin, group = i, 0
        while i < n and hex_digit(load_byte(address + i)) >= 0:
            if i > begin and group == 0:
                return False
            group = 16 * group + hex_digit(load_byte(address + i))
            i += 1
        if i == begin or i > begin + 4:
            return False
        run = run + 1 if group == 0 else 0
        longest = max(longest, run)
        if n_groups == gap:
            after_gap = group
            if group == 0:
                return False  # the two colons would stand for it as well
        n_groups += 1
        if i < n:
            if load_byte(address + i) != _COLON or i + 1 == n:
                return False
            i += 1
            if load_byte(address + i) == _COLON:
                if gap >= 0 or group == 0:
                    return False
                gap, longest_before, longest, run = n_groups, longest, 0, 0
                i += 1
    if gap < 0:
        return n_groups == 8 and longest < 2
    missing = 8 - n_groups
    holds_ipv4 = gap == 0 and n_groups == 3 and after_gap == 0xFFFF
    return missing >= 2 and longest_before < missing and longest <= missing and not holds_ipv4


@device
def is_number_of_four(address, n):
    return n == 4 and number_of_digits(address, n) >= 0


@device
def first_word(address, n):
    return load_word(address) if n >= 8 else tail_word(address, n)


@device
def mixed(first, address, n):
    last = load_word(address + n - 8) if n >= 8 else first
    return (((first ^ np.uint64(n)) * _MIX + last) * _MIX) >> _U40


@device
def same_letters(program, letters, address, n):
    """Whether `n` bytes at an address are those that the program keeps at `letters`."""
    offset = 0
    while n - offset >= 8:
        if np.uint64(program[letters + (offset >> 3)]) != load_word(address + offset):
            return False
        offset += 8
    return n == offset or np.uint64(program[letters + (offset >> 3)]) == tail_word(address, n)


@device
def find_spelling(program, record, address, n):
    """Where a field's table has a spelling; 0 where it has not."""
    table = program[record + SPELLINGS]
    if table == 0:
        return 0
    mask = program[record + SPELLINGS_MASK]
    first = first_word(address, n)
    place = np.int64(mixed(first, address, n)) & mask
    while True:
        entry = table + SPELLING * place
        length = program[entry + LENGTH]
        if length == 0:
            return 0
        is_same = length == n and np.uint64(program[entry + FIRST_WORD]) == first
        if is_same and (n <= 8 or same_letters(program, program[entry + LETTERS], address, n)):
            return entry
        place = (place + 1) & mask


@device
def is_everyday(program, record, address, n):
    """Whether text that no table lists is kept by its field's parser exactly as it is."""
    kind = program[record + KIND]
    if kind == IDENTIFIER or kind == CARD or kind == AS_SENT:
        return is_plain(address, n, program[record + MOST_CHARACTERS], kind == CARD)
    if kind == LOWER_CASE:
        return is_plain(address, n, program[record + MOST_CHARACTERS], False) and not has_capitals(address, n)
    if kind == ADDRESS:
        return is_ipv4(address, n) or is_ipv6(address, n)
    return kind == FOUR_DIGITS and is_number_of_four(address, n)


@device
def read_text(program, record, address, n):
    """
    Read `n` > 0 bytes as the text of a field.

    Returns
    -------
    is_read : bool
        False: it is for the parser.
    spelling : int64
        Where a table lists it; 0: nowhere.
    key : int64
        Its hash; 0 where the layout has no use for it.
    """
    spelling = find_spelling(program, record, address, n)
    if spelling != 0:
        return True, spelling, program[spelling + KEY]
    if not is_everyday(program, record, address, n):
        return False, spelling, 0
    if program[record + INT_AT] < 0:
        return True, spelling, 0
    return True, spelling, siphash(address, n, program[record + KEY_0], program[record + KEY_1])


@device
def code_of(program, spelling):
    """The vocabulary's code; 0, unknown, for what no table lists."""
    return 0.0 if spelling == UNLISTED else float_of(program[spelling + CODE])


@device
def number_of_digits(address, n):
    """The number that `n` digits spell, n < 19; -1 if one is none."""
    number = 0
    for i in range(n):
        byte = load_byte(address + i)
        if not is_digit(byte):
            return -1
        number = 10 * number + byte - _ZERO
    return number


@device
def days_of(year, month, day):
    """
    Days from 1970-01-01 to a day of the Gregorian calendar, year > 0; -1 where there is no such day.

    Source
    ------
    ``days_from_civil`` of Hinnant, "chrono-compatible low-level date algorithms".
    """
    if month < 1 or month > 12 or day < 1:
        return -1
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    most = 30 + ((month + (month >> 3)) & 1)
    if month == 2:
        most = 29 if is_leap else 28
    if day > most:
        return -1
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    year_of_era = shifted - era * 400
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


@device
def in_range(event_time_us):
    """The time, or -1 where it is not one that an event may have."""
    return event_time_us if MIN_EVENT_TIME_US <= event_time_us < MAX_EVENT_TIME_US else -1


@device
def time_of(year, month, day, hour, minute, second, microsecond):
    """Microseconds of an instant in UTC; -1 where there is none, or it is out of range."""
    if year < 1989 or year > 2200 or hour > 23 or minute > 59 or second > 59:
        return -1
    days = days_of(year, month, day)
    if days < 0 or hour < 0 or minute < 0 or second < 0:
        return -1
    return ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + microsecond


@device
def offset_of(address, n):
    """Minutes east of UTC that the end of a time says, in one of two spellings; -9999 for another."""
    if n == 1 and load_byte(address) == ord("Z"):
        return 0
    sign = load_byte(address)
    if n != 6 or load_byte(address + 3) != _COLON or not (sign == _PLUS or sign == _DASH):
        return -9999
    hours, minutes = number_of_digits(address + 1, 2), number_of_digits(address + 4, 2)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return -9999
    east = 60 * hours + minutes
    return east if sign == _PLUS else -east


@device
def read_time(address, n):
    """Microseconds of ``2026-11-23T10:00:00[.123456](Z|+01:00)``; -1: for the parser."""
    if n < 20 or n > 35:
        return -1
    separator = load_byte(address + 10)
    if load_byte(address + 4) != _DASH or load_byte(address + 7) != _DASH:
        return -1
    if load_byte(address + 13) != _COLON or load_byte(address + 16) != _COLON:
        return -1
    if not (separator == ord("T") or separator == _BLANK):
        return -1
    end, microsecond = 19, 0
    if load_byte(address + 19) == _POINT:
        end = 20
        scale = 100_000
        while end < n and is_digit(load_byte(address + end)):
            microsecond += scale * (load_byte(address + end) - _ZERO)
            scale //= 10
            end += 1
        if end == 20:
            return -1
    if end >= n:
        return -1
    east = offset_of(address + end, n - end)
    time_us = time_of(
        number_of_digits(address, 4),
        number_of_digits(address + 5, 2),
        number_of_digits(address + 8, 2),
        number_of_digits(address + 11, 2),
        number_of_digits(address + 14, 2),
        number_of_digits(address + 17, 2),
        microsecond,
    )
    return -1 if east == -9999 or time_us < 0 else in_range(time_us - east * 60_000_000)


@device
def read_decimal(address, n, exponent):
    """Minor units of ``12.50``; -1: for the parser."""
    if n < 1 or n > 15:
        return -1
    minor, n_decimals, after_point = 0, 0, False
    for i in range(n):
        byte = load_byte(address + i)
        if is_digit(byte):
            minor = 10 * minor + byte - _ZERO
            n_decimals += after_point
        elif byte == _POINT and i > 0 and i < n - 1 and not after_point:
            after_point = True
        else:
            return -1
    while n_decimals > exponent and minor % 10 == 0:  # "12.00" of a currency without decimals
        minor //= 10
        n_decimals -= 1
    return -1 if n_decimals > exponent else scaled(minor, exponent - n_decimals)


@device
def scaled(amount, n_zeros):
    """``amount * 10 ** n_zeros``; -1 where that is no amount."""
    for _ in range(n_zeros):
        if amount > MAX_AMOUNT_MINOR:
            return -1
        amount *= 10
    return amount if 0 <= amount <= MAX_AMOUNT_MINOR else -1


@device
def converted(program, currency, amount):
    """Minor units of the reference currency; `AMOUNT_UNKNOWN` without a rate, -1: for Python's integers."""
    numerator, denominator = program[currency + NUMERATOR], program[currency + DENOMINATOR]
    if amount > program[currency + LARGEST]:
        return -1
    if numerator == 0:
        return AMOUNT_UNKNOWN
    if numerator == denominator:
        return amount
    quotient = amount * numerator // denominator
    twice = 2 * (amount * numerator - quotient * denominator)
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient if quotient <= MAX_AMOUNT_MINOR else -1


@device
def scaled_float(amount, power_of_ten):
    """
    Minor units of a float of major units; -1: for the parser.

    With at most 15 digits, a float has a decimal form of that many decimals if and only if dividing the integer gives the
    float back (IEEE 754 division is correctly rounded).
    """
    nearest = np.rint(amount * power_of_ten)
    if not (nearest <= MAX_AMOUNT_MINOR and nearest / power_of_ten == amount):
        return -1
    return -1 if np.signbit(amount) else np.int64(nearest)


@kernel("int64(uint8[::1], int64, int64)")
def hash_bytes(text, k0, k1):
    """`siphash` of an array of bytes."""
    text = borrowed(text)
    return siphash(text.ctypes.data, len(text), k0, k1)


@kernel("int64(int64, int64, int64)", nogil=False)
def hash_plain_text(text, k0, k1):
    """`siphash` of a `str` by its address; it must be ASCII, and the layout of objects be known."""
    return siphash(text + TEXT_BYTES, load_integer(text + TEXT_LENGTH), k0, k1)
