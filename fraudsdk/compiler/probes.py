"""
Rows that a certificate is made of: random ones, and those where two implementations of one forest would differ.

Made from the forest itself, from a seed, in blocks of bounded size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fraudsdk.model.forest import Float32Array, Tree

RANDOM_ROWS = 20_000
MAX_THRESHOLDS = 20_000
MAX_CODES = 5_000
# 4 M float32 cells, 16 MB, at a time.
BLOCK_CELLS = 4_000_000

_SPECIAL = np.array(
    [
        np.nan,
        -0.0,
        0.0,
        np.finfo(np.float32).smallest_subnormal,
        -np.finfo(np.float32).smallest_subnormal,
        np.finfo(np.float32).smallest_normal,
        np.finfo(np.float32).max,
        -np.finfo(np.float32).max,
    ],
    np.float32,
)
_INFINITE = np.array([np.inf, -np.inf], np.float32)


@dataclass(frozen=True, slots=True)
class Edges:
    """
    Where the answer of a forest can change.

    Attributes
    ----------
    n_features : int
        Length of a row.
    features, thresholds : int32[k], float32[k]
        Distinct numeric tests.
    n_categories : dict of int to int
        Categorical features -> codes known to some node, 0 to n - 1.
    """

    n_features: int
    features: npt.NDArray[np.int32]
    thresholds: Float32Array
    n_categories: dict[int, int]

    @classmethod
    def of(cls, trees: list[Tree], n_features: int) -> Edges:
        """Edges of a forest."""
        tests: set[tuple[int, float]] = set()
        n_categories: dict[int, int] = {}
        for tree in trees:
            numeric = tree.left >= 0
            numeric[list(tree.categories)] = False
            tests.update(zip(tree.feature[numeric].tolist(), tree.threshold[numeric].tolist(), strict=True))
            for node, members in tree.categories.items():
                feature = int(tree.feature[node])
                n_categories[feature] = max(n_categories.get(feature, 0), int(members[-1]) + 1)
        ordered = sorted(tests)
        return cls(
            n_features=n_features,
            features=np.array([feature for feature, _ in ordered], np.int32),
            thresholds=np.array([threshold for _, threshold in ordered], np.float32),
            n_categories=n_categories,
        )


def probe_rows(edges: Edges, seed: int) -> Iterator[tuple[str, Float32Array]]:
    """
    Yield (what the rows probe, rows), the blocks of one family together.

    Families that hold an infinity say so in their name, since a DMatrix refuses them.
    """
    rng = np.random.default_rng(seed)
    for n in _blocks(RANDOM_ROWS, edges.n_features):
        yield "random rows, a tenth of the values missing", _random_rows(edges, n, rng)
    yield from _threshold_rows(edges, rng)
    yield from _single_value_rows(edges, _SPECIAL, "missing, zeros, denormals and extremes, one feature at a time", rng)
    yield from _single_value_rows(edges, _INFINITE, "infinities, one feature at a time", rng)
    yield from _code_rows(edges, rng)
    yield (
        "rows of one value: all missing, all zero, all extreme",
        np.repeat(_SPECIAL[:, None], edges.n_features, axis=1),
    )
    yield "rows of infinities", np.repeat(_INFINITE[:, None], edges.n_features, axis=1)


def _blocks(n_rows: int, n_features: int) -> Iterator[int]:
    step = max(1, BLOCK_CELLS // n_features)
    for start in range(0, n_rows, step):
        yield min(step, n_rows - start)


def _random_rows(edges: Edges, n: int, rng: np.random.Generator) -> Float32Array:
    """Values around each feature's own thresholds, so that every branch is taken; a code for a categorical feature."""
    rows = rng.normal(size=(n, edges.n_features)).astype(np.float32)
    begins = np.searchsorted(edges.features, np.arange(edges.n_features + 1))
    for feature in np.unique(edges.features).tolist():
        own = edges.thresholds[begins[feature] : begins[feature + 1]].astype(np.float64)
        spread = max(float(own[-1] - own[0]), abs(float(own[0])), 1e-3)
        values = rng.choice(own, n) + rng.normal(size=n) * spread * 0.1
        rows[:, feature] = np.clip(values, -3e38, 3e38)
    for feature, n_codes in edges.n_categories.items():
        rows[:, feature] = rng.integers(-1, n_codes + 2, n)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def _threshold_rows(edges: Edges, rng: np.random.Generator) -> Iterator[tuple[str, Float32Array]]:
    """Each test met exactly, and by the floats next to it."""
    n = edges.thresholds.size
    # Spread evenly over features and values where there are more than we have time for.
    chosen = np.unique(np.linspace(0, n - 1, min(n, MAX_THRESHOLDS)).astype(np.int64)) if n else np.zeros(0, np.int64)
    name = f"{chosen.size} of {n} thresholds, exactly and one ulp to either side"
    at = 0
    for size in _blocks(chosen.size, 3 * edges.n_features):
        tests = chosen[at : at + size]
        at += size
        rows = np.repeat(_random_rows(edges, size, rng), 3, axis=0)
        exact = edges.thresholds[tests]
        around = np.stack((np.nextafter(exact, -_INFINITE[0]), exact, np.nextafter(exact, _INFINITE[0])), axis=1)
        # Beyond the largest float lies infinity, which is another family's business.
        limit = np.finfo(np.float32).max
        rows[np.arange(3 * size), np.repeat(edges.features[tests], 3)] = np.clip(around, -limit, limit).ravel()
        yield name, rows


def _single_value_rows(
    edges: Edges, values: Float32Array, name: str, rng: np.random.Generator
) -> Iterator[tuple[str, Float32Array]]:
    used = np.union1d(edges.features, list(edges.n_categories)).astype(np.int64)
    at = 0
    for size in _blocks(used.size, values.size * edges.n_features):
        features = used[at : at + size]
        at += size
        rows = np.repeat(_random_rows(edges, size, rng), values.size, axis=0)
        rows[np.arange(len(rows)), np.repeat(features, values.size)] = np.tile(values, size)
        yield name, rows


def _code_rows(edges: Edges, rng: np.random.Generator) -> Iterator[tuple[str, Float32Array]]:
    """Every code, codes never seen, and values that are no codes at all."""
    for feature, n_codes in edges.n_categories.items():
        codes = np.arange(min(n_codes, MAX_CODES))
        odd = [
            -1.0,
            -0.5,
            -0.0,
            0.5,
            n_codes - 0.5,
            n_codes,
            n_codes + 0.5,
            n_codes + 1,
            n_codes + 40,
            2.0**24,
            1e9,
            1e30,
        ]
        values = np.concatenate((codes, odd, [np.nan])).astype(np.float32)
        at = 0
        for size in _blocks(values.size, edges.n_features):
            rows = _random_rows(edges, size, rng)
            rows[:, feature] = values[at : at + size]
            at += size
            yield f"codes of feature {feature}, known, unseen and malformed", rows
