"""What the border for model files accepts, and the hostile files that it refuses, each with a reason and at once."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraudsdk.compiler.trees import first_difference
from fraudsdk.compiler.validate import ValidatedModel, validate_model
from fraudsdk.errors import InvalidModelError

Document = dict[str, Any]
REFUSED_WITHIN_S = 5.0


def trees(document: Document) -> list[dict[str, Any]]:
    return document["learner"]["gradient_booster"]["model"]["trees"]


def tree(document: Document) -> dict[str, Any]:
    """A tree with a root, two inner children and leaves below."""
    return trees(document)[0]


def gbtree(document: Document) -> dict[str, Any]:
    return document["learner"]["gradient_booster"]["model"]


def parameters(document: Document) -> dict[str, Any]:
    return document["learner"]["learner_model_param"]


def first_leaf(document: Document) -> int:
    return tree(document)["left_children"].index(-1)


# --- accepted --------------------------------------------------------------------------------------------------------


def test_json_and_ubjson_of_one_model_are_the_same_model(json_model, ubj_model):
    a, b = validate_model(json_model), validate_model(ubj_model)

    assert first_difference([t.as_tree() for t in a.trees], [t.as_tree() for t in b.trees]) is None
    assert (a.base_score, a.objective, a.feature_names, a.feature_types) == (
        b.base_score,
        b.objective,
        b.feature_names,
        b.feature_types,
    )


def test_what_the_model_says_of_itself_is_kept(json_model):
    model = validate_model(json_model)

    assert ("amount", "age_days", "speed", "ratio", "channel", "mcc") == model.feature_names
    assert "binary:logistic" == model.objective
    assert 6 == model.n_features
    assert 3 == len(model.trees)
    assert any(t.categories for t in model.trees)


@pytest.mark.parametrize("text", ["[2.5E-1]", "2.5E-1", "0.25"])
def test_the_base_score_is_read_in_the_spelling_of_every_xgboost(document, write, text):
    parameters(document)["base_score"] = text

    assert np.float32(0.25) == validate_model(write(document)).base_score


def test_fields_that_older_versions_do_not_write_may_be_absent(document, write):
    del gbtree(document)["cats"], gbtree(document)["iteration_indptr"]
    del parameters(document)["num_target"], parameters(document)["boost_from_average"]
    document["version"] = [1, 6, 0]

    assert 3 == len(validate_model(write(document)).trees)


def test_default_directions_may_be_booleans_as_in_old_versions(document, write, json_model):
    for t in trees(document):
        t["default_left"] = [bool(flag) for flag in t["default_left"]]

    assert _same(validate_model(write(document)), validate_model(json_model))


def test_nodes_that_pruning_left_behind_are_dropped(pruned):
    # The exact method keeps pruned nodes in the file, marked; hist does not.
    model = validate_model(pruned(gamma=5.0))
    sizes = [(t.left.size, t.as_tree().left.size) for t in model.trees]

    assert any(1 < kept < written for written, kept in sizes)


def test_a_tree_that_pruning_cut_back_to_its_root_is_one_leaf(pruned):
    model = validate_model(pruned(gamma=1e9))

    assert [1, 1] == [t.as_tree().left.size for t in model.trees]
    assert all(t.left.size > 1 for t in model.trees)


@pytest.fixture(scope="module")
def pruned():
    def train(gamma: float) -> bytes:
        xgboost = pytest.importorskip("xgboost")
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(500, 3)).astype(np.float32)
        data = xgboost.DMatrix(rows, (rows[:, 0] + rng.normal(size=500) > 0).astype(np.float32))
        parameters = {"objective": "binary:logistic", "gamma": gamma, "tree_method": "exact", "max_depth": 5}
        return bytes(xgboost.train(parameters, data, 2).save_raw("ubj"))

    return train


# --- refused: hostile documents --------------------------------------------------------------------------------------


def set_tree(field: str, index: int, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        tree(document)[field][index] = value

    return change


def set_parameter(field: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        parameters(document)[field] = value

    return change


def set_tree_parameter(field: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        tree(document)["tree_param"][field] = value

    return change


def set_learner(field: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["learner"][field] = value

    return change


def cycle(document: Document) -> None:
    # Node 3's child becomes node 1, its own parent.
    tree(document)["left_children"][3], tree(document)["right_children"][3] = 1, 2


def two_parents(document: Document) -> None:
    tree(document)["left_children"][2] = tree(document)["left_children"][1]


def orphan(document: Document) -> None:
    # Cut off both children of node 1: they stay in the file with nobody above them.
    tree(document)["left_children"][1] = tree(document)["right_children"][1] = -1


def short_array(field: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        tree(document)[field].pop()

    return change


def long_array(field: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        tree(document)[field].append(0)

    return change


def drop(field: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        del tree(document)[field]

    return change


def leaf_value(value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        tree(document)["split_conditions"][first_leaf(document)] = value

    return change


def duplicate_ids(document: Document) -> None:
    trees(document)[1]["id"] = 0


def chain_of_100(document: Document) -> None:
    # 100 inner nodes, each with a leaf on its left: 201 nodes, 100 deep.
    n = 201
    inner = [2 * i for i in range(100)]
    t = tree(document)
    t["left_children"] = [-1] * n
    t["right_children"] = [-1] * n
    t["parents"] = [2**31 - 1] + [0] * (n - 1)
    for node in inner:
        t["left_children"][node], t["right_children"][node] = node + 1, node + 2
        t["parents"][node + 1] = t["parents"][node + 2] = node
    for field in ("base_weights", "loss_changes", "split_conditions", "sum_hessian"):
        t[field] = [0.5] * n
    for field in ("default_left", "split_indices", "split_type"):
        t[field] = [0] * n
    t["categories"] = t["categories_nodes"] = t["categories_segments"] = t["categories_sizes"] = []
    t["tree_param"]["num_nodes"] = str(n)


def dart(document: Document) -> None:
    booster = document["learner"]["gradient_booster"]
    document["learner"]["gradient_booster"] = {"name": "dart", "gbtree": booster, "weight_drop": [1.0, 1.0, 1.0]}


def several_outputs(document: Document) -> None:
    gbtree(document)["tree_info"][1] = 1


def vector_leaves(document: Document) -> None:
    tree(document)["leaf_weights"] = [0.1] * 4


def category_values(document: Document) -> None:
    gbtree(document)["cats"] = {
        "enc": [{"offsets": [0, 1], "values": [120]}],
        "feature_segments": [0, 1],
        "sorted_idx": [0],
    }


def categories_of_a_leaf(document: Document) -> None:
    t = tree(document)
    t["split_type"][first_leaf(document)] = 1
    t["categories_nodes"] = [i for i, kind in enumerate(t["split_type"]) if kind]
    t["categories_sizes"] = [1] * len(t["categories_nodes"])
    t["categories_segments"] = list(range(len(t["categories_nodes"])))
    t["categories"] = [0] * len(t["categories_nodes"])


def huge_category(document: Document) -> None:
    with_sets(document)["categories"][-1] = 2**30


def negative_category(document: Document) -> None:
    with_sets(document)["categories"][0] = -1


def overlapping_sets(document: Document) -> None:
    t = with_sets(document)
    t["categories_sizes"][0] += 1


def unannounced_sets(document: Document) -> None:
    with_sets(document)["categories_nodes"] = []


def with_sets(document: Document) -> dict[str, Any]:
    return next(t for t in trees(document) if t["categories"])


def numeric_split_on_a_category(document: Document) -> None:
    t = with_sets(document)
    for field in ("categories", "categories_nodes", "categories_segments", "categories_sizes"):
        t[field] = []
    t["split_type"] = [0] * len(t["split_type"])


MUTANTS: dict[str, tuple[Callable[[Document], None], str]] = {
    "a cycle": (cycle, "second parent"),
    "a node that is its own child": (set_tree("left_children", 1, 1), "second parent"),
    "a child that is the root": (set_tree("right_children", 1, 0), "second parent"),
    "a node with two parents": (two_parents, "second parent"),
    "both children the same": (
        lambda d: set_tree("right_children", 1, tree(d)["left_children"][1])(d),
        "second parent",
    ),
    "nodes that nobody reaches": (orphan, "does not reach it"),
    "a child beyond the tree": (set_tree("left_children", 1, 10_000), "does not exist"),
    "a child far beyond the tree": (set_tree("left_children", 1, 2**31 - 1), "does not exist"),
    "a negative child": (set_tree("left_children", 1, -7), "does not exist"),
    "half a split": (set_tree("left_children", 1, -1), "a split needs both"),
    "a parent that is not": (set_tree("parents", 1, 2), "its parent must be 0"),
    "a root with a parent": (set_tree("parents", 0, 1), "root's parent"),
    "a feature beyond the row": (set_tree("split_indices", 1, 6), "split index must be 0 to 5"),
    "a feature far beyond the row": (set_tree("split_indices", 1, 2**31 - 1), "split index"),
    "a negative feature": (set_tree("split_indices", 1, -1), "split index"),
    "a tree 100 deep": (chain_of_100, "deeper than 64"),
    "children that run short": (short_array("left_children"), "left_children must have"),
    "thresholds that run short": (short_array("split_conditions"), "split_conditions must have"),
    "default directions that run over": (long_array("default_left"), "default_left must have"),
    "parents that run over": (long_array("parents"), "parents must have"),
    "covers that run short": (short_array("sum_hessian"), "sum_hessian must have"),
    "no thresholds": (drop("split_conditions"), "no field 'split_conditions'"),
    "no children": (drop("right_children"), "no field 'right_children'"),
    "a leaf of 1e39": (leaf_value(1e39), "must be finite"),
    "a leaf that is a text": (leaf_value("0.1"), "must hold numbers only"),
    "a leaf that is a truth": (leaf_value(True), "must hold numbers only"),
    "a leaf that is nothing": (leaf_value(None), "must hold numbers only"),
    "a leaf that is a list": (leaf_value([0.1]), "must hold numbers only"),
    "a child that is a truth": (set_tree("left_children", 1, True), "whole numbers only"),
    "a child with a fraction": (set_tree("left_children", 1, 3.0), "whole numbers only"),
    "a child of 64 bits": (set_tree("left_children", 1, 2**40), "32 bits"),
    "children that are a text": (lambda d: tree(d).update(left_children="1"), "must be a list"),
    "a default direction of 2": (set_tree("default_left", 0, 2), "0 and 1 only"),
    "a split type of 3": (set_tree("split_type", 0, 3), "0 and 1 only"),
    "two trees with one id": (duplicate_ids, "id must be 1"),
    "a tree that is a list": (lambda d: trees(d).__setitem__(0, []), "must be an object"),
    "a billion nodes": (set_tree_parameter("num_nodes", "1000000000"), "num_nodes must be 1 to"),
    "no nodes": (set_tree_parameter("num_nodes", "0"), "num_nodes must be 1 to"),
    "a negative number of nodes": (set_tree_parameter("num_nodes", "-3"), "num_nodes must be 1 to"),
    "a number of nodes that is no text": (set_tree_parameter("num_nodes", 15), "must be str"),
    "pruned nodes that are not": (set_tree_parameter("num_deleted", "2"), "num_deleted is 2"),
    "a tree for other rows": (set_tree_parameter("num_feature", "7"), "num_feature must be"),
    "a billion trees": (lambda d: gbtree(d)["gbtree_model_param"].update(num_trees="1000000000"), "num_trees must be"),
    "fewer trees than announced": (lambda d: trees(d).pop(), "trees follow"),
    "a billion features": (set_parameter("num_feature", "1000000000"), "num_feature must be 1 to"),
    "no features": (set_parameter("num_feature", "0"), "num_feature must be 1 to"),
    "a number of features with a sign": (set_parameter("num_feature", "+6"), "whole number"),
    "three classes": (set_parameter("num_class", "3"), "num_class must be"),
    "two targets": (set_parameter("num_target", "2"), "num_target must be"),
    "trees of several outputs": (several_outputs, "several outputs"),
    "vector leaves": (vector_leaves, "vector leaves"),
    "dart": (dart, "dart"),
    "a linear booster": (lambda d: d["learner"]["gradient_booster"].update(name="gblinear"), "gbtree"),
    "another objective": (set_learner("objective", {"name": "multi:softprob"}), "objective must be"),
    "an objective with unknown settings": (
        lambda d: d["learner"]["objective"].update(reg_loss_param={"exec": "1"}),
        "unknown field",
    ),
    "a base score of NaN": (set_parameter("base_score", "[nan]"), "base_score must be one finite number"),
    "a base score of infinity": (set_parameter("base_score", "1E999"), "base_score must be finite"),
    "a base score of 0": (set_parameter("base_score", "[0E0]"), "between 0 and 1"),
    "a base score of 1": (set_parameter("base_score", "[1E0]"), "between 0 and 1"),
    "a base score below 0": (set_parameter("base_score", "-5E-1"), "between 0 and 1"),
    "two base scores": (set_parameter("base_score", "[5E-1,5E-1]"), "one finite number"),
    "a base score that is code": (set_parameter("base_score", "__import__('os')"), "one finite number"),
    "a base score that is a number": (set_parameter("base_score", 0.5), "must be str"),
    "category values of a data frame": (category_values, "train on integer codes"),
    "a leaf with categories": (categories_of_a_leaf, "a leaf has categories"),
    "a category of a billion": (huge_category, "categories must ascend"),
    "a negative category": (negative_category, "categories must ascend"),
    "category sets that overlap": (overlapping_sets, "without gap or overlap|add up to"),
    "category sets of no node": (unannounced_sets, "categories_nodes|must have 0 entries"),
    "a numeric split on a categorical feature": (numeric_split_on_a_category, "numeric split"),
    "a feature name that is markup": (
        lambda d: d["learner"]["feature_names"].__setitem__(0, "<script>alert(1)</script>"),
        "feature name 0",
    ),
    "a feature name that forges a log line": (
        lambda d: d["learner"]["feature_names"].__setitem__(1, "x\n2026-11-23 APPROVE"),
        "feature name 1",
    ),
    "a feature name that is a shell command": (
        lambda d: d["learner"]["feature_names"].__setitem__(1, "$(rm -rf /)"),
        "feature name 1",
    ),
    "a feature name that ends a JSON text": (
        lambda d: d["learner"]["feature_names"].__setitem__(1, 'x", "admin": "'),
        "feature name 1",
    ),
    "an empty feature name": (lambda d: d["learner"]["feature_names"].__setitem__(1, ""), "feature name 1"),
    "a feature name of a kilobyte": (
        lambda d: d["learner"]["feature_names"].__setitem__(1, "x" * 1024),
        "feature name 1",
    ),
    "a feature name twice": (lambda d: d["learner"]["feature_names"].__setitem__(1, "amount"), "occurs twice"),
    "a feature name that is a number": (lambda d: d["learner"]["feature_names"].__setitem__(1, 5), "list of texts"),
    "too few feature names": (lambda d: d["learner"]["feature_names"].pop(), "must have 6 entries"),
    "an unknown feature type": (lambda d: d["learner"]["feature_types"].__setitem__(0, "x"), "feature_types"),
    "an unknown field in a tree": (lambda d: tree(d).update(surprise=[1]), "unknown field 'surprise'"),
    "an unknown field at the top": (lambda d: d.update(Config={}), "unknown field 'Config'"),
    "no learner": (lambda d: d.pop("learner"), "no field 'learner'"),
    "a version of the future": (lambda d: d.update(version=[9, 0, 0]), "version must be"),
    "a version that is a text": (lambda d: d.update(version="3.2.0"), "must be list"),
    "iterations that go back": (lambda d: gbtree(d).update(iteration_indptr=[0, 2, 1, 3]), "iteration_indptr"),
    "attributes that are numbers": (lambda d: d["learner"].update(attributes={"best_iteration": 3}), "attributes"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_hostile_model_is_refused_with_a_reason(name, document, write):
    mutate, reason = MUTANTS[name]
    mutate(document)
    data = write(document)

    started_s = time.monotonic()
    with pytest.raises(InvalidModelError, match=reason) as refusal:
        validate_model(data)

    assert time.monotonic() - started_s < REFUSED_WITHIN_S
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 600


# --- refused: hostile bytes ------------------------------------------------------------------------------------------

LENGTH = b"L" + struct.pack(">q", 1)


def bomb(length: int, kind: bytes = b"") -> bytes:
    return b"{" + LENGTH + b"x" + b"[" + kind + b"#L" + struct.pack(">q", length)


HOSTILE_BYTES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid UBJSON"),
    "noise": (bytes(range(256)), "not valid"),
    "text": (b"booster[0]:\n0:[f0<0.5] yes=1", "not valid"),
    "a pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", "not valid"),
    "an array": (b"[1, 2]", "not valid|must hold an object"),
    "an empty object": (b"{}", "no field"),
    "json nested 100,000 deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nests deeper"),
    "json nested by objects": (b'{"a":' * 50_000, "nests deeper"),
    "json with a text without end": (b'{"' + b"x" * 1_000_000, "longer than|not valid JSON"),
    "json with a text of a megabyte": (b'{"' + b"x" * 1_000_000 + b'": 1}', "longer than"),
    "json with NaN": (b'{"version": NaN}', "NaN, which is not a finite number"),
    "json with infinity": (b'{"version": -Infinity}', "-Infinity, which"),
    "json with 1e999": (b'{"version": 1e999}', "too large"),
    "json with a number of 10,000 digits": (b'{"version": ' + b"9" * 10_000 + b"}", "not valid JSON|must be list"),
    "json with a key twice": (b'{"version": [3, 2, 0], "version": [3, 2, 0]}', "'version' occurs twice"),
    "json that is not UTF-8": (b'{"version": "\xff\xfe"}', "not valid JSON"),
    "ubjson nested 100,000 deep": (b"{" + LENGTH + b"x" + b"[" * 100_000, "nests deeper"),
    "ubjson that announces 2**60 bytes": (bomb(2**60, b"$U"), "more bytes were announced"),
    "ubjson that announces 2**60 floats": (bomb(2**60, b"$d"), "more bytes were announced"),
    "ubjson that announces 2**60 values": (bomb(2**60), "elements in"),
    "ubjson that announces 2**60 nulls of no size": (bomb(2**60, b"$Z"), "only numbers may be declared"),
    "ubjson that announces less than nothing": (bomb(-1), "length must be >= 0"),
    "ubjson with a text of 2**60 bytes": (b"{L" + struct.pack(">q", 2**60), "cap is"),
    "ubjson with a length that is a text": (b"{S" + LENGTH + b"x", "length must be an integer"),
    "ubjson with a key twice": (b"{" + (LENGTH + b"xi\x01") * 2 + b"}", "'x' occurs twice"),
    "ubjson with a typed object": (b"{$i#i\x01" + LENGTH + b"x\x01", "declared type"),
    "ubjson with an unknown marker": (b"{" + LENGTH + b"xQ}", "unknown marker"),
    "ubjson with a key that is not UTF-8": (b"{" + LENGTH + b"\xffi\x01}", "not UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE_BYTES)
def test_hostile_bytes_are_refused_with_a_reason(name):
    data, reason = HOSTILE_BYTES[name]

    started_s = time.monotonic()
    with pytest.raises(InvalidModelError, match=reason):
        validate_model(data)

    assert time.monotonic() - started_s < REFUSED_WITHIN_S


def test_trailing_bytes_are_refused(json_model, ubj_model):
    for data in (json_model + b"{}", ubj_model + b"\x00", ubj_model + ubj_model):
        with pytest.raises(InvalidModelError, match=r"Extra data|follow the end"):
            validate_model(data)


def test_a_file_cut_off_anywhere_is_refused(json_model, ubj_model):
    for data in (json_model, ubj_model):
        for end in range(0, len(data) - 1, 97):
            with pytest.raises(InvalidModelError):
                validate_model(data[:end])


def test_nan_in_a_typed_array_is_refused(ubj_model):
    # Binary floats can spell NaN, which JSON cannot.
    at = re.search(rb"split_conditions\[\$d#L.{8}", ubj_model, re.DOTALL).end()
    poisoned = ubj_model[:at] + struct.pack(">f", float("nan")) + ubj_model[at + 4 :]

    with pytest.raises(InvalidModelError, match="split_conditions must be finite"):
        validate_model(poisoned)


def test_an_array_typed_as_floats_is_no_array_of_children(ubj_model):
    poisoned = ubj_model.replace(b"left_children[$l", b"left_children[$d")

    with pytest.raises(InvalidModelError, match="left_children must hold whole numbers"):
        validate_model(poisoned)


# --- refused or accepted, never anything else -------------------------------------------------------------------------


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_a_model_or_a_refusal_and_nothing_else(json_model, ubj_model, data):
    original = data.draw(st.sampled_from([json_model, ubj_model]))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "copy"]))
        if kind == "flip":
            damaged[at] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del damaged[at : at + data.draw(st.integers(1, 64))]
        elif kind == "insert":
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=16))
        else:
            damaged[at:at] = damaged[max(0, at - 40) : at]
        if not damaged:
            break
    try:
        model = validate_model(bytes(damaged))
    except InvalidModelError:
        return
    assert isinstance(model, ValidatedModel)
    for t in model.trees:
        # What is accepted is whole: it can be laid out, and ends in leaves.
        assert (t.as_tree().left == -1).any()


def _same(a: ValidatedModel, b: ValidatedModel) -> bool:
    return first_difference([t.as_tree() for t in a.trees], [t.as_tree() for t in b.trees]) is None
