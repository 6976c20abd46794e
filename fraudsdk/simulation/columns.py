"""From numbers to a table: names, countries, positions and label times, under the canonical field names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraudsdk.simulation.draws import Bools, Floats, Ints, around, chance, ranked
from fraudsdk.simulation.ledger import (
    CHANNELS,
    CHIP,
    ECOMMERCE,
    ENTRY_MODES,
    KEYED,
    STORED,
    THREE_DS,
    TYPES,
    Rows,
    grouped,
)
from fraudsdk.simulation.places import CITY_COUNTRY, CITY_LATITUDE, CITY_LONGITUDE, COUNTRIES, TRADES
from fraudsdk.simulation.population import Population
from fraudsdk.simulation.spec import DAY_US, MINUTE_US, PATTERNS, SimulationSpec

Table = dict[str, NDArray[Any]]

SESSION_GAP_US: Final = 30 * MINUTE_US
COMMON_FINGERPRINTS: Final = 40  # of telephones that are all alike
USER_AGENTS: Final = 300

_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")
_NONE: Final = np.array([None], dtype=object)

# Per pattern: median days until it is known, log standard deviation, and the share that is never found out.
DISCOVERY: Final = {
    "account_takeover": (4.0, 0.9, 0.03),
    "card_testing": (6.0, 0.9, 0.08),
    "structuring": (40.0, 0.5, 0.15),
    "layering": (42.0, 0.5, 0.15),
    "mule": (18.0, 0.8, 0.08),
    "merchant_compromise": (12.0, 0.8, 0.04),
    "impossible_travel": (5.0, 0.8, 0.02),
    "friendly_fraud": (28.0, 0.5, 0.0),
}
# The card schemes' usual last day for a dispute.
MAX_DISCOVERY_DAYS: Final = 120.0


def to_columns(
    spec: SimulationSpec, population: Population, rng: np.random.Generator, ledger: Rows, balance_minor: Ints
) -> Table:
    """Write a ledger that is sorted by time as columns; absent text is None, an absent number NaN, no time NaT."""
    users, merchants = population.users, population.merchants
    user, merchant = ledger["user"], ledger["merchant"]
    n, n_users = len(ledger), population.n_users
    identifier = _names("t", n, 9)
    home_country = _country_names(users.city)
    device_user_agent, device_fingerprint = _describe_devices(rng, population.n_devices)
    latitude, longitude = _positions(population, ledger)
    home_known = chance(rng, 0.95, n_users)
    balance_known = chance(rng, 0.7, n_users)
    confirmed_us = _label_times(spec, rng, ledger)
    return {
        "transaction_id": identifier[:-1],
        "event_time": ledger["time_us"].astype("datetime64[us]"),
        "amount_minor": ledger["amount_minor"].copy(),
        "currency": np.full(n, spec.currency, dtype=object),
        "type": _words(TYPES)[ledger["type"]],
        "direction": _words(("debit", "credit"))[ledger["credit"].astype(np.int64)],
        "declined": ledger["declined"].copy(),
        "original_transaction_id": identifier[ledger["original"]],
        "user_id": _names("u", n_users, 7)[user],
        "card_id": _names("c", population.n_cards, 7)[ledger["card"]],
        "merchant_id": _names("m", merchants.city.size, 6)[merchant],
        "device_id": _names("d", population.n_devices, 7)[ledger["device"]],
        "ip": _address_names(population.addresses.city.size)[ledger["ip"]],
        "session_id": _sessions(ledger),
        "counterparty_id": _counterparty_names(population)[ledger["counterparty"]],
        "device_fingerprint": device_fingerprint[ledger["device"]],
        "user_agent_hash": device_user_agent[ledger["device"]],
        "email_hash": _some_absent(rng, _hashes("e", n_users, 1), 0.08)[user],
        "phone_hash": _some_absent(rng, _hashes("p", n_users, 2), 0.2)[user],
        "channel": _words(CHANNELS)[ledger["channel"]],
        "entry_mode": _words(ENTRY_MODES)[ledger["entry_mode"]],
        "mcc": _with_absent(np.array([trade.mcc for trade in TRADES], dtype=object)[merchants.trade])[merchant],
        "merchant_country": _with_absent(_country_names(merchants.city))[merchant],
        "card_country": _with_absent(home_country[population.card_owner])[ledger["card"]],
        "ip_country": _with_absent(_country_names(population.addresses.city))[ledger["ip"]],
        "three_ds": _words(THREE_DS)[ledger["three_ds"]],
        "latitude": latitude,
        "longitude": longitude,
        "home_latitude": np.where(home_known, users.latitude.round(3), np.nan)[user],
        "home_longitude": np.where(home_known, users.longitude.round(3), np.nan)[user],
        "card_present": _card_present(ledger),
        "account_age_days": np.floor((ledger["time_us"] - users.opened_us[user]) / DAY_US),
        "balance": np.where(balance_known[user], balance_minor / 100.0, np.nan),
        "is_fraud": (ledger["pattern"] > 0).astype(np.int8),
        "fraud_pattern": _words(PATTERNS)[ledger["pattern"]],
        "label_time": confirmed_us.astype("datetime64[us]"),
    }


def _words(words: Sequence[str]) -> NDArray[Any]:
    return _with_absent(np.array(words, dtype=object))


def _with_absent(names: NDArray[Any]) -> NDArray[Any]:
    """Append None, so that the code -1 takes it."""
    return np.concatenate([names, _NONE])


def _names(prefix: str, n: int, width: int) -> NDArray[Any]:
    return np.array([*(f"{prefix}-{i:0{width}d}" for i in range(n)), None], dtype=object)


def _hashes(prefix: str, n: int, salt: int) -> NDArray[Any]:
    """Distinct text like a hash, in letters only: a run of digits might pass for a card number and be refused."""
    # An odd multiplier permutes the 64-bit integers, so no two are alike.
    mixed = (np.arange(n, dtype=np.uint64) + np.uint64(salt << 40)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return np.array([prefix + f"{value:016x}".translate(_LETTERS) for value in mixed.tolist()], dtype=object)


def _some_absent(rng: np.random.Generator, names: NDArray[Any], share: float) -> NDArray[Any]:
    thinned = names.copy()
    thinned[chance(rng, share, names.size)] = None
    return thinned


def _country_names(city: Ints) -> NDArray[Any]:
    return np.array(COUNTRIES, dtype=object)[CITY_COUNTRY[city]]


def _address_names(n: int) -> NDArray[Any]:
    """IPv4 addresses of the block that is reserved and routed nowhere: simulated mischief blames nobody's address."""
    # An odd multiplier permutes the 2**28 addresses of 240.0.0.0/4, so neighbours in number are not neighbours.
    number = 0xF0000000 | (np.arange(n, dtype=np.int64) * 0x5851F42D + 0x3C6EF35) & 0x0FFFFFFF
    octets = zip(*((number >> shift & 255).tolist() for shift in (24, 16, 8, 0)), strict=True)
    return np.array([*(f"{a}.{b}.{c}.{d}" for a, b, c, d in octets), None], dtype=object)


