"""
From a declared feature set to the tables of integers that the feature kernel walks.

What windows of an entity kind share is laid out once per kind: the *edges* where windows begin and end, as ages, and the
*sets* of events that they read, as masks of flags.  A *slot* is one window: two edges, a set and a value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fraudsdk.domain import fields as record
from fraudsdk.domain.fields import RecordLayout
from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.entity_state.layout import (
    KIND_FIRST_MEASURE,
    KIND_TOP_TILES,
    MEASURE_COLUMN,
    MEASURE_TILE,
    TILE_COUNTS,
    IntTable,
    KindSpec,
    StateLayout,
)
from fraudsdk.features.spec import (
    DERIVED_AGGREGATES,
    ENTITY_AGGREGATES,
    ENTITY_FIELDS,
    OUTCOME_FILTERS,
    WINDOW_AGGREGATES,
    Feature,
    FeatureSet,
    duration_us,
    filter_bits,
)

# Columns of ``ops``.
OP_CODE: Final = 0
OP_KIND: Final = 1
OP_SLOT: Final = 2  # window slot, distinct or decayed index, or first operand
OP_OTHER: Final = 3  # slot of the denominator, second operand, or second identifier column
OP_CURRENT: Final = 4  # 1: the current event counts too
OP_MASK: Final = 5
OP_WANT: Final = 6
OP_SOURCE: Final = 7  # -1 amount, else a column of ``numbers`` (or of ``ints`` for identifiers)
OP_WINDOW_US: Final = 8
OP_COLUMN: Final = 9  # of the row
OP_FIELDS: Final = 10

# Columns of ``runs``: ops of one code, side by side.
RUN_CODE: Final = 0
RUN_FIRST: Final = 1
RUN_END: Final = 2
RUN_FIELDS: Final = 3

# Columns of ``params``.
PARAM_EMPTY: Final = 0
PARAM_SCALE: Final = 1  # stored units per reported unit
PARAM_BOUND: Final = 2
PARAM_FIELDS: Final = 3

# Columns of ``windowed``: the entity kinds that have windows, and the rows that belong to each in the other tables.
WINDOWED_KIND: Final = 0
WINDOWED_FIRST_SET: Final = 1
WINDOWED_SETS: Final = 2
WINDOWED_FIRST_EDGE: Final = 3
WINDOWED_EDGES: Final = 4
WINDOWED_FIRST_SLOT: Final = 5
WINDOWED_SLOTS: Final = 6
WINDOWED_COUNTS: Final = 7  # slots, the first ones, of which only the number of events is asked
WINDOWED_FIELDS: Final = 8

# Columns of ``sets``: events whose flags under the mask are the wanted ones.
SET_MASK: Final = 0
SET_WANT: Final = 1
SET_FIELDS: Final = 2

# Columns of ``slots``.
SLOT_SET: Final = 0  # of the sets of its kind
SLOT_END: Final = 1  # of the edges of its kind: the younger one
SLOT_START: Final = 2
SLOT_COLUMN: Final = 3  # ring column of the value, -1 = there is none or nobody asks
SLOT_TIMES: Final = 4  # 1: somebody asks for its newest or oldest event
SLOT_TILE: Final = 5  # word of the measure within a tile
SLOT_WHOLE: Final = 6  # 1: squares or extremes of the value are asked, not only its sum
SLOT_FIELDS: Final = 7

WITHOUT_VALUE: Final = frozenset({"count", "rate", "seconds_since_newest", "seconds_since_oldest"})
# What needs no more of a window than how many events it holds, or than the number and sum of their values.
ONLY_COUNTED: Final = frozenset({"count", "rate"})
ONLY_SUMMED: Final = frozenset({"sum", "mean", "ratio_to_mean", "share"})
NO_VALUE: Final = -2  # counts only: there is no value to read
AMOUNT: Final = -1

_BOUNDS: Final = {"impossible_travel": 900.0, "round_amount": 50.0, "below_limit": 0.1, "is_night": 7.0}
_CODES: Final = {
    name: code
    for first, names in (
        (
            0,
            "count sum mean min max std zscore ratio_to_mean ratio_to_max share rate seconds_since_newest seconds_since_oldest",
        ),
        (
            100,
            "seconds_since_last seconds_since_first is_new count_ever distinct decayed_count decayed_sum "
            "distance_from_last_km speed_kmh impossible_travel distance_from_centre_km hour_deviation hour_concentration",
        ),
        (
            200,
            "value log code known hour_sin hour_cos weekday_sin weekday_cos is_weekend is_night day_of_month differs "
            "distance_km round_amount below_limit known_identifier",
        ),
        (300, "ratio difference"),
    )
    for code, name in enumerate(names.split(), start=first)
}
OPCODES: Final = _CODES
_FIRST_DERIVED: Final = 300

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeaturePlan:
    """
    What the kernels read.

    Attributes
    ----------
    record : RecordLayout
        Fields the encoder must write.
    state : StateLayout
        What each entity remembers.
    windowed : int64[n_windowed, WINDOWED_FIELDS]
    sets : int64[n_sets, SET_FIELDS]
    edges_us : int64[n_edges]
        Ages, ascending within a kind: of the events that a window with that delay ends with, and of those it starts after.
    slots : int64[n_slots, SLOT_FIELDS]
        Within a kind, those that are only counted come first.
    ops : int64[n_features, OP_FIELDS]
        By code, so that a kernel decides what to do once per run of them; derived ones last, in the order of features.
    params : float64[n_features, PARAM_FIELDS]
        Of each op.
    runs : int64[n_runs, RUN_FIELDS]
    filters : int64[n_ranges, 2]
        (bit, source) of each declared filter's ranges.
    filter_ranges : float64[n_ranges, 3]
        (low, high), closed, in major units; minor units per major one.
    limits : float64[n_limits]
        Major units, ascending.
    places : int64[5]
        Columns of ``numbers`` for latitude, longitude, home latitude and home longitude; -1 = not carried.  Then whether
        the time of day is asked for as an angle.
    """

    record: RecordLayout
    state: StateLayout
    windowed: IntTable
    sets: IntTable
    edges_us: IntTable
    slots: IntTable
    ops: IntTable
    params: Floats
    runs: IntTable
    filters: IntTable
    filter_ranges: Floats
    limits: Floats
    places: IntTable

    @property
    def most_tiles(self) -> int:
        """Tiles on the longest level of any entity kind."""
        return int(self.state.kinds[:, KIND_TOP_TILES].max(initial=max(TILE_COUNTS)))


def build_plan(feature_set: FeatureSet, vocabulary: Vocabulary) -> FeaturePlan:
    """Lay out what a feature set needs to carry, remember and compute."""
    return _Planner(feature_set, vocabulary).build()


def _runs(ops: IntTable) -> IntTable:
    """Where the ops of each code begin and end."""
    codes = ops[:, OP_CODE]
    first = np.flatnonzero(np.diff(codes, prepend=-1))
    return np.column_stack([codes[first], first, np.append(first[1:], len(codes))]).astype(np.int64)


class _Kind:
    """What one entity kind is asked for, gathered while reading the features."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[tuple[int, int], set[int]] = {}  # events -> value sources wanted of them
        self.horizon_us = 0
        self.distincts: dict[int, int] = {}
        self.decayeds: list[tuple[int, int, int, int]] = []
        self.place = self.hours = False

    def measures(self) -> list[tuple[int, int, int]]:
        """(mask, want, source): one per value wanted; bare counts ride along with a value where there is one."""
        return [
            (mask, want, source)
            for (mask, want), sources in self.values.items()
            for source in sorted(sources - {NO_VALUE}) or [NO_VALUE]
        ]

    def source_for(self, events: tuple[int, int], source: int) -> int:
        """The measure that answers a request: a count may come from any measure of the same events."""
        return source if source != NO_VALUE else min(self.values[events] - {NO_VALUE}, default=NO_VALUE)


