"""What to simulate: a frozen request, validated once, here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Final

import numpy as np

from fraudsdk.errors import ConfigurationError

DAY_US: Final = 86_400_000_000
HOUR_US: Final = 3_600_000_000
MINUTE_US: Final = 60_000_000
SECOND_US: Final = 1_000_000

# ``fraud_pattern`` of each row; a pattern's code is its position.
PATTERNS: Final = (
    "none",
    "account_takeover",
    "card_testing",
    "structuring",
    "layering",
    "mule",
    "merchant_compromise",
    "impossible_travel",
    "friendly_fraud",
)

# Shares of fraudulent *rows*.  Card testing is the largest because one attack is dozens of attempts.
DEFAULT_FRAUD_MIX: Final[Mapping[str, float]] = MappingProxyType(
    {
        "account_takeover": 0.24,
        "card_testing": 0.24,
        "structuring": 0.07,
        "layering": 0.08,
        "mule": 0.11,
        "merchant_compromise": 0.14,
        "impossible_travel": 0.05,
        "friendly_fraud": 0.07,
    }
)

# A row costs about 0.6 KB at the peak; beyond this, simulate several seeds and write several files.
MAX_TRANSACTIONS: Final = 20_000_000
MAX_USERS: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class SimulationSpec:
    """
    A request for simulated transactions.  The same request gives the same bytes.

    Attributes
    ----------
    transactions : int
        Rows wanted, exactly; every leg, reversal and refund is a row.
    users : int
        Account holders, at least 20.
    days : int
        Length of the period, at least 7.
    fraud_rate : float
        Share of rows that are fraud, 0 to 0.2.  Attacks come whole, so a small table misses it by a few rows.
    seed : int
        Non-negative.
    start : date
        First day, UTC.
    currency : str
        The one currency that all accounts are kept and all amounts are billed in; amounts assume two decimals.
    fraud_mix : mapping of str to float
        Share of each pattern among fraudulent rows; need not add to one.  A pattern that is left out does not occur.
    genuine_confirmed_after_days : int
        Days after which a transaction that nobody disputed counts as genuine.

    Raises
    ------
    ConfigurationError
        A value is out of range.

    Examples
    --------
    >>> SimulationSpec(transactions=10_000, users=200, days=30, seed=7).fraud_rate
    0.005
    """

    transactions: int = 200_000
    users: int = 4_000
    days: int = 90
    fraud_rate: float = 0.005
    seed: int = 1
    start: date = date(2026, 1, 1)
    currency: str = "EUR"
    fraud_mix: Mapping[str, float] = field(default_factory=lambda: DEFAULT_FRAUD_MIX)
    genuine_confirmed_after_days: int = 45

    def __post_init__(self) -> None:
        _require_range("transactions", self.transactions, 200, MAX_TRANSACTIONS)
        _require_range("users", self.users, 20, MAX_USERS)
        _require_range("days", self.days, 7, 3_660)
        _require_range("seed", self.seed, 0, 2**63 - 1)
        _require_range("genuine_confirmed_after_days", self.genuine_confirmed_after_days, 0, 365)
        if not 0.0 <= self.fraud_rate <= 0.2:
            raise ConfigurationError(
                f"fraud_rate must be between 0 and 0.2, was {self.fraud_rate}; give a share of rows"
            )
        if not date(1990, 1, 1) <= self.start <= date(2150, 1, 1):
            raise ConfigurationError(f"start must lie between 1990 and 2150, was {self.start}; give the first day, UTC")
        if len(self.currency) != 3 or not (self.currency.isascii() and self.currency.isupper()):
            raise ConfigurationError(f"currency must be an ISO 4217 code such as 'EUR', was {self.currency!r}")
        _require_mix(self.fraud_mix)
        object.__setattr__(self, "fraud_mix", MappingProxyType(dict(self.fraud_mix)))

    @property
    def start_us(self) -> int:
        """First microsecond of the period, since the Unix epoch, UTC."""
        return int(np.datetime64(self.start, "us").astype(np.int64))

    @property
    def period_us(self) -> int:
        """Length of the period, microseconds."""
        return self.days * DAY_US

    def fraud_rows(self, pattern: str) -> int:
        """Rows that `pattern` is asked to fill."""
        share = self.fraud_mix.get(pattern, 0.0) / sum(self.fraud_mix.values())
        return round(self.transactions * self.fraud_rate * share)


def _require_range(name: str, value: int, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be a whole number from {lowest:,} to {highest:,}, was {value!r}")


def _require_mix(mix: Mapping[str, float]) -> None:
    unknown = sorted(set(mix) - set(PATTERNS[1:]))
    if unknown:
        raise ConfigurationError(
            f"fraud_mix names no known pattern: {unknown[0]!r}; use any of {', '.join(PATTERNS[1:])}"
        )
    if not all(math.isfinite(share) and share >= 0 for share in mix.values()) or sum(mix.values()) <= 0:
        raise ConfigurationError(f"fraud_mix must hold shares >= 0 with a positive sum, was {dict(mix)}")
