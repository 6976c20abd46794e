"""
Crime: eight patterns, each a function from a quota of rows to the rows of whole attacks.

Each attack draws how careful its author is.  The careless are easy: new device, foreign server, odd hour, large amount.
The careful use the victim's own device or a neighbour's address, keep the victim's hours, and pace themselves.  Some
fraud is therefore out of reach of any detector that sees only these columns, as it is in life.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fraudsdk.simulation.draws import Bools, Floats, Ints, around, chance, ranked, running_total_by_group, weighted
from fraudsdk.simulation.habits import purchase_amounts_minor
from fraudsdk.simulation.ledger import (
    ATM,
    CHALLENGE,
    CHIP,
    CONTACTLESS,
    DEPOSIT,
    ECOMMERCE,
    FAILED,
    FRICTIONLESS,
    KEYED,
    MAGSTRIPE,
    NOT_ASKED,
    PATTERN_CODE,
    POS,
    STORED,
    TRANSFER,
    Rows,
    received,
    rows,
)
from fraudsdk.simulation.life import Life
from fraudsdk.simulation.places import CITY_DISTANCE_KM
from fraudsdk.simulation.population import N_CITIES, Population, clock_to_utc_us
from fraudsdk.simulation.spec import DAY_US, HOUR_US, MINUTE_US, PATTERNS, SECOND_US, SimulationSpec

LIMITS_MINOR: Final = (1_000_000, 300_000)  # reporting thresholds that structuring stays under
FAR_KM: Final = 2_000.0  # impossible travel: further than an hour's flight, by any aircraft in service
_NOBODY: Final = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Crime:
    """
    Rows of one pattern.

    Attributes
    ----------
    ledger : Rows
        The fraudulent rows, not sorted; some may lie after the end of the period.
    relies_on : int64[...]
        Genuine purchases (positions in the ledger of `Life`) that the pattern is recognised by.
    replaces : int64[...]
        Genuine purchases that turn out to be these rows.
    """

    ledger: Rows
    relies_on: Ints
    replaces: Ints


@dataclass(frozen=True, slots=True)
class Attacks:
    """
    How a quota of rows divides into attacks.

    Attributes
    ----------
    size : int64[n_attacks]
        Rows of each.
    first : int64[n_attacks]
        Its first row.
    of_row : int64[n_rows]
        Which attack a row belongs to.
    position : int64[n_rows]
        Its place in the attack, from 0.
    """

    size: Ints
    first: Ints
    of_row: Ints
    position: Ints

    @property
    def n_rows(self) -> int:
        """Rows of all attacks."""
        return self.of_row.size

    def each(self, per_attack: Any) -> Any:
        """Repeat one value per attack for each of its rows."""
        return per_attack[self.of_row]

    def times_us(self, start_us: Ints, gaps_us: Floats) -> Ints:
        """Time of each row: the start of its attack, then one gap after another."""
        gaps = np.where(self.position == 0, 0.0, gaps_us).astype(np.int64)
        return np.asarray(self.each(start_us) + running_total_by_group(gaps, self.first, self.of_row))


@dataclass(frozen=True, slots=True)
class Scene:
    """What a pattern may use: the request, the population, its genuine life, and the accounts for rent."""

    spec: SimulationSpec
    population: Population
    life: Life
    mules: Ints

    def moments_us(self, rng: np.random.Generator, n: int, lasting_us: int) -> Ints:
        """
        Draw `n` starts early enough that an attack of the given length mostly ends within the period.

        They are spread over it: a few large attacks that happen to come together would leave a test period without any.
        """
        room_us = self.spec.period_us - min(lasting_us, self.spec.period_us // 2)
        return self.spec.start_us + ((rng.permutation(n) + rng.random(n)) / max(n, 1) * room_us).astype(np.int64)

    def attackers_devices(self, rng: np.random.Generator, n: int) -> Ints:
        """Draw devices of criminals, some of whom are busy."""
        first = self.population.first_attacker_device
        return first + ranked(rng, self.population.n_devices - first, n, 1.4)

    def attackers_addresses(self, rng: np.random.Generator, victim: Ints) -> Ints:
        """Draw addresses: rented servers, infected home computers of strangers, the victim's own mobile network."""
        addresses, n = self.population.addresses, victim.size
        stranger = addresses.home(rng.integers(0, self.spec.users, n), np.zeros(n, dtype=np.int64))
        nearby = addresses.mobile(rng, self.population.users.city[victim])
        kind = rng.random(n)
        return np.where(kind < 0.42, addresses.hosted(rng, n), np.where(kind < 0.72, stranger, nearby))

    def foreign_accounts(self, rng: np.random.Generator, n: int) -> Ints:
        """Draw accounts at other banks."""
        first = self.population.first_account
        return first + rng.integers(0, self.population.n_counterparties - first, n)


