"""Block tables stay within themselves, whatever forest they are made of."""

from __future__ import annotations

import numpy as np
import pytest

from fraudsdk.model import block_layout as layout
from fraudsdk.model.blocks import build_blocks
from fraudsdk.model.forest import build_tables


def built(make_tree, *, depth, categorical, n_trees=30):
    rng = np.random.default_rng(depth)
    trees = [make_tree(rng, depth=depth, categorical=categorical) for _ in range(n_trees)]
    blocks = build_blocks(build_tables(trees, n_features=7, base_margin=np.float32(0)))
    return blocks, blocks[: 8 * layout.HEADER_WORDS].view(np.int64)


@pytest.mark.parametrize("categorical", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 6, 7, 9, 10, 13])
def test_every_part_lies_within_the_tables_and_on_a_cache_line(make_tree, depth, categorical):
    blocks, header = built(make_tree, depth=depth, categorical=categorical)
    places = [layout.TINY_AT, layout.NARROW_AT, layout.WIDE_AT, layout.CATEGORICAL_AT, layout.TESTS_AT]
    places += [layout.ROOTS_AT, layout.EXITS_AT, layout.VALUES_AT]

    assert all(header[place] % layout.REGISTER == 0 and header[place] < blocks.size for place in places)


@pytest.mark.parametrize("depth", [10, 13])
def test_chains_lead_forward_to_a_leaf(make_tree, depth):
    blocks, header = built(make_tree, depth=depth, categorical=False, n_trees=9)
    exits = blocks[header[layout.EXITS_AT] : header[layout.VALUES_AT]].view(np.int32)
    n_blocks = (header[layout.EXITS_AT] - header[layout.TESTS_AT]) // layout.SMALL_BLOCK
    exits = exits[: layout.EXITS * n_blocks].reshape(n_blocks, layout.EXITS)
    n_values = (blocks.size - header[layout.VALUES_AT]) // 4
    from_block = np.repeat(np.arange(n_blocks)[:, None], layout.EXITS, axis=1)

    assert ((exits < 0) | ((exits > from_block) & (exits < n_blocks))).all()
    assert (~exits[exits < 0] < n_values).all()


@pytest.mark.parametrize(
    ("depth", "shape"),
    [(6, layout.ONE_BLOCK), (7, layout.TWO_BLOCKS), (9, layout.TWO_BLOCKS), (10, layout.CHAINED)],
)
def test_the_depth_decides_the_shape(make_tree, depth, shape):
    _, header = built(make_tree, depth=depth, categorical=False)

    assert shape == header[layout.SHAPE]


def test_a_lane_is_no_other_nodes():
    from fraudsdk.model.blocks import _lanes

    lanes = np.concatenate([_lanes(depth) for depth in range(layout.BLOCK_DEPTH)])

    assert 63 == np.unique(lanes).size == lanes.size
    assert lanes.max() < layout.REGISTER
