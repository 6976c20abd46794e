"""
Where things are in the tables of explanations, for the kernels that read them and for `fraudsdk.model.shap_tables`.

Sixteen trees are laid over each other; a *place* is a split of the shape they have together, a *cell* one tree's node there.
Every part of the tables that has a value per cell holds sixteen words per place.
"""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 1
LANES: Final = 16

# Words of the header; ``..._AT`` is the word where that part begins.
FORMAT: Final = 0
N_FEATURES: Final = 1
N_TREES: Final = 2
N_GROUPS: Final = 3
N_PLACES: Final = 4
N_LEAVES: Final = 5
N_CHUNKS: Final = 6
N_TERMS: Final = 7
N_CATEGORICAL: Final = 8
N_SET_WORDS: Final = 9
MAX_GROUP_PLACES: Final = 10
MAX_CHUNK_PLACES: Final = 11
EXPECTED: Final = 12  # and 13: float64 bits of the expected margin
GROUPS_AT: Final = 14
PLACES_AT: Final = 15
THRESHOLDS_AT: Final = 16  # per cell, float32; -inf where the split is categorical
FEATURES_AT: Final = 17  # per cell
SHARES_AT: Final = 18  # per cell, float32: share of the node's cover that goes to its first child
REACHES_AT: Final = 19  # per cell, float32: product of the shares of the edges above that split on the same feature
BITS_AT: Final = 20  # per cell: the bit of its feature on this path; 0 where the feature is not repeated
LEAVES_AT: Final = 21  # float32, sixteen per leaf of the common shape
CHUNKS_AT: Final = 22
RUNS_AT: Final = 23  # per chunk: where each feature's terms begin, and where the last one's end
TERMS_AT: Final = 24  # cells of a chunk, by feature
CATEGORICAL_AT: Final = 25
SETS_AT: Final = 26
HEADER_WORDS: Final = 32

# Words of a group.
FIRST_PLACE: Final = 0
GROUP_PLACES: Final = 1
FIRST_LEAF: Final = 2
GROUP_LEAVES: Final = 3
POINTS: Final = 4
GROUP_WORDS: Final = 8

# Words of a place.
KIND: Final = 0
FIRST_CHILD: Final = 1  # a place of the group, or a leaf of it where the kind says so
SECOND_CHILD: Final = 2
SIDES: Final = 3  # low half: lanes where a missing value goes left; high half: lanes whose children are swapped
PLACE_WORDS: Final = 4

# A kind: which children are places (none, the first, both), and two flags.
INNER_CHILDREN: Final = 3
REPEATED: Final = 4  # the feature of some lane was split on above
MARKS: Final = 8  # the feature of some lane is split on again below

# Words of a chunk: as many groups as fit `PLACES_PER_CHUNK`, whose terms are added up together.
FIRST_GROUP: Final = 0
END_GROUP: Final = 1
FIRST_CATEGORICAL: Final = 2
END_CATEGORICAL: Final = 3
CHUNK_PLACE: Final = 4
CHUNK_PLACES: Final = 5
CHUNK_WORDS: Final = 8
PLACES_PER_CHUNK: Final = 1024

# Words of a categorical cell.
CELL: Final = 0
CELL_FEATURE: Final = 1
SET_AT: Final = 2
SET_SIZE: Final = 3
CATEGORICAL_WORDS: Final = 4

# Quadrature points are taken four at a time; a block of a rule is 4 floats each of u, u / (1 - u), 1 / (u (1 - u)), weight.
BLOCK_POINTS: Final = 4
MAX_POINTS: Final = 32
RULE_BLOCKS: Final = MAX_POINTS // BLOCK_POINTS
KNOWN: Final = 0
ODDS: Final = 4
STEEPNESS: Final = 8
WEIGHT: Final = 12
BLOCK_FLOATS: Final = 16
RULE_FLOATS: Final = 1 + RULE_BLOCKS * BLOCK_FLOATS  # the number of blocks comes first

# Scratch, floats: row, weights, splits, marks (per place of a group), decisions and terms (per place of a chunk).
ROW_FLOATS: Final = 128
POINT_FLOATS: Final = BLOCK_POINTS * LANES


def scratch_floats(max_group_places: int, max_chunk_places: int) -> int:
    """Floats that the kernels need to work in."""
    return (
        ROW_FLOATS
        + max_group_places * (2 * POINT_FLOATS + LANES)
        + max_chunk_places * LANES
        + LANES * -(-max_chunk_places // (2 * LANES))
    )
