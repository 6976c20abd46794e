"""When people buy and what they spend; shared by the genuine and by those who pass for them."""

from __future__ import annotations

from typing import Final

import numpy as np

from fraudsdk.simulation.draws import Floats, Ints, chance, weighted
from fraudsdk.simulation.places import CASH_MACHINE, TRADES
from fraudsdk.simulation.population import Population, clock_to_utc_us
from fraudsdk.simulation.spec import DAY_US, HOUR_US, SimulationSpec

WEEKDAY_WEIGHTS: Final = np.array([0.93, 0.93, 0.96, 1.0, 1.15, 1.2, 0.83])  # Monday first

_MEDIAN_MAJOR: Final = np.array([trade.median_major for trade in TRADES])
_SIGMA: Final = np.array([trade.sigma for trade in TRADES])
_ROUND_SHARE: Final = np.array([trade.round_share for trade in TRADES])


def habitual_times_us(spec: SimulationSpec, population: Population, rng: np.random.Generator, user: Ints) -> Ints:
    """Draw a time for each purchase, at the hours its user keeps and on the clock of where they are."""
    n, users = user.size, population.users
    weekday = (np.arange(spec.days) + spec.start.weekday()) % 7
    day = weighted(rng, WEEKDAY_WEIGHTS[weekday], n)
    which = (rng.random(n)[:, None] > users.peak_share[user, :2]).sum(axis=1)
    hour = users.peak_hour[user, which] + rng.normal(0.0, 1.25, n)
    hour = np.where(chance(rng, 0.05, n), rng.uniform(0.0, 24.0, n), hour)
    clock_us = spec.start_us + day * DAY_US + ((hour % 24.0) * HOUR_US).astype(np.int64)
    city, _ = population.whereabouts(user, clock_us)
    return keep_in_period(spec, clock_to_utc_us(clock_us, city))


def keep_in_period(spec: SimulationSpec, time_us: Ints) -> Ints:
    """Wrap times that fall outside the period around it."""
    return spec.start_us + (time_us - spec.start_us) % spec.period_us


def purchase_amounts_minor(population: Population, rng: np.random.Generator, merchant: Ints, spending: Floats) -> Ints:
    """Draw what is spent at each merchant, minor units, with the endings that prices have."""
    trade, n = population.merchants.trade[merchant], merchant.size
    major = _MEDIAN_MAJOR[trade] * population.merchants.price[merchant] * spending
    major = major * np.exp(_SIGMA[trade] * rng.standard_normal(n))
    minor = np.round(major * 100.0)
    ending = rng.random(n)
    minor = np.where(ending < 0.22, np.ceil(major) * 100.0 - 1.0, minor)
    minor = np.where(ending > 1.0 - _ROUND_SHARE[trade], np.ceil(major) * 100.0, minor)
    notes = np.clip(np.ceil(major / 10.0) * 1_000.0, 1_000.0, 100_000.0)
    minor = np.where(trade == CASH_MACHINE, notes, minor)
    return np.clip(minor, 50.0, 2_500_000.0).astype(np.int64)
