"""
Features are declared: one line each, in Python or in a TOML file that round-trips.

::

    name = "velocity"
    currency = "GBP"

    [features]
    user_count_1h = { aggregate = "count", entity = "user", window = "1h" }
    merchant_fraud_rate = { aggregate = "rate", entity = "merchant", filter = ["fraud"], window = "7d", delay = "7d" }
    amount_to_user_mean = { aggregate = "ratio_to_mean", entity = "user", window = "30d" }

A window is half-open, ``(t - window, t]``, over event time; with a `delay` it is ``(t - delay - window, t - delay]``.  The
current event is not in it unless ``current = true``.  An absent entity id gives NaN; an entity never seen before gives a
count of zero and, where there is nothing to average, `empty` (NaN unless declared).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from fraudsdk.domain import fields as record
from fraudsdk.domain.equality import EqualWithNan
from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.errors import FeatureSetError

# The first thing to change when a kernel's meaning changes: an old model must not accept new numbers.
SEMANTICS_VERSION: Final = 1

MAX_FEATURES: Final = 4_096
MAX_NAME_LENGTH: Final = 128

# Short names of entities; any other category or custom category may be used under its own name.
ENTITY_FIELDS: Final[Mapping[str, str]] = {
    "user": "user_id",
    "card": "card_id",
    "merchant": "merchant_id",
    "device": "device_id",
    "ip": "ip",
    "session": "session_id",
    "counterparty": "counterparty_id",
    "fingerprint": "device_fingerprint",
    "user_agent": "user_agent_hash",
    "email": "email_hash",
    "phone": "phone_hash",
}

_KIND_OF_EVENT = record.AUTHORISATION | record.REFUND | record.CREDIT | record.REVERSED
# Which events a filter keeps, as (mask, wanted bits).  The first four say which kind of event is meant.
BASE_FILTERS: Final[Mapping[str, tuple[int, int]]] = {
    "purchase": (_KIND_OF_EVENT, record.AUTHORISATION),
    "credit": (_KIND_OF_EVENT, record.AUTHORISATION | record.CREDIT),
    "refund": (record.REFUND | record.REVERSED, record.REFUND),
    "any": (record.REVERSED, 0),
}
STATUS_FILTERS: Final[Mapping[str, tuple[int, int]]] = {
    "declined": (record.DECLINED, record.DECLINED),
    "approved": (record.DECLINED, 0),
    "fraud": (record.FRAUD, record.FRAUD),
    "genuine": (record.GENUINE, record.GENUINE),
    "card_present": (record.CARD_PRESENT, record.CARD_PRESENT),
    "card_not_present": (record.CARD_NOT_PRESENT, record.CARD_NOT_PRESENT),
}
_CONTRADICTIONS: Final = (("declined", "approved"), ("fraud", "genuine"), ("card_present", "card_not_present"))
# What is known only after the decision; the current event cannot be among them.
OUTCOME_FILTERS: Final = frozenset({"declined", "approved", "fraud", "genuine"})

# Aggregates by what they need declared.
WINDOW_AGGREGATES: Final = frozenset(
    "count sum mean min max std zscore ratio_to_mean ratio_to_max share rate "
    "seconds_since_newest seconds_since_oldest".split()
)
ENTITY_AGGREGATES: Final = frozenset(
    "seconds_since_last seconds_since_first is_new count_ever distinct decayed_count decayed_sum distance_from_last_km "
    "speed_kmh impossible_travel distance_from_centre_km hour_deviation hour_concentration".split()
)
TRANSACTION_AGGREGATES: Final = frozenset(
    "value log code known hour_sin hour_cos weekday_sin weekday_cos is_weekend is_night day_of_month differs "
    "distance_km round_amount below_limit".split()
)
DERIVED_AGGREGATES: Final = frozenset({"ratio", "difference"})
AGGREGATES: Final = WINDOW_AGGREGATES | ENTITY_AGGREGATES | TRANSACTION_AGGREGATES | DERIVED_AGGREGATES

_BOUND_RANGES: Final = {
    "impossible_travel": (0.0, 1e6),
    "round_amount": (0.0, 1e9),
    "below_limit": (0.0, 1.0),
    "is_night": (0.0, 24.0),
}

_DURATION = re.compile(r"(\d+)\s*(us|ms|s|min|m|h|d)")
_UNIT_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
MAX_WINDOW_US: Final = 400 * _UNIT_US["d"]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def duration_us(text: str, *, where: str) -> int:
    """
    Microseconds of ``"90s"``, ``"5m"``, ``"24h"`` or ``"30d"``.

    Raises
    ------
    FeatureSetError
        Names `where` it stood.
    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise FeatureSetError(
            f"{where} is {text!r}, not a duration; write a whole number and us, ms, s, m, h or d, as in '24h'"
        )
    value = int(match[1]) * _UNIT_US[match[2]]
    if value > MAX_WINDOW_US:
        raise FeatureSetError(f"{where} is {text!r}, longer than 400 days; shorten it")
    return value