class _Window(NamedTuple):
    """What makes two features read the same window; in the order in which slots are laid out."""

    kind: int
    mask: int
    want: int
    source: int
    delay_us: int
    width_us: int


class _Windows:
    """The tables of all windows, and the slot of each."""

    def __init__(
        self,
        state: StateLayout,
        wanted: dict[_Window, set[str]],
        measures: list[list[tuple[int, int, int]]],
    ) -> None:
        windowed: list[tuple[int, ...]] = []
        sets: list[tuple[int, int]] = []
        edges: list[int] = []
        slots: list[tuple[int, ...]] = []
        self.slot_of: dict[_Window, int] = {}
        for kind in sorted({window.kind for window in wanted}):
            of_kind = sorted(window for window in wanted if window.kind == kind)
            counts = [window for window in of_kind if wanted[window] <= ONLY_COUNTED]
            windows = counts + [window for window in of_kind if not wanted[window] <= ONLY_COUNTED]
            own_sets = sorted({(window.mask, window.want) for window in windows})
            own_edges = sorted({age for w in windows for age in (w.delay_us, w.delay_us + w.width_us)})
            windowed.append(
                (kind, len(sets), len(own_sets), len(edges), len(own_edges), len(slots), len(windows), len(counts))
            )  # fmt: skip
            for window in windows:
                measure = measures[kind].index((window.mask, window.want, window.source))
                row = state.measures[int(state.kinds[kind, KIND_FIRST_MEASURE]) + measure]
                asked = wanted[window]
                self.slot_of[window] = len(slots)
                slots.append(
                    (
                        own_sets.index((window.mask, window.want)),
                        own_edges.index(window.delay_us),
                        own_edges.index(window.delay_us + window.width_us),
                        int(row[MEASURE_COLUMN]) if asked - WITHOUT_VALUE else -1,
                        int(not asked.isdisjoint(("seconds_since_newest", "seconds_since_oldest"))),
                        int(row[MEASURE_TILE]),
                        int(not asked <= WITHOUT_VALUE | ONLY_SUMMED),
                    )
                )
            sets += own_sets
            edges += own_edges
        self.windowed = np.array(windowed, dtype=np.int64).reshape(-1, WINDOWED_FIELDS)
        self.sets = np.array(sets, dtype=np.int64).reshape(-1, SET_FIELDS)
        self.edges_us = np.array(edges, dtype=np.int64)
        self.slots = np.array(slots, dtype=np.int64).reshape(-1, SLOT_FIELDS)


