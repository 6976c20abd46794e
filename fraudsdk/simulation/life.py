"""
Normal life: what account holders do when nobody steals from them.

It holds what fraud is mistaken for: journeys, new telephones, VPNs, night workers, shopping sprees, a card number typed
wrong and then right, flatmates who pool the rent with one of them, invoices just under a round limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fraudsdk.simulation.aftermath import aftermath_counts
from fraudsdk.simulation.draws import Bools, Ints, chance, ranked, running_total_by_group, weighted
from fraudsdk.simulation.habits import habitual_times_us, purchase_amounts_minor
from fraudsdk.simulation.ledger import (
    ATM,
    CHALLENGE,
    CHIP,
    CONTACTLESS,
    ECOMMERCE,
    FAILED,
    FRICTIONLESS,
    KEYED,
    MAGSTRIPE,
    NOT_ASKED,
    POS,
    STORED,
    Rows,
    rows,
)
from fraudsdk.simulation.obligations import obligations
from fraudsdk.simulation.population import FAVOURITE_SHOPS, FAVOURITE_SITES, Population
from fraudsdk.simulation.spec import MINUTE_US, SECOND_US, SimulationSpec

SECOND_TRY_SHARE: Final = 0.009
SPREE_SHARE: Final = 0.007


@dataclass(frozen=True, slots=True)
class Life:
    """
    Genuine rows, not sorted.

    Attributes
    ----------
    ledger : Rows
        Purchases first, then everything else.
    n_purchases : int
        Rows that may be taken out to make room for fraud: no other row depends on them.
    """

    ledger: Rows
    n_purchases: int


def live(spec: SimulationSpec, population: Population, rng: np.random.Generator) -> Life:
    """Draw the genuine rows: together with refunds and reversals, exactly as many as the spec asks for."""
    regular = obligations(spec, population, rng)
    n_second_tries = round(spec.transactions * SECOND_TRY_SHARE)
    n_purchases = spec.transactions - len(regular) - n_second_tries - sum(aftermath_counts(spec))
    bought = purchases(spec, population, rng, n_purchases)
    return Life(np.concatenate([bought, first_tries(spec, rng, bought, n_second_tries), regular]), n_purchases)


def purchases(spec: SimulationSpec, population: Population, rng: np.random.Generator, n: int) -> Rows:
    """Draw `n` purchases and withdrawals by habit, wherever each user is."""
    users = population.users
    user = np.repeat(np.arange(spec.users), rng.multinomial(n, users.activity / users.activity.sum()))
    time_us = habitual_times_us(spec, population, rng, user)
    user, time_us = _with_sprees(spec, rng, user, time_us)
    city, in_transit = population.whereabouts(user, time_us)
    at_home = city == users.city[user]
    online = chance(rng, np.where(at_home, users.online_share[user], 0.5 * users.online_share[user]), n) | in_transit
    cash = ~online & chance(rng, np.where(at_home, 0.06, 0.11), n)
    channel = np.where(online, ECOMMERCE, np.where(cash, ATM, POS))
    bought = rows(
        n,
        time_us=time_us,
        user=user,
        card=users.first_card[user] + ranked(rng, users.n_cards[user], n, 2.2),
        merchant=_choose_merchants(population, rng, user, city, at_home, channel),
        channel=channel,
    )
    bought["amount_minor"] = purchase_amounts_minor(population, rng, bought["merchant"], users.spending[user])
    _present_cards(rng, bought, abroad=~at_home)
    _go_online(population, rng, bought, city, in_transit)
    # A wrong PIN, an expired card, a terminal that timed out.
    bought["declined"] |= chance(rng, 0.006, n)
    return bought


def _with_sprees(spec: SimulationSpec, rng: np.random.Generator, user: Ints, time_us: Ints) -> tuple[Ints, Ints]:
    """Draw some purchases of a user together, minutes after one of them: a burst that is nobody's crime."""
    order = np.argsort(user * (2 * spec.period_us) + (time_us - spec.start_us))
    user, time_us = user[order], time_us[order]
    head = np.flatnonzero(chance(rng, SPREE_SHARE, user.size))
    length = rng.integers(2, 8, head.size)
    head, length = head[head + length < user.size], length[head + length < user.size]
    spree = np.repeat(np.arange(head.size), length)
    first = np.cumsum(length) - length
    follower = head[spree] + 1 + np.arange(spree.size) - first[spree]
    gaps_us = (3 * MINUTE_US + rng.exponential(12.0, spree.size) * MINUTE_US).astype(np.int64)
    moved_us = time_us[head[spree]] + running_total_by_group(gaps_us, first, spree)
    fits = (user[follower] == user[head[spree]]) & (moved_us < spec.start_us + spec.period_us)
    time_us[follower[fits]] = moved_us[fits]
    return user, time_us


