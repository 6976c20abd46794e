"""
Rows that a certificate is made of: random ones, and those where two implementations of one forest would differ.

Made from the forest itself, from a seed, in blocks of bounded size.  So is the whole: a row costs as much as it is long, and a
file of one-split trees on thousands of features would otherwise take over an hour to certify.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fraudsdk.model.certificate import required_rows
from fraudsdk.model.forest import Float32Array, Tree

MAX_THRESHOLDS = 20_000
MAX_CODES = 5_000
# 4 M float32 cells, 16 MB, at a time.
BLOCK_CELLS = 4_000_000
# Of one family of rows.  20,000 thresholds of 300 features fit, each with the floats next to it.
FAMILY_CELLS = 20_000_000

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
    for n in _blocks(required_rows(edges.n_features), edges.n_features):
        yield "random rows, a tenth of the values missing", _random_rows(edges, n, rng)
    yield from _threshold_rows(edges, rng)
    yield from _single_value_rows(edges, _SPECIAL, "missing, zeros, denormals and extremes", rng)
    yield from _single_value_rows(edges, _INFINITE, "infinities", rng)
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
    chosen = _spread(n, min(MAX_THRESHOLDS, FAMILY_CELLS // (3 * edges.n_features)))
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
    groups = _groups(used, values.size, edges.n_features)
    at = 0
    for size in _blocks(len(groups), values.size * edges.n_features):
        rows = np.repeat(_random_rows(edges, size, rng), values.size, axis=0)
        for k, features in enumerate(groups[at : at + size]):
            rows[k * values.size : (k + 1) * values.size, features] = values[:, None]
        at += size
        yield f"{name}, {_at_a_time(groups)}", rows


def _code_rows(edges: Edges, rng: np.random.Generator) -> Iterator[tuple[str, Float32Array]]:
    """Every code, codes never seen, and values that are no codes at all."""
    if not edges.n_categories:
        return
    probes = {feature: _codes(n, edges.n_features) for feature, n in edges.n_categories.items()}
    features = np.array(list(probes), np.int64)
    groups = _groups(features, max(map(len, probes.values())), edges.n_features)
    name = f"codes of {len(probes)} categorical features, known, unseen and malformed, {_at_a_time(groups)}"
    for group in groups:
        # Each feature in an order of its own: going up together, they would only ever be known or unknown together.
        columns = [rng.permutation(probes[feature]) for feature in group.tolist()]
        n_rows = max(map(len, columns))
        at = 0
        for size in _blocks(n_rows, edges.n_features):
            rows = _random_rows(edges, size, rng)
            for feature, values in zip(group.tolist(), columns, strict=True):
                rows[:, feature] = np.resize(values, n_rows)[at : at + size]
            at += size
            yield name, rows


def _codes(n_codes: int, n_features: int) -> Float32Array:
    """Codes to try of a categorical feature that knows `n_codes`: all, or as many as a family of such long rows may have."""
    odd = [-1.0, -0.5, -0.0, 0.5, n_codes - 0.5, n_codes, n_codes + 0.5, n_codes + 1, n_codes + 40, 2.0**24, 1e9, 1e30]
    known = _spread(n_codes, min(MAX_CODES, FAMILY_CELLS // n_features))
    return np.concatenate((known, odd, [np.nan])).astype(np.float32)


def _groups(features: npt.NDArray[np.int64], n_values: int, n_features: int) -> list[npt.NDArray[np.int64]]:
    """
    Features to try together: each alone where there is time for it.

    No feature is left out.  A row with several tried at once still tells right from wrong, but is likelier to hide a second
    mistake behind the first.
    """
    affordable = max(1, FAMILY_CELLS // (n_values * n_features))
    return np.array_split(features, max(1, min(features.size, affordable)))


def _at_a_time(groups: list[npt.NDArray[np.int64]]) -> str:
    size = max(group.size for group in groups)
    return "one feature at a time" if size <= 1 else f"up to {size} features at a time"


def _spread(n: int, at_most: int) -> npt.NDArray[np.int64]:
    """Whole numbers from 0 to `n` - 1, all or `at_most` of them, ends included."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.int64)) if n else np.zeros(0, np.int64)