class _Planner:
    def __init__(self, feature_set: FeatureSet, vocabulary: Vocabulary) -> None:
        self.set = feature_set
        self.vocabulary = vocabulary
        self.identifiers: list[str] = []
        self.numbers: list[str] = []
        self.kinds: dict[str, _Kind] = {}
        self.minor_per_major = 10.0 ** CURRENCY_EXPONENTS[feature_set.currency]

    def build(self) -> FeaturePlan:
        for feature in self.set.features:
            self._gather(feature)
        filters, ranges = self._filters()
        if any(kind.place for kind in self.kinds.values()) or self._uses("distance_km"):
            for name in ("latitude", "longitude"):
                self._number(name)
        if self._uses("distance_km"):
            for name in ("home_latitude", "home_longitude"):
                self._number(name)
        specs = tuple(self._kind_spec(kind) for kind in self.kinds.values())
        state = StateLayout.build(
            specs,
            ring_cap=self.set.ring_cap,
            allowed_lateness_us=duration_us(self.set.allowed_lateness, where="allowed_lateness"),
        )
        windows = _Windows(state, self._wanted_windows(), [kind.measures() for kind in self.kinds.values()])
        ops = np.zeros((len(self.set.features), OP_FIELDS), dtype=np.int64)
        params = np.full((len(self.set.features), PARAM_FIELDS), np.nan)
        for index, feature in enumerate(self.set.features):
            self._op(feature, ops[index], params[index], windows.slot_of)
        ops[:, OP_COLUMN] = np.arange(len(ops))
        order = np.argsort(np.minimum(ops[:, OP_CODE], _FIRST_DERIVED), kind="stable")
        places = [
            self.numbers.index(name) if name in self.numbers else -1
            for name in ("latitude", "longitude", "home_latitude", "home_longitude")
        ]
        uses_clock = any(kind.hours for kind in self.kinds.values()) or self._uses("hour_sin") or self._uses("hour_cos")
        layout = RecordLayout(
            identifiers=tuple(self.identifiers),
            numbers=tuple(self.numbers),
            custom_numbers=self.set.custom_numbers,
            custom_categories=self.set.custom_categories,
        )
        return FeaturePlan(
            record=layout,
            state=state,
            windowed=windows.windowed,
            sets=windows.sets,
            edges_us=windows.edges_us,
            slots=windows.slots,
            ops=ops[order],
            params=params[order],
            runs=_runs(ops[order]),
            filters=filters,
            filter_ranges=ranges,
            limits=np.array(self.set.limits, dtype=np.float64),
            places=np.array([*places, uses_clock], dtype=np.int64),
        )

    # --- what is carried ---------------------------------------------------------------------------------------------

    def _uses(self, aggregate: str) -> bool:
        return any(feature.aggregate == aggregate for feature in self.set.features)

    def _identifier(self, name: str) -> int:
        """Column of ``ints`` that holds the hash of a field."""
        name = ENTITY_FIELDS.get(name, name)
        if name not in self.identifiers:
            self.identifiers.append(name)
        return record.FIRST_IDENTIFIER + self.identifiers.index(name)

    def _number(self, name: str) -> int:
        """Column of ``numbers`` that holds a field, or -1 for the amount, which ``ints`` carries."""
        if name == "amount":
            return AMOUNT
        if name not in self.numbers:
            self.numbers.append(name)
        return self.numbers.index(name)

    def _filters(self) -> tuple[IntTable, Floats]:
        rows: list[tuple[int, int]] = []
        ranges: list[tuple[float, float, float]] = []
        for index, each in enumerate(self.set.filters):
            spans: Iterable[tuple[float, float]] = each.between
            if each.equals:
                # A value outside the vocabulary has no code of its own: no event can be told to equal it.
                codes = self.vocabulary.codes(each.field)
                spans = [(codes[value], codes[value]) for value in each.equals if value in codes]
            for low, high in spans:
                rows.append((record.FIRST_USER_FILTER << index, self._number(each.field)))
                ranges.append((low, high, self.minor_per_major))
        return (
            np.array(rows, dtype=np.int64).reshape(-1, 2),
            np.array(ranges, dtype=np.float64).reshape(-1, 3),
        )

    # --- what is remembered ------------------------------------------------------------------------------------------

    def _gather(self, feature: Feature) -> None:
        aggregate = feature.aggregate
        if not feature.entity:
            return
        kind = self.kinds.setdefault(feature.entity, _Kind(feature.entity))
        if aggregate in WINDOW_AGGREGATES:
            kind.horizon_us = max(kind.horizon_us, self._window_us(feature) + self._delay_us(feature))
            for events in self._events(feature):
                kind.values.setdefault(events, set()).add(self._source(feature))
        elif aggregate == "distinct":
            column = self._identifier(feature.field)
            kind.distincts[column] = max(kind.distincts.get(column, 0), self._window_us(feature))
        elif aggregate in ("decayed_count", "decayed_sum"):
            if self._decayed(feature) not in kind.decayeds:
                kind.decayeds.append(self._decayed(feature))
        elif aggregate in ("hour_deviation", "hour_concentration"):
            kind.hours = True
        elif aggregate in ("distance_from_last_km", "speed_kmh", "impossible_travel", "distance_from_centre_km"):
            kind.place = True

    def _kind_spec(self, kind: _Kind) -> KindSpec:
        columns = sorted({source for _, _, source in kind.measures() if source != NO_VALUE})
        allowed_lateness_us = duration_us(self.set.allowed_lateness, where="allowed_lateness")
        return KindSpec(
            name=kind.name,
            components=tuple(self._identifier(component) for component in kind.name.split("+")),
            measures=tuple(
                (mask, want, -1 if source == NO_VALUE else columns.index(source))
                for mask, want, source in kind.measures()
            ),
            columns=tuple(columns),
            horizon_us=kind.horizon_us,
            distincts=tuple((column, horizon + allowed_lateness_us) for column, horizon in kind.distincts.items()),
            decayeds=tuple(kind.decayeds),
            place=kind.place,
            hours=kind.hours,
        )

    def _window_us(self, feature: Feature) -> int:
        return duration_us(feature.window, where=f"feature {feature.name!r}: window")

    def _delay_us(self, feature: Feature) -> int:
        return duration_us(feature.delay, where=f"feature {feature.name!r}: delay") if feature.delay else 0

    def _source(self, feature: Feature) -> int:
        """What a window feature aggregates: nothing for counts, else the amount or a number."""
        if feature.aggregate in WITHOUT_VALUE:
            return NO_VALUE
        return self._number(feature.field or "amount")

    def _events(self, feature: Feature) -> list[tuple[int, int]]:
        """The events a feature reads; a rate reads those that pass, and all of the same base and card-presence."""
        events = [filter_bits(self.set, feature.filter)]
        if feature.aggregate == "rate":
            events.append(filter_bits(self.set, self._denominator(feature)))
        return events

    def _denominator(self, feature: Feature) -> tuple[str, ...]:
        """All filters but the last, which is the one whose share is asked."""
        return feature.filter[:-1]

    def _decayed(self, feature: Feature) -> tuple[int, int, int, int]:
        mask, want = filter_bits(self.set, feature.filter)
        source = NO_VALUE if feature.aggregate == "decayed_count" else self._number(feature.field or "amount")
        return mask, want, source, duration_us(feature.half_life, where=f"feature {feature.name!r}: half_life")

    # --- what is computed --------------------------------------------------------------------------------------------

    def _wanted_windows(self) -> dict[_Window, set[str]]:
        """Each window that some feature reads, and what for; the other half of a rate is only counted."""
        wanted: dict[_Window, set[str]] = {}
        for feature in self.set.features:
            if feature.aggregate in WINDOW_AGGREGATES:
                numerator, *denominator = (self._window(feature, events) for events in self._events(feature))
                wanted.setdefault(numerator, set()).add(feature.aggregate)
                for window in denominator:
                    wanted.setdefault(window, set()).add("count")
        return wanted

    def _window(self, feature: Feature, events: tuple[int, int]) -> _Window:
        source = self.kinds[feature.entity].source_for(events, self._source(feature))
        kind = list(self.kinds).index(feature.entity)
        return _Window(kind, *events, source, self._delay_us(feature), self._window_us(feature))

    def _op(self, feature: Feature, op: IntTable, params: Floats, slot_of: dict[_Window, int]) -> None:
        aggregate = feature.aggregate
        op[OP_CODE] = _CODES[aggregate]
        op[OP_KIND] = list(self.kinds).index(feature.entity) if feature.entity else -1
        op[OP_CURRENT] = feature.current
        op[OP_SOURCE] = NO_VALUE
        params[PARAM_EMPTY] = feature.empty
        params[PARAM_BOUND] = _BOUNDS.get(aggregate, np.nan) if np.isnan(feature.bound) else feature.bound
        params[PARAM_SCALE] = 1.0
        if aggregate in WINDOW_AGGREGATES:
            events = self._events(feature)
            op[OP_SLOT], op[OP_OTHER] = (slot_of[self._window(feature, each)] for each in (events[0], events[-1]))
            op[OP_MASK], op[OP_WANT] = self._own_bits(feature)
            op[OP_SOURCE] = self._source(feature)
        elif aggregate in ENTITY_AGGREGATES:
            self._entity_op(feature, op)
        elif aggregate in DERIVED_AGGREGATES:
            op[OP_SLOT], op[OP_OTHER] = (self.set.position(name) for name in feature.of)
        else:
            self._transaction_op(feature, op)
        if op[OP_SOURCE] != NO_VALUE and aggregate not in ("value", "log", "code", "known", "known_identifier"):
            params[PARAM_SCALE] = self.minor_per_major if op[OP_SOURCE] == AMOUNT else 1e6
        elif aggregate in ("value", "log", "round_amount", "below_limit"):
            params[PARAM_SCALE] = self.minor_per_major

    def _own_bits(self, feature: Feature) -> tuple[int, int]:
        """Which current events join their own window; outcomes are not known yet and were refused at declaration."""
        return filter_bits(self.set, [name for name in feature.filter if name not in OUTCOME_FILTERS])

    def _entity_op(self, feature: Feature, op: IntTable) -> None:
        kind = self.kinds[feature.entity]
        if feature.aggregate == "distinct":
            column = self._identifier(feature.field)
            op[OP_SLOT] = list(kind.distincts).index(column)
            op[OP_OTHER] = column
            op[OP_WINDOW_US] = self._window_us(feature)
        elif feature.aggregate in ("decayed_count", "decayed_sum"):
            decayed = self._decayed(feature)
            op[OP_SLOT] = kind.decayeds.index(decayed)
            op[OP_WINDOW_US] = decayed[3]
            op[OP_SOURCE] = decayed[2]

    def _transaction_op(self, feature: Feature, op: IntTable) -> None:
        name = ENTITY_FIELDS.get(feature.field, feature.field)
        if feature.aggregate == "differs":
            op[OP_SLOT], op[OP_OTHER] = (self._identifier(part) for part in feature.field.split("+"))
        elif feature.aggregate == "known" and name in record.IDENTIFIERS:
            op[OP_CODE] = _CODES["known_identifier"]
            op[OP_SLOT] = self._identifier(name)
        elif feature.aggregate in ("value", "log", "code", "known"):
            op[OP_SOURCE] = self._number(name or "amount")
