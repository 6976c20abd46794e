"""Calendar and great circles against the standard library and another formula."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin.comparison import Driver
from twin.events import Event
from twin.naive_engine import distance_km

from fraudsdk.domain import fields as record
from fraudsdk.features.spec import Feature, FeatureSet

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

CALENDAR = Driver(
    FeatureSet(
        "calendar",
        (
            Feature("day_of_month", "day_of_month"),
            Feature("is_weekend", "is_weekend"),
            Feature("weekday_sin", "weekday_sin"),
            Feature("weekday_cos", "weekday_cos"),
            Feature("is_night", "is_night"),
            Feature("night_to_five", "is_night", bound=5.5),
            Feature("hour_sin", "hour_sin"),
            Feature("hour_cos", "hour_cos"),
        ),
    ),
    journal_capacity=60_000,
)
DISTANCE = Driver(FeatureSet("distance", (Feature("km", "distance_km"),)))


def calendar_of(time_us):
    return CALENDAR.values(Event("t", time_us), record=False)


def kilometres(here, home):
    numbers = dict(zip(("latitude", "longitude", "home_latitude", "home_longitude"), (*here, *home), strict=True))
    return DISTANCE.values(Event("t", 10**15, numbers=numbers), record=False)["km"]


def test_every_day_from_1970_to_2100_is_the_day_that_datetime_says():
    days = [EPOCH + timedelta(days=i) for i in range((datetime(2100, 12, 31, tzinfo=UTC) - EPOCH).days + 1)]
    ints = np.zeros((len(days), record.FIRST_IDENTIFIER), dtype=np.int64)
    # The last microsecond of even days, the first of odd ones.
    ints[:, record.EVENT_TIME_US] = [i * DAY_US + (DAY_US - 1) * (i % 2 == 0) for i in range(len(days))]
    ints[:, record.FLAGS] = record.AUTHORISATION
    ints[:, record.TRANSACTION_KEY] = np.arange(1, len(days) + 1)

    rows, _ = CALENDAR.engine.replay(ints, np.zeros((len(days), 0)))

    assert [day.day for day in days] == rows[:, 0].tolist()
    assert [float(day.isoweekday() in (6, 7)) for day in days] == rows[:, 1].tolist()
    weekday = np.degrees(np.arctan2(rows[:, 2], rows[:, 3])) % 360 / (360 / 7)
    assert [day.weekday() for day in days] == (np.rint(weekday) % 7).tolist()


@pytest.mark.parametrize(
    ("time_of_day_us", "night", "night_to_five"),
    [
        (0, 1, 1),
        (5 * HOUR_US + HOUR_US // 2 - 1, 1, 1),
        (5 * HOUR_US + HOUR_US // 2, 1, 0),
        (7 * HOUR_US - 1, 1, 0),
        (7 * HOUR_US, 0, 0),
        (DAY_US - 1, 0, 0),
    ],
)
def test_night_ends_at_seven_or_where_declared(time_of_day_us, night, night_to_five):
    row = calendar_of(20_000 * DAY_US + time_of_day_us)

    assert (night, night_to_five) == (row["is_night"], row["night_to_five"])


@pytest.mark.parametrize(("hour", "sine", "cosine"), [(0, 0, 1), (6, 1, 0), (12, 0, -1), (18, -1, 0)])
def test_the_time_of_day_is_a_point_on_the_circle(hour, sine, cosine):
    row = calendar_of(20_000 * DAY_US + hour * HOUR_US)

    assert (sine, cosine) == pytest.approx((row["hour_sin"], row["hour_cos"]), abs=1e-6)


LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)
PLACES = st.tuples(LATITUDES, LONGITUDES)


@settings(max_examples=300, print_blob=True, deadline=None)
@given(here=PLACES, home=PLACES)
def test_a_distance_is_that_of_the_angle_between_unit_vectors(here, home):
    # The haversine loses half its digits within metres of the antipode; a kilometre in ten million is close enough.
    assert math.isclose(distance_km(here, home), kilometres(here, home), rel_tol=1e-6, abs_tol=1e-3)


@pytest.mark.parametrize(
    ("here", "home", "km"),
    [
        ((51.5, -0.1), (51.5, -0.1), 0.0),
        ((0, 0), (0, 90), math.pi / 2 * 6371.0088),
        ((90, 12), (-90, 99), math.pi * 6371.0088),
        ((0, 179.5), (0, -179.5), math.pi / 180 * 6371.0088),
        ((50.06639, -5.71472), (58.64389, -3.07), 968.9),  # Land's End to John o' Groats
    ],
)
def test_known_distances(here, home, km):
    assert km == pytest.approx(kilometres(here, home), rel=1e-3, abs=1e-6)


def test_a_missing_position_has_no_distance():
    assert math.isnan(DISTANCE.values(Event("t", 10**15, numbers={"latitude": 51.5, "longitude": -0.1}))["km"])