def _counterparty_names(population: Population) -> NDArray[Any]:
    """Account holders under their own names; employers, landlords and accounts elsewhere under one series."""
    n_others = population.n_counterparties - population.n_users
    return np.concatenate([_names("u", population.n_users, 7)[:-1], _names("a", n_others, 7)])


def _describe_devices(rng: np.random.Generator, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """User agent and fingerprint of each device: shared by many and by some, and either sometimes absent."""
    user_agent = _hashes("ua", USER_AGENTS, 3)[ranked(rng, USER_AGENTS, n, 3.0)]
    common = _hashes("f", COMMON_FINGERPRINTS, 4)[ranked(rng, COMMON_FINGERPRINTS, n, 2.0)]
    fingerprint = np.where(chance(rng, 0.12, n), common, _hashes("f", n, 5))
    return _with_absent(_some_absent(rng, user_agent, 0.03)), _with_absent(_some_absent(rng, fingerprint, 0.1))


def _positions(population: Population, ledger: Rows) -> tuple[Floats, Floats]:
    """The counter's position; on the web the address's, to the city, where it can be placed."""
    merchants, addresses = population.merchants, population.addresses
    placed = np.append(addresses.placed, False)[ledger["ip"]]
    city = np.append(addresses.city, 0)[ledger["ip"]]
    positions = []
    for of_merchant, of_city in ((merchants.latitude, CITY_LATITUDE), (merchants.longitude, CITY_LONGITUDE)):
        counter = np.append(of_merchant, np.nan)[ledger["merchant"]]
        positions.append(np.where(placed, of_city[city], counter).round(5))
    return positions[0], positions[1]


def _card_present(ledger: Rows) -> Floats:
    """1 and 0; NaN where no card was used, or nothing says how it was read."""
    mode = ledger["entry_mode"]
    at_counter = ledger["channel"] != ECOMMERCE
    present = np.where(at_counter & (mode >= CHIP) & (mode <= KEYED), 1.0, np.nan)
    present = np.where(~at_counter & ((mode == KEYED) | (mode == STORED)), 0.0, present)
    return np.where(ledger["card"] >= 0, present, np.nan)


def _sessions(ledger: Rows) -> NDArray[Any]:
    """One session per user and device, until half an hour passes without a purchase or transfer."""
    at = np.flatnonzero((ledger["device"] >= 0) & (ledger["ip"] >= 0))
    key = ledger["user"][at].astype(np.int64) << 32 | ledger["device"][at].astype(np.int64)
    order, first, _ = grouped(key)
    time_us = ledger["time_us"][at][order]
    starts = np.zeros(at.size, dtype=np.bool_)
    starts[first] = True
    starts[1:] |= np.diff(time_us) > SESSION_GAP_US
    session = np.full(len(ledger), -1, dtype=np.int64)
    session[at[order]] = np.cumsum(starts) - 1
    return _names("s", int(starts.sum()), 8)[session]


def _label_times(spec: SimulationSpec, rng: np.random.Generator, ledger: Rows) -> Ints:
    """When each label is known; the value of NaT for fraud that is never found out."""
    known_us = ledger["time_us"] + spec.genuine_confirmed_after_days * DAY_US
    for code, pattern in enumerate(PATTERNS[1:], start=1):
        median_days, sigma, hidden_share = DISCOVERY[pattern]
        at = np.flatnonzero(ledger["pattern"] == code)
        days = np.minimum(around(rng, median_days, sigma, at.size), MAX_DISCOVERY_DAYS)
        found_us = ledger["time_us"][at] + np.round(days * DAY_US).astype(np.int64)
        hidden: Bools = chance(rng, hidden_share, at.size)
        known_us[at] = np.where(hidden, np.iinfo(np.int64).min, found_us)
    return known_us
