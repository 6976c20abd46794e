"""The engine and its twin over the same events, and what "equal" means for each aggregate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.entity_state.layout import META_BUMP
from fraudsdk.features import kernels
from fraudsdk.features.engine import FeatureEngine, Provenance
from fraudsdk.features.spec import DERIVED_AGGREGATES, Feature, FeatureSet
from twin.events import Event, encode, key_of
from twin.naive_engine import NaiveEngine, derived, span_us
from twin.streams import Step

VOCABULARY = Vocabulary({"mcc": ("5411", "5999"), "merchant_country": ("FR", "GB"), "channel": ("ecommerce",)})

# One rounding in float64 and one to float32, in the twin as in the kernel: the same bits.
EXACT = frozenset(
    "count sum min max ratio_to_max share rate seconds_since_newest seconds_since_oldest seconds_since_last "
    "seconds_since_first is_new count_ever distinct impossible_travel value log code known is_weekend is_night "
    "day_of_month differs round_amount below_limit ratio difference".split()
)
# The kernel rounds a mean before it divides by it; the twin divides fractions.
ONE_ULP = frozenset({"mean", "ratio_to_mean"})
# Square roots of differences, powers of two, angles: to one in a million; zero is missed by at most that much.
CLOSE = 1e-6

# Bounded from both sides when tiles answer.
BOUNDED = frozenset({"count", "sum", "rate", "max", "seconds_since_newest", "seconds_since_oldest"})


class Driver:
    """
    A `FeatureEngine` that takes events as people write them.

    Parameters
    ----------
    feature_set : FeatureSet
    max_entities, journal_capacity : int
    """

    def __init__(self, feature_set: FeatureSet, *, max_entities: int = 2_000, journal_capacity: int = 4_000) -> None:
        self.engine = FeatureEngine(
            feature_set, VOCABULARY, max_entities=max_entities, journal_capacity=journal_capacity
        )

    def observe(self, event: Event, *, record: bool = True) -> tuple[int, np.ndarray]:
        """Status and row."""
        row = np.full(self.engine.n_features, np.nan, dtype=np.float32)
        status, _ = self.engine.observe(*self.encode([event]), row, record=record)
        return status, row

    def values(self, event: Event, *, record: bool = True) -> dict[str, float]:
        """The row by name; empty when there is none."""
        status, row = self.observe(event, record=record)
        return dict(zip(self.engine.schema.names, row.tolist(), strict=True)) if status == kernels.SCORED else {}

    def provenance(self, event: Event) -> list[Provenance]:
        """Of the row that was just read."""
        return self.engine.provenance(self.encode([event])[0])

    def label(self, transaction: str, *, is_fraud: bool) -> bool:
        return self.engine.label(key_of(transaction), is_fraud=is_fraud)

    def answered(self, transaction: str, *, declined: bool) -> bool:
        return self.engine.answered(key_of(transaction), declined=declined)

    def encode(self, events: Sequence[Event]) -> tuple[np.ndarray, np.ndarray]:
        return encode(events, self.engine.record_layout, VOCABULARY)

    def memory_bytes(self) -> tuple[bytes, ...]:
        """Everything that is remembered."""
        memory = self.engine.memory
        used = memory.pool[: memory.meta[META_BUMP]]
        return tuple(each.tobytes() for each in (used, memory.table, memory.meta, memory.journal, memory.journal_index))


class Pair:
    """An engine and its twin over the same steps."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self.driver = Driver(feature_set)
        self.naive = NaiveEngine(feature_set, VOCABULARY)
        self.set = feature_set

    def take(self, step: Step) -> list[str]:
        """One step in both; what they disagree about."""
        match step:
            case ("observe", event):
                return self.observe(event)
            case ("label", transaction, is_fraud):
                answers = {each.label(transaction, is_fraud=is_fraud) for each in (self.driver, self.naive)}
            case (_, transaction, declined):
                answers = {each.answered(transaction, declined=declined) for each in (self.driver, self.naive)}
        return [] if len(answers) == 1 else [f"one of them does not remember {transaction}"]

    def observe(self, event: Event) -> list[str]:
        """One event in both; what they disagree about."""
        _, read = self.driver.observe(event, record=False)
        provenance = self.driver.provenance(event)
        status, row = self.driver.observe(event)
        features = list(zip(self.set.features, provenance, strict=True))
        # What tiles answered has bounds, which must be known before the twin, too, remembers the event.
        bounds = {
            f.name: self._bounds(f, event) for f, origin in features if f.aggregate in BOUNDED and not origin.exact
        }
        excused = {f.name for f in self.set.features if self.naive.is_late(f, event)}
        expected = self.naive.observe(event)
        if expected is None:
            return [] if status in (kernels.DUPLICATE, kernels.LIFECYCLE) else [f"it was scored, status {status}"]
        if status != kernels.SCORED:
            return [f"it was not scored, status {status}"]
        problems = [] if row.tobytes() == read.tobytes() else ["reading and remembering gave different rows"]
        for position, (feature, origin) in enumerate(features):
            value, wanted = float(row[position]), expected[position]
            if feature.name in excused:
                continue
            if feature.aggregate in DERIVED_AGGREGATES:
                wanted = derived(feature, *(float(row[self.set.position(name)]) for name in feature.of))
            if origin.exact and not agree(feature, wanted, value):
                problems.append(f"{feature}: {value!r} where the twin has {wanted!r}")
            if feature.name in bounds and not within(*bounds[feature.name], value):
                problems.append(f"{feature}: {value!r} is not within {bounds[feature.name]!r}")
        return problems

    def _bounds(self, feature: Feature, event: Event) -> tuple[float, float]:
        """The least and the most that a tiled answer may say."""
        if self.naive.history(feature.entity, event) is None:
            return math.nan, math.nan
        naive = self.naive
        few = naive.window_events(feature, event, feature.filter)
        many = naive.window_events(feature, event, feature.filter, widened=True)
        amounts_few, amounts_many = (
            [item.amount_minor for item in items if item.amount_minor is not None] for items in (few, many)
        )
        match feature.aggregate:
            case "count":
                return len(few), len(many)
            case "sum":
                return sum(amounts_few) / naive.minor_per_major, sum(amounts_many) / naive.minor_per_major
            case "max":
                # A tile does not forget its largest amount when that is reversed.
                history = naive.history(feature.entity, event) or []
                largest = max(each.amount_minor or 0 for each in (event, *(item.event for item in history)))
                return (
                    max(amounts_few, default=-math.inf) / naive.minor_per_major,
                    largest / naive.minor_per_major,
                )
            case "rate":
                among_few = naive.window_events(feature, event, feature.filter[:-1])
                among_many = naive.window_events(feature, event, feature.filter[:-1], widened=True)
                least = len(few) / len(among_many) if among_few else -math.inf
                return least, len(many) / len(among_few) if among_few else math.inf
            case "seconds_since_newest":
                times_us = [item.event.time_us for item in few]
                return -math.inf, (event.time_us - max(times_us)) / 1e6 if times_us else math.inf
        times_us = [item.event.time_us for item in few]
        reach_us = span_us(feature.delay) + span_us(feature.window)
        return (event.time_us - min(times_us)) / 1e6 if times_us else -math.inf, reach_us / 1e6


