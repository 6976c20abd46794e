"""Entry point for CPUs with AVX-512: four permutes look up sixteen values of a row."""

from __future__ import annotations

from fraudsdk._jit import kernel
from fraudsdk._simd_shap import PERMUTES, by_permutes
from fraudsdk.model.shap_kernels import contributions_of


@kernel("int64(float32[:, ::1], float32[::1], int32[::1], float32[::1], float32[::1], float64[:, ::1])", needs=PERMUTES)
def contributions(rows, margins, tables, rules, scratch, out):
    """Contributions of many rows, and the first row that does not add up; see `fraudsdk.model.shap_kernels`."""
    return contributions_of(by_permutes(), rows, margins, tables, rules, scratch, out)
