"""
The working form of transactions: rows of numbers that index into the population, before they become text.

A code of -1 means "absent" throughout.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraudsdk.simulation.draws import Bools, Ints
from fraudsdk.simulation.spec import PATTERNS, SECOND_US

Rows = NDArray[np.void]

ROW: Final = np.dtype(
    [
        ("time_us", np.int64),
        ("amount_minor", np.int64),
        ("original", np.int64),  # position of the row that a reversal or refund refers to
        ("user", np.int32),
        ("card", np.int32),
        ("merchant", np.int32),
        ("device", np.int32),
        ("ip", np.int32),
        ("counterparty", np.int32),  # below the number of users: an account holder
        ("channel", np.int8),
        ("entry_mode", np.int8),
        ("three_ds", np.int8),
        ("type", np.int8),
        ("pattern", np.int8),
        ("credit", np.bool_),
        ("declined", np.bool_),
    ],
    align=True,
)
_ABSENT_AT_FIRST: Final = (
    "original",
    "user",
    "card",
    "merchant",
    "device",
    "ip",
    "counterparty",
    "entry_mode",
    "three_ds",
)

CHANNELS: Final = ("pos", "ecommerce", "atm", "transfer", "deposit")
POS, ECOMMERCE, ATM, TRANSFER, DEPOSIT = range(5)

ENTRY_MODES: Final = ("chip", "contactless", "magstripe", "keyed", "stored")
CHIP, CONTACTLESS, MAGSTRIPE, KEYED, STORED = range(5)

THREE_DS: Final = ("frictionless", "challenge", "failed", "none")
FRICTIONLESS, CHALLENGE, FAILED, NOT_ASKED = range(4)

TYPES: Final = ("authorisation", "reversal", "refund")
AUTHORISATION, REVERSAL, REFUND = range(3)

PATTERN_CODE: Final = {pattern: code for code, pattern in enumerate(PATTERNS)}


def rows(n: int, **columns: Any) -> Rows:
    """Return `n` genuine, approved debits with the given columns; every other code is absent."""
    made = np.zeros(n, dtype=ROW)
    for name in _ABSENT_AT_FIRST:
        made[name] = -1
    for name, values in columns.items():
        made[name] = values
    return made


def received(debits: Rows, n_users: int) -> Rows:
    """
    Return the payees' side of those transfers whose payee is an account holder.

    The money arrives one second later.  The payee uses no card, device or address: nothing was asked of them.
    """
    paid = debits[(debits["counterparty"] >= 0) & (debits["counterparty"] < n_users) & ~debits["declined"]]
    return rows(
        len(paid),
        time_us=paid["time_us"] + SECOND_US,
        amount_minor=paid["amount_minor"],
        user=paid["counterparty"],
        counterparty=paid["user"],
        channel=TRANSFER,
        credit=True,
        pattern=paid["pattern"],
    )


def card_debits(ledger: Rows) -> Bools:
    """Mark purchases and withdrawals, approved or not."""
    marked = (ledger["card"] >= 0) & ~ledger["credit"] & (ledger["type"] == AUTHORISATION)
    return np.asarray(marked, dtype=np.bool_)


def by_time(ledger: Rows) -> Rows:
    """Sort by event time, references included; rows of one microsecond keep their order."""
    order = np.argsort(ledger["time_us"], kind="stable")
    place = np.empty(order.size + 1, dtype=np.int64)
    place[order] = np.arange(order.size)
    place[-1] = -1
    sorted_ledger = ledger[order]
    sorted_ledger["original"] = place[sorted_ledger["original"]]
    return sorted_ledger


def grouped(key: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """
    Bring equal keys together without changing the order within a group.

    Returns
    -------
    order : int64[n]
        Takes rows to grouped order.
    first : int64[n_groups]
        Where each group starts in grouped order.
    group : int64[n]
        Group of each row in grouped order.
    """
    order = np.argsort(key, kind="stable")
    together = key[order]
    starts = np.ones(order.size, dtype=np.bool_)
    starts[1:] = together[1:] != together[:-1]
    return order, np.flatnonzero(starts), np.cumsum(starts) - 1
