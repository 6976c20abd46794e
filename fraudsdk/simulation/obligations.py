"""
Money that moves without a shop: salaries, subscriptions, rents, transfers between people.

None of these fills more than its share of the table: with few rows per user, fewer users are paid or pay this way.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fraudsdk.simulation.draws import Floats, Ints, around, chance, ranked, weighted
from fraudsdk.simulation.habits import habitual_times_us, purchase_amounts_minor
from fraudsdk.simulation.ledger import DEPOSIT, ECOMMERCE, STORED, TRANSFER, Rows, received, rows
from fraudsdk.simulation.population import Population
from fraudsdk.simulation.spec import DAY_US, HOUR_US, MINUTE_US, SECOND_US, SimulationSpec

SALARY_SHARE: Final = 0.06
SUBSCRIPTION_SHARE: Final = 0.08
RENT_SHARE: Final = 0.02
TRANSFER_SHARE: Final = 0.07
FLATMATE_SHARE: Final = 0.012
TAKINGS_SHARE: Final = 0.006
FLATMATES: Final = 3


def obligations(spec: SimulationSpec, population: Population, rng: np.random.Generator) -> Rows:
    """Draw all of this module's rows, not sorted."""
    kinds = (salaries, subscriptions, rents, transfers, flatmates, takings)
    return np.concatenate([kind(spec, population, rng) for kind in kinds])


def _monthly_times(spec: SimulationSpec, day_of_month: Ints) -> tuple[Ints, Ints]:
    """
    The occurrences, inside the period, of each monthly day.

    Returns
    -------
    which : int64[n]
        Position in `day_of_month`.
    midnight_us : int64[n]
        Start of that day.  Whatever falls on a weekend comes on the Friday before.
    """
    end_us = spec.start_us + spec.period_us
    months = np.arange(np.datetime64(spec.start, "M"), np.datetime64(end_us, "us").astype("datetime64[M]") + 2)
    days = months.astype("datetime64[D]")[:, None] + (day_of_month - 1)[None, :]
    weekday = (days.astype(np.int64) + 3) % 7
    days = days - np.maximum(weekday - 4, 0)
    midnight_us = days.astype("datetime64[us]").astype(np.int64)
    month, which = np.nonzero((midnight_us >= spec.start_us) & (midnight_us <= end_us - DAY_US))
    return which, midnight_us[month, which]


