"""
Vocabularies: which values of a category were known when a model was trained.

The code of a value is its position plus one; 0 is a value the vocabulary does not know, and NaN is no value at all.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fraudsdk.domain.fields import CATEGORIES
from fraudsdk.domain.transaction import FIELD_PARSERS
from fraudsdk.domain.values import Parser, parse_custom_category
from fraudsdk.encoding.columns import ColumnValues, parse_distinct
from fraudsdk.errors import ConfigurationError

# XGBoost compares category codes as float32 and grows a bit set per split; rarer values say little and become unknown.
MAX_VALUES: Final = 4096


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """
    The known values of each category field, in code order.

    Attributes
    ----------
    values : Mapping of str to tuple of str
        Field -> values; the code of ``values[field][i]`` is ``i + 1``.  A field that is not listed knows no value.

    Raises
    ------
    ConfigurationError
        Values that are not distinct text, or more than `MAX_VALUES` of a field.

    Examples
    --------
    >>> vocabulary = Vocabulary.fit({"channel": ["pos", "ecommerce", "POS", None]})
    >>> vocabulary.values
    {'channel': ('pos', 'ecommerce')}
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.values.items():
            if not all(isinstance(value, str) and value for value in values) or len(set(values)) != len(values):
                raise ConfigurationError(f"vocabulary of {name} must hold distinct, non-empty text; rebuild it")
            if len(values) > MAX_VALUES:
                raise ConfigurationError(
                    f"vocabulary of {name} holds {len(values)} values, at most {MAX_VALUES}; rebuild it"
                )

    @classmethod
    def fit(
        cls, columns: Mapping[str, ColumnValues], *, fields: Iterable[str] = (), limit: int = MAX_VALUES
    ) -> Vocabulary:
        """
        Learn the values of a table, commonest first, equally common ones by name.

        Parameters
        ----------
        columns : Mapping
            Canonical columns.  Those of `CATEGORIES` and of `fields` are learnt, in their normal spelling.
        fields : iterable of str
            Custom categories to learn as well.
        limit : int
            Values kept per field, at most `MAX_VALUES`; the rest will be unknown.

        Raises
        ------
        InvalidTransactionError
            A value cannot be one of its field.
        """
        learnt = {}
        for name in (*CATEGORIES, *fields):
            if name in columns:
                counts = _count(name, columns[name], FIELD_PARSERS.get(name, parse_custom_category))
                ranked = sorted(counts, key=lambda value: (-counts[value], value))
                learnt[name] = tuple(ranked[: min(limit, MAX_VALUES)])
        return cls(learnt)

    def codes(self, name: str) -> dict[str, float]:
        """Value -> code of one field; a value that is not in it has code 0."""
        return {value: float(position + 1) for position, value in enumerate(self.values.get(name, ()))}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical form; two vocabularies with one fingerprint give the same codes."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, list[str]]:
        """Plain lists, for JSON and TOML."""
        return {name: list(values) for name, values in self.values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """
        The inverse of `to_dict`.

        Raises
        ------
        ConfigurationError
            Not lists of text by field name.
        """
        if not isinstance(values, Mapping) or not all(isinstance(known, (list, tuple)) for known in values.values()):
            raise ConfigurationError("vocabulary must be a table of lists of text; rebuild it")
        return cls({str(name): tuple(known) for name, known in values.items()})


def _count(name: str, column: ColumnValues, parse: Parser) -> Counter[str]:
    parsed = parse_distinct(name, column, parse)
    tally = np.bincount(parsed.index, minlength=len(parsed.values)).tolist()
    counts: Counter[str] = Counter()
    for value, n in zip(parsed.values, tally, strict=True):
        if value is not None:
            counts[value] += n
    return counts
