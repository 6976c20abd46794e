"""
Where things are in the forest tables, for the kernels that read them and for `fraudsdk.model.forest`, which writes them.

One array of int32 words rather than ten arrays: passing an array to a kernel costs about 50 ns, more than walking a tree.
"""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 1

# Words of the header; ``..._AT`` is the word where that part begins.
FORMAT: Final = 0
N_FEATURES: Final = 1
N_TREES: Final = 2
N_GROUPS: Final = 3  # of LANES trees; the last one is filled up with leaves of -0.0, which adds nothing to any float
GROUP_STEPS_AT: Final = 4
TREE_STEPS_AT: Final = 5
ROOTS_AT: Final = 6
NODES_AT: Final = 7
N_NODES: Final = 8
VALUES_AT: Final = 9
CATEGORICAL_AT: Final = 10  # pairs: feature, number of categories
N_CATEGORICAL: Final = 11
SETS_AT: Final = 12
N_SET_WORDS: Final = 13
BASE_MARGIN: Final = 14  # float32 bits
HEADER_WORDS: Final = 16

LANES: Final = 8
# Rows of a batch that share a visit to a tree: 64 rows of 80 features are 40 KB of scratch, inside L2 (ADR 0003).
BLOCK_ROWS: Final = 64
# Steps before the first question whether all lanes have arrived (ADR 0003).
CHECK_EVERY: Final = 8

# A node's second word.  Halves of 16 bits: the compiler reads each with one narrow load and no mask (ADR 0003).
DISTANCE_MASK: Final = (1 << 16) - 1
SLOT_SHIFT: Final = 16
SLOT_MASK: Final = (1 << 13) - 1
SIGN_SHIFT: Final = 31  # an arithmetic shift: -1, all ones, at a categorical node, whose word is negative; else 0

# Flag beside a number of steps: some node of these trees is categorical.
MIXED: Final = 1 << 16

MAX_FEATURES: Final = (SLOT_MASK + 1) // 2
MAX_NODES_PER_TREE: Final = 65_535
MAX_CATEGORIES: Final = 65_536
# More words than tables can have: caps on nodes, trees and sets (`fraudsdk.model.forest`) add up to 22 M.
MAX_WORDS: Final = 1 << 30
