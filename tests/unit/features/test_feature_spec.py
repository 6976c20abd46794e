"""A feature set is checked once, round-trips through TOML, and has a fingerprint over what decides its bits."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin import streams

from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.entity_state.layout import FIRST_VALUE
from fraudsdk.errors import FeatureSetError
from fraudsdk.features import spec
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.plan import OP_COLUMN, SLOT_COLUMN, SLOT_WHOLE, WINDOWED_COUNTS, build_plan
from fraudsdk.features.spec import AGGREGATES, EventFilter, Feature, FeatureSet, duration_us

COUNT = Feature("n", "count", entity="user", window="1h")
AMOUNT = Feature("amount", "value", field="amount")
VISIBLE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30)


def sets(*features, **shared):
    return FeatureSet("x", features or (COUNT,), **shared)


# --- the file form -------------------------------------------------------------------------------------------------------


def same(one, other):
    """Equal, where NaN (nothing declared) equals NaN."""
    return repr(one) == repr(other) and one.fingerprint == other.fingerprint


def test_the_reference_set_survives_its_file():
    reference = reference_feature_set("EUR")

    assert same(reference, FeatureSet.from_toml(reference.to_toml()))
    assert same(reference, FeatureSet.from_dict(reference.to_dict()))


@settings(max_examples=60, print_blob=True, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), description=VISIBLE)
def test_any_set_survives_its_file(seed, n, description):
    random = Random(seed)
    drawn = streams.feature_set(random, n_features=n, ring_cap=random.choice((8, 256)))
    drawn = replace(drawn, features=tuple(replace(f, description=description, reason="CUS01") for f in drawn.features))

    assert same(drawn, FeatureSet.from_toml(drawn.to_toml()))


def test_a_file_is_one_line_per_feature(tmp_path):
    path = tmp_path / "features.toml"
    path.write_text(
        """
        name = "velocity"
        currency = "EUR"

        [features]
        user_count_1h = { aggregate = "count", entity = "user", window = "1h" }
        merchant_fraud_rate = { aggregate = "rate", entity = "merchant", filter = ["fraud"], window = "7d", delay = "7d" }
        """,
        encoding="utf-8",
    )

    loaded = FeatureSet.load(path)

    assert ("velocity", "EUR") == (loaded.name, loaded.currency)
    assert ("user_count_1h", "merchant_fraud_rate") == loaded.names == loaded.schema.names
    assert 1 == loaded.position("merchant_fraud_rate")
    assert sum(line.startswith("user_count_1h") for line in loaded.to_toml().splitlines()) == 1


def test_taking_a_feature_out_takes_out_what_is_derived_from_it():
    features = sets(
        COUNT, AMOUNT, Feature("r", "ratio", of=("n", "amount")), Feature("d", "difference", of=("r", "amount"))
    )

    assert ("amount",) == features.without("n").names
    assert features.names == sets(COUNT, AMOUNT).with_features(*features.features[2:]).names


# --- the fingerprint -----------------------------------------------------------------------------------------------------

BASE = sets(
    COUNT,
    AMOUNT,
    Feature("just_under", "count", entity="user", window="1h", filter=("odd",)),
    filters=(EventFilter("odd", "amount", between=((1.0, 2.0),)),),
    limits=(100.0,),
    custom_numbers=("basket",),
)


def changed(**more):
    return replace(BASE, features=(replace(COUNT, **more), *BASE.features[1:]))


@pytest.mark.parametrize(
    "other",
    [
        changed(window="2h"),
        changed(entity="card"),
        changed(filter=("credit",)),
        changed(current=True),
        changed(delay="1h"),
        changed(empty=0.0),
        changed(name="m"),
        changed(aggregate="seconds_since_newest"),
        changed(aggregate="sum"),
        changed(aggregate="sum", field="balance"),
        replace(BASE, features=BASE.features[::-1]),
        replace(BASE, features=BASE.features[:2]),
        replace(BASE, currency="JPY"),
        replace(BASE, ring_cap=64),
        replace(BASE, allowed_lateness="1h"),
        replace(BASE, limits=(100.0, 200.0)),
        replace(BASE, custom_numbers=("other",)),
        replace(BASE, custom_categories=("shop",)),
        replace(BASE, filters=(EventFilter("odd", "amount", between=((1.0, 2.5),)),)),
    ],
)
def test_whatever_decides_the_bits_of_a_row_changes_the_fingerprint(other):
    assert BASE.fingerprint != other.fingerprint


def test_texts_for_people_do_not_change_the_fingerprint():
    told = changed(description="Another text", family="velocity", reason="VEL01")

    assert BASE.fingerprint == told.fingerprint == replace(BASE, name="y").fingerprint == BASE.schema.fingerprint


def test_another_meaning_of_the_kernels_is_another_fingerprint(monkeypatch):
    before = BASE.fingerprint
    monkeypatch.setattr(spec, "SEMANTICS_VERSION", spec.SEMANTICS_VERSION + 1)

    assert before != BASE.fingerprint


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (Feature("1st", "count"), "feature '1st': a name is letters, digits and underscores, at most 128; rename it"),
        (Feature("n" * 129, "count"), "at most 128; rename it"),
        (Feature("n", "cuont"), "aggregate 'cuont' is unknown; did you mean 'count'?"),
        (Feature("n", "count", window="1h"), "aggregate 'count' needs entity; add it"),
        (Feature("n", "count", entity="user"), "aggregate 'count' needs window; add it"),
        (Feature("n", "distinct", entity="user", field="mcc"), "aggregate 'distinct' needs window"),
        (Feature("n", "distinct", entity="user", window="1h"), "aggregate 'distinct' needs field"),
        (Feature("n", "decayed_count", entity="user"), "needs half_life; add it"),
        (Feature("n", "ratio"), "needs of; add it"),
        (Feature("n", "value"), "aggregate 'value' needs field"),
        (Feature("n", "hour_sin", entity="user"), "entity means nothing to aggregate 'hour_sin'; take it out"),
        (Feature("n", "is_new", entity="user", window="1h"), "window means nothing to aggregate 'is_new'"),
        (Feature("n", "is_new", entity="user", half_life="1h"), "half_life means nothing to aggregate 'is_new'"),
        (Feature("n", "hour_sin", field="amount"), "field means nothing to aggregate 'hour_sin'"),
        (replace(COUNT, of=("a", "b")), "of means nothing to aggregate 'count'"),
        (Feature("n", "is_new", entity="user", delay="1h"), "delay means nothing to aggregate 'is_new'"),
        (Feature("n", "is_new", entity="user", filter=("any",)), "filter means nothing to aggregate 'is_new'"),
        (Feature("n", "is_new", entity="user", current=True), "current means nothing to aggregate 'is_new'"),
        (replace(COUNT, bound=1.0), "bound means nothing to aggregate 'count'"),
        (replace(COUNT, current=True, delay="1h"), "a delayed window ends before the current event"),
        (replace(COUNT, current=True, filter=("fraud",)), "declined or fraud is not known yet; drop current"),
        (replace(COUNT, aggregate="rate"), "a rate is the share of events that pass the last filter"),
        (replace(COUNT, aggregate="zscore", current=True), "zscore compares the current event with those before it"),
        (replace(COUNT, entity="usr"), "names the entity 'usr'; did you mean 'user'?"),
        (replace(COUNT, entity="amount"), "names the entity 'amount'"),
        (replace(COUNT, entity="user+user"), "must join one to four different fields"),
        (replace(COUNT, entity="user+card+mcc+device+ip"), "must join one to four different fields"),
        (replace(COUNT, filter=("credit", "refund")), "purchase, credit, refund and any exclude one another; keep one"),
        (replace(COUNT, filter=("declned",)), "filter 'declned' is unknown; did you mean 'declined'?"),
        (replace(COUNT, window="1 fortnight"), "window is '1 fortnight', not a duration"),
        (replace(COUNT, window="0s"), "window must be longer than zero"),
        (replace(COUNT, window="401d"), "longer than 400 days; shorten it"),
        (replace(COUNT, delay="soon"), "delay is 'soon', not a duration"),
        (Feature("n", "decayed_count", entity="user", half_life="0s"), "half_life must be longer than zero"),
        (Feature("n", "sum", entity="user", window="1h", field="mcc"), "field 'mcc' does not fit sum"),
        (Feature("n", "code", field="balance"), "field 'balance' does not fit code"),
        (Feature("n", "value", field="balnce"), "field 'balnce' does not fit value; did you mean 'balance'?"),
        (Feature("n", "differs", field="card_country"), "distinct takes one field, differs two joined by '+'"),
        (Feature("n", "distinct", entity="user", window="1h", field="mcc+ip"), "distinct takes one field"),
        (Feature("n", "differs", field="card_country+amount"), "names the entity 'amount'"),
        (Feature("n", "ratio", of=("amount", "later")), "'later' must be a feature declared before it"),
        (Feature("n", "ratio", of=("amount", "n")), "'n' must be a feature declared before it"),
        (Feature("n", "ratio", of=("amount",)), "of needs two features, has 1"),
        (Feature("n", "below_limit"), "the feature set declares no limits; add limits = [...]"),
    ],
)
def test_a_feature_that_cannot_be_computed_is_refused_with_its_name_and_the_remedy(feature, words):
    with pytest.raises(FeatureSetError, match=re.escape(words)) as refused:
        sets(AMOUNT, feature)

    assert feature.name in str(refused.value)


ODD = EventFilter("odd", "amount", between=((1.0, 2.0),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"features": ()}, "a feature set needs at least one feature"),
        (
            {"features": tuple(replace(AMOUNT, name=f"f{i}") for i in range(4_097))},
            "at most 4096 features, this has 4097",
        ),
        ({"features": (COUNT, COUNT)}, "feature 'n' is declared twice; rename one"),
        ({"currency": "POUNDS"}, "currency 'POUNDS' is not an ISO 4217 code"),
        ({"ring_cap": 100}, "ring_cap must be a power of two from 8 to 65536, was 100"),
        ({"ring_cap": 4}, "ring_cap must be a power of two from 8 to 65536, was 4"),
        ({"ring_cap": 131_072}, "ring_cap must be a power of two from 8 to 65536, was 131072"),
        ({"allowed_lateness": "late"}, "allowed_lateness is 'late', not a duration"),
        ({"limits": (200.0, 100.0)}, "limits must be positive and ascending, were [200.0, 100.0]"),
        ({"limits": (0.0,)}, "limits must be positive and ascending"),
        (
            {"filters": tuple(replace(ODD, name=f"f{i}") for i in range(17))},
            "at most 16 filters can be declared, these are 17",
        ),
        ({"filters": (replace(ODD, name="fraud"),)}, "filter 'fraud' is a name of the library or no identifier"),
        ({"filters": (replace(ODD, name="a-b"),)}, "filter 'a-b' is a name of the library or no identifier"),
        ({"filters": (replace(ODD, between=()),)}, "needs either between = [[low, high], ...] or equals = [...]"),
        ({"filters": (replace(ODD, equals=("5411",)),)}, "needs either between"),
        ({"filters": (replace(ODD, field="mcc"),)}, "filter 'odd': field 'mcc' cannot be tested so"),
        ({"filters": (EventFilter("odd", "amount", equals=("1",)),)}, "field 'amount' cannot be tested so"),
        ({"filters": (replace(ODD, between=((2.0, 1.0),)),)}, "pairs [low, high] with low <= high"),
        ({"filters": (replace(ODD, between=((math.nan, 1.0),)),)}, "pairs [low, high] with low <= high"),
    ],
)
def test_a_set_that_cannot_be_computed_is_refused_with_the_remedy(content, words):
    with pytest.raises(FeatureSetError, match=re.escape(words)):
        FeatureSet("x", **{"features": (COUNT,), **content})


LINE = '[features]\nn = { aggregate = "count", entity = "user", window = "1h" }'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "the feature set is not TOML"),
        ('name = "x"', "a feature set needs a [features] table with one line per feature"),
        ('name = "x"\nfeatures = 3', "a feature set needs a [features] table"),
        ('name = "x"\ncurency = "GBP"\n' + LINE, "'curency' is not a key of a feature set; did you mean 'currency'?"),
        (LINE, "the feature set is malformed"),
        ('name = "x"\n[features]\nn = 3', "feature 'n' is 3; write a table such as { aggregate = 'count', ... }"),
        ('name = "x"\n[features]\nn = { agregate = "count" }', "feature 'n' has the unknown key 'agregate'"),
        ('name = "x"\n[features]\nn = { name = "count" }', "feature 'n' has the unknown key 'name'"),
        ('name = "x"\n[features]\nn = { aggregate = 3 }', "feature 'n': aggregate is 3, not of type str; correct it"),
        ('name = "x"\n[features]\nn = { current = 1 }', "feature 'n': current is 1, not of type bool"),
        ('name = "x"\n[features]\nn = { empty = true }', "feature 'n': empty is True, not of type float"),
        ('name = "x"\n[features]\nn = { filter = "fraud" }', "feature 'n': filter is 'fraud', not of type tuple"),
        ('name = "x"\n' + LINE + "\n[filters]\nodd = { between = 3 }", "filter 'odd': between is 3, not of type tuple"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_place(text, words):
    with pytest.raises(FeatureSetError, match=re.escape(words)):
        FeatureSet.from_toml(text)


def test_a_file_that_cannot_be_read_is_refused_with_its_path(tmp_path):
    with pytest.raises(
        FeatureSetError, match=r"cannot read the feature set .*absent\.toml.*give the path of a TOML file"
    ):
        FeatureSet.load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("7us", 7),
        ("7ms", 7_000),
        ("90s", 90 * 10**6),
        ("5m", 300 * 10**6),
        ("5min", 300 * 10**6),
        ("24h", 86_400 * 10**6),
    ]
    + [("400d", 400 * 86_400 * 10**6), (" 1 h ", 3_600 * 10**6)],
)
def test_a_duration_is_a_whole_number_and_a_unit(text, microseconds):
    assert microseconds == duration_us(text, where="here")


@pytest.mark.parametrize("text", ["", "1", "h", "1.5h", "-1h", "1w", None, 5])
def test_what_is_no_duration_is_refused_with_its_place(text):
    with pytest.raises(FeatureSetError, match=r"here is .*, not a duration"):
        duration_us(text, where="here")


# --- the plan ------------------------------------------------------------------------------------------------------------


def test_only_the_fields_that_some_feature_reads_are_carried():
    plan = build_plan(sets(COUNT, Feature("balance", "value", field="balance")), Vocabulary({}))

    assert (("user_id",), ("balance",)) == (plan.record.identifiers, plan.record.numbers)


def test_features_of_the_same_events_share_their_window_and_windows_their_edges():
    windows = ("1m", "1h", "24h")
    plan = build_plan(
        sets(
            *(
                Feature(f"{what}_{w}", what, entity="user", window=w)
                for w in windows
                for what in ("count", "sum", "std")
            )
        ),
        Vocabulary({}),
    )

    assert (1, 3) == (len(plan.sets), len(plan.slots))
    assert [0, 60 * 10**6, 3_600 * 10**6, 86_400 * 10**6] == plan.edges_us.tolist()


def test_windows_that_are_only_counted_come_first_and_no_more_is_read_of_a_window_than_is_asked():
    plan = build_plan(
        sets(
            Feature("most_in_a_day", "max", entity="user", window="24h"),
            Feature("spent_in_an_hour", "sum", entity="user", window="1h"),
            Feature("payments_in_a_week", "count", entity="user", window="7d"),
        ),
        Vocabulary({}),
    )

    assert 1 == plan.windowed[0, WINDOWED_COUNTS]
    assert [(-1, 0), (FIRST_VALUE, 0), (FIRST_VALUE, 1)] == [
        (slot[SLOT_COLUMN], slot[SLOT_WHOLE]) for slot in plan.slots.tolist()
    ]


def test_features_of_one_aggregate_lie_side_by_side_and_derived_ones_come_last_in_their_order():
    plan = build_plan(
        sets(
            AMOUNT,
            COUNT,
            Feature("r", "ratio", of=("amount", "n")),
            Feature("d", "difference", of=("r", "n")),
            Feature("again", "ratio", of=("d", "n")),
            Feature("m", "count", entity="user", window="1m"),
        ),
        Vocabulary({}),
    )
    runs = [plan.ops[first:end, OP_COLUMN].tolist() for _, first, end in plan.runs]

    assert [[1, 5], [0], [2], [3], [4]] == runs


def test_every_aggregate_can_be_planned():
    """
    One feature of each aggregate, with no more than it needs.
    """
    features = [AMOUNT, COUNT]
    for aggregate in sorted(AGGREGATES):
        needs = {
            "entity": "user" if aggregate in spec.WINDOW_AGGREGATES | spec.ENTITY_AGGREGATES else "",
            "window": "1h" if aggregate in spec.WINDOW_AGGREGATES or aggregate == "distinct" else "",
            "half_life": "1h" if aggregate.startswith("decayed") else "",
            "filter": ("fraud",) if aggregate == "rate" else (),
            "of": ("amount", "n") if aggregate in spec.DERIVED_AGGREGATES else (),
            "field": {"distinct": "mcc", "value": "balance", "code": "mcc", "known": "ip", "differs": "mcc+ip"}.get(
                aggregate, ""
            ),
        }
        features.append(Feature(f"of_{aggregate}", aggregate, **needs))

    plan = build_plan(sets(*features, limits=(10.0,)), Vocabulary({}))

    assert len(features) == len(plan.ops) == len(plan.params)


def test_a_whole_number_and_the_same_as_a_float_have_one_fingerprint():
    whole = sets(Feature("round", "round_amount", bound=50), limits=(500,))

    assert whole.fingerprint == FeatureSet.from_toml(whole.to_toml()).fingerprint
    assert whole.fingerprint == sets(Feature("round", "round_amount", bound=50.0), limits=(500.0,)).fingerprint


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"limits": 5}, "limits must be a list"),
        ({"limits": [float("nan")]}, "limits must be positive"),
        ({"filters": []}, "filters must be a table"),
        ({"filters": {"f": {"field": "amount", "between": [["a", "b"]]}}}, "between must be a finite number"),
        ({"filters": {"f": {"field": "amount", "between": [1, 2]}}}, "pairs"),
        ({"custom_numbers": ["amount"]}, "custom field 'amount' is a field already"),
        ({"custom_categories": ["two words"]}, "custom field 'two words'"),
        ({"features": {"n": {"aggregate": "round_amount", "bound": 0.0}}}, "bound must be above 0"),
        ({"features": {"n": {"aggregate": "is_night", "bound": 25}}}, "at most 24"),
        ({"features": {"n": {"aggregate": "hour_sin", "empty": float("inf")}}}, "empty must be a finite number"),
        (
            {
                "features": {
                    "n": {"aggregate": "count", "entity": "user", "window": "1h", "filter": ["declined", "approved"]}
                }
            },
            "no event is both declined and approved",
        ),
        (
            {"features": {"n": {"aggregate": "rate", "entity": "user", "window": "1h", "filter": ["fraud", "any"]}}},
            "share of events that pass the last filter",
        ),
        (
            {
                "features": {
                    "n": {"aggregate": "decayed_count", "entity": "user", "half_life": "1h", "filter": ["fraud"]}
                }
            },
            "an outcome is known too late",
        ),
    ],
)
def test_what_would_be_computed_wrong_is_refused(declared, words):
    content = {"name": "x", "features": {"amount": {"aggregate": "value", "field": "amount"}}, **declared}

    with pytest.raises(FeatureSetError, match=words):
        FeatureSet.from_dict(content)


def test_a_description_with_any_character_round_trips():
    features = sets(Feature("amount", "value", field="amount", description="odd \x7f \x00 \u2028 text"))

    assert features == FeatureSet.from_toml(features.to_toml())