def agree(feature: Feature, wanted: float, value: float) -> bool:
    """Whether a value of the row equals the twin's."""
    if math.isnan(wanted) or math.isnan(value):
        return math.isnan(wanted) and math.isnan(value)
    with np.errstate(over="ignore"):
        wanted32 = np.float32(wanted)
    if feature.aggregate in EXACT:
        return float(wanted32) == value
    if feature.aggregate in ONE_ULP:
        return abs(float(wanted32) - value) <= float(np.spacing(np.abs(wanted32)))
    return math.isclose(wanted, value, rel_tol=CLOSE, abs_tol=CLOSE)


def within(least: float, most: float, value: float) -> bool:
    """Whether a bounded value is between its bounds, to float32; NaN where there is nothing is as good as the least."""
    if math.isnan(least) or math.isnan(value):
        return math.isnan(value) and not math.isfinite(least)
    return float(np.float32(least)) <= value <= float(np.float32(most))


def first_difference(feature_set: FeatureSet, steps: Sequence[Step]) -> str:
    """The first disagreement over a stream of steps, in words; empty when there is none."""
    pair = Pair(feature_set)
    for i, step in enumerate(steps):
        problems = pair.take(step)
        if problems:
            return f"step {i}, {step}:\n" + "\n".join(problems)
    return ""