def _choose_merchants(
    population: Population, rng: np.random.Generator, user: Ints, city: Ints, at_home: Bools, channel: Ints
) -> Ints:
    users, merchants, n = population.users, population.merchants, user.size
    merchant = merchants.some_shop(rng, city)
    habit = at_home & chance(rng, 0.72, n)
    merchant = np.where(habit, users.shops[user, ranked(rng, FAVOURITE_SHOPS, n, 1.8)], merchant)
    cash = np.flatnonzero(channel == ATM)
    merchant[cash] = merchants.some_machine(rng, city[cash])
    online = np.flatnonzero(channel == ECOMMERCE)
    favourite = users.sites[user[online], ranked(rng, FAVOURITE_SITES, online.size, 1.8)]
    merchant[online] = np.where(chance(rng, 0.6, online.size), favourite, merchants.some_site(rng, online.size))
    return merchant


def _present_cards(rng: np.random.Generator, bought: Rows, abroad: Bools) -> None:
    """Fill in how the card was read, for what was bought at a counter or drawn from a machine."""
    n = len(bought)
    shares = np.array([0.42, 0.5, 0.03, 0.01])
    mode = weighted(rng, [*shares, 1.0 - shares.sum()], n)
    # Chip readers are not everywhere where people travel.
    mode = np.where(abroad & chance(rng, 0.1, n), MAGSTRIPE, mode)
    mode = np.where(mode == len(shares), -1, mode)
    mode = np.where((bought["channel"] == ATM) & (mode == CONTACTLESS), CHIP, mode)
    bought["entry_mode"] = np.where(bought["channel"] == ECOMMERCE, -1, mode)


def _go_online(population: Population, rng: np.random.Generator, bought: Rows, city: Ints, in_transit: Bools) -> None:
    """Fill in device, address and 3-D Secure, for what was bought on the web."""
    at = np.flatnonzero(bought["channel"] == ECOMMERCE)
    user, time_us, n = bought["user"][at].astype(np.int64), bought["time_us"][at], at.size
    # A site that does not pass the device on leaves it absent.
    bought["device"][at] = np.where(chance(rng, 0.93, n), population.own_device(rng, user, time_us), -1)
    address = population.own_address(rng, user, city[at], time_us)
    bought["ip"][at] = np.where(in_transit[at], population.addresses.hosted(rng, n), address)
    bought["entry_mode"][at] = np.where(chance(rng, 0.52, n), STORED, KEYED)
    bought["three_ds"][at] = np.array([FRICTIONLESS, CHALLENGE, FAILED, NOT_ASKED, -1])[
        weighted(rng, [0.44, 0.24, 0.008, 0.272, 0.04], n)
    ]
    bought["declined"][at] |= (bought["three_ds"][at] == FAILED) | chance(rng, 0.008, n)


def first_tries(spec: SimulationSpec, rng: np.random.Generator, bought: Rows, n: int) -> Rows:
    """Return `n` declined attempts, each seconds before the purchase that then succeeded."""
    candidates = np.flatnonzero(
        ((bought["channel"] == ECOMMERCE) | (bought["channel"] == POS))
        & ~bought["declined"]
        & (bought["time_us"] > spec.start_us + 5 * MINUTE_US)
    )
    failed: Rows = bought[rng.choice(candidates, n, replace=n > candidates.size)]
    failed["time_us"] -= (rng.uniform(12.0, 150.0, n) * SECOND_US).astype(np.int64)
    failed["declined"] = True
    return failed
