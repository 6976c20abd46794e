"""
Treelite as the front end: the trees that are compiled are the ones it reads.

It reads only what the validator passed and XGBoost wrote again, and its trees must equal the validator's, node by node
and bit by bit: three readers of one file that agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fraudsdk.compiler.trees import breadth_first_order, first_difference, lay_out
from fraudsdk.compiler.validate import ValidatedModel
from fraudsdk.compiler.vendors import vendor
from fraudsdk.errors import InvalidModelError
from fraudsdk.model.forest import Tree

# Treelite's codes: node_type 2 is a categorical test; cmp 2 is "less than".
_CATEGORICAL = 2
_LESS_THAN = 2


def load_treelite(path: Path) -> Any:
    """A Treelite model of a ``.ubj`` file that XGBoost wrote."""
    treelite = vendor("treelite")
    try:
        return treelite.frontend.load_xgboost_model(str(path), format_choice="ubjson")
    except treelite.TreeliteError as error:
        raise InvalidModelError(f"Treelite cannot read the model: {error}; train with a supported XGBoost") from error


def trees_of(treelite_model: Any, validated: ValidatedModel) -> list[Tree]:
    """
    Trees as Treelite has them.

    Raises
    ------
    InvalidModelError
        They differ from what the validator read.
    """
    trees = [
        _tree(treelite_model.get_tree_accessor(index), f"tree {index} as Treelite has it")
        for index in range(treelite_model.num_tree)
    ]
    difference = first_difference(trees, [tree.as_tree() for tree in validated.trees])
    if difference is not None:
        raise InvalidModelError(
            f"Treelite and the validator read different models: {difference}; please report the file"
        )
    return trees


def _tree(accessor: Any, where: str) -> Tree:
    field = accessor.get_field
    left, right = field("cleft"), field("cright")
    inner = left != -1
    categorical = field("node_type") == _CATEGORICAL
    begins, ends, members = field("category_list_begin"), field("category_list_end"), field("category_list")
    if (field("cmp")[inner & ~categorical] != _LESS_THAN).any() or (
        field("category_list_right_child")[categorical] != 1
    ).any():
        raise InvalidModelError(f"{where} has tests that XGBoost does not make; please report the file")
    return lay_out(
        breadth_first_order(left, right, where=where),
        left=left,
        feature=field("split_index"),
        threshold=field("threshold").astype(np.float32),
        leaf_value=field("leaf_value").astype(np.float32),
        default_left=field("default_left") != 0,
        categories={
            int(node): members[int(begins[node]) : int(ends[node])].astype(np.int32)
            for node in np.flatnonzero(categorical)
        },
    )
