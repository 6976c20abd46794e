"""What a scorer is opened with: frozen, checked when made, and reading no environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Final

from fraudsdk.errors import ConfigurationError

MAX_SKEW_US: Final = 86_400_000_000
# Tables are laid out when a scorer opens: 32 bytes per entity, over 100 per transaction.
MAX_REMEMBERED: Final = 1 << 30


class Durability(Enum):
    """What an answer promises of the event behind it, where there is a state directory."""

    NONE = "none"  # handed to the system within some 10 ms: a killed process loses no more; a power cut may
    INTERVAL = "interval"  # on the disk within some 10 ms
    SYNC = "sync"  # on the disk before there is an answer


@dataclass(frozen=True, slots=True)
class ScorerConfig:
    """
    How to open a scorer.

    Attributes
    ----------
    model : Path or str or None
        Artefact directory.  None runs without a model: every decision is the fallback's, and says so.
    features : Path or str or None
        Feature-set file, for running without a model; an artefact brings its own.
    policy : Path or str or None
        Policy file; None takes the artefact's, or the default policy where it has none.
    hash_key : bytes or None
        Secret of at least 16 bytes for entity keys and card tokens.  None draws a random one, which suits state that lives
        and dies with the process; set it wherever state or tokens are shared or kept.
    rates : Mapping of str to Decimal or str
        Currency -> major units of the feature set's currency.  An amount in a currency without one counts as missing.
    state_dir : Path or str or None
        Where state is kept, by one scorer at a time; it needs a `hash_key`.  None: it lives and dies with the process.
    durability : Durability or str
        ``"none"``, ``"interval"`` or ``"sync"``.
    max_entities : int
        Entities of all kinds that are remembered; beyond it the least recently used is forgotten.
    journal_capacity : int
        Transactions that labels, reversals and duplicates can still refer to; beyond it the oldest is forgotten.
    future_skew_us : int
        How far ahead of the wall clock an event time may be, microseconds, before it is refused.
    """

    model: Path | str | None
    features: Path | str | None = None
    policy: Path | str | None = None
    hash_key: bytes | None = field(default=None, repr=False)
    rates: Mapping[str, Decimal | str] = field(default_factory=dict)
    state_dir: Path | str | None = None
    durability: Durability | str = Durability.INTERVAL
    max_entities: int = 1_000_000
    journal_capacity: int = 1_000_000
    future_skew_us: int = 300_000_000

    def __post_init__(self) -> None:
        if self.model is None and self.features is None:
            raise ConfigurationError("a scorer without a model needs features = a feature-set file; name one")
        if self.hash_key is not None and len(self.hash_key) < 16:
            raise ConfigurationError(
                f"hash_key must have at least 16 bytes, has {len(self.hash_key)}; draw a longer one"
            )
        if self.state_dir is not None and self.hash_key is None:
            raise ConfigurationError(
                "state that is kept needs a hash_key: identifiers are found again by their keyed hashes; pass the same each time"
            )
        if self.durability not in (*Durability, *(each.value for each in Durability)):
            choices = ", ".join(each.value for each in Durability)
            raise ConfigurationError(f"durability must be one of {choices}, was {self.durability!r}; correct it")
        for name in ("model", "features", "policy", "state_dir"):
            if not isinstance(getattr(self, name), Path | str | None):
                raise ConfigurationError(
                    f"{name} must be a path, was a {type(getattr(self, name)).__name__}; name a file"
                )
        bounds = {
            "max_entities": (1, MAX_REMEMBERED),
            "journal_capacity": (1, MAX_REMEMBERED),
            "future_skew_us": (0, MAX_SKEW_US),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ConfigurationError(
                    f"{name} must be a whole number from {low} to {high}, was {value!r}; correct it"
                )