@dataclass(frozen=True, eq=False)
class Feature(EqualWithNan):
    """
    One column of the row.

    Attributes
    ----------
    name : str
        A Python identifier, unique in the set.
    aggregate : str
        One of `AGGREGATES`.
    entity : str
        Entity or pair such as ``"user"`` or ``"user+merchant"``; empty for features of the transaction alone.
    field : str
        What is aggregated: a number (default ``"amount"``), for ``distinct`` an entity or category, for ``value``,
        ``code`` and ``known`` any field; for ``differs`` two fields joined by ``+``.
    window, delay, half_life : str
        Durations such as ``"24h"``.
    filter : tuple of str
        Names of filters, all of which an event must pass.  Purchases only, unless ``credit``, ``refund`` or ``any`` is named.
    current : bool
        The current event counts too.
    empty : float
        The answer when there is nothing to answer from.
    of : tuple of str
        Two earlier features, for ``ratio`` and ``difference``.
    bound : float
        ``impossible_travel``: km/h above which it is; ``round_amount``: major units it is a multiple of;
        ``below_limit``: relative distance below a limit that still counts; ``is_night``: hour at which night ends.
    family, reason, description : str
        For people and reason codes; not part of the fingerprint.
    """

    name: str
    aggregate: str
    entity: str = ""
    field: str = ""
    window: str = ""
    delay: str = ""
    half_life: str = ""
    filter: tuple[str, ...] = ()
    current: bool = False
    empty: float = math.nan
    of: tuple[str, ...] = ()
    bound: float = math.nan
    family: str = "custom"
    reason: str = "CUS01"
    description: str = ""

    def __post_init__(self) -> None:
        # 50 and 50.0 are one declaration, and must have one fingerprint.
        for key in ("empty", "bound"):
            object.__setattr__(self, key, _float(getattr(self, key), where=f"feature {self.name!r}: {key}"))


_METADATA: Final = ("family", "reason", "description")


@dataclass(frozen=True)
class EventFilter:
    """
    A filter that a feature set declares: a number within any of some closed ranges, or a category equal to a value.

    Attributes
    ----------
    name : str
    field : str
        A number or category field.
    between : tuple of (low, high)
        Closed ranges, for numbers.
    equals : tuple of str
        Values, for categories.
    """

    name: str
    field: str
    between: tuple[tuple[float, float], ...] = ()
    equals: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"filter {self.name!r}: between"
        if any(not isinstance(pair, tuple) or len(pair) != 2 for pair in self.between):
            raise FeatureSetError(f"{where} must hold pairs [low, high] with low <= high")
        pairs = tuple((_float(low, where=where), _float(high, where=where)) for low, high in self.between)
        object.__setattr__(self, "between", pairs)


