"""The world: cities, what is bought in them, and how far apart they are."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_KM: Final = 6371.0088


class City(NamedTuple):
    """A place to live in (``residents`` > 0) or to travel to."""

    country: str
    latitude: float
    longitude: float
    residents: float  # relative
    visitors: float  # relative


# Account holders live in the euro area, because all accounts are kept in one currency.
CITIES: Final = (
    City("DE", 52.520, 13.405, 3.7, 2.0),
    City("DE", 53.551, 9.994, 1.8, 1.0),
    City("DE", 48.137, 11.576, 1.5, 1.5),
    City("DE", 50.938, 6.960, 1.1, 0.8),
    City("FR", 48.857, 2.352, 5.5, 4.0),
    City("FR", 45.764, 4.836, 1.2, 0.8),
    City("FR", 43.297, 5.370, 1.1, 1.2),
    City("ES", 40.417, -3.704, 3.3, 2.0),
    City("ES", 41.385, 2.173, 2.2, 3.0),
    City("ES", 39.470, -0.376, 0.9, 1.0),
    City("IT", 41.903, 12.496, 2.8, 3.0),
    City("IT", 45.464, 9.190, 2.0, 1.5),
    City("IT", 40.852, 14.268, 1.0, 0.9),
    City("NL", 52.368, 4.904, 1.2, 2.0),
    City("BE", 50.850, 4.352, 1.2, 0.8),
    City("AT", 48.208, 16.374, 1.9, 1.5),
    City("IE", 53.350, -6.260, 1.3, 1.0),
    City("PT", 38.722, -9.139, 1.5, 2.0),
    City("FI", 60.170, 24.938, 0.9, 0.4),
    City("GR", 37.984, 23.728, 1.5, 2.0),
    City("GB", 51.507, -0.128, 0.0, 4.0),
    City("PL", 52.230, 21.012, 0.0, 1.0),
    City("CZ", 50.076, 14.438, 0.0, 1.5),
    City("CH", 47.377, 8.542, 0.0, 1.0),
    City("DK", 55.676, 12.568, 0.0, 0.8),
    City("RO", 44.427, 26.103, 0.0, 0.5),
    City("TR", 41.008, 28.978, 0.0, 2.0),
    City("MA", 31.630, -7.981, 0.0, 1.0),
    City("AE", 25.205, 55.271, 0.0, 1.2),
    City("US", 40.713, -74.006, 0.0, 2.0),
    City("US", 34.052, -118.244, 0.0, 0.8),
    City("US", 25.762, -80.192, 0.0, 0.8),
    City("CA", 43.651, -79.347, 0.0, 0.6),
    City("MX", 21.162, -86.852, 0.0, 0.8),
    City("BR", -23.551, -46.633, 0.0, 0.5),
    City("ZA", -33.925, 18.424, 0.0, 0.5),
    City("NG", 6.524, 3.379, 0.0, 0.3),
    City("IN", 28.614, 77.209, 0.0, 0.5),
    City("TH", 13.756, 100.502, 0.0, 1.2),
    City("SG", 1.352, 103.820, 0.0, 0.6),
    City("HK", 22.319, 114.169, 0.0, 0.5),
    City("JP", 35.677, 139.650, 0.0, 0.9),
    City("AU", -33.869, 151.209, 0.0, 0.4),
)


class Trade(NamedTuple):
    """A merchant category (ISO 18245) and how people spend there."""

    mcc: str
    in_shops: float  # relative number of merchants with a counter
    online: float  # relative number of merchants on the web
    median_major: float
    sigma: float  # of the logarithm
    round_share: float = 0.0  # of amounts that are whole
    resale: bool = False  # what it sells is easily turned into money
    subscription: bool = False


TRADES: Final = (
    Trade("5411", 6.0, 0.8, 31.0, 0.75),
    Trade("5812", 5.0, 0.0, 27.0, 0.60, 0.35),
    Trade("5814", 4.0, 1.2, 10.0, 0.50),
    Trade("5541", 2.5, 0.0, 49.0, 0.40, 0.15),
    Trade("5912", 1.6, 0.3, 15.0, 0.70),
    Trade("5651", 2.2, 2.0, 46.0, 0.75),
    Trade("5732", 0.8, 1.2, 120.0, 1.00, 0.05, resale=True),
    Trade("5311", 1.2, 1.2, 42.0, 0.85),
    Trade("5942", 0.7, 0.9, 17.0, 0.55),
    Trade("5200", 0.9, 0.5, 38.0, 0.90),
    Trade("4121", 1.0, 1.0, 15.0, 0.55),
    Trade("4111", 1.5, 0.5, 3.6, 0.60),
    Trade("7011", 0.6, 0.9, 165.0, 0.70, 0.10),
    Trade("4511", 0.1, 0.7, 215.0, 0.75),
    Trade("5944", 0.3, 0.4, 170.0, 0.95, 0.15, resale=True),
    Trade("7230", 0.9, 0.0, 33.0, 0.50, 0.50),
    Trade("5999", 0.6, 3.0, 29.0, 0.95),
    Trade("5816", 0.0, 1.6, 8.0, 0.85),
    Trade("5947", 0.3, 0.6, 45.0, 0.75, 0.60, resale=True),
    Trade("7995", 0.1, 0.6, 25.0, 1.00, 0.85),
    Trade("6051", 0.0, 0.4, 140.0, 1.15, 0.60, resale=True),
    Trade("8398", 0.0, 0.4, 15.0, 0.80, 0.90),
    Trade("4899", 0.0, 0.7, 12.0, 0.35, subscription=True),
    Trade("4814", 0.0, 0.4, 22.0, 0.40, subscription=True),
    Trade("4900", 0.0, 0.4, 68.0, 0.50, subscription=True),
    Trade("6300", 0.0, 0.4, 41.0, 0.55, subscription=True),
    Trade("7997", 0.0, 0.3, 33.0, 0.35, subscription=True),
    Trade("6011", 0.0, 0.0, 75.0, 0.70),
)
CASH_MACHINE: Final = len(TRADES) - 1

COUNTRIES: Final = tuple(dict.fromkeys(city.country for city in CITIES))
CITY_COUNTRY: Final = np.array([COUNTRIES.index(city.country) for city in CITIES], dtype=np.int64)
CITY_LATITUDE: Final = np.array([city.latitude for city in CITIES])
CITY_LONGITUDE: Final = np.array([city.longitude for city in CITIES])
# Close enough to a time zone for habits: nobody here is woken by half an hour.
CITY_UTC_OFFSET_HOURS: Final = np.round(CITY_LONGITUDE / 15.0)


def distance_km(
    latitude_a: NDArray[np.float64],
    longitude_a: NDArray[np.float64],
    latitude_b: NDArray[np.float64],
    longitude_b: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Great-circle distance by the haversine formula; degrees in, NaN where a position is missing."""
    phi_a, phi_b = np.radians(latitude_a), np.radians(latitude_b)
    half_chord = (
        np.sin((phi_b - phi_a) / 2) ** 2
        + np.cos(phi_a) * np.cos(phi_b) * np.sin(np.radians(longitude_b - longitude_a) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half_chord, 1.0))))


CITY_DISTANCE_KM: Final = distance_km(
    CITY_LATITUDE[:, None], CITY_LONGITUDE[:, None], CITY_LATITUDE[None, :], CITY_LONGITUDE[None, :]
)
