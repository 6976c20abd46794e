"""
Entry points for CPUs with AVX-512 VBMI: one permute fetches 64 ranks out of 128.

Importing this elsewhere raises `ConfigurationError`: LLVM ends a process that compiles for what the CPU lacks.
"""

from __future__ import annotations

from fraudsdk._jit import borrowed, kernel
from fraudsdk._simd import AVX512, address_of, avx512, require
from fraudsdk.model.block_kernels import margin_of, margins_of, one_block, one_block_by_four, two_blocks

require(AVX512)


@kernel("float32(float32[::1], int64)")
def margin(row, tables):
    """Margin of one row, by the block tables at an address; see `fraudsdk.model.block_kernels`."""
    return margin_of(avx512(), one_block, two_blocks, address_of(borrowed(row)), tables)


@kernel("float32(int64, int64)")
def margin_at(row, tables):
    """`margin` for other kernels, which have the address of a row: ``float32 f(int64 row, int64 tables)`` in C."""
    return margin_of(avx512(), one_block, two_blocks, row, tables)


@kernel("void(float32[:, ::1], int64, float32[::1])")
def margins(rows, tables, out):
    """Margins of many rows, into `out`."""
    rows, out = borrowed(rows), borrowed(out)
    margins_of(avx512(), one_block, two_blocks, one_block_by_four, address_of(rows), rows.shape[0], tables, out)
