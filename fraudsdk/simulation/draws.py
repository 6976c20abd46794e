"""Small ways to draw many random numbers at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def weighted(rng: np.random.Generator, weights: ArrayLike, n: int) -> Ints:
    """Draw `n` positions of `weights` in proportion to them."""
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    drawn = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
    return np.asarray(np.minimum(drawn, cumulative.size - 1), dtype=np.int64)


def ranked(rng: np.random.Generator, count: Any, n: int, skew: float = 2.5) -> Ints:
    """Draw `n` ranks below `count` (one or one per draw), the lowest most often: ``floor(count * uniform ** skew)``."""
    rank = np.floor(count * rng.random(n) ** skew)
    return np.asarray(np.minimum(rank, np.asarray(count) - 1), dtype=np.int64)


def around(rng: np.random.Generator, median: Any, sigma: Any, n: int) -> Floats:
    """Draw `n` lognormal values of the given median and log standard deviation."""
    return np.asarray(median * np.exp(sigma * rng.standard_normal(n)), dtype=np.float64)


def chance(rng: np.random.Generator, probability: Any, n: int) -> Bools:
    """Draw `n` coins; `probability` is one or one per draw."""
    return np.asarray(rng.random(n) < probability, dtype=np.bool_)


def running_total_by_group(values: NDArray[Any], first_of_group: Ints, group: Ints) -> NDArray[Any]:
    """Cumulative sum that starts again at each group; groups are contiguous."""
    total = np.cumsum(values)
    before = total[first_of_group] - values[first_of_group]
    return np.asarray(total - before[group])
