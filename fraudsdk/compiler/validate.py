"""
The border for model files: XGBoost JSON or UBJSON bytes -> `ValidatedModel`, or a refusal that says why.

It runs before XGBoost and Treelite see a byte, because hostile files crash the one and hang the other: cyclic trees,
children and features out of range, a NaN base score, lengths that disagree.  Nothing is repaired and nothing is guessed;
a field that is not known is refused, since XGBoost might act on it.

Accepted: boosters ``gbtree`` with one output and scalar leaves, objectives `OBJECTIVES`, numeric splits, and categorical
splits on integer codes, as XGBoost 1.3 to 3.x writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from fraudsdk.compiler.documents import parse_document
from fraudsdk.compiler.trees import breadth_first_order, lay_out
from fraudsdk.errors import InvalidModelError
from fraudsdk.model import layout
from fraudsdk.model.forest import MAX_NODES, MAX_TREES, Tree

# Objectives whose margin is a log-odds.
OBJECTIVES: Final = ("binary:logistic", "binary:logitraw", "reg:logistic")
# Those whose base score is a probability; logitraw's is a margin already.
PROBABILITY_BASE: Final = ("binary:logistic", "reg:logistic")
FEATURE_TYPES: Final = ("q", "int", "float", "i", "c")
MAX_FEATURES: Final = layout.MAX_FEATURES

# Word characters of any script and a little punctuation.  What is missing could break out of a log line, an HTML page,
# a shell or a dump: quotes, angle and square brackets, braces, backslash, $, &, ; and control characters.
_FEATURE_NAME: Final = re.compile(r"[\w.:/@+=%#(), \-]{1,128}")
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,10}")
_BASE_SCORE: Final = re.compile(r"\[?(-?[0-9.]{1,40}(?:[eE][+-]?[0-9]{1,4})?)\]?")

# XGBoost's marks for "the root has no parent" and "this node was pruned".
_NO_PARENT: Final = 2**31 - 1
_DELETED: Final = 2**31 - 1

_TREE_FIELDS: Final = frozenset(
    (
        "base_weights categories categories_nodes categories_segments categories_sizes default_left id left_children "
        "loss_changes parents right_children split_conditions split_indices split_type sum_hessian tree_param"
    ).split()
)


@dataclass(frozen=True, slots=True)
class ValidatedTree:
    """
    One tree as the file has it, node numbers and all.

    Attributes
    ----------
    left, right, parent, split_index : int32[n_nodes]
        Children are -1 at a leaf.
    split_condition : float32[n_nodes]
        Threshold of an inner node, value of a leaf.
    default_left : bool[n_nodes]
        Where a missing value goes.
    categories : mapping of int to int32[k]
        Categorical nodes -> the categories that go right.
    sum_hessian, base_weight : float32[n_nodes]
        What explanations weigh nodes by.
    order : int64[n_reachable]
        Nodes breadth first; pruned nodes are not among them.
    """

    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    parent: npt.NDArray[np.int32]
    split_index: npt.NDArray[np.int32]
    split_condition: npt.NDArray[np.float32]
    default_left: npt.NDArray[np.bool_]
    categories: Mapping[int, npt.NDArray[np.int32]]
    sum_hessian: npt.NDArray[np.float32]
    base_weight: npt.NDArray[np.float32]
    order: npt.NDArray[np.int64]

    def as_tree(self) -> Tree:
        """The same tree, breadth first."""
        return lay_out(
            self.order,
            left=self.left,
            feature=self.split_index,
            threshold=self.split_condition,
            leaf_value=self.split_condition,
            default_left=self.default_left,
            categories=self.categories,
        )


@dataclass(frozen=True, slots=True)
class ValidatedModel:
    """
    A model file that was found to be one.

    Attributes
    ----------
    trees : tuple of ValidatedTree
        In boosting order.
    round_ends : int64[n_rounds + 1]
        Boosting round ``k`` added the trees from ``round_ends[k]`` to ``round_ends[k + 1]``.
    objective : str
        One of `OBJECTIVES`.
    base_score : float32
        As in the file: a probability for the logistic objectives, else a margin.
    n_features : int
        Length of a row.
    feature_names, feature_types : tuple of str
        Empty where the file has none.
    xgboost_version : tuple of int
        Version that wrote the file.
    attributes : mapping of str to str
        What the trainer noted, such as ``best_iteration``.
    """

    trees: tuple[ValidatedTree, ...]
    round_ends: npt.NDArray[np.int64]
    objective: str
    base_score: np.float32
    n_features: int
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    xgboost_version: tuple[int, int, int]
    attributes: Mapping[str, str]


def validate_model(data: bytes) -> ValidatedModel:
    """
    Check a model file.

    Parameters
    ----------
    data : bytes
        Contents of a file that ``Booster.save_model`` wrote as ``.json`` or ``.ubj``.

    Raises
    ------
    InvalidModelError
        Names the tree, node and field that is wrong, and what to do.
    """
    document = parse_document(data)
    _known_fields(document, "the model file", {"learner", "version"})
    version = _version(_member(document, "version", "the model file", list))
    learner = _member(document, "learner", "the model file", dict)
    _known_fields(
        learner,
        "learner",
        {"attributes", "feature_names", "feature_types", "gradient_booster", "learner_model_param", "objective"},
    )
    objective = _objective(_member(learner, "objective", "learner", dict))
    parameters = _member(learner, "learner_model_param", "learner", dict)
    _known_fields(
        parameters,
        "learner_model_param",
        {"base_score", "boost_from_average", "num_class", "num_feature", "num_target"},
    )
    n_features = _whole_number(parameters, "num_feature", "learner_model_param", 1, MAX_FEATURES)
    _single_output(parameters)
    names = _names(learner.get("feature_names", []), n_features)
    types = _types(learner.get("feature_types", []), n_features)
    model = _gbtree(_member(learner, "gradient_booster", "learner", dict))
    trees = _trees(model, n_features)
    _check_feature_use(trees, types)
    return ValidatedModel(
        trees=trees,
        round_ends=_round_ends(model, len(trees)),
        objective=objective,
        base_score=_base_score(_member(parameters, "base_score", "learner_model_param", str), objective),
        n_features=n_features,
        feature_names=names,
        feature_types=types,
        xgboost_version=version,
        attributes=_attributes(learner.get("attributes", {})),
    )


def check_feature_names(names: tuple[str, ...]) -> None:
    """
    Refuse names that are repeated, empty, long, or could break out of where they are printed.

    Raises
    ------
    InvalidModelError
        Shows the first bad name, escaped.
    """
    for index, name in enumerate(names):
        if not _FEATURE_NAME.fullmatch(name) or not name.isprintable():
            _refuse(
                f"feature name {index} must be 1 to 128 letters, digits, spaces or any of _.:/@+-=%#(), and was {name[:80]!r}",
                "rename the feature before training",
            )
    if len(set(names)) != len(names):
        repeated = next(name for index, name in enumerate(names) if name in names[:index])
        _refuse(f"feature name {repeated!r} occurs twice", "give every feature its own name")


def _refuse(problem: str, remedy: str = "save the model again with Booster.save_model") -> NoReturn:
    raise InvalidModelError(f"{problem}; {remedy}")


def _known_fields(value: Mapping[str, Any], where: str, known: set[str] | frozenset[str]) -> None:
    unknown = sorted(value.keys() - known)
    if unknown:
        _refuse(f"{where} has the unknown field {unknown[0][:80]!r}; fields known are {', '.join(sorted(known))}")


def _member(value: Mapping[str, Any], name: str, where: str, expected: type) -> Any:
    if name not in value:
        _refuse(f"{where} has no field {name!r}")
    member = value[name]
    if type(member) is not expected:  # not isinstance: True is an int to Python, and must not be one here
        _refuse(f"{where}: field {name!r} must be {expected.__name__}, was {type(member).__name__}")
    return member


def _whole_number(value: Mapping[str, Any], name: str, where: str, low: int, high: int) -> int:
    text = _member(value, name, where, str)
    if not _WHOLE_NUMBER.fullmatch(text):
        _refuse(f"{where}: {name} must be a whole number, was {text[:40]!r}")
    number = int(text)
    if not low <= number <= high:
        _refuse(f"{where}: {name} must be {low} to {high:,}, was {number:,}")
    return number


def _version(value: list[Any]) -> tuple[int, int, int]:
    if len(value) != 3 or any(type(part) is not int or part < 0 for part in value) or not 1 <= value[0] <= 3:
        _refuse(f"version must be three whole numbers, 1.x to 3.x, was {str(value[:4])[:80]}")
    return value[0], value[1], value[2]


def _objective(value: Mapping[str, Any]) -> str:
    name: str = _member(value, "name", "objective", str)
    if name not in OBJECTIVES:
        _refuse(f"objective must be one of {', '.join(OBJECTIVES)}, was {name[:80]!r}", "train a binary model")
    _known_fields(value, "objective", {"name", "reg_loss_param"})
    if "reg_loss_param" in value:
        parameters = _member(value, "reg_loss_param", "objective", dict)
        _known_fields(parameters, "reg_loss_param", {"scale_pos_weight"})
        if "scale_pos_weight" in parameters:
            _finite_text(_member(parameters, "scale_pos_weight", "reg_loss_param", str), "scale_pos_weight")
    return name


def _finite_text(text: str, name: str) -> float:
    match = _BASE_SCORE.fullmatch(text)
    if match is None:
        _refuse(f"{name} must be one finite number, was {text[:80]!r}")
    try:
        number = float(match.group(1))
    except ValueError:
        _refuse(f"{name} must be one finite number, was {text[:80]!r}")
    if not math.isfinite(number):
        _refuse(f"{name} must be finite, was {text[:80]!r}")
    return number


def _base_score(text: str, objective: str) -> np.float32:
    # XGBoost 3 writes "[5E-1]", older versions "5E-1".
    number = _finite_text(text, "base_score")
    with np.errstate(over="ignore", under="ignore"):
        score = np.float32(number)
    if not np.isfinite(score):
        _refuse(f"base_score must fit a float32, was {text[:80]!r}")
    if objective in PROBABILITY_BASE and not 0 < score < 1:
        _refuse(f"base_score must be a probability between 0 and 1, was {text[:80]!r}", "set base_score when training")
    return score


def _single_output(parameters: Mapping[str, Any]) -> None:
    if "num_target" in parameters:
        _whole_number(parameters, "num_target", "learner_model_param (a model has one target)", 1, 1)
    _whole_number(parameters, "num_class", "learner_model_param (a binary model has no classes)", 0, 1)
    if "boost_from_average" in parameters:
        _whole_number(parameters, "boost_from_average", "learner_model_param", 0, 1)


def _texts(value: Any, what: str, n_features: int) -> tuple[str, ...]:
    if type(value) is not list or any(type(text) is not str for text in value):
        _refuse(f"{what} must be a list of texts")
    if len(value) not in (0, n_features):
        _refuse(f"{what} must have {n_features} entries or none, had {len(value)}")
    return tuple(value)


def _names(value: Any, n_features: int) -> tuple[str, ...]:
    names = _texts(value, "feature_names", n_features)
    check_feature_names(names)
    return names


def _types(value: Any, n_features: int) -> tuple[str, ...]:
    types = _texts(value, "feature_types", n_features)
    for index, kind in enumerate(types):
        if kind not in FEATURE_TYPES:
            _refuse(f"feature_types: entry {index} must be one of {', '.join(FEATURE_TYPES)}, was {kind[:40]!r}")
    return types


def _attributes(value: Any) -> Mapping[str, str]:
    if type(value) is not dict or any(type(text) is not str for text in value.values()):
        _refuse("attributes must be an object of texts")
    return dict(value)


def _gbtree(booster: Mapping[str, Any]) -> Mapping[str, Any]:
    name = _member(booster, "name", "gradient_booster", str)
    if name == "dart":
        _refuse("booster 'dart' rescales trees when it predicts and cannot be compiled", "train with booster='gbtree'")
    if name != "gbtree":
        _refuse(f"booster must be 'gbtree', was {name[:40]!r}", "train with booster='gbtree'")
    _known_fields(booster, "gradient_booster", {"model", "name"})
    model: Mapping[str, Any] = _member(booster, "model", "gradient_booster", dict)
    _known_fields(model, "gbtree", {"cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees"})
    _no_category_values(model.get("cats", {}))
    return model


def _no_category_values(cats: Any) -> None:
    if type(cats) is not dict:
        _refuse("cats must be an object")
    _known_fields(cats, "cats", {"enc", "feature_segments", "sorted_idx"})
    if any(len(part) if isinstance(part, list | np.ndarray) else True for part in cats.values()):
        _refuse(
            "the model carries category values (cats), as it was trained on a data frame of dtype category",
            "train on integer codes: the SDK owns category codes",
        )


def _trees(model: Mapping[str, Any], n_features: int) -> tuple[ValidatedTree, ...]:
    parameters = _member(model, "gbtree_model_param", "gbtree", dict)
    _known_fields(parameters, "gbtree_model_param", {"num_parallel_tree", "num_trees", "size_leaf_vector"})
    n_trees = _whole_number(parameters, "num_trees", "gbtree_model_param", 1, MAX_TREES)
    if "num_parallel_tree" in parameters:
        _whole_number(parameters, "num_parallel_tree", "gbtree_model_param", 1, MAX_TREES)
    if "size_leaf_vector" in parameters:
        _whole_number(parameters, "size_leaf_vector", "gbtree_model_param (leaves are scalars)", 0, 1)
    documents = _member(model, "trees", "gbtree", list)
    if len(documents) != n_trees:
        _refuse(f"gbtree: num_trees is {n_trees}, but {len(documents)} trees follow")
    info = _integers(model, "tree_info", "gbtree", n_trees)
    if (info != 0).any():
        _refuse("gbtree: tree_info assigns trees to several outputs", "train a model with one output")
    trees = []
    n_nodes = 0
    for index, document in enumerate(documents):
        trees.append(_tree(document, index, n_features))
        n_nodes += trees[-1].left.size
        if n_nodes > MAX_NODES:
            _refuse(f"the forest has over {MAX_NODES:,} nodes", "train fewer or smaller trees")
    return tuple(trees)


def _round_ends(model: Mapping[str, Any], n_trees: int) -> npt.NDArray[np.int64]:
    if "iteration_indptr" not in model:
        parameters = _member(model, "gbtree_model_param", "gbtree", dict)
        per_round = 1
        if "num_parallel_tree" in parameters:
            per_round = _whole_number(parameters, "num_parallel_tree", "gbtree_model_param", 1, MAX_TREES)
        return np.append(np.arange(0, n_trees, per_round), n_trees)
    ends = _integers(model, "iteration_indptr", "gbtree", None)
    if ends.size < 2 or ends[0] != 0 or ends[-1] != n_trees or (np.diff(ends) < 0).any():
        _refuse(f"gbtree: iteration_indptr must ascend from 0 to {n_trees}")
    return ends.astype(np.int64)


def _tree(value: Any, index: int, n_features: int) -> ValidatedTree:
    where = f"tree {index}"
    if type(value) is not dict:
        _refuse(f"{where} must be an object, was {type(value).__name__}")
    if "leaf_weights" in value:
        _refuse(f"{where} has vector leaves (leaf_weights)", "train with multi_strategy='one_output_per_tree'")
    _known_fields(value, where, _TREE_FIELDS)
    identity = _member(value, "id", where, int)
    if identity != index:
        _refuse(f"{where}: id must be {index}, was {identity}")
    parameters = _member(value, "tree_param", where, dict)
    _known_fields(parameters, f"{where}, tree_param", {"num_deleted", "num_feature", "num_nodes", "size_leaf_vector"})
    n_nodes = _whole_number(parameters, "num_nodes", where, 1, layout.MAX_NODES_PER_TREE)
    n_deleted = _whole_number(parameters, "num_deleted", where, 0, n_nodes - 1)
    _whole_number(parameters, "num_feature", where, n_features, n_features)
    _whole_number(parameters, "size_leaf_vector", f"{where} (leaves are scalars)", 0, 1)
    left = _integers(value, "left_children", where, n_nodes)
    right = _integers(value, "right_children", where, n_nodes)
    order = breadth_first_order(left, right, where=where)
    parent = _integers(value, "parents", where, n_nodes)
    _check_parents(order, left, right, parent, where)
    split_index = _integers(value, "split_indices", where, n_nodes)
    _check_split_indices(order, split_index, n_features, where)
    default_left = _flags(value, "default_left", where, n_nodes)
    _check_deleted(order, n_deleted, left, split_index, default_left, where)
    _finite(value, "loss_changes", where, n_nodes)
    return ValidatedTree(
        left=left,
        right=right,
        parent=parent,
        split_index=split_index,
        split_condition=_finite(value, "split_conditions", where, n_nodes),
        default_left=default_left,
        categories=_categories(value, where, left),
        sum_hessian=_finite(value, "sum_hessian", where, n_nodes),
        base_weight=_finite(value, "base_weights", where, n_nodes),
        order=order,
    )


def _check_parents(
    order: npt.NDArray[np.int64],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    parent: npt.NDArray[np.int32],
    where: str,
) -> None:
    if parent[0] != _NO_PARENT:
        _refuse(f"{where}, node 0: the root's parent must be {_NO_PARENT}, was {parent[0]}")
    inner = order[left[order] != -1]
    for children in (left[inner], right[inner]):
        wrong = parent[children] != inner
        if wrong.any():
            k = int(wrong.argmax())
            _refuse(f"{where}, node {children[k]}: its parent must be {inner[k]}, was {parent[children[k]]}")


def _check_split_indices(
    order: npt.NDArray[np.int64], split_index: npt.NDArray[np.int32], n_features: int, where: str
) -> None:
    wrong = (split_index[order] < 0) | (split_index[order] >= n_features)
    if wrong.any():
        node = order[int(wrong.argmax())]
        _refuse(f"{where}, node {node}: split index must be 0 to {n_features - 1}, was {split_index[node]}")


def _check_deleted(
    order: npt.NDArray[np.int64],
    n_deleted: int,
    left: npt.NDArray[np.int32],
    split_index: npt.NDArray[np.int32],
    default_left: npt.NDArray[np.bool_],
    where: str,
) -> None:
    """Nodes that the root does not reach must be those that pruning left behind, marked as XGBoost marks them."""
    unreached = np.ones(left.size, np.bool_)
    unreached[order] = False
    orphans = np.flatnonzero(unreached)
    unmarked = orphans[~((split_index[orphans] == _DELETED) & default_left[orphans] & (left[orphans] == -1))]
    if unmarked.size:
        _refuse(f"{where}, node {unmarked[0]}: the root does not reach it, and it is not marked as pruned")
    if orphans.size != n_deleted:
        _refuse(f"{where}: num_deleted is {n_deleted}, but {orphans.size} nodes are pruned")


def _categories(
    value: Mapping[str, Any], where: str, left: npt.NDArray[np.int32]
) -> Mapping[int, npt.NDArray[np.int32]]:
    categorical = _flags(value, "split_type", where, left.size)
    nodes = _integers(value, "categories_nodes", where, None)
    begins = _integers(value, "categories_segments", where, nodes.size)
    sizes = _integers(value, "categories_sizes", where, nodes.size)
    members = _integers(value, "categories", where, None)
    if not np.array_equal(nodes, np.flatnonzero(categorical)):
        _refuse(f"{where}: categories_nodes must list the nodes whose split_type is 1, ascending")
    if (sizes < 1).any() or not np.array_equal(begins, np.cumsum(sizes, dtype=np.int64) - sizes):
        _refuse(f"{where}: categories_segments and categories_sizes must cut categories without gap or overlap")
    if int(sizes.sum(dtype=np.int64)) != members.size:
        _refuse(
            f"{where}: categories_sizes add up to {sizes.sum(dtype=np.int64)}, but {members.size} categories follow"
        )
    result = {}
    for node, begin, size in zip(nodes.tolist(), begins.tolist(), sizes.tolist(), strict=True):
        own = members[begin : begin + size]
        if left[node] == -1:
            _refuse(f"{where}, node {node}: a leaf has categories")
        if own[0] < 0 or own[-1] >= layout.MAX_CATEGORIES or (np.diff(own) <= 0).any():
            _refuse(f"{where}, node {node}: categories must ascend within 0 to {layout.MAX_CATEGORIES - 1}")
        result[node] = own
    return result


def _check_feature_use(trees: tuple[ValidatedTree, ...], types: tuple[str, ...]) -> None:
    """A feature is numeric everywhere or categorical everywhere, and as its declared type says."""
    use: dict[int, bool] = {index: kind == "c" for index, kind in enumerate(types)}
    for index, tree in enumerate(trees):
        inner = tree.order[tree.left[tree.order] != -1]
        categorical = np.isin(inner, list(tree.categories))
        for split in (False, True):
            for feature in np.unique(tree.split_index[inner[categorical == split]]).tolist():
                if use.setdefault(feature, split) != split:
                    kinds = {False: "numeric", True: "categorical"}
                    _refuse(f"tree {index}: a {kinds[split]} split on feature {feature}, which is {kinds[not split]}")


def _integers(value: Mapping[str, Any], name: str, where: str, length: int | None) -> npt.NDArray[np.int32]:
    raw = _array(value, name, where, length)
    if isinstance(raw, np.ndarray):
        if raw.dtype.kind not in "iu":
            _refuse(f"{where}: {name} must hold whole numbers, held {raw.dtype}")
        low, high = (int(raw.min()), int(raw.max())) if raw.size else (0, 0)
    else:
        if not set(map(type, raw)) <= {int}:
            _refuse(f"{where}: {name} must hold whole numbers only")
        low, high = min(raw, default=0), max(raw, default=0)
    if low < -(2**31) or high >= 2**31:
        _refuse(f"{where}: {name} must hold numbers of 32 bits, held {low if low < -(2**31) else high}")
    return np.array(raw, np.int32)


def _finite(value: Mapping[str, Any], name: str, where: str, length: int) -> npt.NDArray[np.float32]:
    raw = _array(value, name, where, length)
    if isinstance(raw, np.ndarray):
        if raw.dtype.kind != "f":
            _refuse(f"{where}: {name} must hold numbers with a fraction, held {raw.dtype}")
    elif not set(map(type, raw)) <= {int, float} or any(type(x) is int and abs(x) > 2**64 for x in raw):
        _refuse(f"{where}: {name} must hold numbers only")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        numbers = np.array(raw, np.float64).astype(np.float32)
    bad = ~np.isfinite(numbers)
    if bad.any():
        _refuse(f"{where}, node {int(bad.argmax())}: {name} must be finite, was {raw[int(bad.argmax())]}")
    return numbers


def _flags(value: Mapping[str, Any], name: str, where: str, length: int) -> npt.NDArray[np.bool_]:
    raw = _array(value, name, where, length)
    # XGBoost 1.x writes true and false, later versions 1 and 0.
    if isinstance(raw, list) and set(map(type, raw)) == {bool}:
        return np.array(raw, np.bool_)
    numbers = _integers(value, name, where, length)
    if ((numbers != 0) & (numbers != 1)).any():
        _refuse(f"{where}: {name} must hold 0 and 1 only")
    return numbers.astype(np.bool_)


def _array(value: Mapping[str, Any], name: str, where: str, length: int | None) -> Any:
    if name not in value:
        _refuse(f"{where} has no field {name!r}")
    raw = value[name]
    if not isinstance(raw, list | np.ndarray):
        _refuse(f"{where}: field {name!r} must be a list, was {type(raw).__name__}")
    if length is not None and len(raw) != length:
        _refuse(f"{where}: {name} must have {length:,} entries, had {len(raw):,}")
    return raw
