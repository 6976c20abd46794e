"""
The fields of a transaction, and how the encoded record lays them out.

An encoded transaction is one row of two arrays, so that a kernel needs two arguments and a batch is the same shape:

``ints : int64[n, 5 + n_identifiers]``
    columns `EVENT_TIME_US`, `AMOUNT_MINOR`, `FLAGS`, `TRANSACTION_KEY`, `ORIGINAL_KEY`, then one keyed 64-bit hash per
    identifier field of the layout (0 = absent).
``numbers : float64[n, n_numbers]``
    one column per number or category field of the layout (NaN = absent; a category is its vocabulary code, 0 = unknown).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Columns of ``ints``.
EVENT_TIME_US: Final = 0
AMOUNT_MINOR: Final = 1
FLAGS: Final = 2
TRANSACTION_KEY: Final = 3
ORIGINAL_KEY: Final = 4
FIRST_IDENTIFIER: Final = 5

# An amount whose value in the reference currency is not known (no rate was declared).
AMOUNT_UNKNOWN: Final = -(2**63)

# Bits of ``FLAGS``.  Exactly one of the first four is set.
AUTHORISATION: Final = 1 << 0
REVERSAL: Final = 1 << 1
REFUND: Final = 1 << 2
CHARGEBACK: Final = 1 << 3
CREDIT: Final = 1 << 4  # money into the user's account: a salary, a received transfer
DECLINED: Final = 1 << 5  # the host's final answer, where it is known
CARD_PRESENT: Final = 1 << 6  # neither of these two: unknown
CARD_NOT_PRESENT: Final = 1 << 7
# Set by the state kernels, never by the encoder.
FRAUD: Final = 1 << 8  # a label arrived: fraud
GENUINE: Final = 1 << 9  # a label arrived: not fraud
REVERSED: Final = 1 << 10  # undone in full by a reversal
FIRST_USER_FILTER: Final = 1 << 16  # bits 16 to 31: the filters that a feature set declares
MAX_USER_FILTERS: Final = 16

# Text that names something; encoded as a keyed hash, never kept as text.
IDENTIFIERS: Final = (
    "user_id",
    "card_id",
    "merchant_id",
    "device_id",
    "ip",
    "session_id",
    "counterparty_id",
    "device_fingerprint",
    "user_agent_hash",
    "email_hash",
    "phone_hash",
)

# Text from a small set; encoded as a vocabulary code in ``numbers``, and as a keyed hash where an entity or a
# distinct count reads it.
CATEGORIES: Final = (
    "currency",
    "channel",
    "entry_mode",
    "mcc",
    "merchant_country",
    "card_country",
    "ip_country",
    "three_ds",
)

# Quantities.  Degrees for positions; ``account_age_days`` in days; ``balance`` in major units; booleans are 0 and 1.
NUMBERS: Final = (
    "amount",
    "latitude",
    "longitude",
    "home_latitude",
    "home_longitude",
    "card_present",
    "account_age_days",
    "balance",
)


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """
    Which fields an encoded transaction carries.

    Attributes
    ----------
    identifiers : tuple of str
        Fields hashed into ``ints[:, FIRST_IDENTIFIER:]``, in order.  Members of `IDENTIFIERS`, `CATEGORIES`, or a
        declared custom category.
    numbers : tuple of str
        Fields in ``numbers``, in order.  Members of `NUMBERS`, `CATEGORIES`, or a declared custom field.
    custom_numbers : tuple of str
        Custom numeric fields that the feature set declares.
    custom_categories : tuple of str
        Custom categorical fields that the feature set declares.
    """

    identifiers: tuple[str, ...]
    numbers: tuple[str, ...]
    custom_numbers: tuple[str, ...] = ()
    custom_categories: tuple[str, ...] = ()

    @property
    def n_ints(self) -> int:
        """Number of columns of ``ints``."""
        return FIRST_IDENTIFIER + len(self.identifiers)
