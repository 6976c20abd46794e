"""
Who lives in the simulation: account holders with homes, cards, devices and habits; merchants; internet addresses.

Everything is arrays indexed by position, so that a million transactions are drawn by indexing.  Nothing in here knows
what fraud is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraudsdk.simulation.draws import Bools, Floats, Ints, around, chance, ranked, weighted
from fraudsdk.simulation.places import (
    CASH_MACHINE,
    CITIES,
    CITY_DISTANCE_KM,
    CITY_LATITUDE,
    CITY_LONGITUDE,
    CITY_UTC_OFFSET_HOURS,
    TRADES,
    distance_km,
)
from fraudsdk.simulation.spec import DAY_US, HOUR_US, SimulationSpec

N_CITIES: Final = len(CITIES)
KM_PER_DEGREE: Final = 111.2
DEVICES_PER_USER: Final = 4  # up to three in use, and the one that replaces the first
HOME_ADDRESSES_PER_USER: Final = 4  # an internet provider's dynamic addresses
MOBILE_ADDRESSES_PER_CITY: Final = 96  # carrier-grade NAT: strangers share them
PUBLIC_ADDRESSES_PER_CITY: Final = 160  # hotels and cafes
HOSTED_ADDRESSES: Final = 600  # VPN exits and rented servers
FAVOURITE_SHOPS: Final = 10
FAVOURITE_SITES: Final = 6
CONTACTS: Final = 5
# At most one journey starts in each slot, and ends in it: journeys of one person never overlap.
TRIP_SLOT_DAYS: Final = 30
FLIGHT_KM_PER_HOUR: Final = 800.0
AIRPORT_HOURS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Merchants:
    """
    Merchants, in the order: shops by city, cash machines by city, sites.

    Attributes
    ----------
    city : int64[n]
        Where the counter is, or where the site is registered.
    trade : int64[n]
        Index into `TRADES`.
    price : float64[n]
        Price level; multiplies the trade's median.
    latitude, longitude : float64[n]
        NaN for sites, and for terminals that do not report where they are.
    first_shop, first_machine : int64[n_cities + 1]
        Shops of city c are ``first_shop[c] : first_shop[c + 1]``; likewise cash machines.
    sites, subscription_sites, resale_sites : int64[...]
        Sites that sell one by one, those that bill monthly, and those whose goods are easily resold.
    """

    city: Ints
    trade: Ints
    price: Floats
    latitude: Floats
    longitude: Floats
    first_shop: Ints
    first_machine: Ints
    sites: Ints
    subscription_sites: Ints
    resale_sites: Ints

    def some_shop(self, rng: np.random.Generator, city: Ints) -> Ints:
        """Draw a shop in each given city, popular ones most often."""
        return self.first_shop[city] + ranked(rng, self.first_shop[city + 1] - self.first_shop[city], city.size, 1.8)

    def some_machine(self, rng: np.random.Generator, city: Ints) -> Ints:
        """Draw a cash machine in each given city."""
        count = self.first_machine[city + 1] - self.first_machine[city]
        return self.first_machine[city] + ranked(rng, count, city.size, 1.5)

    def some_site(self, rng: np.random.Generator, n: int) -> Ints:
        """Draw sites, popular ones most often."""
        return self.sites[ranked(rng, self.sites.size, n)]


@dataclass(frozen=True, slots=True)
class Addresses:
    """
    Internet addresses, in the order: homes by user, mobile by city, public by city, hosted.

    Attributes
    ----------
    city : int64[n]
        Where a geolocation service places the address.
    placed : bool[n]
        Whether it can place it more finely than the country.
    """

    city: Ints
    placed: Bools
    n_users: int

    def home(self, user: Ints, which: Ints) -> Ints:
        """Address `which` of the home of each user."""
        return user * HOME_ADDRESSES_PER_USER + which

    def mobile(self, rng: np.random.Generator, city: Ints) -> Ints:
        """Draw an address of a mobile network in each city."""
        first = self.n_users * HOME_ADDRESSES_PER_USER
        return first + city * MOBILE_ADDRESSES_PER_CITY + ranked(rng, MOBILE_ADDRESSES_PER_CITY, city.size, 1.3)

    def public(self, rng: np.random.Generator, city: Ints) -> Ints:
        """Draw a hotel's or cafe's address in each city."""
        first = self.n_users * HOME_ADDRESSES_PER_USER + N_CITIES * MOBILE_ADDRESSES_PER_CITY
        return first + city * PUBLIC_ADDRESSES_PER_CITY + ranked(rng, PUBLIC_ADDRESSES_PER_CITY, city.size, 1.3)

    def hosted(self, rng: np.random.Generator, n: int) -> Ints:
        """Draw VPN exits and rented servers: used by the careful and by the criminal."""
        return self.city.size - HOSTED_ADDRESSES + ranked(rng, HOSTED_ADDRESSES, n, 1.6)


@dataclass(frozen=True, slots=True)
class Users:
    """
    Account holders.  Arrays are indexed by user; a second axis is named in the comment.

    Counterparties that are not account holders are numbered after them: employers, then landlords, then accounts at
    other banks.
    """

    city: Ints
    latitude: Floats
    longitude: Floats
    income_minor: Ints  # monthly
    spending: Floats  # multiplies amounts
    activity: Floats  # relative number of purchases
    online_share: Floats
    peak_hour: Floats  # [user, 3]: local hours at which they buy
    peak_share: Floats  # [user, 3], cumulative
    first_card: Ints
    n_cards: Ints
    device: Ints  # [user, DEVICES_PER_USER]
    n_devices: Ints
    replaced_at_us: Ints  # when the first device gives way to the last of its row
    hides_address: Bools  # uses a VPN now and then
    moves_address: Bools  # home address changes by the week
    shops: Ints  # [user, FAVOURITE_SHOPS], dearest first
    sites: Ints  # [user, FAVOURITE_SITES], dearest first
    contacts: Ints  # [user, CONTACTS]: whom they pay
    employer: Ints
    landlord: Ints
    opened_us: Ints
    trip_city: Ints  # [user, slot]
    trip_start_us: Ints  # [user, slot]; at the end of the period for no trip
    trip_end_us: Ints  # [user, slot]


@dataclass(frozen=True, slots=True)
class Population:
    """Users, merchants and addresses, and the counts that the codes of a row refer to."""

    users: Users
    merchants: Merchants
    addresses: Addresses
    n_users: int
    n_cards: int
    n_devices: int
    n_counterparties: int
    first_landlord: int
    first_account: int
    first_attacker_device: int
    card_owner: Ints
    start_us: int

    def whereabouts(self, user: Ints, time_us: Ints) -> tuple[Ints, Bools]:
        """
        Where each user is.

        Returns
        -------
        city : int64[n]
            Home, or where a trip has taken them.
        in_transit : bool[n]
            On the way there or back: no counter is within reach.
        """
        users = self.users
        slot = np.minimum((time_us - self.start_us) // (TRIP_SLOT_DAYS * DAY_US), users.trip_city.shape[1] - 1)
        start, end = users.trip_start_us[user, slot], users.trip_end_us[user, slot]
        destination, home = users.trip_city[user, slot], users.city[user]
        on_the_way_us = flight_us(home, destination)
        away = (time_us >= start) & (time_us < end)
        in_transit = (time_us >= start - on_the_way_us) & (time_us < end + on_the_way_us) & ~away
        return np.where(away, destination, home), in_transit

    def own_device(self, rng: np.random.Generator, user: Ints, time_us: Ints) -> Ints:
        """Draw a device that each user owns at that time, the first most often."""
        users = self.users
        which = ranked(rng, users.n_devices[user], user.size, 2.0)
        replaced = (which == 0) & (time_us >= users.replaced_at_us[user])
        return users.device[user, np.where(replaced, DEVICES_PER_USER - 1, which)]

    def own_address(self, rng: np.random.Generator, user: Ints, city: Ints, time_us: Ints) -> Ints:
        """Draw the address that each user appears from, given where they are."""
        users, n = self.users, user.size
        week = (time_us - self.start_us) // (7 * DAY_US)
        home = self.addresses.home(user, np.where(users.moves_address[user], week % HOME_ADDRESSES_PER_USER, 0))
        at_home = (city == users.city[user]) & chance(rng, 0.62, n)
        roaming = np.where(chance(rng, 0.6, n), self.addresses.mobile(rng, city), self.addresses.public(rng, city))
        address = np.where(at_home, home, roaming)
        hidden = users.hides_address[user] & chance(rng, 0.35, n)
        return np.where(hidden, self.addresses.hosted(rng, n), address)


def flight_us(city_a: Ints, city_b: Ints) -> Ints:
    """Door-to-door time between two cities, microseconds."""
    hours = CITY_DISTANCE_KM[city_a, city_b] / FLIGHT_KM_PER_HOUR + AIRPORT_HOURS
    return np.asarray(hours * HOUR_US, dtype=np.int64)


def settle_population(spec: SimulationSpec, rng: np.random.Generator) -> Population:
    """Draw the whole population of a simulation."""
    n = spec.users
    merchants = _open_merchants(rng, n)
    n_employers, n_landlords, n_accounts = max(5, n // 40), max(5, n // 30), max(40, n // 2)
    first_landlord = n + n_employers
    users, n_cards = _move_in(
        spec, rng, merchants, first_employer=n, first_landlord=first_landlord, n_landlords=n_landlords
    )
    first_attacker_device = n * DEVICES_PER_USER
    return Population(
        users=users,
        merchants=merchants,
        addresses=_assign_addresses(rng, users.city),
        n_users=n,
        n_cards=n_cards,
        n_devices=first_attacker_device + 64 + n // 10,
        n_counterparties=first_landlord + n_landlords + n_accounts,
        first_landlord=first_landlord,
        first_account=first_landlord + n_landlords,
        first_attacker_device=first_attacker_device,
        card_owner=np.repeat(np.arange(n), users.n_cards),
        start_us=spec.start_us,
    )


def _open_merchants(rng: np.random.Generator, n_users: int) -> Merchants:
    busy = np.array([city.residents + 0.5 * city.visitors for city in CITIES])
    shop_city, first_shop = _spread(rng, busy, total=n_users // 3, at_least=12)
    machine_city, first_machine = _spread(rng, busy, total=n_users // 40, at_least=3)
    n_sites = max(80, n_users // 10)
    site_city = weighted(rng, busy, n_sites)
    shop_trade = weighted(rng, [trade.in_shops for trade in TRADES], shop_city.size)
    site_trade = weighted(rng, [trade.online for trade in TRADES], n_sites)
    # However few sites there are, each trade that is found online has one.
    online_trades = np.flatnonzero([trade.online > 0 for trade in TRADES])
    site_trade[-online_trades.size :] = online_trades
    city = np.concatenate([shop_city, machine_city, site_city])
    trade = np.concatenate([shop_trade, np.full(machine_city.size, CASH_MACHINE), site_trade])
    n = city.size
    first_site = n - n_sites
    unplaced = chance(rng, 0.06, n) | (np.arange(n) >= first_site)
    site = np.arange(first_site, n)
    bills_monthly = np.array([trade.subscription for trade in TRADES])[site_trade]
    resale = np.array([trade.resale for trade in TRADES])[site_trade]
    return Merchants(
        city=city,
        trade=trade,
        price=around(rng, 1.0, 0.25, n),
        latitude=np.where(unplaced, np.nan, _scattered_latitude(rng, city, 4.0)),
        longitude=np.where(unplaced, np.nan, _scattered_longitude(rng, city, 4.0)),
        first_shop=first_shop,
        first_machine=shop_city.size + first_machine,
        sites=site[~bills_monthly],
        subscription_sites=site[bills_monthly],
        resale_sites=site[resale],
    )


def _spread(rng: np.random.Generator, weights: Floats, *, total: int, at_least: int) -> tuple[Ints, Ints]:
    """Give every city `at_least` places and spread `total` more; return each place's city and each city's first."""
    count = at_least + rng.multinomial(total, weights / weights.sum())
    first = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    return np.repeat(np.arange(weights.size), count), first


def _scattered_latitude(rng: np.random.Generator, city: Ints, sigma_km: float) -> Floats:
    return np.asarray(CITY_LATITUDE[city] + rng.normal(0.0, sigma_km / KM_PER_DEGREE, city.size))


def _scattered_longitude(rng: np.random.Generator, city: Ints, sigma_km: float) -> Floats:
    km_per_degree = KM_PER_DEGREE * np.cos(np.radians(CITY_LATITUDE[city]))
    return np.asarray(CITY_LONGITUDE[city] + rng.normal(0.0, sigma_km, city.size) / km_per_degree)


def _assign_addresses(rng: np.random.Generator, home_city: Ints) -> Addresses:
    everywhere = np.arange(N_CITIES)
    city = np.concatenate(
        [
            np.repeat(home_city, HOME_ADDRESSES_PER_USER),
            np.repeat(everywhere, MOBILE_ADDRESSES_PER_CITY),
            np.repeat(everywhere, PUBLIC_ADDRESSES_PER_CITY),
            rng.integers(0, N_CITIES, HOSTED_ADDRESSES),
        ]
    )
    return Addresses(city=city, placed=chance(rng, 0.65, city.size), n_users=home_city.size)


def _move_in(
    spec: SimulationSpec,
    rng: np.random.Generator,
    merchants: Merchants,
    *,
    first_employer: int,
    first_landlord: int,
    n_landlords: int,
) -> tuple[Users, int]:
    n = spec.users
    city = weighted(rng, [place.residents for place in CITIES], n)
    latitude, longitude = _scattered_latitude(rng, city, 7.0), _scattered_longitude(rng, city, 7.0)
    n_cards = 1 + weighted(rng, [0.55, 0.33, 0.12], n)
    n_devices = 1 + weighted(rng, [0.45, 0.38, 0.17], n)
    income_major = around(rng, 2_600.0, 0.45, n)
    trip_city, trip_start_us, trip_end_us = _plan_trips(spec, rng, city)
    peak_hour, peak_share = _daily_rhythm(rng, n)
    users = Users(
        city=city,
        latitude=latitude,
        longitude=longitude,
        income_minor=np.round(income_major).astype(np.int64) * 100,
        spending=(income_major / 2_600.0) ** 0.4 * around(rng, 1.0, 0.25, n),
        activity=rng.gamma(1.6, 1.0, n) + 0.05,
        online_share=rng.beta(2.2, 3.6, n),
        peak_hour=peak_hour,
        peak_share=peak_share,
        first_card=np.cumsum(n_cards) - n_cards,
        n_cards=n_cards,
        device=_hand_out_devices(rng, n),
        n_devices=n_devices,
        replaced_at_us=_once_in_the_period(spec, rng, 0.16 * spec.days / 90),
        hides_address=chance(rng, 0.06, n),
        moves_address=chance(rng, 0.35, n),
        shops=_favourite_shops(rng, merchants, city, latitude, longitude),
        sites=merchants.some_site(rng, n * FAVOURITE_SITES).reshape(n, FAVOURITE_SITES),
        contacts=_make_friends(rng, n),
        employer=first_employer + ranked(rng, first_landlord - first_employer, n, 1.7),
        landlord=first_landlord + rng.integers(0, n_landlords, n),
        opened_us=spec.start_us - np.round(around(rng, 1_100.0, 1.3, n).clip(1.0, 11_000.0) * DAY_US).astype(np.int64),
        trip_city=trip_city,
        trip_start_us=trip_start_us,
        trip_end_us=trip_end_us,
    )
    return users, int(n_cards.sum())


def _daily_rhythm(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Three hours of the day at which each user buys, and how the purchases divide among them."""
    early_or_late = rng.normal(0.0, 1.3, n)
    peaks = np.array([8.6, 12.8, 18.7]) + early_or_late[:, None] + rng.normal(0.0, 0.7, (n, 3))
    # One in fourteen works nights: an unusual hour is a matter of who is asked.
    peaks += np.where(chance(rng, 0.07, n), 11.0, 0.0)[:, None]
    share = rng.dirichlet([1.4, 1.8, 3.0], n)
    return peaks, np.cumsum(share, axis=1)


