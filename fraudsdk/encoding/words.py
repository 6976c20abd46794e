"""
Where the words of a `Program` are, for it and for the kernels that read it.
"""

from __future__ import annotations

from typing import Final

from fraudsdk.domain.transaction import ENTITY_FIELDS

# Header.
NONE: Final = 0
TRUE: Final = 1
FALSE: Final = 2
STR: Final = 3
INT: Final = 4
FLOAT: Final = 5
DICT: Final = 6
DATETIME: Final = 7
UTC_ZONE: Final = 8
SECOND_UTC_ZONE: Final = 9  # UTC as `zoneinfo` has it
NAMES: Final = 10
NAMES_MASK: Final = 11
RECORDS: Final = 12
FIRST_NUMBER: Final = 13  # slots: texts end and numbers begin; numbers end
END: Final = 14
REFERENCE: Final = 15  # the spelling of the reference currency
MINOR_PER_MAJOR: Final = 16
DIGITS: Final = 17  # room for an integer in decimal: four words
FOUND: Final = 21  # where the spelling of each slot's text begins
N_INTS: Final = 22
N_NUMBERS: Final = 23
CURRENCIES: Final = 24
VALUES: Final = 25

# Slots of the fields that the border itself understands; then the other texts, entities first, and the other numbers.
SPECIAL_FIELDS: Final = (
    "event_time", "event_time_us", "event_time_ms", "event_time_s", "amount", "amount_minor", "declined", "card_present",
    "pan", "custom", "currency", "type", "direction", "transaction_id", "original_transaction_id",
)  # fmt: skip
(
    EVENT_TIME, EVENT_TIME_US, EVENT_TIME_MS, EVENT_TIME_S, AMOUNT, AMOUNT_MINOR, DECLINED, CARD_PRESENT,
    PAN, CUSTOM, CURRENCY, TYPE, DIRECTION, TRANSACTION_ID, ORIGINAL_ID, FIRST_ENTITY,
) = range(len(SPECIAL_FIELDS) + 1)  # fmt: skip
FIRST_TEXT: Final = CURRENCY
END_OF_ENTITIES: Final = FIRST_ENTITY + len(ENTITY_FIELDS)

# A record.
KIND: Final = 0  # how text that no table lists is read
INT_AT: Final = 1  # column of ``ints`` or -1
NUMBER_AT: Final = 2  # column of ``numbers`` or -1
KEY_0: Final = 3
KEY_1: Final = 4
SPELLINGS: Final = 5  # where its table begins; 0: it has none
SPELLINGS_MASK: Final = 6
WIDTH: Final = 7  # digits that an integer is padded to
LOW: Final = 8
HIGH: Final = 9
MOST_CHARACTERS: Final = 10
NAME: Final = 11  # address of the interned name; its letters and their number
NAME_LETTERS: Final = 12
NAME_LENGTH: Final = 13
RECORD: Final = 14

# Kinds of text.
LISTED: Final = 0  # only what a table lists
IDENTIFIER: Final = 1
CARD: Final = 2
ADDRESS: Final = 3
LOWER_CASE: Final = 4
AS_SENT: Final = 5
FOUR_DIGITS: Final = 6
# Kinds of numbers.
MEASURE: Final = 0
QUANTITY: Final = 1

# Where a spelling begins, of text that is not there or that no table lists.
NO_TEXT: Final = -1
UNLISTED: Final = 0

# A place of a table of spellings.
LENGTH: Final = 0  # in bytes; 0: the place is free
FIRST_WORD: Final = 1
LETTERS: Final = 2
CODE: Final = 3  # float64
KEY: Final = 4
MEANING: Final = 5  # flags of a type or direction, 1 and 0 of a flag, which currency it is
SPELLING: Final = 6

# A currency.
POWER_OF_TEN: Final = 0
EXPONENT: Final = 1
NUMERATOR: Final = 2  # of what a minor unit is worth in the reference currency; 0: no rate
DENOMINATOR: Final = 3
LARGEST: Final = 4  # amount whose product with the numerator fits
CURRENCY_WORDS: Final = 5

MIX: Final = 0x9E37_79B9_7F4A_7C15
