"""Entry points for CPUs with AVX-512 VBMI: one permute fetches 64 ranks out of 128."""

from __future__ import annotations

from fraudsdk._jit import borrowed, kernel
from fraudsdk._simd import AVX512, address_of
from fraudsdk.model.block_kernels import four_rows_avx512, margin_of, margins_of, walk_avx512


@kernel("float32(int64, float32[::1])", needs=AVX512)
def margin(tables, row):
    """Margin of one row, by the block tables at an address; see `fraudsdk.model.block_kernels`."""
    return margin_of(walk_avx512, address_of(borrowed(row)), tables)


@kernel("float32(int64, int64)", needs=AVX512)
def margin_at(row, tables):
    """`margin` for other kernels, which have the address of a row: ``float32 f(int64 row, int64 tables)`` in C."""
    return margin_of(walk_avx512, row, tables)


@kernel("void(float32[:, ::1], int64, float32[::1])", needs=AVX512)
def margins(rows, tables, out):
    """Margins of many rows, into `out`."""
    rows, out = borrowed(rows), borrowed(out)
    margins_of(four_rows_avx512, address_of(rows), rows.shape[0], tables, out)