def _hand_out_devices(rng: np.random.Generator, n: int) -> Ints:
    device = np.arange(n * DEVICES_PER_USER).reshape(n, DEVICES_PER_USER)
    # One user in ten shares the second device with the user before: a household, and a device with two users.
    sharing = np.flatnonzero(chance(rng, 0.1, n))
    sharing = sharing[sharing > 0]
    device[sharing, 1] = device[sharing - 1, 1]
    return device


def _once_in_the_period(spec: SimulationSpec, rng: np.random.Generator, probability: float) -> Ints:
    """A time in the period for those to whom it happens, its end for the others."""
    after_us = np.where(
        chance(rng, min(probability, 0.9), spec.users), rng.integers(0, spec.period_us, spec.users), spec.period_us
    )
    return np.asarray(spec.start_us + after_us, dtype=np.int64)


def _favourite_shops(
    rng: np.random.Generator, merchants: Merchants, city: Ints, latitude: Floats, longitude: Floats
) -> Ints:
    """The nearer of two shops, for each place in a user's list of favourites."""
    candidates = np.stack([merchants.some_shop(rng, np.repeat(city, FAVOURITE_SHOPS)) for _ in range(2)])
    home = np.repeat(latitude, FAVOURITE_SHOPS), np.repeat(longitude, FAVOURITE_SHOPS)
    away_km = np.nan_to_num(
        distance_km(*home, merchants.latitude[candidates], merchants.longitude[candidates]), nan=5.0
    )
    nearer: Ints = np.where(away_km[0] <= away_km[1], candidates[0], candidates[1])
    return nearer.reshape(city.size, FAVOURITE_SHOPS)


