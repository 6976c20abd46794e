"""Entry point for every CPU: values of a row are loaded one by one."""

from __future__ import annotations

from fraudsdk._jit import kernel
from fraudsdk._simd_shap import by_gathers
from fraudsdk.model.shap_kernels import contributions_of


@kernel("int64(float32[:, ::1], float32[::1], int32[::1], float32[::1], float32[::1], float64[:, ::1])")
def contributions(rows, margins, tables, rules, scratch, out):
    """Contributions of many rows, and the first row that does not add up; see `fraudsdk.model.shap_kernels`."""
    return contributions_of(by_gathers(), rows, margins, tables, rules, scratch, out)