@dataclass(frozen=True)
class FeatureSet:
    """
    An ordered set of features and what they share.

    Attributes
    ----------
    name : str
    features : tuple of Feature
        In row order.
    currency : str
        Reference currency, ISO 4217; amounts are summed in its minor units.
    filters : tuple of EventFilter
        At most 16.
    limits : tuple of float
        Reporting or authorisation limits, major units, ascending, that `below_limit` measures against.
    ring_cap : int
        Events per entity that are kept exactly, a power of two; beyond it tiles answer within one tile.
    allowed_lateness : str
        How late an event may arrive and still read its windows exactly.
    custom_numbers, custom_categories : tuple of str
        Declared fields of the custom bag.
    """

    name: str
    features: tuple[Feature, ...]
    currency: str = "GBP"
    filters: tuple[EventFilter, ...] = ()
    limits: tuple[float, ...] = ()
    ring_cap: int = 256
    allowed_lateness: str = "24h"
    custom_numbers: tuple[str, ...] = ()
    custom_categories: tuple[str, ...] = ()
    _positions: Mapping[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(_float(limit, where="limits") for limit in self.limits))
        _check_set(self)
        object.__setattr__(self, "_positions", {f.name: i for i, f in enumerate(self.features)})
        for index, feature in enumerate(self.features):
            _check_feature(self, feature, index)

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in row order."""
        return tuple(feature.name for feature in self.features)

    def position(self, name: str) -> int:
        """Index of a feature in the row."""
        return self._positions[name]

    @property
    def schema(self) -> FeatureSchema:
        """What models and policies need to know of this set."""
        return FeatureSchema(
            features=tuple(
                FeatureInfo(f.name, f.family, f.reason, f.description, categorical=f.aggregate == "code")
                for f in self.features
            ),
            fingerprint=self.fingerprint,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides the bits of a row; texts for people are left out."""
        content = self.to_dict()
        content["semantics"] = SEMANTICS_VERSION
        content.pop("name")
        content["features"] = [
            {"name": name, **{k: v for k, v in line.items() if k not in _METADATA}}
            for name, line in content["features"].items()
        ]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def without(self, *names: str) -> FeatureSet:
        """The same set less some features (and those derived from them)."""
        dropped = set(names)
        for feature in self.features:
            if dropped.intersection(feature.of):
                dropped.add(feature.name)
        return replace(self, features=tuple(f for f in self.features if f.name not in dropped))

    def with_features(self, *features: Feature) -> FeatureSet:
        """The same set with more features at the end."""
        return replace(self, features=self.features + features)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, defaults left out; `from_dict` gives an equal set back."""
        content: dict[str, Any] = {"name": self.name, "currency": self.currency}
        for key in ("limits", "custom_numbers", "custom_categories"):
            if getattr(self, key):
                content[key] = list(getattr(self, key))
        content["ring_cap"] = self.ring_cap
        content["allowed_lateness"] = self.allowed_lateness
        if self.filters:
            content["filters"] = {f.name: _plain(f, skip=("name",)) for f in self.filters}
        content["features"] = {f.name: _plain(f, skip=("name",)) for f in self.features}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FeatureSet:
        """
        Build a set from plain values.

        Raises
        ------
        FeatureSetError
            Names the feature, the key and the remedy.
        """
        rest = dict(content)
        features = rest.pop("features", None)
        if not isinstance(features, Mapping) or not features:
            raise FeatureSetError("a feature set needs a [features] table with one line per feature")
        filters = rest.pop("filters", {})
        if not isinstance(filters, Mapping):
            raise FeatureSetError("filters must be a table with one line per filter")
        known = {f.name for f in fields(cls) if f.init} - {"features", "filters"}
        for key in rest:
            if key not in known:
                raise FeatureSetError(f"{key!r} is not a key of a feature set; {_closest(key, known)}")
        for key in ("limits", "custom_numbers", "custom_categories"):
            if key in rest:
                if not isinstance(rest[key], list | tuple):
                    raise FeatureSetError(f"{key} must be a list, was {rest[key]!r}")
                rest[key] = tuple(rest[key])
        try:
            return cls(
                features=tuple(_line(Feature, name, line, "feature") for name, line in features.items()),
                filters=tuple(_line(EventFilter, name, line, "filter") for name, line in filters.items()),
                **rest,
            )
        except TypeError as error:
            raise FeatureSetError(f"the feature set is malformed: {error}") from error

    def to_toml(self) -> str:
        """The file form: one line per feature."""
        content = self.to_dict()
        tables = [(key, content.pop(key)) for key in ("filters", "features") if key in content]
        lines = [f"{key} = {_toml(value)}" for key, value in content.items()]
        for table, rows in tables:
            lines += ["", f"[{table}]"] + [f"{name} = {_toml(row)}" for name, row in rows.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> FeatureSet:
        """The inverse of `to_toml`."""
        try:
            return cls.from_dict(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise FeatureSetError(f"the feature set is not TOML: {error}") from error

    @classmethod
    def load(cls, path: Path | str) -> FeatureSet:
        """Read a feature-set file."""
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise FeatureSetError(
                f"cannot read the feature set {path}: {error}; give the path of a TOML file"
            ) from error


def filter_bits(feature_set: FeatureSet, names: Iterable[str]) -> tuple[int, int]:
    """(mask, wanted bits) of the events that pass all the named filters."""
    names = tuple(names)
    bases = [name for name in names if name in BASE_FILTERS]
    mask, want = BASE_FILTERS[bases[0] if bases else "purchase"]
    for name in names:
        if name in BASE_FILTERS:
            continue
        if name in STATUS_FILTERS:
            more_mask, more_want = STATUS_FILTERS[name]
        else:
            bit = record.FIRST_USER_FILTER << [f.name for f in feature_set.filters].index(name)
            more_mask, more_want = bit, bit
        mask, want = mask | more_mask, want | more_want
    return mask, want


def _plain(item: Any, *, skip: tuple[str, ...]) -> dict[str, Any]:
    """Values that differ from the defaults, tuples as lists."""
    line = {}
    for each in fields(item):
        value = getattr(item, each.name)
        is_default = value == each.default or (isinstance(value, float) and math.isnan(value))
        if each.name not in skip and not is_default:
            line[each.name] = _lists(value)
    return line


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _line(kind: type[Any], name: str, line: Any, word: str) -> Any:
    """One `Feature` or `EventFilter` from its line."""
    if not isinstance(line, Mapping):
        raise FeatureSetError(f"{word} {name!r} is {line!r}; write a table such as {{ aggregate = 'count', ... }}")
    known = {f.name: f for f in fields(kind)}
    for key, value in line.items():
        if key not in known or key == "name":
            raise FeatureSetError(f"{word} {name!r} has the unknown key {key!r}; {_closest(key, known)}")
        wanted = str(known[key].type)
        fits = {
            "str": isinstance(value, str),
            "bool": isinstance(value, bool),
            "float": isinstance(value, int | float) and not isinstance(value, bool),
        }.get(wanted, isinstance(value, list | tuple))
        if not fits:
            raise FeatureSetError(f"{word} {name!r}: {key} is {value!r}, not of type {wanted}; correct it")
    values = {k: float(v) if known[k].type == "float" else _tuples(v) for k, v in line.items()}
    return kind(name=name, **values)


def _float(value: Any, *, where: str) -> float:
    """A float, whole numbers included; infinities decide nothing and cannot be written down."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
        raise FeatureSetError(f"{where} must be a finite number, was {value!r}")
    return float(value)