def _make_friends(rng: np.random.Generator, n: int) -> Ints:
    """Contacts live close by in the numbering, so that friends have friends in common; nobody is their own."""
    distance = rng.integers(1, min(n - 1, 60) + 1, (n, CONTACTS))
    return (np.arange(n)[:, None] + distance) % n


def _plan_trips(
    spec: SimulationSpec, rng: np.random.Generator, home: Ints
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """At most one trip per user and slot, that leaves room on both sides for the flights."""
    n_slots = -(-spec.days // TRIP_SLOT_DAYS)
    shape = (spec.users, n_slots)
    city = weighted(rng, [place.visitors for place in CITIES], spec.users * n_slots).reshape(shape)
    restless = rng.beta(1.2, 3.5, spec.users)[:, None]
    goes = (rng.random(shape) < restless) & (city != home[:, None])
    slot_start_us = spec.start_us + np.arange(n_slots) * TRIP_SLOT_DAYS * DAY_US
    start_us = slot_start_us + np.round(rng.uniform(1.5, 14.0, shape) * DAY_US).astype(np.int64)
    end_us = start_us + np.round(rng.uniform(1.5, 12.0, shape) * DAY_US).astype(np.int64)
    never_us = spec.start_us + spec.period_us
    # A trip to nowhere starts and ends when the period does; as its destination is home, the way there costs nothing.
    nowhere_us = never_us + 2 * DAY_US
    return (
        np.where(goes, city, home[:, None]),
        np.where(goes, start_us, nowhere_us),
        np.where(goes, end_us, nowhere_us),
    )


def clock_to_utc_us(clock_us: Ints, city: Ints) -> Ints:
    """Convert clock time in a city to UTC."""
    return clock_us - (CITY_UTC_OFFSET_HOURS[city] * HOUR_US).astype(np.int64)
