"""
Labelled transactions on one screen: a population lives, some of it is robbed, and the whole becomes a table.

    population -> life -> crimes -> (room is made) -> lack of funds -> refunds and reversals -> columns
"""

from __future__ import annotations

import numpy as np

from fraudsdk.simulation.aftermath import (
    aftermath_counts,
    balances_minor,
    decline_for_lack_of_funds,
    refunds_and_reversals,
)
from fraudsdk.simulation.columns import Table, to_columns
from fraudsdk.simulation.ledger import Rows, by_time
from fraudsdk.simulation.life import Life, live
from fraudsdk.simulation.patterns import Crime, commit_crimes
from fraudsdk.simulation.population import settle_population
from fraudsdk.simulation.spec import SimulationSpec


def simulate(spec: SimulationSpec) -> Table:
    """
    Simulate labelled transactions.

    Parameters
    ----------
    spec : SimulationSpec
        What is wanted.

    Returns
    -------
    dict of str to ndarray
        One column per field, each of ``spec.transactions`` rows, sorted by ``event_time``.  Names are those of
        `fraudsdk.domain.fields`, with ``is_fraud``, ``fraud_pattern`` and ``label_time`` beside them.  Text columns are
        object arrays with None for absent; numbers are float64 with NaN for absent; times are datetime64[us], UTC.

    Warning
    -------
    ``is_fraud``, ``fraud_pattern`` and ``label_time`` are the answer: a model that is fed them has learnt nothing.

    Examples
    --------
    >>> table = simulate(SimulationSpec(transactions=2_000, users=100, days=14, seed=7))
    >>> len(table["transaction_id"])
    2000
    """
    people, habits, crime, consequences, names = np.random.default_rng(spec.seed).spawn(5)
    population = settle_population(spec, people)
    life = live(spec, population, habits)
    crimes = commit_crimes(spec, population, life, crime)
    ledger = by_time(_make_room(spec, life, crimes, crime))
    opening_minor = decline_for_lack_of_funds(population, consequences, ledger)
    ledger = by_time(np.concatenate([ledger, refunds_and_reversals(spec, consequences, ledger)]))
    return to_columns(spec, population, names, ledger, balances_minor(ledger, opening_minor))


def _make_room(spec: SimulationSpec, life: Life, crimes: Crime, rng: np.random.Generator) -> Rows:
    """Join life and crime, and leave out as many ordinary purchases as keeps the total exact."""
    committed = crimes.ledger[crimes.ledger["time_us"] < spec.start_us + spec.period_us]
    kept = np.ones(len(life.ledger), dtype=np.bool_)
    kept[crimes.replaces] = False
    too_many = int(kept.sum()) + len(committed) + sum(aftermath_counts(spec)) - spec.transactions
    free = kept[: life.n_purchases].copy()
    free[crimes.relies_on] = False
    kept[rng.choice(np.flatnonzero(free), too_many, replace=False)] = False
    return np.concatenate([life.ledger[kept], committed])
