"""What follows from the transactions themselves: lack of funds, reversals, refunds, balances."""

from __future__ import annotations

from typing import Final

import numpy as np

from fraudsdk.simulation.draws import Ints, around, chance, running_total_by_group
from fraudsdk.simulation.ledger import ECOMMERCE, POS, REFUND, REVERSAL, Rows, card_debits, grouped
from fraudsdk.simulation.population import Population
from fraudsdk.simulation.spec import DAY_US, HOUR_US, MINUTE_US, SECOND_US, SimulationSpec

REFUND_SHARE: Final = 0.012
REVERSAL_SHARE: Final = 0.006
# One user in seven runs out of money, for about one card payment in eleven.
TIGHT_SHARE: Final = 0.15
SHORT_SHARE: Final = 0.09


def aftermath_counts(spec: SimulationSpec) -> tuple[int, int]:
    """Numbers of refunds and of reversals."""
    return round(spec.transactions * REFUND_SHARE), round(spec.transactions * REVERSAL_SHARE)


def refunds_and_reversals(spec: SimulationSpec, rng: np.random.Generator, ledger: Rows) -> Rows:
    """
    Undo some approved purchases of a ledger, each at most once.

    A reversal repeats the fields of the message it undoes, direction included; a refund is a new credit.
    """
    n_refunds, n_reversals = aftermath_counts(spec)
    end_us = spec.start_us + spec.period_us
    at_merchant = (ledger["channel"] == POS) | (ledger["channel"] == ECOMMERCE)
    room_us = end_us - ledger["time_us"]
    candidates = np.flatnonzero(at_merchant & ~ledger["declined"] & (room_us > HOUR_US))
    undone = rng.choice(candidates, n_refunds + n_reversals, replace=False)
    is_refund = np.arange(undone.size) < n_refunds
    late_us = np.where(
        is_refund, around(rng, 5.0 * DAY_US, 0.8, undone.size), around(rng, 4.0 * MINUTE_US, 1.6, undone.size)
    )
    # Refunds beyond the end of the period are not seen; these come a little sooner instead, to keep the count.
    late_us = np.where(late_us < room_us[undone], late_us, rng.uniform(0.05, 0.95, undone.size) * room_us[undone])
    original = ledger[undone]
    undoing: Rows = original.copy()
    undoing["time_us"] += np.maximum(late_us.astype(np.int64), SECOND_US)
    undoing["original"] = undone
    undoing["type"] = np.where(is_refund, REFUND, REVERSAL)
    undoing["credit"] = is_refund
    undoing["pattern"] = 0
    in_part = is_refund & chance(rng, 0.3, undone.size) & (original["amount_minor"] >= 200)
    part_minor = np.round(original["amount_minor"] * rng.uniform(0.2, 0.9, undone.size)).astype(np.int64)
    undoing["amount_minor"] = np.where(in_part, part_minor, original["amount_minor"])
    # A refund is started by the merchant: no card is read and no device is seen.
    for name in ("device", "ip", "three_ds", "entry_mode"):
        undoing[name] = np.where(is_refund, -1, undoing[name])
    return undoing


def decline_for_lack_of_funds(population: Population, rng: np.random.Generator, ledger: Rows) -> Ints:
    """
    Mark card payments that found too little money, in place, and say what every account held at the start.

    The opening balance of a user who runs out is set so that the declared share of card payments finds less than the
    overdraft allows; everybody else's is set so that this never happens.  Transfers are not declined: one that was
    refused would have no second leg, and the two legs are what laundering features look at.

    Returns
    -------
    int64[n_users]
        Balance before the first row, minor units.
    """
    users = population.users
    order, first, group = grouped(ledger["user"])
    after = running_total_by_group(signed_minor(ledger[order]), first, group)
    user_of_group = ledger["user"][order[first]]
    opening_minor = np.round(around(rng, 0.6, 0.9, population.n_users) * users.income_minor).astype(np.int64)
    opening_minor[user_of_group] -= np.minimum(np.minimum.reduceat(after, first), 0)
    tight = chance(rng, TIGHT_SHARE, population.n_users)
    # Card payments of the tight, the deepest in debt first.
    at = np.flatnonzero(card_debits(ledger[order]) & tight[ledger["user"][order]])
    at = at[np.lexsort((after[at], group[at]))]
    _, first_at, rank_group = grouped(group[at])
    n_short = np.floor(np.diff(np.append(first_at, at.size)) * SHORT_SHARE).astype(np.int64)
    short = np.arange(at.size) - first_at[rank_group] < n_short[rank_group]
    ledger["declined"][order[at[short]]] = True
    # The first payment that just fits leaves exactly the overdraft.
    fits = at[first_at + n_short]
    tight_user = ledger["user"][order[fits]]
    opening_minor[tight_user] = -after[fits] - users.income_minor[tight_user] // 4
    return opening_minor


def signed_minor(ledger: Rows) -> Ints:
    """What each row does to the account's balance, minor units."""
    adds = ledger["credit"] | (ledger["type"] == REVERSAL)
    return np.where(ledger["declined"], 0, np.where(adds, 1, -1) * ledger["amount_minor"]).astype(np.int64)


def balances_minor(ledger: Rows, opening_minor: Ints) -> Ints:
    """Balance of the account before each row of a ledger that is sorted by time, minor units."""
    order, first, group = grouped(ledger["user"])
    movement = signed_minor(ledger[order])
    before = running_total_by_group(movement, first, group) - movement
    balance = np.empty(len(ledger), dtype=np.int64)
    balance[order] = opening_minor[ledger["user"][order]] + before
    return balance
