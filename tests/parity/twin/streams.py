"""
Random feature sets and streams in which collisions, ties, exact edges and late arrivals are common.

Everything follows from one seed: streams long enough to matter are drawn in microseconds rather than milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

from fraudsdk.features.spec import EventFilter, Feature, FeatureSet
from twin.events import Event

START_US = 1_795_428_000_000_000  # 2026-11-23T10:00:00Z, the start of a tile on every level but that of 4 h
SECOND_US = 10**6
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

FILTERS = (
    EventFilter("small", "amount", between=((0.0, 0.5), (9.0, 9.99))),
    EventFilter("grocery", "mcc", equals=("5411", "7995")),  # 7995 is not in the vocabulary
    EventFilter("rich", "balance", between=((1_000.0, 1e9),)),
)
ENTITIES = ("user", "user", "user", "card", "merchant", "user+merchant", "mcc")
WINDOWS = ("1s", "1m", "10m", "1h", "24h")
BASES = ((), (), (), ("purchase",), ("credit",), ("refund",), ("any",))
KNOWN_AT_ONCE = ((), (), (), ("card_present",), ("card_not_present",), ("small",), ("grocery",), ("rich",))
OUTCOMES = ((), (), (), ("declined",), ("approved",), ("fraud",), ("genuine",))
# What a rate asks the share of, and what no event that counts for it can be.
OPPOSITES = {
    "fraud": "genuine",
    "genuine": "fraud",
    "declined": "approved",
    "card_present": "card_not_present",
    "small": "",
}
COMPARISONS = ("zscore", "ratio_to_mean", "ratio_to_max", "share", "rate")
WITHOUT_VALUE = ("count", "rate", "seconds_since_newest", "seconds_since_oldest")
OVER_WINDOWS = ("count", "sum", "mean", "min", "max", "std", *COMPARISONS, *WITHOUT_VALUE[2:])
OVER_ENTITIES = tuple(
    "seconds_since_last seconds_since_first is_new count_ever distinct distinct decayed_count decayed_sum "
    "distance_from_last_km speed_kmh impossible_travel distance_from_centre_km hour_deviation hour_concentration".split()
)
OF_TRANSACTIONS = tuple(
    Feature("f", aggregate, field=field)
    for aggregate, field in (
        *(("value", name) for name in ("amount", "balance", "card_present", "basket")),
        *(("log", name) for name in ("", "balance")),
        *(("code", name) for name in ("mcc", "merchant_country")),
        *(("known", name) for name in ("amount", "balance", "mcc", "device", "user")),
        ("differs", "merchant_country+card_country"),
        *((name, "") for name in ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "is_weekend", "is_night")),
        *((name, "") for name in ("day_of_month", "round_amount", "below_limit")),
    )
)

# London, Paris, New York, and two towns on either side of the 180th meridian.
PLACES = ((51.5, -0.1), (48.9, 2.4), (40.7, -74.0), (-16.8, 179.99), (-16.8, -179.9))

# Between arrivals: ties, one microsecond either side of a window's edge, whole windows, and backwards.
TIGHT_US = (0, 0, 1, SECOND_US - 1, SECOND_US, SECOND_US, 7 * SECOND_US, MINUTE_US - 1, MINUTE_US, MINUTE_US + 1)
WIDE_US = (10 * MINUTE_US, 20 * MINUTE_US, HOUR_US - 1, HOUR_US, HOUR_US + 1, 3 * HOUR_US, DAY_US)
BACKWARDS_US = (-1, -SECOND_US, -MINUTE_US, -10 * MINUTE_US, -HOUR_US, -DAY_US)


Step = tuple[object, ...]


def window_feature(random: Random, aggregates: tuple[str, ...] = OVER_WINDOWS) -> Feature:
    """An aggregate over a window."""
    aggregate = random.choice(aggregates)
    current = aggregate not in COMPARISONS and random.random() < 0.4
    outcome = () if current else random.choice(OUTCOMES)
    chosen = random.choice(BASES) + random.choice(KNOWN_AT_ONCE) + outcome
    if aggregate == "rate":
        share = random.choice(tuple(OPPOSITES))
        chosen = (*(name for name in chosen if name not in (share, OPPOSITES[share])), share)
    return Feature(
        "f",
        aggregate,
        entity=random.choice(ENTITIES),
        field="" if aggregate in WITHOUT_VALUE else random.choice(("", "amount", "balance", "basket")),
        window=random.choice(WINDOWS),
        delay="" if current else random.choice(("", "", "1m", "1h")),
        filter=chosen,
        current=current,
        empty=random.choice((math.nan, 0.0, -1.0)),
    )


def entity_feature(random: Random) -> Feature:
    """Something remembered of an entity outside windows."""
    feature = Feature(
        "f", random.choice(OVER_ENTITIES), entity=random.choice(ENTITIES), empty=random.choice((math.nan, 0.0))
    )
    if feature.aggregate == "distinct":
        field = random.choice(("merchant", "device", "mcc"))
        return replace(feature, field=field, window=random.choice(WINDOWS), current=random.random() < 0.5)
    if feature.aggregate == "impossible_travel":
        return replace(feature, bound=200.0)
    if feature.aggregate.startswith("decayed"):
        field = random.choice(("", "balance")) if feature.aggregate == "decayed_sum" else ""
        chosen = random.choice(BASES) + random.choice(KNOWN_AT_ONCE)
        return replace(feature, field=field, half_life=random.choice(("1s", "1m", "1h")), filter=chosen)
    return feature


def feature_set(
    random: Random, *, n_features: int, ring_cap: int, bounded_only: bool = False, allowed_lateness: str = ""
) -> FeatureSet:
    """Features of every sort, or only such as have bounds when tiles answer; then a ratio and a difference of two."""
    kinds = (window_feature, window_feature, window_feature, entity_feature, lambda r: r.choice(OF_TRANSACTIONS))
    drawn = [_window_of_amounts(random) if bounded_only else random.choice(kinds)(random) for _ in range(n_features)]
    named = [replace(feature, name=f"f{i}") for i, feature in enumerate(drawn)]
    operands = (named[0].name, named[-1].name)
    if n_features > 1:
        named += [Feature("r", "ratio", of=operands, empty=-9.0), Feature("d", "difference", of=operands)]
    return FeatureSet(
        "random",
        tuple(named),
        currency=random.choice(("GBP", "JPY", "KWD")),
        filters=FILTERS,
        limits=(5.0, 10.0),
        ring_cap=ring_cap,
        allowed_lateness=allowed_lateness or random.choice(("0s", "10m", "24h")),
        custom_numbers=("basket",),
    )


def _window_of_amounts(random: Random) -> Feature:
    """What has bounds when tiles answer."""
    bounded = ("count", "count", "sum", "rate", "max", "seconds_since_newest", "seconds_since_oldest")
    feature = window_feature(random, bounded)
    return replace(feature, field="amount" if feature.field else "", empty=math.nan)


def stream(random: Random, n_steps: int, *, crowded: bool = False, amend_within_us: int = 400 * DAY_US) -> list[Step]:
    """
    Steps: events, reversals, chargebacks and duplicates of earlier ones, labels and answers.

    Parameters
    ----------
    random : Random
    n_steps : int
    crowded : bool
        One user and short steps, so that rings overflow.
    amend_within_us : int
        Event time, before the newest event, within which labels, answers and reversals fall.
    """
    # Amounts of one magnitude: the deviation of small differences between large amounts is rounding error.
    magnitude = 10 ** random.randrange(5)
    usual = random.randrange(10_000)
    steps_us = TIGHT_US * (6 if crowded else 2) + WIDE_US + BACKWARDS_US
    time_us, steps = START_US, []
    seen: list[Event] = [Event("t", START_US)]
    for i in range(n_steps):
        time_us += random.choice(steps_us)
        newest_us = max(event.time_us for event in seen)
        about = random.choice([event for event in seen if event.time_us > newest_us - amend_within_us][-20:])
        what = random.choice(("new",) * 10 + ("label", "label", "answered", "reversal", "chargeback", "duplicate"))
        if what in ("label", "answered"):
            steps.append((what, random.choice((about.transaction,) * 3 + ("unknown",)), random.random() < 0.5))
            continue
        event = _event(random, f"t{i}", time_us, magnitude, usual, crowded=crowded)
        if what in ("reversal", "chargeback"):
            event = replace(
                event, kind=what, original=about.transaction, amount_minor=_part(random, about.amount_minor)
            )
        elif what == "duplicate":
            event = replace(event, transaction=about.transaction)
        seen.append(event)
        steps.append(("observe", event))
    return steps


def _part(random: Random, amount_minor: int | None) -> int | None:
    """An amount given back: all of it, some of it, more than it, or not said."""
    if amount_minor is None:
        return random.choice((None, 10))
    return random.choice((None, amount_minor, amount_minor // 2, amount_minor // 3, amount_minor + 1))


def _event(random: Random, transaction: str, time_us: int, magnitude: int, usual: int, *, crowded: bool) -> Event:
    place = random.choice((None, *PLACES))
    amount = random.choice((None, 0, 50, 450, 900, 999, 1_000, 5_000, *(usual,) * 6, *(random.randrange(10_000),) * 6))
    numbers = {
        "balance": random.choice((None, 0.0, 12.5, 999.999999, 1_000.0, 123_456.78)),
        "basket": random.choice((None, -1.5, 0.0, 0.000001, 3.0)),
        "latitude": place and place[0],
        "longitude": place and place[1],
    }
    texts = {
        "user_id": "u1" if crowded else random.choice(("u1", "u1", "u1", "u2", "")),
        "card_id": random.choice(("c1", "c1", "c2", "")),
        "merchant_id": random.choice(("m1", "m1", "m2", "m3", "")),
        "device_id": random.choice(("d1", "d2", "d3", "")),
        "mcc": random.choice(("5411", "5999", "7995", "")),
        "merchant_country": random.choice(("GB", "FR", "")),
        "card_country": random.choice(("GB", "US", "")),
    }
    return Event(
        transaction,
        time_us,
        kind=random.choice(("purchase",) * 6 + ("credit", "refund")),
        amount_minor=amount * magnitude if amount else amount,
        declined=random.random() < 0.2,
        card_present=random.choice((None, True, False)),
        texts={name: text for name, text in texts.items() if text},
        numbers={name: number for name, number in numbers.items() if number is not None},
    )
