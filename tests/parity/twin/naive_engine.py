"""
What every feature means, written for obviousness: a list of events per entity, loops, and exact fractions.

It shares nothing with the kernels but the declaration of the features.  Nothing is ever forgotten, nothing is bounded,
nothing is incremental: each feature is computed from the whole history by its definition.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np

from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.spec import (
    DERIVED_AGGREGATES,
    ENTITY_AGGREGATES,
    ENTITY_FIELDS,
    WINDOW_AGGREGATES,
    EventFilter,
    Feature,
    FeatureSet,
)
from twin.events import Event, number_of

UNIT_US = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3_600 * 10**6, "d": 86_400 * 10**6}
BASES = ("purchase", "credit", "refund", "any")
EARTH_RADIUS_KM = 6371.0088
HABIT_HALF_LIFE_US = 30 * UNIT_US["d"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAN = math.nan
# A Python float: compared with NumPy's, a larger ratio would overflow instead of being larger.
FLOAT32_MAX = float(np.finfo(np.float32).max)

# Width and number of the tiles that answer where the ring of newest events ends.
TILES = ((5 * UNIT_US["s"], 72), (UNIT_US["m"], 72), (20 * UNIT_US["m"], 78), (4 * UNIT_US["h"], 192))


@dataclass
class Remembered:
    """An event and what became known of it."""

    event: Event
    amount_minor: int | None
    declined: bool
    fraud: bool | None = None
    reversed: bool = False

    @classmethod
    def as_it_arrived(cls, event: Event) -> Remembered:
        return cls(event, event.amount_minor, event.declined)


class NaiveEngine:
    """
    The features of `feature_set`, event by event.

    Parameters
    ----------
    feature_set : FeatureSet
    vocabulary : Vocabulary
    """

    def __init__(self, feature_set: FeatureSet, vocabulary: Vocabulary) -> None:
        self.set = feature_set
        self.vocabulary = vocabulary
        self.minor_per_major = 10 ** CURRENCY_EXPONENTS[feature_set.currency]
        self.remembered: dict[str, Remembered] = {}
        self.lifecycle: set[str] = set()
        self.entities = {feature.entity for feature in feature_set.features if feature.entity}
        self.histories: dict[tuple[str, ...], list[Remembered]] = defaultdict(list)
        self.declared = {each.name: each for each in feature_set.filters}

    # --- what happens ------------------------------------------------------------------------------------------------

    def observe(self, event: Event) -> list[float] | None:
        """The row of a transaction before it joins the history; None for a duplicate, a reversal or a chargeback."""
        if event.transaction in self.remembered or event.transaction in self.lifecycle:
            return None
        if event.kind in ("reversal", "chargeback"):
            self.lifecycle.add(event.transaction)
            self._amend_original(event)
            return None
        row = self.row(event)
        self.remember(event)
        return row

    def label(self, transaction: str, *, is_fraud: bool) -> bool:
        """A label arrived; False when there is no such transaction."""
        if transaction in self.remembered:
            self.remembered[transaction].fraud = is_fraud
        return transaction in self.remembered or transaction in self.lifecycle

    def answered(self, transaction: str, *, declined: bool) -> bool:
        """The host's answer arrived; False when there is no such transaction."""
        if transaction in self.remembered:
            self.remembered[transaction].declined = declined
        return transaction in self.remembered or transaction in self.lifecycle

    def remember(self, event: Event) -> None:
        """An authorisation or a refund joins the history of every entity it names; no row is computed."""
        item = Remembered.as_it_arrived(event)
        self.remembered[event.transaction] = item
        for entity in self.entities:
            names = self._names(entity, event)
            if names is not None:
                self.histories[(entity, *names)].append(item)

    def _amend_original(self, event: Event) -> None:
        original = self.remembered.get(event.original)
        if original is None:
            return
        if event.kind == "chargeback":
            original.fraud = True
        elif original.amount_minor is None:
            original.reversed = True
        elif event.amount_minor is None:
            pass  # how much went back cannot be said
        elif event.amount_minor >= original.amount_minor:
            original.reversed = True
        else:
            original.amount_minor -= event.amount_minor

    # --- the row -----------------------------------------------------------------------------------------------------

    def row(self, event: Event) -> list[float]:
        """Every feature, in order."""
        values: list[float] = []
        for feature in self.set.features:
            if feature.aggregate in WINDOW_AGGREGATES:
                value = self.window_feature(feature, event)
            elif feature.aggregate in ENTITY_AGGREGATES:
                value = self.entity_feature(feature, event)
            elif feature.aggregate in DERIVED_AGGREGATES:
                # A row is float32, and a derived feature reads the row.
                one, other = (float(np.float32(values[self.set.names.index(name)])) for name in feature.of)
                value = derived(feature, one, other)
            else:
                value = self.transaction_feature(feature, event)
            values.append(value)
        return values

    def history(self, entity: str, event: Event) -> list[Remembered] | None:
        """Events of the entity that this event names, in arrival order; None when it names none."""
        names = self._names(entity, event)
        return None if names is None else self.histories.get((entity, *names), [])

    def is_late(self, feature: Feature, event: Event) -> bool:
        """Whether the event is later than the set allows: what its windows and distinct counts need may be forgotten."""
        if feature.aggregate not in WINDOW_AGGREGATES and feature.aggregate != "distinct":
            return False
        history = self.history(feature.entity, event) or []
        newest_us = max((item.event.time_us for item in history), default=event.time_us)
        return newest_us - event.time_us > span_us(self.set.allowed_lateness)

    def _names(self, entity: str, event: Event) -> tuple[str, ...] | None:
        names = tuple(event.texts.get(ENTITY_FIELDS.get(part, part), "") for part in entity.split("+"))
        return names if all(names) else None

    # --- filters -----------------------------------------------------------------------------------------------------

    def passes(self, item: Remembered, names: Iterable[str]) -> bool:
        """Whether an event passes all the named filters; purchases are meant unless another kind is named."""
        names = tuple(names)
        if not any(name in BASES for name in names):
            names += ("purchase",)
        return all(self._passes_one(item, name) for name in names)

    def _passes_one(self, item: Remembered, name: str) -> bool:
        event = item.event
        if name in BASES:
            return not item.reversed and name in (event.kind, "any")
        if name in self.declared:
            return self._passes_declared(event, self.declared[name])
        return {
            "declined": item.declined,
            "approved": not item.declined,
            "fraud": item.fraud is True,
            "genuine": item.fraud is False,
            "card_present": event.card_present is True,
            "card_not_present": event.card_present is False,
        }[name]

    def _passes_declared(self, event: Event, declared: EventFilter) -> bool:
        """A declared filter judges the event as it arrived."""
        if declared.equals:
            value = event.texts.get(declared.field)
            return value in declared.equals and value in self.vocabulary.values.get(declared.field, ())
        if declared.field == "amount":
            if event.amount_minor is None:
                return False
            number = Decimal(event.amount_minor) / self.minor_per_major
        else:
            value = number_of(event, declared.field, self.vocabulary)
            if math.isnan(value):
                return False
            number = Decimal(repr(value))
        return any(Decimal(repr(low)) <= number <= Decimal(repr(high)) for low, high in declared.between)

    # --- windows -----------------------------------------------------------------------------------------------------

    def window_events(
        self, feature: Feature, event: Event, names: Sequence[str], *, widened: bool = False
    ) -> list[Remembered]:
        """
        Events in (t - delay - window, t - delay] that pass, the current one included where the feature says so.

        When `widened`, every event in a tile that the window touches: the most that a bounded answer may count.
        """
        end_us = event.time_us - span_us(feature.delay)
        after_us = end_us - span_us(feature.window)
        history = self.history(feature.entity, event) or []
        if widened:
            newest_us = max([item.event.time_us for item in history] + [event.time_us])
            width_us = self.tile_width_us(feature.entity, after_us, max(newest_us, end_us))
            after_us = (after_us + 1) // width_us * width_us - 1
            end_us = end_us // width_us * width_us + width_us - 1
        found = [item for item in history if after_us < item.event.time_us <= end_us and self.passes(item, names)]
        current = Remembered.as_it_arrived(event)
        return found + [current] if feature.current and self.passes(current, names) else found

    def tile_width_us(self, entity: str, after_us: int, newest_us: int) -> int:
        """Width of the finest tiles of which enough are kept to reach back to the start of the window."""
        for width_us, n in TILES:
            if (after_us + 1) // width_us > newest_us // width_us - n:
                return width_us
        return TILES[-1][0]

    def stored(self, item: Remembered, source: str) -> int | None:
        """A value as it is remembered: the amount in minor units, any other number in millionths; None = absent."""
        if source == "amount":
            return item.amount_minor
        number = number_of(item.event, source, self.vocabulary)
        return None if math.isnan(number) else round(Fraction(number) * 10**6)

    def window_feature(self, feature: Feature, event: Event) -> float:
        if self.history(feature.entity, event) is None:
            return NAN
        found = self.window_events(feature, event, feature.filter)
        if feature.aggregate == "count":
            return len(found)
        if feature.aggregate == "rate":
            among = self.window_events(feature, event, feature.filter[:-1])
            return len(found) / len(among) if among else feature.empty
        if feature.aggregate in ("seconds_since_newest", "seconds_since_oldest"):
            choose = max if feature.aggregate == "seconds_since_newest" else min
            times_us = [item.event.time_us for item in found]
            return (event.time_us - choose(times_us)) / 10**6 if times_us else feature.empty
        source = feature.field or "amount"
        scale = self.minor_per_major if source == "amount" else 10**6
        known = [value for item in found if (value := self.stored(item, source)) is not None]
        own = self.stored(Remembered.as_it_arrived(event), source)
        return aggregate_values(feature, known, own, scale)

    # --- what is remembered of an entity outside windows --------------------------------------------------------------

    def entity_feature(self, feature: Feature, event: Event) -> float:
        history = self.history(feature.entity, event)
        if history is None:
            return NAN
        times_us = [item.event.time_us for item in history]
        match feature.aggregate:
            case "seconds_since_last":
                return max(event.time_us - max(times_us), 0) / 10**6 if times_us else feature.empty
            case "seconds_since_first":
                return max(event.time_us - min(times_us), 0) / 10**6 if times_us else feature.empty
            case "is_new":
                return float(not history)
            case "count_ever":
                return len(history)
            case "distinct":
                return self._distinct(feature, event, history)
            case "decayed_count" | "decayed_sum":
                return self._decayed(feature, event, history)
            case "hour_deviation" | "hour_concentration":
                return hours_feature(feature, event, times_us)
        return place_feature(feature, event, history)

    def _distinct(self, feature: Feature, event: Event, history: list[Remembered]) -> float:
        """Different values whose latest sighting is inside the window or, for a late event, after it."""
        name = ENTITY_FIELDS.get(feature.field, feature.field)
        values = {
            item.event.texts[name]
            for item in history
            if name in item.event.texts and item.event.time_us > event.time_us - span_us(feature.window)
        }
        if feature.current and name in event.texts:
            values.add(event.texts[name])
        return len(values)

    def _decayed(self, feature: Feature, event: Event, history: list[Remembered]) -> float:
        """
        Each event worth half as much after each half-life; nothing is undone.

        To a late event the total is as of the newest event that is in it.
        """
        source = feature.field or "amount"
        scale = self.minor_per_major if source == "amount" else 10**6
        terms = []
        for item in history:
            arrived = Remembered.as_it_arrived(item.event)
            value = 1 if feature.aggregate == "decayed_count" else self.stored(arrived, source)
            if value is not None and self.passes(arrived, feature.filter):
                terms.append((item.event.time_us, value))
        as_of_us = max([time_us for time_us, _ in terms] + [event.time_us])
        half_life_us = span_us(feature.half_life)
        total = math.fsum(value * 0.5 ** ((as_of_us - time_us) / half_life_us) for time_us, value in terms)
        return total / (1 if feature.aggregate == "decayed_count" else scale)

    # --- the transaction alone ---------------------------------------------------------------------------------------

    def transaction_feature(self, feature: Feature, event: Event) -> float:
        field = ENTITY_FIELDS.get(feature.field, feature.field)
        amount = NAN if event.amount_minor is None else float(Fraction(event.amount_minor, self.minor_per_major))
        value = amount if field in ("", "amount") else number_of(event, field, self.vocabulary)
        match feature.aggregate:
            case "value" | "code":
                return value
            case "log":
                return math.log1p(max(value, 0.0)) if not math.isnan(value) else NAN
            case "known":
                return float(field in event.texts or not math.isnan(value))
            case "differs":
                one, other = (event.texts.get(ENTITY_FIELDS.get(part, part), "") for part in feature.field.split("+"))
                return float(one != other) if one and other else NAN
            case "distance_km":
                here = position(event, "latitude", "longitude")
                home = position(event, "home_latitude", "home_longitude")
                return distance_km(here, home) if here and home else NAN
            case "round_amount" | "below_limit":
                return self._amount_shape(feature, event)
        return calendar_feature(feature, event)

    def _amount_shape(self, feature: Feature, event: Event) -> float:
        if event.amount_minor is None:
            return NAN
        amount = Fraction(event.amount_minor, self.minor_per_major)
        if feature.aggregate == "round_amount":
            multiple = Fraction(50 if math.isnan(feature.bound) else Decimal(repr(feature.bound)))
            return float(amount > 0 and amount % multiple == 0)
        share = Fraction(Decimal("0.1") if math.isnan(feature.bound) else Decimal(repr(feature.bound)))
        limit = next((Fraction(each) for each in self.set.limits if amount < each), None)
        return float(limit is not None and limit - amount <= share * limit)