def _closest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"


def _toml(value: Any) -> str:
    """A value as TOML; only what a feature set holds."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float | int):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return "[" + ", ".join(_toml(v) for v in value) + "]"


def _check_set(feature_set: FeatureSet) -> None:
    names = [feature.name for feature in feature_set.features]
    if not names:
        raise FeatureSetError("a feature set needs at least one feature")
    if len(names) > MAX_FEATURES:
        raise FeatureSetError(f"a feature set holds at most {MAX_FEATURES} features, this has {len(names)}; drop some")
    twice = (
        next((name for i, name in enumerate(names) if name in names[:i]), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice is not None:
        raise FeatureSetError(f"feature {twice!r} is declared twice; rename one")
    if feature_set.currency not in CURRENCY_EXPONENTS:
        raise FeatureSetError(f"currency {feature_set.currency!r} is not an ISO 4217 code; write one such as 'GBP'")
    cap = feature_set.ring_cap
    if not isinstance(cap, int) or cap < 8 or cap > 65_536 or cap & (cap - 1):
        raise FeatureSetError(f"ring_cap must be a power of two from 8 to 65536, was {cap!r}")
    duration_us(feature_set.allowed_lateness, where="allowed_lateness")
    if len(feature_set.filters) > record.MAX_USER_FILTERS:
        raise FeatureSetError(
            f"at most {record.MAX_USER_FILTERS} filters can be declared, these are {len(feature_set.filters)}"
        )
    for name in (*feature_set.custom_numbers, *feature_set.custom_categories):
        taken = name in record.IDENTIFIERS + record.CATEGORIES + record.NUMBERS or name in ENTITY_FIELDS
        if taken or not isinstance(name, str) or not _NAME.fullmatch(name):
            raise FeatureSetError(f"custom field {name!r} is a field already, or no identifier; choose another name")
    if list(feature_set.limits) != sorted(feature_set.limits) or not all(0 < x < math.inf for x in feature_set.limits):
        raise FeatureSetError(f"limits must be positive and ascending, were {list(feature_set.limits)}")
    for each in feature_set.filters:
        _check_filter(feature_set, each)


def _check_filter(feature_set: FeatureSet, each: EventFilter) -> None:
    if each.name in BASE_FILTERS or each.name in STATUS_FILTERS or not _NAME.fullmatch(each.name):
        raise FeatureSetError(f"filter {each.name!r} is a name of the library or no identifier; choose another")
    if bool(each.between) == bool(each.equals):
        raise FeatureSetError(f"filter {each.name!r} needs either between = [[low, high], ...] or equals = [...]")
    known = _categories(feature_set) if each.equals else _numbers(feature_set)
    if each.field not in known:
        raise FeatureSetError(
            f"filter {each.name!r}: field {each.field!r} cannot be tested so; {_closest(each.field, known)}"
        )
    if not all(low <= high for low, high in each.between):
        raise FeatureSetError(f"filter {each.name!r}: between must hold pairs [low, high] with low <= high")


def _numbers(feature_set: FeatureSet) -> tuple[str, ...]:
    return record.NUMBERS + feature_set.custom_numbers


def _categories(feature_set: FeatureSet) -> tuple[str, ...]:
    return record.CATEGORIES + feature_set.custom_categories


def identifier_field(feature_set: FeatureSet, name: str, *, where: str) -> str:
    """The field behind an entity's short name."""
    name = ENTITY_FIELDS.get(name, name)
    known = record.IDENTIFIERS + _categories(feature_set)
    if name not in known:
        raise FeatureSetError(f"{where} names the entity {name!r}; {_closest(name, (*ENTITY_FIELDS, *known))}")
    return name