def plan(rng: np.random.Generator, quota: int, smallest: int, largest: int) -> Attacks:
    """Divide a quota of rows into attacks of `smallest` to `largest` rows; under half of the smallest, into none."""
    drawn = rng.integers(smallest, largest + 1, quota // smallest + 1)
    total = np.cumsum(drawn)
    n_whole = int(np.searchsorted(total, quota, side="right"))
    rest = quota - (int(total[n_whole - 1]) if n_whole else 0)
    size = np.append(drawn[:n_whole], max(rest, smallest)) if 2 * rest >= smallest else drawn[:n_whole]
    first = np.cumsum(size) - size
    of_row = np.repeat(np.arange(size.size), size)
    return Attacks(size=size, first=first, of_row=of_row, position=np.arange(of_row.size) - first[of_row])


def commit_crimes(spec: SimulationSpec, population: Population, life: Life, rng: np.random.Generator) -> Crime:
    """Commit every pattern up to its quota."""
    scene = Scene(spec, population, life, _recruit_mules(population, rng))
    committed = []
    for pattern, rng_of_pattern in zip(PATTERNS[1:], rng.spawn(len(PATTERNS) - 1), strict=True):
        crime = _PATTERNS[pattern](scene, rng_of_pattern, spec.fraud_rows(pattern))
        crime.ledger["pattern"] = PATTERN_CODE[pattern]
        committed.append(crime)
    return Crime(
        ledger=np.concatenate([crime.ledger for crime in committed]),
        relies_on=np.concatenate([crime.relies_on for crime in committed]),
        replaces=np.concatenate([crime.replaces for crime in committed]),
    )


def _recruit_mules(population: Population, rng: np.random.Generator) -> Ints:
    """Three accounts in a hundred are for rent; half of those were opened for it, and are the newest."""
    n = max(10, population.n_users * 3 // 100)
    newest = np.argsort(-population.users.opened_us, kind="stable")[: n // 2]
    return rng.permutation(np.unique(np.concatenate([newest, rng.integers(0, population.n_users, n - n // 2)])))


def account_takeover(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """
    Log in as the victim, then shop with the stored cards or send the money away.

    One attack in six works through the victim's own device (remote access) and cannot be told by device or address.
    """
    population, users = scene.population, scene.population.users
    attacks = plan(rng, quota * 10 // 11, 2, 8)  # payees who bank here add their own leg
    n, n_attacks = attacks.n_rows, attacks.size.size
    victim = rng.integers(0, scene.spec.users, n_attacks)
    start_us = _victims_clock_us(scene, rng, victim, lasting_us=DAY_US)
    remote_access, paced = chance(rng, 0.16, n_attacks), chance(rng, 0.25, n_attacks)
    time_us = attacks.times_us(start_us, rng.exponential(np.where(attacks.each(paced), 300.0, 9.0)) * MINUTE_US)
    own_device = population.own_device(rng, victim, start_us)
    own_address = population.own_address(rng, victim, users.city[victim], start_us)
    device = np.where(remote_access, own_device, scene.attackers_devices(rng, n_attacks))
    address = np.where(remote_access, own_address, scene.attackers_addresses(rng, victim))
    sends = attacks.each(chance(rng, 0.4, n_attacks))
    user = attacks.each(victim)
    resale = population.merchants.resale_sites
    merchant = np.where(
        chance(rng, 0.55, n), resale[ranked(rng, resale.size, n, 1.5)], population.merchants.some_site(rng, n)
    )
    greed = attacks.each(around(rng, 2.2, 0.6, n_attacks))
    spent_minor = purchase_amounts_minor(population, rng, merchant, users.spending[user] * greed)
    sent_minor = _whole(around(rng, 18_000.0, 0.9, n) * users.spending[user] * greed, 500).clip(500, 2_000_000)
    payee = np.where(attacks.each(chance(rng, 0.4, n_attacks)), attacks.each(_some(rng, scene.mules, n_attacks)), -1)
    payee = np.where((payee < 0) | (payee == user), scene.foreign_accounts(rng, n), payee)
    three_ds = _three_ds(rng, n)
    ledger = rows(
        n,
        time_us=time_us,
        user=user,
        device=attacks.each(device),
        ip=attacks.each(address),
        channel=np.where(sends, TRANSFER, ECOMMERCE),
        amount_minor=np.where(sends, sent_minor, spent_minor),
        counterparty=np.where(sends, payee, -1),
        card=np.where(
            sends, -1, attacks.each(users.first_card[victim] + ranked(rng, users.n_cards[victim], n_attacks, 1.5))
        ),
        merchant=np.where(sends, -1, merchant),
        entry_mode=np.where(sends, -1, STORED),
        three_ds=np.where(sends, -1, three_ds),
        declined=np.where(sends, chance(rng, 0.05, n), (three_ds == FAILED) | chance(rng, 0.1, n)),
    )
    return _crime(_with_payees(scene, ledger))


def card_testing(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """
    Try many stolen cards for small change at one or two sites, then spend on those that worked.

    One attack in four is paced, minutes rather than seconds between attempts, and one in four changes its address after
    every second attempt: then only the site sees the burst.
    """
    population = scene.population
    attacks = plan(rng, quota, 16, 56)
    n, n_attacks = attacks.n_rows, attacks.size.size
    paced = chance(rng, 0.25, n_attacks)
    start_us = scene.moments_us(rng, n_attacks, 3 * DAY_US)
    gap_s = rng.exponential(np.where(attacks.each(paced), 240.0, 14.0)) + 1.0
    time_us = attacks.times_us(start_us, gap_s * SECOND_US)
    card = rng.integers(0, population.n_cards, n)
    declined = chance(rng, attacks.each(rng.uniform(0.45, 0.75, n_attacks)), n)
    second_device = chance(rng, 0.3, n) & attacks.each(chance(rng, 0.5, n_attacks))
    devices = scene.attackers_devices(rng, 2 * n_attacks)
    device = np.where(second_device, devices[n_attacks + attacks.of_row], devices[attacks.of_row])
    sites = population.merchants.some_site(rng, 2 * n_attacks)
    second_site = chance(rng, 0.35, n) & attacks.each(chance(rng, 0.5, n_attacks))
    ledger = rows(
        n,
        time_us=time_us,
        card=card,
        merchant=np.where(second_site, sites[n_attacks + attacks.of_row], sites[attacks.of_row]),
        device=np.where(attacks.each(chance(rng, 0.2, n_attacks)), -1, device),
        ip=_testers_addresses(scene, rng, attacks),
        channel=ECOMMERCE,
        entry_mode=KEYED,
        three_ds=np.where(chance(rng, 0.85, n), NOT_ASKED, -1),
        amount_minor=np.round(around(rng, 180.0, 0.7, n)).clip(50, 1_500),
        declined=declined,
    )
    _spend_on_tested_cards(scene, rng, attacks, ledger)
    ledger["user"] = population.card_owner[ledger["card"]]
    return _crime(ledger)


def _testers_addresses(scene: Scene, rng: np.random.Generator, attacks: Attacks) -> Ints:
    """Use up to three addresses one after the other, as each is blocked in turn; or many, from a network for rent."""
    n_attacks, n_cards = attacks.size.size, scene.population.n_cards
    n_addresses = np.where(chance(rng, 0.25, n_attacks), attacks.size // 2, rng.integers(1, 4, n_attacks))
    turn = attacks.position * attacks.each(n_addresses) // attacks.each(attacks.size)
    near_somebody = scene.population.card_owner[rng.integers(0, n_cards, attacks.n_rows)]
    used_in_turn: Ints = attacks.each(attacks.first) + turn
    return scene.attackers_addresses(rng, near_somebody)[used_in_turn]


def _spend_on_tested_cards(scene: Scene, rng: np.random.Generator, attacks: Attacks, ledger: Rows) -> None:
    """Turn the last twelfth of each attack into large purchases, hours to days later, on cards that passed."""
    n_spent = np.maximum(attacks.size // 12, 1)
    n_tests = attacks.size - n_spent
    at = np.flatnonzero(attacks.position >= attacks.each(n_tests))
    attack, n = attacks.of_row[at], at.size
    test = attacks.first[attack] + np.floor(rng.random(n) * n_tests[attack]).astype(np.int64)
    ledger["declined"][test] = False
    merchants = scene.population.merchants
    merchant = merchants.resale_sites[ranked(rng, merchants.resale_sites.size, n, 1.3)]
    ledger["card"][at] = ledger["card"][test]
    ledger["merchant"][at] = merchant
    ledger["time_us"][at] = ledger["time_us"][test] + (rng.uniform(0.5, 60.0, n) * HOUR_US).astype(np.int64)
    ledger["amount_minor"][at] = purchase_amounts_minor(scene.population, rng, merchant, around(rng, 1.8, 0.5, n))
    ledger["three_ds"][at] = _three_ds(rng, n)
    ledger["declined"][at] = chance(rng, 0.2, n)


def structuring(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """Move a large sum in parts that each stay just under a reporting limit: paid in as cash, or sent abroad."""
    population = scene.population
    attacks = plan(rng, quota, 4, 10)
    n, n_attacks = attacks.n_rows, attacks.size.size
    user = rng.integers(0, scene.spec.users, n_attacks)
    start_us = scene.moments_us(rng, n_attacks, 8 * DAY_US)
    gap_hours = np.where(
        attacks.each(chance(rng, 0.3, n_attacks)), rng.uniform(0.5, 5.0, n), rng.uniform(14.0, 40.0, n)
    )
    time_us = attacks.times_us(start_us, gap_hours * HOUR_US)
    limit_minor = attacks.each(np.array(LIMITS_MINOR)[weighted(rng, [0.6, 0.4], n_attacks)])
    cash = attacks.each(chance(rng, 0.5, n_attacks))
    owner = attacks.each(user)
    return _crime(
        rows(
            n,
            time_us=time_us,
            user=owner,
            amount_minor=_whole(limit_minor * rng.uniform(0.905, 0.995, n), 1_000),
            channel=np.where(cash, DEPOSIT, TRANSFER),
            credit=cash,
            counterparty=np.where(cash, -1, attacks.each(scene.foreign_accounts(rng, n_attacks))),
            device=np.where(cash, -1, population.own_device(rng, owner, time_us)),
            ip=np.where(cash, -1, population.own_address(rng, owner, population.users.city[owner], time_us)),
        )
    )


def layering(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """Pass a sum from account to account within hours, each keeping a little."""
    population = scene.population
    # A first credit from another bank, then hops of two legs each: about two rows to a position.
    attacks = plan(rng, quota // 2, 4, 8)
    n, n_attacks, n_mules = attacks.n_rows, attacks.size.size, scene.mules.size
    stride = rng.integers(1, n_mules, n_attacks)
    link = attacks.each(rng.integers(0, n_mules, n_attacks)) + attacks.position * attacks.each(stride)
    holder, giver = scene.mules[link % n_mules], scene.mules[(link - attacks.each(stride)) % n_mules]
    kept = np.where(attacks.position == 0, 1.0, rng.uniform(0.9, 0.99, n))
    passed_on = np.exp(running_total_by_group(np.log(kept), attacks.first, attacks.of_row))
    amount_minor = _whole(attacks.each(around(rng, 420_000.0, 0.6, n_attacks)) * passed_on, 100)
    gap_minutes = rng.uniform(10.0, 150.0, n) * attacks.each(np.where(chance(rng, 0.25, n_attacks), 4.0, 1.0))
    time_us = attacks.times_us(scene.moments_us(rng, n_attacks, DAY_US), gap_minutes * MINUTE_US)
    opens = attacks.position == 0
    device = population.own_device(rng, giver, time_us)
    shared = attacks.each(chance(rng, 0.4, n_attacks))
    ledger = rows(
        n,
        time_us=time_us,
        amount_minor=amount_minor,
        user=np.where(opens, holder, giver),
        counterparty=np.where(opens, scene.foreign_accounts(rng, n), holder),
        channel=TRANSFER,
        credit=opens,
        # Some controllers operate all their accounts from one machine.
        device=np.where(opens, -1, np.where(shared, attacks.each(scene.attackers_devices(rng, n_attacks)), device)),
        ip=np.where(opens, -1, np.where(shared, attacks.each(population.addresses.hosted(rng, n_attacks)), -1)),
    )
    at = np.flatnonzero(~opens & ~shared)
    home = population.users.city[giver[at]]
    ledger["ip"][at] = population.own_address(rng, giver[at], home, time_us[at])
    return _crime(_with_payees(scene, ledger))


def mule(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """Collect from many in a day or two, then send on and withdraw nearly all of it within hours."""
    population, users = scene.population, scene.population.users
    attacks = plan(rng, quota * 4 // 5, 6, 16)  # the payers who bank here add their own leg
    n, n_attacks = attacks.n_rows, attacks.size.size
    collector = _some(rng, scene.mules, n_attacks)
    owner = attacks.each(collector)
    incoming = attacks.position < attacks.each(np.ceil(attacks.size * 0.62))
    gap_hours = rng.exponential(np.where(incoming, 3.5, 0.9)) + 0.05
    time_us = attacks.times_us(scene.moments_us(rng, n_attacks, 2 * DAY_US), gap_hours * HOUR_US)
    amount_minor = _whole(around(rng, 45_000.0, 0.7, n), 500).astype(np.float64)
    collected = np.bincount(attacks.of_row, np.where(incoming, amount_minor, 0.0), n_attacks)
    portion = rng.exponential(1.0, n) + 0.3
    portions = np.bincount(attacks.of_row, np.where(incoming, 0.0, portion), n_attacks)
    outgoing_minor = attacks.each(collected * rng.uniform(0.86, 0.98, n_attacks) / np.maximum(portions, 0.3)) * portion
    withdrawn = ~incoming & chance(rng, 0.3, n)
    outgoing_minor = np.where(
        withdrawn, np.minimum(_whole(outgoing_minor, 1_000), 100_000), _whole(outgoing_minor, 100)
    )
    # Payers who bank here were talked into paying; the others are seen only as accounts elsewhere.
    payer = (owner + rng.integers(1, scene.spec.users, n)) % scene.spec.users
    pays_from_here = incoming & chance(rng, 0.35, n)
    actor = np.where(pays_from_here, payer, owner)
    unseen = (incoming & ~pays_from_here) | withdrawn
    device = population.own_device(rng, actor, time_us)
    address = population.own_address(rng, actor, users.city[actor], time_us)
    ledger = rows(
        n,
        time_us=time_us,
        amount_minor=np.where(incoming, amount_minor, outgoing_minor),
        user=actor,
        counterparty=np.where(pays_from_here, owner, np.where(withdrawn, -1, scene.foreign_accounts(rng, n))),
        channel=np.where(withdrawn, ATM, TRANSFER),
        credit=incoming & ~pays_from_here,
        card=np.where(withdrawn, users.first_card[owner], -1),
        merchant=np.where(withdrawn, population.merchants.some_machine(rng, users.city[owner]), -1),
        entry_mode=np.where(withdrawn, CHIP, -1),
        device=np.where(unseen, -1, device),
        ip=np.where(unseen, -1, address),
    )
    return _crime(_with_payees(scene, ledger))


def merchant_compromise(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """Copy the cards seen at one merchant in some days, and use them elsewhere in the weeks that follow."""
    ledger = scene.life.ledger
    uses = plan(rng, quota, 8, 40)
    at_risk = np.flatnonzero(ledger["channel"][: scene.life.n_purchases] != ATM)
    if not uses.n_rows or not at_risk.size:
        return _crime(rows(0))
    by_merchant = at_risk[np.argsort(ledger["merchant"][at_risk], kind="stable")]
    merchant_of = ledger["merchant"][by_merchant]
    seen_at, of_use = [], []
    for attack, size in enumerate(uses.size):
        # A purchase drawn at random is at a busy merchant more often than not, and so are thieves.
        anchor = by_merchant[rng.integers(0, by_merchant.size)]
        visits = by_merchant[slice(*np.searchsorted(merchant_of, ledger["merchant"][anchor] + np.array([0, 1])))]
        since_us = ledger["time_us"][visits] - ledger["time_us"][anchor]
        exposed = visits[(since_us >= 0) & (since_us < rng.integers(3, 11) * DAY_US)]
        copied = rng.permutation(exposed)[: max(1, int(size) * 2 // 3)]
        seen_at.append(np.sort(rng.choice(copied, int(size))))
        of_use.append(np.full(int(size), attack))
    exposure = np.concatenate(seen_at)
    # Stolen where there was no room left in the period: used sooner.
    room_us = scene.spec.start_us + scene.spec.period_us - ledger["time_us"][exposure]
    wait_us = np.minimum(rng.uniform(3.0, 32.0, uses.n_rows) * DAY_US, rng.uniform(0.1, 0.95, uses.n_rows) * room_us)
    used = _use_stolen_cards(scene, rng, exposure, ledger["time_us"][exposure] + wait_us.astype(np.int64))
    return Crime(used, relies_on=np.unique(exposure), replaces=_NOBODY)


def _use_stolen_cards(scene: Scene, rng: np.random.Generator, exposure: Ints, time_us: Ints) -> Rows:
    """Use copied cards on the web, or as magnetic-stripe clones at a counter near or far."""
    population, users, n = scene.population, scene.population.users, exposure.size
    user = scene.life.ledger["user"][exposure].astype(np.int64)
    online = chance(rng, 0.65, n)
    city = np.where(chance(rng, 0.5, n), users.city[user], rng.integers(0, N_CITIES, n))
    resale = population.merchants.resale_sites
    site = np.where(
        chance(rng, 0.35, n), resale[ranked(rng, resale.size, n, 1.4)], population.merchants.some_site(rng, n)
    )
    merchant = np.where(online, site, population.merchants.some_shop(rng, city))
    three_ds = np.where(online, _three_ds(rng, n), -1)
    return rows(
        n,
        time_us=time_us,
        user=user,
        card=scene.life.ledger["card"][exposure],
        merchant=merchant,
        channel=np.where(online, ECOMMERCE, POS),
        entry_mode=np.where(online, KEYED, np.where(chance(rng, 0.7, n), MAGSTRIPE, CONTACTLESS)),
        three_ds=three_ds,
        device=np.where(online & chance(rng, 0.85, n), scene.attackers_devices(rng, n), -1),
        ip=np.where(online, scene.attackers_addresses(rng, user), -1),
        amount_minor=purchase_amounts_minor(population, rng, merchant, users.spending[user] * around(rng, 1.7, 0.5, n)),
        declined=(three_ds == FAILED) | chance(rng, 0.12, n),
    )


def impossible_travel(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """Use a clone at a counter far away, within the hour of the cardholder's own purchase at home."""
    population, ledger = scene.population, scene.life.ledger
    attacks = plan(rng, quota, 1, 3)
    merchants, end_us = population.merchants, scene.spec.start_us + scene.spec.period_us
    own = ledger[: scene.life.n_purchases]
    placed = (own["channel"] == POS) & ~np.isnan(merchants.latitude[own["merchant"]])
    candidates = np.flatnonzero(placed & ~own["declined"] & (own["time_us"] < end_us - HOUR_US))
    if not attacks.n_rows or not candidates.size:
        return _crime(rows(0))
    anchor = rng.choice(candidates, attacks.size.size, replace=attacks.size.size > candidates.size)
    far = CITY_DISTANCE_KM[merchants.city[own["merchant"][anchor]]] > FAR_KM
    city = np.argmax(np.where(far, rng.random(far.shape), -1.0), axis=1)
    n = attacks.n_rows
    before = attacks.each(own["time_us"][anchor])
    # Up to three uses in the first 54 minutes; gaps are even, so that the last stays within the hour.
    after_us = attacks.each(rng.uniform(4.0, 18.0, anchor.size) * MINUTE_US) * (1 + attacks.position)
    merchant = merchants.some_shop(rng, attacks.each(city))
    user = attacks.each(own["user"][anchor])
    used = rows(
        n,
        time_us=before + after_us.astype(np.int64),
        user=user,
        card=attacks.each(own["card"][anchor]),
        merchant=merchant,
        channel=POS,
        entry_mode=np.array([MAGSTRIPE, CONTACTLESS, CHIP])[weighted(rng, [0.6, 0.25, 0.15], n)],
        amount_minor=purchase_amounts_minor(
            population, rng, merchant, population.users.spending[user] * around(rng, 2.0, 0.5, n)
        ),
        declined=chance(rng, 0.15, n),
    )
    return Crime(used, relies_on=np.unique(anchor), replaces=_NOBODY)


def friendly_fraud(scene: Scene, rng: np.random.Generator, quota: int) -> Crime:
    """
    Dispute one's own purchases.

    The rows are genuine rows of a few repeat offenders, relabelled, dear ones rather than cheap: nothing in such a row
    tells it from others, only who disputes again and what is worth disputing.
    """
    own = scene.life.ledger[: scene.life.n_purchases]
    online = np.flatnonzero((own["channel"] == ECOMMERCE) & ~own["declined"])
    if not quota or not online.size:
        return _crime(rows(0))
    offender = np.zeros(scene.spec.users, dtype=np.bool_)
    offender[own["user"][rng.choice(online, min(online.size, -(-quota // 2)))]] = True
    disputable = online[offender[own["user"][online]]]
    worth = np.sqrt(own["amount_minor"][disputable].astype(np.float64))
    disputed = rng.choice(disputable, min(quota, disputable.size), replace=False, p=worth / worth.sum())
    return Crime(own[disputed], relies_on=_NOBODY, replaces=np.sort(disputed))


_PATTERNS: Final[dict[str, Callable[[Scene, np.random.Generator, int], Crime]]] = {
    "account_takeover": account_takeover,
    "card_testing": card_testing,
    "structuring": structuring,
    "layering": layering,
    "mule": mule,
    "merchant_compromise": merchant_compromise,
    "impossible_travel": impossible_travel,
    "friendly_fraud": friendly_fraud,
}


def _crime(ledger: Rows) -> Crime:
    return Crime(ledger, relies_on=_NOBODY, replaces=_NOBODY)


def _with_payees(scene: Scene, ledger: Rows) -> Rows:
    """Add the payees' legs of those transfers that happen before the period ends."""
    end_us = scene.spec.start_us + scene.spec.period_us
    seen = ledger[ledger["time_us"] < end_us - 2 * SECOND_US]
    return np.concatenate([seen, received(seen[~seen["credit"]], scene.spec.users)])


def _victims_clock_us(scene: Scene, rng: np.random.Generator, victim: Ints, *, lasting_us: int) -> Ints:
    """Half of the attacks come when the victim sleeps, half at an hour the victim keeps."""
    users = scene.population.users
    day_us = scene.moments_us(rng, victim.size, lasting_us + 2 * DAY_US) // DAY_US * DAY_US + DAY_US
    asleep: Bools = chance(rng, 0.5, victim.size)
    hour = users.peak_hour[victim, 2] + np.where(asleep, 9.0, 0.0) + rng.normal(0.0, 1.6, victim.size)
    return clock_to_utc_us(day_us + ((hour % 24.0) * HOUR_US).astype(np.int64), users.city[victim])


def _three_ds(rng: np.random.Generator, n: int) -> Ints:
    """Thieves prefer shops that do not ask, and sometimes hold the victim's telephone number."""
    outcome = np.array([FRICTIONLESS, CHALLENGE, FAILED, NOT_ASKED, -1])
    return outcome[weighted(rng, [0.36, 0.12, 0.06, 0.42, 0.04], n)]


def _some(rng: np.random.Generator, among: Ints, n: int) -> Ints:
    return among[rng.integers(0, among.size, n)]


def _whole(minor: Floats | Ints, step: int) -> Ints:
    return np.maximum(np.round(np.asarray(minor, dtype=np.float64) / step), 1.0).astype(np.int64) * step
