"""
What conditions may read, and how it is fetched for one transaction: a tuple of values, one slot per name.

Only names that some condition mentions get a slot.  They are grouped by where they come from, so that each group is one
call into C (`operator.attrgetter`, `operator.itemgetter`) instead of a loop in Python.

    score, margin | transaction attributes | amount | custom fields | features of the row
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS
from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.domain.transaction import FIELD_PARSERS, Transaction
from fraudsdk.policy.expression import Name, Values, ValueType

Row = npt.NDArray[np.float32]

_BOOLEANS: Final = ("credit", "declined", "card_present")
_TEXTS: Final = ("transaction_id", "type", *IDENTIFIERS, *CATEGORIES)
_DEFAULT_EXPONENT: Final = 2


def major_units(transaction: Transaction) -> float:
    """The amount in major units of the transaction's own currency; two decimals where it names none."""
    exponent = CURRENCY_EXPONENTS[transaction.currency] if transaction.currency else _DEFAULT_EXPONENT
    return float(transaction.amount_minor / 10**exponent)


def declared_names(
    schema: FeatureSchema, custom_numbers: Collection[str] = (), custom_categories: Collection[str] = ()
) -> Mapping[str, Name]:
    """
    Everything that a condition may mention.

    A transaction field hides a feature of the same name: the field is there even when no row could be computed, and
    text such as `mcc` is compared as text rather than as a vocabulary code.
    """
    features = {name: Name(ValueType.NUMBER, is_float32=True) for name in schema.names}
    return {
        **features,
        **dict.fromkeys(("score", "margin", *NUMBERS, *custom_numbers), Name(ValueType.NUMBER)),
        **dict.fromkeys(custom_categories, Name(ValueType.TEXT)),
        **{name: Name(ValueType.TEXT, spell=FIELD_PARSERS[name]) for name in _TEXTS},
        **dict.fromkeys(_BOOLEANS, Name(ValueType.BOOLEAN)),
    }


class ValueLayout:
    """
    Which values the conditions of one policy read, and in which slot each is found.

    Parameters
    ----------
    used : iterable of str
        Names that conditions mention; those that are not declared are ignored here and refused by the compiler.
    schema : FeatureSchema
        Columns of the row.
    custom_numbers, custom_categories : collection of str
        Declared custom fields.
    amount_of : callable
        The number that the name ``amount`` stands for.

    Attributes
    ----------
    names : Mapping of str to Name
        All that is declared.
    slots : Mapping of str to int
        The slots of those that are used.
    """

    def __init__(
        self,
        used: Iterable[str],
        schema: FeatureSchema,
        *,
        custom_numbers: Collection[str] = (),
        custom_categories: Collection[str] = (),
        amount_of: Callable[[Transaction], float] = major_units,
    ) -> None:
        self.names = declared_names(schema, custom_numbers, custom_categories)
        wanted = set(used) - {"score", "margin"}
        attributes = sorted(wanted & ({*_TEXTS, *_BOOLEANS, *NUMBERS} - {"amount"}))
        amount = ["amount"] if "amount" in wanted else []
        custom = sorted(wanted & {*custom_numbers, *custom_categories})
        positions = schema.positions()
        features = sorted(wanted.intersection(positions).difference(attributes, amount, custom))

        order = ("score", "margin", *attributes, *amount, *custom, *features)
        self.slots: Mapping[str, int] = {name: slot for slot, name in enumerate(order)}
        self._attributes = _getter(operator.attrgetter, attributes)
        self._amount_of = amount_of if amount else None
        self._custom = tuple((name, math.nan if name in custom_numbers else None) for name in custom)
        self._features = _getter(operator.itemgetter, [positions[name] for name in features])
        self._no_features = (math.nan,) * len(features)

    def fetch(self, transaction: Transaction, row: Row | None, margin: float, score: float) -> Values:
        """
        The tuple of values for one transaction.

        Parameters
        ----------
        transaction : Transaction
            Its absent numbers are NaN, everything else absent is None.
        row : float32[n_features] or None
            NaN = missing; None where no row could be computed, and then every feature is missing.
        margin, score : float
            NaN where no model spoke.
        """
        values: tuple[Any, ...] = (score, margin, *self._attributes(transaction))
        if self._amount_of is not None:
            values += (self._amount_of(transaction),)
        if self._custom:
            get = transaction.custom.get
            values += tuple(get(name, absent) for name, absent in self._custom)
        # Its buffer yields Python floats; indexing the array would make a NumPy scalar for each.
        return values + (self._no_features if row is None else self._features(row.data))


def _getter(make: Callable[..., Any], keys: list[Any]) -> Callable[[Any], tuple[Any, ...]]:
    if not keys:
        return lambda source: ()
    if len(keys) == 1:
        get_one = make(keys[0])
        return lambda source: (get_one(source),)
    get: Callable[[Any], tuple[Any, ...]] = make(*keys)
    return get