def _check_feature(feature_set: FeatureSet, feature: Feature, index: int) -> None:
    """Everything a kernel takes for granted is checked here, once."""
    where = f"feature {feature.name!r}"
    if not _NAME.fullmatch(feature.name) or len(feature.name) > MAX_NAME_LENGTH:
        raise FeatureSetError(
            f"{where}: a name is letters, digits and underscores, at most {MAX_NAME_LENGTH}; rename it"
        )
    if feature.aggregate not in AGGREGATES:
        raise FeatureSetError(
            f"{where}: aggregate {feature.aggregate!r} is unknown; {_closest(feature.aggregate, AGGREGATES)}"
        )
    _check_keys(feature, where)
    _check_names(feature_set, feature, index, where)
    for key in ("window", "delay", "half_life"):
        if (
            getattr(feature, key)
            and duration_us(getattr(feature, key), where=f"{where}: {key}") <= 0
            and key != "delay"
        ):
            raise FeatureSetError(f"{where}: {key} must be longer than zero")


def _check_keys(feature: Feature, where: str) -> None:
    """Each aggregate has its keys; one that means nothing there is refused, not ignored."""
    aggregate = feature.aggregate
    needs = {
        "entity": aggregate in WINDOW_AGGREGATES | ENTITY_AGGREGATES,
        "window": aggregate in WINDOW_AGGREGATES or aggregate == "distinct",
        "half_life": aggregate in ("decayed_count", "decayed_sum"),
        "of": aggregate in DERIVED_AGGREGATES,
        "field": aggregate in ("distinct", "value", "code", "known", "differs"),
    }
    may = {
        "delay": aggregate in WINDOW_AGGREGATES,
        "filter": aggregate in WINDOW_AGGREGATES or aggregate.startswith("decayed"),
        "current": aggregate in WINDOW_AGGREGATES or aggregate == "distinct",
        "field": needs["field"] or aggregate in WINDOW_AGGREGATES or aggregate in ("decayed_sum", "log"),
        "bound": aggregate in ("impossible_travel", "round_amount", "below_limit", "is_night"),
    }
    for key, needed in needs.items():
        if needed and not getattr(feature, key):
            raise FeatureSetError(f"{where}: aggregate {aggregate!r} needs {key}; add it")
        if not (needed or may.get(key)) and getattr(feature, key):
            raise FeatureSetError(f"{where}: {key} means nothing to aggregate {aggregate!r}; take it out")
    for key in ("delay", "filter", "current"):
        if getattr(feature, key) and not may[key]:
            raise FeatureSetError(f"{where}: {key} means nothing to aggregate {aggregate!r}; take it out")
    if not math.isnan(feature.bound) and not may["bound"]:
        raise FeatureSetError(f"{where}: bound means nothing to aggregate {aggregate!r}; take it out")
    low, high = _BOUND_RANGES.get(aggregate, (-math.inf, math.inf))
    if not math.isnan(feature.bound) and not low < feature.bound <= high:
        raise FeatureSetError(f"{where}: bound must be above {low:g} and at most {high:g}, was {feature.bound:g}")
    if feature.current and feature.delay:
        raise FeatureSetError(f"{where}: a delayed window ends before the current event; drop current or delay")
    if feature.current and OUTCOME_FILTERS.intersection(feature.filter):
        raise FeatureSetError(f"{where}: whether the current event is declined or fraud is not known yet; drop current")
    if aggregate == "rate" and (not feature.filter or feature.filter[-1] in BASE_FILTERS):
        raise FeatureSetError(
            f"{where}: a rate is the share of events that pass the last filter; end filter with 'fraud' or another"
        )
    if aggregate.startswith("decayed") and OUTCOME_FILTERS.intersection(feature.filter):
        raise FeatureSetError(f"{where}: an outcome is known too late to enter a decayed total; use a window")
    if feature.current and aggregate in ("zscore", "ratio_to_mean", "ratio_to_max", "share", "rate"):
        raise FeatureSetError(f"{where}: {aggregate} compares the current event with those before it; drop current")


