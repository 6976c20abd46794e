"""Block tables stay within themselves, whatever forest they are made of."""

from __future__ import annotations

import numpy as np
import pytest

from fraudsdk.errors import ConfigurationError
from fraudsdk.model import block_layout as layout
from fraudsdk.model import layout as forest_layout
from fraudsdk.model.blocks import build_blocks
from fraudsdk.model.forest import Tree, build_tables, check_tables


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


@pytest.mark.parametrize("depth", [1, 6, 8, 13])
def test_the_decisions_of_blocks_are_bytes_of_their_own_after_the_columns_of_a_row(make_tree, depth):
    blocks, header = built(make_tree, depth=depth, categorical=True)
    sets = sets_of(blocks, header)
    n_bytes = [-(-int(lanes).bit_count() // 8) for lanes in sets[:, layout.SET_LANES].view(np.uint64)]
    begins = np.repeat(sets[:, layout.SET_PLACE], n_bytes)
    columns = layout.COLUMNS_PER_PAIR * header[layout.N_PAIRS]
    end = columns + layout.REGISTER * header[layout.N_DECISION_REGISTERS]

    taken = np.concatenate([begin + np.arange(n) for begin, n in zip(sets[:, layout.SET_PLACE], n_bytes, strict=True)])

    assert np.unique(taken).size == taken.size > 0
    assert columns <= begins.min() and begins.max() + 8 <= end


def sets_of(blocks, header):
    """What blocks have besides, the blocks of roots included."""
    parts = [layout.SETS_AT]
    ends = {layout.SETS_AT: header[layout.EXITS_AT]}
    if header[layout.SHAPE] == layout.TWO_BLOCKS:
        parts.append(layout.ROOT_SETS_AT)
        ends[layout.ROOT_SETS_AT] = header[layout.TESTS_AT]
    return np.concatenate(
        [blocks[header[part] : ends[part]].view(np.int64).reshape(-1, layout.SET_WORDS) for part in parts]
    )


@pytest.mark.parametrize("n_features", [1, 3, 4, 5])
def test_categorical_features_are_a_whole_number_of_steps(n_features):
    blocks, header = of_sets([(feature, [feature]) for feature in range(n_features)])
    n = header[layout.N_CATEGORICAL]
    entries = blocks[header[layout.CATEGORICAL_AT] :][: 8 * layout.CATEGORICAL_WORDS * n].view(np.int64)
    codes = entries.reshape(n, layout.CATEGORICAL_WORDS)[:, layout.CATEGORICAL_CODES]

    assert 0 == n % layout.CATEGORICAL_PER_STEP
    assert sum(range(1, n_features + 1)) == codes.sum()


def test_a_categorical_feature_that_no_tree_tests_decides_nothing():
    # A file that says so passes every check: the second of its trees, which tests a category, is no longer counted.
    trees = [stump(0, []), stump(1, [3])]
    words = build_tables(trees, n_features=2, base_margin=np.float32(0))
    words[forest_layout.N_TREES] = 1
    check_tables(words)

    header = build_blocks(words)[: 8 * layout.HEADER_WORDS].view(np.int64)

    assert 0 == header[layout.N_CATEGORICAL] == header[layout.N_DECISION_REGISTERS]


def test_codes_that_decide_the_same_share_a_row():
    # Of 65,000 codes: those in no set, those in the first, in the second, in both, and a missing one.
    blocks, _ = of_sets([(0, [7, 64_999]), (0, [8, 64_999])])

    assert blocks.size < 4 * 65_000 + 10_000


def test_more_decisions_than_a_row_has_bytes_for_are_refused(monkeypatch):
    monkeypatch.setattr(layout, "ROW_BYTES", 128 + 64)
    fitting = [(0, [k]) for k in range(64 - 7)]

    of_sets(fitting)
    with pytest.raises(ConfigurationError, match=r"128 bytes of decisions, .*; choose the portable engine"):
        of_sets([*fitting, (0, [99])])


def test_tables_of_decisions_that_take_too_much_memory_are_refused(monkeypatch):
    monkeypatch.setattr("fraudsdk.model.blocks.MAX_BYTES", 100_000)
    rng = np.random.default_rng(1)

    with pytest.raises(ConfigurationError, match="choose the portable engine"):
        of_sets([(0, np.flatnonzero(rng.random(3_000) < 0.5)) for _ in range(40)])


def of_sets(tests):
    """Block tables of a forest of stumps: the feature of each, and the codes that go right."""
    trees = [stump(feature, codes) for feature, codes in tests]
    n_features = 1 + max(feature for feature, _ in tests)
    blocks = build_blocks(build_tables(trees, n_features=n_features, base_margin=np.float32(0)))
    return blocks, blocks[: 8 * layout.HEADER_WORDS].view(np.int64)


def stump(feature, codes):
    """Of a set of codes; of a number without any."""
    return Tree(
        left=np.array([1, -1, -1], np.int32),
        feature=np.array([feature, 0, 0], np.int32),
        threshold=np.zeros(3, np.float32),
        value=np.array([0, 1, 2], np.float32),
        default_left=np.zeros(3, np.bool_),
        categories={0: np.array(codes, np.int32)} if len(codes) else {},
    )