def _affordable(spec: SimulationSpec, share: float, rows_per_month: int) -> int:
    """How many people can do something monthly before its rows exceed a share of the whole."""
    months = -(-spec.days // 28)
    return int(spec.transactions * share / (months * rows_per_month))


def salaries(spec: SimulationSpec, population: Population, rng: np.random.Generator) -> Rows:
    """Pay salaries on the same day of every month; the same amount, but for overtime."""
    users = population.users
    paid = np.flatnonzero(chance(rng, 0.72, spec.users))[: _affordable(spec, SALARY_SHARE, 1)]
    which, midnight_us = _monthly_times(spec, 22 + users.employer[paid] % 7)
    user = paid[which]
    overtime = np.where(chance(rng, 0.1, user.size), rng.uniform(1.0, 1.04, user.size), 1.0)
    return rows(
        user.size,
        # A payroll run pays everybody in one go.
        time_us=midnight_us + 4 * HOUR_US + (users.employer[user] % 97) * MINUTE_US + user % 977,
        amount_minor=np.round(users.income_minor[user] * overtime).astype(np.int64),
        user=user,
        counterparty=users.employer[user],
        channel=TRANSFER,
        credit=True,
    )


def subscriptions(spec: SimulationSpec, population: Population, rng: np.random.Generator) -> Rows:
    """Bill subscriptions to stored cards, one amount per subscription, monthly."""
    users, merchants = population.users, population.merchants
    n = min(round(1.8 * spec.users), _affordable(spec, SUBSCRIPTION_SHARE, 1))
    user = rng.integers(0, spec.users, n)
    merchant = merchants.subscription_sites[ranked(rng, merchants.subscription_sites.size, n, 1.5)]
    amount_minor = purchase_amounts_minor(population, rng, merchant, np.ones(n))
    second_us = rng.integers(0, 20 * HOUR_US, n)
    which, midnight_us = _monthly_times(spec, rng.integers(1, 29, n))
    return rows(
        which.size,
        time_us=midnight_us + second_us[which],
        amount_minor=amount_minor[which],
        user=user[which],
        card=users.first_card[user[which]],
        merchant=merchant[which],
        channel=ECOMMERCE,
        entry_mode=STORED,
    )


def rents(spec: SimulationSpec, population: Population, rng: np.random.Generator) -> Rows:
    """Pay rent at the start of the month, by standing order."""
    users = population.users
    tenants = np.flatnonzero(chance(rng, 0.4, spec.users))[: _affordable(spec, RENT_SHARE, 1)]
    rent_minor = _whole(users.income_minor[tenants] * rng.uniform(0.22, 0.42, tenants.size), 1_000)
    which, midnight_us = _monthly_times(spec, rng.integers(1, 5, tenants.size))
    return rows(
        which.size,
        time_us=midnight_us + 5 * HOUR_US + rng.integers(0, HOUR_US, which.size),
        amount_minor=rent_minor[which],
        user=tenants[which],
        counterparty=users.landlord[tenants[which]],
        channel=TRANSFER,
    )


def transfers(spec: SimulationSpec, population: Population, rng: np.random.Generator) -> Rows:
    """Send money to friends and strangers, here and at other banks; one in forty is large and just under a limit."""
    users = population.users
    n = round(spec.transactions * TRANSFER_SHARE / 1.6)
    user = weighted(rng, users.activity, n)
    time_us = np.minimum(habitual_times_us(spec, population, rng, user), spec.start_us + spec.period_us - 2 * SECOND_US)
    friend = users.contacts[user, ranked(rng, users.contacts.shape[1], n, 1.6)]
    account = population.first_account + rng.integers(0, population.n_counterparties - population.first_account, n)
    stranger = (user + rng.integers(1, spec.users, n)) % spec.users
    kind = rng.random(n)
    major = around(rng, 55.0, 1.1, n) * users.spending[user]
    amount_minor = np.where(chance(rng, 0.7, n), _whole(major * 100, 500), np.round(major * 100)).astype(np.int64)
    # A used car, a builder's invoice: limits are round, and so are prices.
    invoice = chance(rng, 0.025, n)
    limit_minor = np.where(chance(rng, 0.35, n), 1_000_000, 300_000)
    amount_minor = np.where(invoice, _whole(limit_minor * rng.uniform(0.8, 1.08, n), 1_000), amount_minor)
    city, _ = population.whereabouts(user, time_us)
    sent = rows(
        n,
        time_us=time_us,
        amount_minor=amount_minor.clip(100, 5_000_000),
        user=user,
        counterparty=np.where(kind < 0.5, friend, np.where(kind < 0.6, stranger, account)),
        channel=TRANSFER,
        device=population.own_device(rng, user, time_us),
        ip=population.own_address(rng, user, city, time_us),
    )
    return np.concatenate([sent, received(sent, spec.users)])


def flatmates(spec: SimulationSpec, population: Population, rng: np.random.Generator) -> Rows:
    """Three friends pay a fourth, who pays the landlord: money in and out within two days, like a mule's."""
    users = population.users
    per_month = 2 * FLATMATES + 1
    organiser = rng.permutation(spec.users)[: min(spec.users // 12, _affordable(spec, FLATMATE_SHARE, per_month))]
    share_minor = _whole(around(rng, 38_000.0, 0.3, organiser.size), 1_000)
    which, midnight_us = _monthly_times(spec, rng.integers(1, 27, organiser.size))
    n = which.size
    friends = users.contacts[organiser[which], :FLATMATES].ravel()
    asked_us = np.repeat(midnight_us, FLATMATES) + rng.integers(7 * HOUR_US, 20 * HOUR_US, n * FLATMATES)
    paid_in = rows(
        n * FLATMATES,
        time_us=asked_us,
        amount_minor=np.repeat(share_minor[which], FLATMATES),
        user=friends,
        counterparty=np.repeat(organiser[which], FLATMATES),
        channel=TRANSFER,
        device=population.own_device(rng, friends, asked_us),
        ip=population.addresses.mobile(rng, users.city[friends]),
    )
    paid_on_us = midnight_us + rng.integers(20 * HOUR_US, 23 * HOUR_US, n)
    paid_on = rows(
        n,
        time_us=paid_on_us,
        amount_minor=share_minor[which] * (FLATMATES + 1),
        user=organiser[which],
        counterparty=users.landlord[organiser[which]],
        channel=TRANSFER,
        device=population.own_device(rng, organiser[which], paid_on_us),
        ip=population.addresses.mobile(rng, users.city[organiser[which]]),
    )
    return np.concatenate([paid_in, received(paid_in, spec.users), paid_on])


def takings(spec: SimulationSpec, _: Population, rng: np.random.Generator) -> Rows:
    """Pay in cash: shopkeepers do, and insurers have them keep it under a round sum."""
    n = round(spec.transactions * TAKINGS_SHARE)
    shopkeeper = rng.integers(0, spec.users, max(3, spec.users // 30))
    user = shopkeeper[ranked(rng, shopkeeper.size, n, 1.5)]
    day_us = spec.start_us + rng.integers(0, spec.days, n) * DAY_US
    limit_minor = np.where(chance(rng, 0.5, n), 1_000_000, 300_000)
    takings_minor = np.where(
        chance(rng, 0.12, n), limit_minor * rng.uniform(0.85, 1.02, n), around(rng, 90_000.0, 0.9, n)
    )
    return rows(
        n,
        time_us=day_us + rng.integers(7 * HOUR_US, 18 * HOUR_US, n),
        amount_minor=_whole(takings_minor, 1_000),
        user=user,
        channel=DEPOSIT,
        credit=True,
    )


def _whole(minor: Floats | Ints, step: int) -> Ints:
    """Round to whole steps, at least one."""
    return np.maximum(np.round(np.asarray(minor, dtype=np.float64) / step), 1.0).astype(np.int64) * step