def span_us(text: str) -> int:
    """Microseconds of a duration; none is 0."""
    digits = "".join(character for character in text if character.isdigit())
    return int(digits) * UNIT_US[text.removeprefix(digits)] if text else 0


def aggregate_values(feature: Feature, known: list[int], own: int | None, scale: int) -> float:
    """A window aggregate of the known values, in exact fractions as far as they go."""
    total = sum(known)
    if feature.aggregate == "sum":
        return float(Fraction(total, scale))
    if not known:
        return feature.empty
    mean = Fraction(total, len(known))
    variance = sum((value - mean) ** 2 for value in known) / Fraction(len(known) - 1) if len(known) > 1 else None
    match feature.aggregate:
        case "mean":
            return float(mean / scale)
        case "min":
            return float(Fraction(min(known), scale))
        case "max":
            return float(Fraction(max(known), scale))
        case "std":
            return feature.empty if variance is None else math.sqrt(variance) / scale
    if own is None:
        return NAN
    match feature.aggregate:
        case "zscore":
            # Of an entity that always pays the same, one unit is the least deviation.
            return feature.empty if variance is None else float(own - mean) / max(math.sqrt(variance), 1.0)
        case "ratio_to_mean":
            return float(own / mean) if mean else feature.empty
        case "ratio_to_max":
            return float(Fraction(own, max(known))) if max(known) else feature.empty
        case "share":
            return float(Fraction(own, total + own)) if total + own else feature.empty
    raise AssertionError(feature.aggregate)


