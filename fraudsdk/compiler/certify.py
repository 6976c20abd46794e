"""Compare native code with the booster, row by row and bit by bit, and write down what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np

from fraudsdk.compiler.probes import Edges, probe_rows
from fraudsdk.compiler.reference import booster_margins, inplace_margins
from fraudsdk.compiler.vendors import vendor
from fraudsdk.model.certificate import MAX_BOUND, Certificate, Suite
from fraudsdk.model.engine import Engine
from fraudsdk.model.forest import Float32Array, Tree

# No multiple of three, the probes of one threshold: all their kinds come up.  One call a row and engine would add half a second
# to 600 trees of depth 8.
ALONE_STRIDE: Final = 10


def certify(
    engines: Sequence[Engine],
    booster: Any,
    *,
    trees: list[Tree],
    n_features: int,
    backend: str,
    base_margin: np.float32,
    source_sha256: str,
    booster_sha256: str,
    native_sha256: str,
    manifest_sha256: str,
    seed: int,
) -> Certificate:
    """
    Try native code against the booster it was compiled from.

    Parameters
    ----------
    engines : sequence of Engine
        As they may be loaded, the one that this CPU gets first.  Each scores every row in a batch; the first also scores every
        row alone, the others every `ALONE_STRIDE`-th.
    booster : xgboost.Booster
        The truth.
    trees, n_features, base_margin
        The forest, for the rows that probe its edges and for the bound.
    backend : str
        ``"table"`` must be equal; ``"c"`` must be within `rounding_bound`, and within `MAX_BOUND`.
    source_sha256, booster_sha256, native_sha256, manifest_sha256 : str
        Hashes that tie the certificate to both sides, and to what is said of them.
    seed : int
        For the random rows.

    Raises
    ------
    CertificateError
        They differ.
    """
    probes = probe_rows(Edges.of(trees, n_features), seed)
    certificate = Certificate(
        backend=backend,
        reference=f"xgboost {vendor('xgboost').__version__}",
        seed=seed,
        bound=0.0 if backend == "table" else min(rounding_bound(trees, base_margin), MAX_BOUND),
        source_sha256=source_sha256,
        booster_sha256=booster_sha256,
        native_sha256=native_sha256,
        manifest_sha256=manifest_sha256,
        suites=tuple(
            _suite(name, (rows for _, rows in group), engines, booster) for name, group in groupby(probes, _name)
        ),
    )
    certificate.check(n_features=n_features)
    return certificate


def rounding_bound(trees: list[Tree], base_margin: np.float32) -> float:
    """
    How far two float32 sums of one forest may be apart, whatever their order.

    Each of n additions errs by at most half an ulp, 2**-24 relative, of a partial sum no larger than the sum of the
    largest magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2); and there are two sums.
    """
    largest = abs(float(base_margin)) + sum(float(np.abs(tree.value).max()) for tree in trees)
    return 2 * (len(trees) + 1) * 2.0**-24 * largest


def _name(probe: tuple[str, Float32Array]) -> str:
    return probe[0]


def _suite(name: str, blocks: Iterable[Float32Array], engines: Sequence[Engine], booster: Any) -> Suite:
    # A DMatrix refuses infinities; inplace_predict runs the same predictor and takes them.
    infinite = "infinities" in name
    n_rows = n_unequal = 0
    largest = 0.0
    ours, theirs = hashlib.sha256(), hashlib.sha256()
    for rows in blocks:
        expected = inplace_margins(booster, rows) if infinite else booster_margins(booster, rows)
        batches = [_batch(engine, rows) for engine in engines]
        unequal = np.zeros(len(rows), np.bool_)
        n_rows += len(rows)
        tried = [(got, slice(None)) for got in batches]
        tried += [_alone(engine, rows, 1 if engine is engines[0] else ALONE_STRIDE) for engine in engines]
        for got, which in tried:
            unequal[which] |= _bits_differ(got, expected[which])
            largest = max(largest, _largest_difference(got, expected[which]))
        n_unequal += int(unequal.sum())
        ours.update(batches[0].astype("<f4").tobytes())
        theirs.update(expected.astype("<f4").tobytes())
    return Suite(
        inputs=name,
        reference="Booster.inplace_predict" if infinite else "Booster.predict",
        rows=n_rows,
        unequal=n_unequal,
        max_abs_difference=largest,
        reference_sha256=theirs.hexdigest(),
        artefact_sha256=ours.hexdigest(),
    )


def _batch(engine: Engine, rows: Float32Array) -> Float32Array:
    margins = np.empty(len(rows), np.float32)
    engine.margins(rows, margins)
    return margins


def _alone(engine: Engine, rows: Float32Array, stride: int) -> tuple[Float32Array, slice]:
    """Margins of every so many-th row, one call each, and which rows those are."""
    some = rows[::stride]
    return np.fromiter(map(engine.margin, some), np.float32, count=len(some)), slice(None, None, stride)


def _bits_differ(a: Float32Array, b: Float32Array) -> Any:
    return a.view(np.int32) != b.view(np.int32)


def _largest_difference(a: Float32Array, b: Float32Array) -> float:
    """Largest |a - b|; a NaN on one side only counts as the largest float, for JSON knows neither NaN nor infinity."""
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    difference[_bits_differ(a, b) & ~np.isfinite(difference)] = np.finfo(np.float64).max
    return float(np.nan_to_num(difference).max(initial=0.0))