def _check_names(feature_set: FeatureSet, feature: Feature, index: int, where: str) -> None:
    """Entities, fields, filters and operands exist."""
    if feature.entity:
        components = feature.entity.split("+")
        if len(components) > 4 or len(set(components)) < len(components):
            raise FeatureSetError(f"{where}: entity {feature.entity!r} must join one to four different fields")
        for component in components:
            identifier_field(feature_set, component, where=where)
    if sum(name in BASE_FILTERS for name in feature.filter) > 1:
        raise FeatureSetError(f"{where}: purchase, credit, refund and any exclude one another; keep one")
    for one, other in _CONTRADICTIONS:
        if one in feature.filter and other in feature.filter:
            raise FeatureSetError(f"{where}: no event is both {one} and {other}; keep one")
    own = [f.name for f in feature_set.filters]
    for name in feature.filter:
        if name not in BASE_FILTERS and name not in STATUS_FILTERS and name not in own:
            raise FeatureSetError(
                f"{where}: filter {name!r} is unknown; {_closest(name, [*BASE_FILTERS, *STATUS_FILTERS, *own])}"
            )
    _check_field(feature_set, feature, where)
    for name in feature.of:
        if feature_set._positions.get(name, index) >= index:
            raise FeatureSetError(f"{where}: {name!r} must be a feature declared before it")
    if feature.of and len(feature.of) != 2:
        raise FeatureSetError(f"{where}: of needs two features, has {len(feature.of)}")
    if feature.aggregate == "below_limit" and not feature_set.limits:
        raise FeatureSetError(f"{where}: the feature set declares no limits; add limits = [...]")


def _check_field(feature_set: FeatureSet, feature: Feature, where: str) -> None:
    if not feature.field:
        return
    numbers, categories = _numbers(feature_set), _categories(feature_set)
    if feature.aggregate in ("distinct", "differs"):
        parts = feature.field.split("+")
        if len(parts) != (2 if feature.aggregate == "differs" else 1):
            raise FeatureSetError(
                f"{where}: field {feature.field!r}; distinct takes one field, differs two joined by '+'"
            )
        for part in parts:
            identifier_field(feature_set, part, where=where)
        return
    known = {"code": categories, "known": numbers + categories + record.IDENTIFIERS}.get(feature.aggregate, numbers)
    if ENTITY_FIELDS.get(feature.field, feature.field) not in known:
        raise FeatureSetError(
            f"{where}: field {feature.field!r} does not fit {feature.aggregate}; {_closest(feature.field, known)}"
        )