def derived(feature: Feature, one: float, other: float) -> float:
    """A ratio or a difference; NaN when either is."""
    if math.isnan(one) or math.isnan(other):
        return NAN
    if feature.aggregate == "difference":
        return one - other
    ratio = one / other if other else math.inf
    return ratio if abs(ratio) <= FLOAT32_MAX else feature.empty


def position(event: Event, latitude: str, longitude: str) -> tuple[float, float] | None:
    """(latitude, longitude) where both are known."""
    if latitude in event.numbers and longitude in event.numbers:
        return event.numbers[latitude], event.numbers[longitude]
    return None


def unit_vector(place: tuple[float, float]) -> np.ndarray:
    """Where a place is on a globe of radius 1."""
    phi, lam = math.radians(place[0]), math.radians(place[1])
    return np.array([math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)])


def distance_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Great-circle distance from the angle between unit vectors: atan2 of cross and dot product."""
    u, v = unit_vector(one), unit_vector(other)
    return EARTH_RADIUS_KM * math.atan2(float(np.linalg.norm(np.cross(u, v))), float(u @ v))


def habit_weight(time_us: int, newest_us: int) -> float:
    return 0.5 ** ((newest_us - time_us) / HABIT_HALF_LIFE_US)


def place_feature(feature: Feature, event: Event, history: list[Remembered]) -> float:
    """From the newest known position (of two in one microsecond the one that arrived later), or from the usual centre."""
    here = position(event, "latitude", "longitude")
    places = [
        (item.event.time_us, place)
        for item in history
        if (place := position(item.event, "latitude", "longitude")) is not None
    ]
    if here is None or not places:
        return feature.empty
    newest_us = max(time_us for time_us, _ in places)
    if feature.aggregate == "distance_from_centre_km":
        centre = sum(habit_weight(time_us, newest_us) * unit_vector(place) for time_us, place in places)
        v = unit_vector(here)
        return EARTH_RADIUS_KM * math.atan2(float(np.linalg.norm(np.cross(v, centre))), float(v @ centre))
    last = [place for time_us, place in places if time_us == newest_us][-1]
    km = distance_km(here, last)
    kmh = km / (max(abs(event.time_us - newest_us) / 10**6, 60.0) / 3600.0)
    match feature.aggregate:
        case "distance_from_last_km":
            return km
        case "speed_kmh":
            return kmh
        case "impossible_travel":
            return float(kmh > (900.0 if math.isnan(feature.bound) else feature.bound) and km > 100.0)
    raise AssertionError(feature.aggregate)


def hours_feature(feature: Feature, event: Event, times_us: list[int]) -> float:
    """Hours between the time of day and its usual one, or how concentrated the usual one is."""
    if not times_us:
        return feature.empty
    weights = [habit_weight(time_us, max(times_us)) for time_us in times_us]
    turns = [2 * math.pi * (time_us % UNIT_US["d"]) / UNIT_US["d"] for time_us in times_us]
    mean = sum(w * complex(math.cos(turn), math.sin(turn)) for w, turn in zip(weights, turns, strict=True))
    if feature.aggregate == "hour_concentration":
        return abs(mean) / math.fsum(weights)
    own = 24 * (event.time_us % UNIT_US["d"]) / UNIT_US["d"]
    usual = 24 * math.atan2(mean.imag, mean.real) / (2 * math.pi)
    apart = abs(own - usual) % 24
    return min(apart, 24 - apart)


def calendar_feature(feature: Feature, event: Event) -> float:
    """Calendar of UTC."""
    moment = EPOCH + timedelta(microseconds=event.time_us)
    turn = 2 * math.pi * (event.time_us % UNIT_US["d"]) / UNIT_US["d"]
    match feature.aggregate:
        case "hour_sin":
            return math.sin(turn)
        case "hour_cos":
            return math.cos(turn)
        case "weekday_sin":
            return math.sin(2 * math.pi * moment.weekday() / 7)
        case "weekday_cos":
            return math.cos(2 * math.pi * moment.weekday() / 7)
        case "is_weekend":
            return float(moment.weekday() in (5, 6))
        case "is_night":
            end_of_night_h = 7 if math.isnan(feature.bound) else feature.bound
            return float(event.time_us % UNIT_US["d"] < end_of_night_h * UNIT_US["h"])
        case "day_of_month":
            return float(moment.day)
    raise AssertionError(feature.aggregate)
