"""Tables that a kernel may walk, files that hold them, and edited ones that are refused before anything walks them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.errors import InvalidModelError
from fraudsdk.model import layout
from fraudsdk.model.engine import TableEngine, available_engines
from fraudsdk.model.forest import (
    MAGIC,
    Tree,
    build_tables,
    categories_of,
    check_tables,
    depth_of,
    read_forest,
    write_forest,
)


def nodes_at(tables):
    return int(tables[layout.NODES_AT])


def test_a_forest_survives_the_file(tables):
    assert tables.tobytes() == read_forest(write_forest(tables)).tobytes()


def test_tables_say_what_they_were_built_of(tables, trees):
    assert max(tree.depth() for tree in trees) == depth_of(tables)
    assert {5, 6} == set(categories_of(tables))


def test_a_leaf_stays_in_place_and_has_no_threshold():
    leaf = Tree(
        left=np.full(1, -1, np.int32),
        feature=np.zeros(1, np.int32),
        threshold=np.zeros(1, np.float32),
        value=np.full(1, 0.5, np.float32),
        default_left=np.zeros(1, np.bool_),
    )
    tables = build_tables([leaf], n_features=1, base_margin=np.float32(0))
    at = nodes_at(tables)

    assert 0 == tables[at + 1]
    assert np.isnan(tables[at : at + 1].view(np.float32)[0])


def edit(word, value):
    def change(tables):
        tables[word] = value

    return change


def first(part, value):
    def change(tables):
        tables[int(tables[part])] = value

    return change


def node_move(change_move):
    def change(tables):
        at = nodes_at(tables) + 1
        tables[at] = change_move(int(tables[at]))

    return change


def first_leaf_value(value):
    def change(tables):
        at = int(tables[layout.VALUES_AT])
        tables[at] = np.float32(value).view(np.int32)

    return change


def root_threshold(value):
    def change(tables):
        moves = tables[nodes_at(tables) + 1 : int(tables[layout.VALUES_AT]) : 2]
        node = int(np.flatnonzero(moves > 0)[0])  # numeric and inner
        tables[nodes_at(tables) + 2 * node] = np.float32(value).view(np.int32)

    return change


def set_offset(value):
    def change(tables):
        moves = tables[nodes_at(tables) + 1 : int(tables[layout.VALUES_AT]) : 2]
        node = int(np.flatnonzero(moves < 0)[0])  # categorical
        tables[nodes_at(tables) + 2 * node] = value

    return change


def clear_set_bits(tables):
    at = int(tables[layout.SETS_AT])
    tables[at : at + int(tables[layout.N_SET_WORDS])] = 0


EDITS = {
    "another format": (edit(layout.FORMAT, 2), "format"),
    "a billion features": (edit(layout.N_FEATURES, 10**9), "number of features"),
    "no features": (edit(layout.N_FEATURES, 0), "number of features"),
    "fewer features than nodes read": (edit(layout.N_FEATURES, 2), "feature that does not exist|categorical"),
    "a billion trees": (edit(layout.N_TREES, 10**9), "number of trees"),
    "more groups than trees need": (edit(layout.N_GROUPS, 9), "number of groups"),
    "a negative number of nodes": (edit(layout.N_NODES, -1), "number of nodes"),
    "more nodes than there are": (edit(layout.N_NODES, 100_000), "misplace|words"),
    "nodes elsewhere": (edit(layout.NODES_AT, 4), "misplace"),
    "values elsewhere": (edit(layout.VALUES_AT, 2**30), "misplace"),
    "a negative number of set words": (edit(layout.N_SET_WORDS, -5), "number of set words"),
    "a base margin of NaN": (edit(layout.BASE_MARGIN, 0x7FC00000), "base margin"),
    "a first root that is not node 0": (first(layout.ROOTS_AT, 1), "roots"),
    "a child outside its tree": (node_move(lambda move: move | 0xFFFF), "outside its tree"),
    "a root turned into a leaf": (node_move(lambda move: move & ~0xFFFF), "leaf does not stay|no parent"),
    "a child that is another's": (node_move(lambda move: move + 2), "no parent|outside"),
    "a feature far beyond the row": (node_move(lambda move: move | (layout.SLOT_MASK << 16)), "does not exist"),
    "a leaf of infinity": (first_leaf_value(np.inf), "leaf is not finite"),
    "a threshold of NaN": (root_threshold(np.nan), "threshold is not finite"),
    "a threshold of infinity": (root_threshold(np.inf), "threshold is not finite"),
    "a set beyond the sets": (set_offset(10**6), "outside the sets"),
    "a set before the sets": (set_offset(-1), "outside the sets"),
    "sets without their last bits": (clear_set_bits, "last two bits"),
    "too few steps for a tree": (first(layout.TREE_STEPS_AT, 1), "steps"),
    "too many steps for a group": (first(layout.GROUP_STEPS_AT, 60), "group steps"),
    "a billion categories": (lambda t: edit(int(t[layout.CATEGORICAL_AT]) + 1, 10**9)(t), "number of categories"),
    "a categorical feature below zero": (first(layout.CATEGORICAL_AT, -1), "ascend|not categorical"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_tables_are_refused_before_a_kernel_walks_them(name, tables):
    change, reason = EDITS[name]
    change(tables)

    with pytest.raises(InvalidModelError, match=reason):
        check_tables(tables)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "not a forest file"),
        (lambda data: b"PK\x03\x04" + data, "not a forest file"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[: len(MAGIC) + 8], "inside their header"),
        (lambda data: data[:-400], "must have"),
        (lambda data: data + b"\0" * 4, "must have"),
    ],
)
def test_a_damaged_file_is_refused(tables, damage, reason):
    with pytest.raises(InvalidModelError, match=reason):
        read_forest(damage(write_forest(tables)))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_file_with_flipped_bits_is_refused_or_is_still_safe_to_walk(make_tree, data):
    rng = np.random.default_rng(5)
    forest = bytearray(
        write_forest(build_tables([make_tree(rng, depth=4) for _ in range(3)], n_features=7, base_margin=np.float32(0)))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        forest[data.draw(st.integers(0, len(forest) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        tables = read_forest(bytes(forest))
    except InvalidModelError:
        return
    row = np.full(int(tables[layout.N_FEATURES]), 2.0, np.float32)

    # A sum of a few finite leaves, whatever they are: no wild read, no walk without end, and the same for every engine.
    margins = {TableEngine(tables, name).margin(row) for name in available_engines()}
    assert 1 == len(margins)
    assert not np.isnan(margins.pop())


def test_too_many_categories_are_refused(make_tree):
    tree = make_tree(np.random.default_rng(1), depth=2)
    wide = Tree(
        left=tree.left,
        feature=tree.feature,
        threshold=tree.threshold,
        value=tree.value,
        default_left=tree.default_left,
        categories={0: np.array([layout.MAX_CATEGORIES], np.int32)},
    )

    with pytest.raises(InvalidModelError, match="categories"):
        build_tables([wide], n_features=7, base_margin=np.float32(0))
