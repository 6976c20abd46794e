"""
Where things are in the block tables, for the kernels that read them and for `fraudsdk.model.blocks`, which makes them.

Words are int64; places are bytes from the start of the tables, and every part begins at a multiple of 64 bytes, so that a
register is loaded from one cache line.
"""

from __future__ import annotations

from typing import Final

# Words of the header.
N_FEATURES: Final = 0
N_TREES: Final = 1
BASE_MARGIN: Final = 2  # float32 bits
SHAPE: Final = 3
KIND: Final = 4
N_PAIRS: Final = 5  # of registers that hold the columns of a row, 128 each
N_TINY: Final = 6
TINY_AT: Final = 7
N_NARROW: Final = 8
NARROW_AT: Final = 9
N_WIDE: Final = 10
WIDE_AT: Final = 11
N_CATEGORICAL: Final = 12  # a whole number of steps: filled up with entries that decide nothing
CATEGORICAL_AT: Final = 13
TESTS_AT: Final = 14
ROOTS_AT: Final = 15
EXITS_AT: Final = 16
VALUES_AT: Final = 17
ROOT_LEVELS: Final = (
    18  # of the two: 1, 2 or 3, as few as the depth allows, for there are 2 ** ROOT_LEVELS blocks below a root
)
SETS_AT: Final = 19  # of the blocks at TESTS_AT: SET_WORDS for each
ROOT_SETS_AT: Final = 20  # of those at ROOTS_AT
N_DECISION_REGISTERS: Final = 21  # that follow the columns of a row
HEADER_WORDS: Final = 24

# Kinds of a forest: three pieces of code for the decisions of a block.
NUMERIC: Final = 0  # at most 128 columns, no categorical tests
MIXED: Final = 1  # at most 128 columns, and categorical tests
GENERAL: Final = 2  # more columns, with categorical tests or without

# Shapes of a forest.
ONE_BLOCK: Final = 0  # depth to 6: one block per tree
TWO_BLOCKS: Final = (
    1  # depth to 9: the roots of eight trees share one block, of up to three levels each; six more in another
)
CHAINED: Final = 2  # any depth: an exit of a block leads to a leaf or to another block

BLOCK_DEPTH: Final = 6
ROOT_DEPTH: Final = 3
TWO_BLOCK_DEPTH: Final = ROOT_DEPTH + BLOCK_DEPTH
TREES_PER_ROOT: Final = 8
EXITS: Final = 64  # of a block
ROOT_EXITS: Final = 8
REGISTER: Final = 64  # bytes

# The 64 bytes of a block's lanes, by purpose; a block of a NUMERIC forest has the first two only.
COLUMN: Final = (
    0  # the column modulo 128, or a categorical test's byte of the decisions; highest bit: a missing value goes left
)
TEST: Final = 64  # what the rank must reach
BITS: Final = 128  # of a categorical test: its bit of that byte
PAIR: Final = 192  # the column divided by 128
SMALL_BLOCK: Final = 128
LARGE_BLOCK: Final = 256
DEFAULT_LEFT: Final = 128
NEVER: Final = 255  # a test that no rank reaches where a missing value goes left

# Words of what a block has besides, unless the forest is NUMERIC.
SET_LANES: Final = 0  # bit k: node k is a categorical test
SET_PLACE: Final = 1  # byte of the row where the decisions of these begin
SET_WORDS: Final = 2

COLUMNS_PER_PAIR: Final = 128
MISSING: Final = 255
MAX_CUTS_PER_COLUMN: Final = 253  # 254 would reach NEVER
# Columns and decisions of a row are kept on the stack of the thread that scores.
ROW_BYTES: Final = 16_384
BATCH_BYTES: Final = 4 * ROW_BYTES
MAX_BLOCK_ROWS: Final = 64
ROWS_PER_STEP: Final = 4
TREES_PER_CHUNK: Final = 64

# Three levels at once: the decisions of seven nodes, heap order, as seven bits -> which of eight exits they lead to.
PATHS_AT: Final = 8 * HEADER_WORDS
PATH_BITS: Final = 7
PATH_MASK: Final = 127

# An entry of a feature with at most 253 cuts: the feature, and 32 bits higher where its cuts are.
PLACE_SHIFT: Final = 32
FEATURE_MASK: Final = (1 << PLACE_SHIFT) - 1
FANOUT: Final = 16

# Words of an entry of a feature with more cuts.
WIDE_FEATURE: Final = 0
WIDE_COLUMN: Final = 1
WIDE_COLUMNS: Final = 2
WIDE_LEVELS: Final = 3
WIDE_LEVEL_AT: Final = 4  # and on, from the coarsest
WIDE_WORDS: Final = 16

# Words of an entry of a categorical feature.
CATEGORICAL_FEATURE: Final = 0
CATEGORICAL_CODES: Final = 1
# For each code, for "none of these", and for "missing": where the decisions are, int32.
CATEGORICAL_PLACES_AT: Final = 2
CATEGORICAL_WORDS: Final = 4
CATEGORICAL_PER_STEP: Final = 4
