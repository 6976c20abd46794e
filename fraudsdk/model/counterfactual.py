"""
The smallest change of one feature that would have moved the verdict, found exactly.

As a function of one feature alone, the margin of a forest is a staircase: it can change only at the thresholds that the
forest has on that feature, its *cuts*.  So every answer that a feature can bring about is tried with one value per step, the
nearest one, and none is missed.

Distance between two values of a feature is the number of its cuts that lie between them: how many of the model's questions
about this feature change their answer.  That has no unit, is the same for a feature and its logarithm, and is defined at
zero, none of which is true of a difference or a ratio.  Cuts lie dense where training values did, so that a step is small
where it is ordinary.  Among equally near changes the one that covers less of the way from a feature's first cut to its last
wins, then the one of the earlier feature.

Missing values stay missing, and what is given remains given: to learn something is no change of a transaction.  Categorical
splits have no order and are not asked; callers leave out whatever else it is pointless to wish different.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.model.shap_tables import Int32Array, numeric_cuts

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

# Rows tried at most, nearest changes first: 80 features with 255 cuts each are 20,400.
MAX_TRIED: Final = 65_536
_ROWS_AT_FIRST: Final = 64
_ROWS_AT_ONCE: Final = 1_024


@dataclass(frozen=True, slots=True)
class Change:
    """
    One feature at another value.

    Attributes
    ----------
    feature : int
        Column of the row.
    value : float
        The nearest value that does it, a float32.
    low, high : float
        All values from `low` on and below `high` do it too; infinite where there is no bound.
    n_cuts : int
        Cuts between the value that was and this one.
    margin : float
        Margin of the changed row.
    """

    feature: int
    value: float
    low: float
    high: float
    n_cuts: int
    margin: float


class ChangeSearch:
    """
    Looks for changes in one forest.  Immutable and thread-safe.

    Parameters
    ----------
    tables : int32[n_words]
        As `fraudsdk.model.shap_tables.read_shap` returns them.
    margins : callable
        float32[n, n_features] -> float32[n].
    """

    def __init__(self, tables: Int32Array, margins: Callable[[Float32Array], Float32Array]) -> None:
        self._margins = margins
        self._cuts = numeric_cuts(tables)

    def smallest(
        self, row: Float32Array, moved: Callable[[float], bool], *, leave: Collection[int] = ()
    ) -> Change | None:
        """
        The smallest change of one feature after which a margin is `moved`.

        Parameters
        ----------
        row : float32[n_features]
            NaN = missing; left unchanged.
        moved : callable
            Margin -> whether the verdict is another one.
        leave : collection of int
            Features that keep their value.

        Returns
        -------
        Change or None
            None where no change of one feature does it, or none of the `MAX_TRIED` nearest ones.
        """
        features, steps, values = self._nearest_first(row, frozenset(leave))
        for k, margin in enumerate(self._tried(row, features, values)):
            if moved(margin):
                feature, step = int(features[k]), int(steps[k])
                low, high = self._extent(row, feature, step, moved)
                return Change(feature, float(values[k]), low, high, abs(step), margin)
        return None

    def _nearest_first(self, row: Float32Array, leave: frozenset[int]) -> tuple[Int64Array, Int64Array, Float32Array]:
        """Feature, signed number of cuts, and nearest value of every change, nearest first."""
        columns = [
            (np.full(steps.size, feature), steps, values, way)
            for feature, cuts in self._cuts.items()
            if feature not in leave and not math.isnan(row[feature])
            for steps, values, way in [_changes(float(row[feature]), cuts)]
        ]
        if not columns:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        features, steps, values, way = map(np.concatenate, zip(*columns, strict=True))
        order = np.lexsort((features, way, np.abs(steps)))[:MAX_TRIED]
        return features[order], steps[order], values[order]

    def _tried(self, row: Float32Array, features: Int64Array, values: Float32Array) -> Iterator[float]:
        """Margins of the row with one value changed, in blocks that grow: the answer is usually among the first."""
        begin, size = 0, _ROWS_AT_FIRST
        while begin < len(features):
            block = slice(begin, begin + size)
            rows = np.repeat(row[np.newaxis, :], len(features[block]), axis=0)
            rows[np.arange(len(rows)), features[block]] = values[block]
            yield from self._margins(rows).tolist()
            begin, size = begin + size, min(2 * size, _ROWS_AT_ONCE)

    def _extent(
        self, row: Float32Array, feature: int, step: int, moved: Callable[[float], bool]
    ) -> tuple[float, float]:
        """How far the feature can go on in that direction without undoing what the change did."""
        cuts = self._cuts[feature]
        steps, values, _ = _changes(float(row[feature]), cuts)
        onward = np.flatnonzero((np.sign(steps) == np.sign(step)) & (np.abs(steps) > abs(step)))
        onward = onward[np.argsort(np.abs(steps[onward]))]
        n_moved = 0
        for margin in self._tried(row, np.full(onward.size, feature), values[onward]):
            if not moved(margin):
                break
            n_moved += 1
        here = int(np.searchsorted(cuts, np.float32(row[feature]), side="right"))
        near, far = here + step, here + step + int(np.sign(step)) * n_moved
        edges = np.concatenate(([-np.inf], cuts, [np.inf]))
        return float(edges[min(near, far)]), float(edges[max(near, far) + 1])


def _changes(value: float, cuts: Float32Array) -> tuple[Int64Array, Float32Array, npt.NDArray[np.float64]]:
    """
    Where a value can go among the cuts of its feature.

    Returns
    -------
    steps : int64[n_cuts]
        Cuts crossed, negative where the value falls.
    values : float32[n_cuts]
        The nearest value beyond: a cut itself going up, for ``value < cut`` goes left, and the float below it going down.
    way : float64[n_cuts]
        Distance, as a share of the way from the first cut to the last.
    """
    here = int(np.searchsorted(cuts, np.float32(value), side="right"))
    steps = np.concatenate((np.arange(-here, 0), np.arange(1, cuts.size - here + 1)))
    values = cuts.copy()
    values[:here] = np.nextafter(cuts[:here], np.float32(-np.inf))
    span = float(cuts[-1]) - float(cuts[0])
    # One cut has no span, and all that crosses it goes the whole way.
    way = np.abs(cuts.astype(np.float64) - value) / span if span > 0 else np.ones(cuts.size)
    return steps, values, way
