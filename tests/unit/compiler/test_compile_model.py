"""A model file in, a certified artefact out, or an error and nothing left behind."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fraudsdk.compiler import c_backend, certify, frontend, shap
from fraudsdk.compiler import compile as compile_module
from fraudsdk.compiler.compile import compile_model
from fraudsdk.compiler.frontend import trees_of
from fraudsdk.compiler.shap_oracle import BoosterExplainer, contributions
from fraudsdk.compiler.trees import first_difference
from fraudsdk.compiler.validate import validate_model
from fraudsdk.errors import (
    CertificateError,
    ConfigurationError,
    InvalidModelError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
    SchemaMismatchError,
)
from fraudsdk.model.artefact import load_artefact
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.certificate import MAX_BOUND
from fraudsdk.model.engine import TableEngine, available_engines

WHO = {"name": "cards", "version": "1", "created_at": "2026-11-23T10:00:00Z"}

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory, ubj_model):
    out = tmp_path_factory.mktemp("models") / "cards"
    compile_model(
        ubj_model,
        out,
        **WHO,
        schema_fingerprint="ab" * 32,
        training_metrics={"average_precision": 0.7},
        calibration=Calibration.platt(1.1, -0.2),
        extra_files={"vocabulary.json": b'{"mcc": {}}'},
    )
    return out


def test_the_artefact_is_a_manifest_a_certificate_and_the_files_it_names(artefact, ubj_model):
    manifest = json.loads((artefact / "manifest.json").read_text())

    assert {"certificate.json", "forest.bin", "model.ubj", "shap.bin", "vocabulary.json"} == set(manifest["files"])
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((artefact / name).read_bytes()).hexdigest() == entry["sha256"]
    assert hashlib.sha256(ubj_model).hexdigest() == manifest["source_sha256"]
    assert {"average_precision": 0.7} == manifest["training_metrics"]
    assert {"kind": "platt", "slope": 1.1, "intercept": -0.2} == manifest["calibration"]
    assert {"numpy", "treelite", "xgboost"} == set(manifest["libraries"])


def test_the_certificate_says_what_was_tried_and_that_nothing_differed(artefact):
    certificate = json.loads((artefact / "certificate.json").read_text())

    assert certificate["rows"] > 20_000
    assert 0 == certificate["unequal"] == certificate["max_abs_difference"] == certificate["bound"]
    tried = " | ".join(suite["inputs"] for suite in certificate["suites"])
    for what in ("random", "one ulp", "missing", "denormals", "infinities", "unseen", "all missing"):
        assert what in tried
    assert all(suite["reference_sha256"] == suite["artefact_sha256"] for suite in certificate["suites"])


def test_what_was_given_is_what_the_loaded_model_says(artefact):
    model = load_artefact(artefact)

    assert "cards/1" == model.version
    assert "ab" * 32 == model.schema_fingerprint
    assert ("amount", "age_days", "speed", "ratio", "channel", "mcc") == model.feature_names
    assert Calibration.platt(1.1, -0.2) == model.calibration
    assert b'{"mcc": {}}' == model.read("vocabulary.json")


def test_one_model_compiles_to_the_same_bytes_every_time(tmp_path, json_model):
    for out in (tmp_path / "a", tmp_path / "b"):
        compile_model(json_model, out, **WHO)

    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()} == {
        f.name: f.read_bytes() for f in (tmp_path / "b").iterdir()
    }


def test_a_refused_model_leaves_nothing_behind(tmp_path):
    with pytest.raises(InvalidModelError):
        compile_model(b"{}", tmp_path / "out", **WHO)

    assert [] == list(tmp_path.iterdir())


def test_an_engine_that_differs_in_one_bit_gets_no_certificate(tmp_path, monkeypatch, ubj_model):
    # Given native code that is one ulp off on one row in all the rows tried
    honest = TableEngine.margins
    damaged = []

    def one_ulp_off(self, rows, out):
        honest(self, rows, out)
        if not damaged:
            out[7] = np.nextafter(out[7], np.float32(9))
            damaged.append(7)

    monkeypatch.setattr(TableEngine, "margins", one_ulp_off)

    # When it is compiled, then it is refused, and nothing is left behind
    with pytest.raises(CertificateError, match="differ on 1 of"):
        compile_model(ubj_model, tmp_path / "out", **WHO)
    assert [] == list(tmp_path.iterdir())


def test_an_engine_that_other_machines_take_must_not_differ_either(tmp_path, monkeypatch, ubj_model):
    # Given that only the walk is one ulp off, on the first row of each batch; a CPU with vectors does not take it
    honest = TableEngine.margins

    def one_ulp_off(self, rows, out):
        honest(self, rows, out)
        if self.name == "portable":
            out[:1] = np.nextafter(out[:1], np.float32(9))

    monkeypatch.setattr(TableEngine, "margins", one_ulp_off)

    with pytest.raises(CertificateError, match="booster differ on"):
        compile_model(ubj_model, tmp_path / "out", **WHO)


def test_an_engine_that_differs_only_on_a_row_alone_gets_no_certificate(tmp_path, monkeypatch, ubj_model):
    honest = TableEngine.margin
    calls = itertools.count()

    def one_ulp_off(self, row):
        margin = honest(self, row)
        return float(np.nextafter(np.float32(margin), np.float32(9))) if next(calls) == 7 else margin

    monkeypatch.setattr(TableEngine, "margin", one_ulp_off)

    with pytest.raises(CertificateError, match="differ on 1 of"):
        compile_model(ubj_model, tmp_path / "out", **WHO)
    assert [] == list(tmp_path.iterdir())


def with_one_leaf_changed(tree, ulps):
    value = tree.value.copy()
    value.view(np.int32)[-1] += ulps
    return replace(tree, value=value)


def test_a_leaf_that_the_front_end_misread_is_found_by_the_booster(tmp_path, monkeypatch, ubj_model):
    # Given trees that no comparison of readers found fault with
    def misread(treelite_model, validated):
        first, *others = trees_of(treelite_model, validated)
        # Sixteen ulps, 1e-6 of the leaf: a single one would be lost in the sum, and change no margin at all.
        return [with_one_leaf_changed(first, ulps=16), *others]

    monkeypatch.setattr(compile_module, "trees_of", misread)

    # When they are compiled, then tables that are true to them are not true to the booster
    with pytest.raises(CertificateError, match="compiled model and booster differ"):
        compile_model(ubj_model, tmp_path / "out", **WHO)


def test_readers_that_differ_in_one_leaf_are_found_before_anything_is_compiled(tmp_path, monkeypatch, ubj_model):
    honest = frontend._tree

    def misread(accessor, where):
        tree = honest(accessor, where)
        return with_one_leaf_changed(tree, ulps=1) if where.startswith("tree 1 ") else tree

    monkeypatch.setattr(frontend, "_tree", misread)

    with pytest.raises(InvalidModelError, match="read different models: tree 1, value"):
        compile_model(ubj_model, tmp_path / "out", **WHO)


@pytest.mark.parametrize("name", ["left", "feature", "threshold", "value", "default_left"])
def test_two_forests_differ_if_one_bit_does(name, ubj_model):
    trees = [tree.as_tree() for tree in validate_model(ubj_model).trees]
    changed = getattr(trees[2], name).copy()
    changed.view(np.uint8)[0] ^= 1

    assert first_difference(trees, trees) is None
    assert f"tree 2, {name}" == first_difference(trees, [*trees[:2], replace(trees[2], **{name: changed})])


def test_two_forests_differ_if_a_category_or_a_tree_does(ubj_model):
    trees = [tree.as_tree() for tree in validate_model(ubj_model).trees]
    k = next(k for k, tree in enumerate(trees) if tree.categories)
    moved = {node: members + 1 for node, members in trees[k].categories.items()}
    for categories in (moved, {}):
        other = [*trees[:k], replace(trees[k], categories=categories), *trees[k + 1 :]]
        assert f"tree {k}, categories" == first_difference(trees, other)

    assert "3 trees against 2" == first_difference(trees, trees[:2])


def test_an_existing_artefact_is_replaced_only_on_request(tmp_path, ubj_model):
    out = tmp_path / "cards"
    compile_model(ubj_model, out, **WHO)

    with pytest.raises(ConfigurationError, match="exists"):
        compile_model(ubj_model, out, **WHO)
    compile_model(ubj_model, out, **{**WHO, "version": "2"}, replace=True)

    assert "cards/2" == load_artefact(out).version
    assert [out] == list(tmp_path.iterdir())


def test_a_model_without_feature_names_gets_numbered_ones(tmp_path, json_model):
    document = json.loads(json_model)
    document["learner"]["feature_names"] = []

    manifest = compile_model(json.dumps(document).encode(), tmp_path / "out", **WHO)

    assert ("f0", "f1", "f2", "f3", "f4", "f5") == manifest.feature_names


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("a", "b"), "has 6 features, 2 names"),
        (("amount", "speed", "age_days", "ratio", "channel", "mcc"), "feature 1 is 'age_days'"),
    ],
)
def test_feature_names_must_be_those_of_the_model(tmp_path, ubj_model, names, reason):
    with pytest.raises(InvalidModelError, match=reason):
        compile_model(ubj_model, tmp_path / "out", **WHO, feature_names=names)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"name": "../etc"}, InvalidModelError, "model name"),
        ({"version": ""}, InvalidModelError, "model version"),
        ({"created_at": "yesterday"}, ConfigurationError, "ISO 8601"),
        ({"backend": "cuda"}, ConfigurationError, "backend must be"),
        ({"extra_files": {"../x": b""}}, InvalidModelError, "extra file"),
        ({"extra_files": {"manifest.json": b""}}, ConfigurationError, "may not be called manifest.json"),
        ({"training_metrics": {"auc": float("nan")}}, ConfigurationError, "JSON values"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path, ubj_model, change, error, reason):
    with pytest.raises(error, match=reason):
        compile_model(ubj_model, tmp_path / "out", **{**WHO, **change})
    assert [] == list(tmp_path.iterdir())


def test_a_missing_model_file_is_named(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"gone\.json"):
        compile_model(tmp_path / "gone.json", tmp_path / "out", **WHO)


def test_a_missing_library_says_which_extra_brings_it(tmp_path, monkeypatch, ubj_model):
    monkeypatch.setitem(__import__("sys").modules, "treelite", None)

    with pytest.raises(MissingExtraError, match=r"fraudsdk\[train\]"):
        compile_model(ubj_model, tmp_path / "out", **WHO)


# --- the C backend ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def c_artefact(tmp_path_factory, ubj_model):
    out = tmp_path_factory.mktemp("models") / "c"
    compile_model(ubj_model, out, **WHO, backend="c")
    return out


@needs_cc
def test_the_c_library_is_certified_within_rounding(c_artefact):
    certificate = load_artefact(c_artefact).certificate

    assert "c" == certificate.backend
    assert 0 < certificate.bound < 1e-5
    assert certificate.max_abs_difference <= certificate.bound


@needs_cc
def test_the_c_library_gives_the_margins_of_the_tables(artefact, c_artefact):
    rows = np.random.default_rng(3).normal(size=(1_000, 6)).astype(np.float32)
    rows[::7, 2] = np.nan
    before = rows.copy()
    c, table = load_artefact(c_artefact), load_artefact(artefact)

    np.testing.assert_allclose(c.margins(rows), table.margins(rows), atol=c.certificate.bound)
    assert c.margin(rows[0]) == c.margins(rows[:1])[0]
    # tl2cgen's own predictor may write into the caller's rows.
    assert before.tobytes() == rows.tobytes()


@needs_cc
def test_two_libraries_in_one_process_stay_two_models(tmp_path, train_model, c_artefact):
    # The loader knows libraries by path: one loaded from a recycled descriptor used to be the other one.
    compile_model(bytes(train_model(n_trees=5).save_raw("ubj")), tmp_path / "other", **WHO, backend="c")
    row = np.zeros(6, np.float32)

    first, second = load_artefact(c_artefact), load_artefact(tmp_path / "other")

    assert first.margin(row) != second.margin(row)


@needs_cc
def test_a_library_that_others_may_write_to_is_refused(tmp_path, c_artefact):
    copy = shutil.copytree(c_artefact, tmp_path / "copy")
    (copy / "model.so").chmod(0o666)

    with pytest.raises(InvalidModelError, match="chmod go-w"):
        load_artefact(copy)


@needs_cc
def test_a_library_with_other_bytes_is_refused(tmp_path, c_artefact):
    copy = shutil.copytree(c_artefact, tmp_path / "copy")
    with (copy / "model.so").open("ab") as file:
        file.write(b"\0")

    with pytest.raises(CertificateError, match=r"model\.so"):
        load_artefact(copy)


@needs_cc
@pytest.mark.parametrize("row", [np.zeros(6), np.zeros((6, 2), np.float32)[:, 0]], ids=["float64", "strided"])
def test_the_c_library_refuses_rows_it_would_misread(c_artefact, row):
    with pytest.raises(SchemaMismatchError, match="C-contiguous"):
        load_artefact(c_artefact).margin(row)


def test_no_compiler_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ConfigurationError, match="no C compiler"):
        c_backend.build_library(
            tmp_path, n_features=6, n_trees=3, base_margin=np.float32(0), compiler="no-such-compiler"
        )


@needs_cc
def test_a_build_that_needs_too_much_memory_is_stopped(tmp_path, ubj_model):
    (tmp_path / "model.ubj").write_bytes(ubj_model)

    with pytest.raises(ModelError, match="memory cap"):
        c_backend.build_library(
            tmp_path, n_features=6, n_trees=3, base_margin=np.float32(0), max_memory_bytes=32 * 1024 * 1024
        )


@needs_cc
def test_a_build_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("while True: pass\n")
    monkeypatch.setattr(c_backend.c_build, "__file__", str(sleeper))

    with pytest.raises(ModelError, match="took over 1 s"):
        c_backend.build_library(tmp_path, n_features=6, n_trees=3, base_margin=np.float32(0), max_seconds=1)


@needs_cc
def test_a_c_certificate_may_not_allow_what_it_likes(tmp_path, c_artefact):
    copy = shutil.copytree(c_artefact, tmp_path / "copy")
    certificate = json.loads((copy / "certificate.json").read_text())
    certificate["bound"] = 1e9
    for suite in certificate["suites"]:
        suite.update(unequal=suite["rows"], max_abs_difference=1e8)
    (copy / "certificate.json").write_text(json.dumps(certificate))
    manifest = json.loads((copy / "manifest.json").read_text())
    digest = hashlib.sha256((copy / "certificate.json").read_bytes()).hexdigest()
    manifest["files"]["certificate.json"]["sha256"] = digest
    (copy / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(CertificateError, match=r"differ by 1e\+09, the cap is 0\.001"):
        load_artefact(copy)


@needs_cc
def test_a_model_whose_rounding_could_exceed_the_cap_is_certified_by_what_it_does(tmp_path, json_model):
    # Given leaves so large that the worst case of rounding lies above the cap
    document = json.loads(json_model)
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        for node, left in enumerate(tree["left_children"]):
            tree["split_conditions"][node] *= 1e4 if left == -1 else 1.0
    source = json.dumps(document).encode()
    trees = [tree.as_tree() for tree in validate_model(source).trees]
    assert certify.rounding_bound(trees, np.float32(0)) > MAX_BOUND

    # When it is compiled, then its bound is the cap, and it loads
    compile_model(source, tmp_path / "out", **WHO, backend="c")

    assert load_artefact(tmp_path / "out").certificate.bound == MAX_BOUND


# --- explanations ----------------------------------------------------------------------------------------------------


def test_contributions_add_up_to_the_margin(artefact):
    model = load_artefact(artefact)
    rows = np.random.default_rng(5).normal(size=(50, 6)).astype(np.float32)
    rows[:, 5] = np.arange(50) % 14
    rows[3] = np.nan

    shap = BoosterExplainer(model.read("model.ubj")).contributions(rows)

    assert (50, 7) == shap.shape
    assert np.float64 == shap.dtype
    np.testing.assert_allclose(shap.sum(axis=1), model.margins(rows), atol=1e-5)


def test_an_infinite_value_is_explained_like_the_margin_it_led_to(artefact):
    model = load_artefact(artefact)
    rows = np.zeros((2, 6), np.float32)
    rows[:, 0] = (np.inf, -np.inf)

    shap = contributions(model.source_path / "model.ubj", rows)

    np.testing.assert_allclose(shap.sum(axis=1), model.margins(rows), atol=1e-5)


def test_explaining_needs_rows_of_the_right_length(artefact):
    with pytest.raises(SchemaMismatchError, match="6 features"):
        BoosterExplainer(artefact / "model.ubj").contributions(np.zeros((1, 5), np.float32))


def test_explaining_needs_a_booster(tmp_path):
    with pytest.raises(ModelNotFoundError):
        BoosterExplainer(tmp_path / "model.ubj")


# --- the bound -------------------------------------------------------------------------------------------------------


def test_the_bound_grows_with_trees_and_with_leaves(train_model):
    trees = [tree.as_tree() for tree in validate_model(bytes(train_model(n_trees=8).save_raw("ubj"))).trees]
    few, many = (certify.rounding_bound(some, np.float32(1)) for some in (trees[:2], trees))

    assert 0 < few < many < 1e-4


def with_covers(json_model, change):
    """The model with other covers."""
    document = json.loads(json_model)
    for number, tree in enumerate(document["learner"]["gradient_booster"]["model"]["trees"]):
        change(number, tree)
    return json.dumps(document).encode()


def leave_out_a_leaf(tree):
    """No training row comes to the last leaf any more."""
    leaf = max(node for node, child in enumerate(tree["left_children"]) if child == -1)
    parent = tree["parents"][leaf]
    sibling = tree["left_children"][parent] + tree["right_children"][parent] - leaf
    # What the leaf had goes to its sibling, so that covers still add up.
    while True:
        tree["sum_hessian"][sibling] += tree["sum_hessian"][leaf]
        if tree["left_children"][sibling] == -1:
            break
        sibling = tree["left_children"][sibling]
    tree["sum_hessian"][leaf] = 0.0


def test_a_split_tree_that_no_training_row_entered_is_refused(tmp_path, json_model):
    def nobody(number, tree):
        if number == 1:
            tree["sum_hessian"] = [0.0] * len(tree["sum_hessian"])

    with pytest.raises(InvalidModelError, match="tree 1 is split, and the cover of its root"):
        compile_model(with_covers(json_model, nobody), tmp_path / "out", **WHO)
    assert [] == list(tmp_path.iterdir())


def test_one_leaf_without_training_rows_does_not_switch_the_comparison_off(tmp_path, monkeypatch, json_model):
    # Given a model of which one tree has a leaf that no training row came to
    model = with_covers(json_model, lambda number, tree: leave_out_a_leaf(tree) if number == 1 else None)
    compile_model(model, tmp_path / "honest", **WHO)

    # When covers of another tree are misread, in ways that add up
    honest = shap.build_shap_tables

    def misread(trees, covers, **rest):
        covers = [cover.copy() for cover in covers]
        for tree, cover in zip(trees, covers, strict=True):
            if (cover > 0).all():
                leaves = tree.left < 0
                cover[leaves] = cover[leaves].mean()
                for node in np.flatnonzero(~leaves)[::-1]:
                    cover[node] = cover[tree.left[node]] + cover[tree.left[node] + 1]
        return honest(trees, covers, **rest)

    monkeypatch.setattr(shap, "build_shap_tables", misread)

    # Then the booster's own contributions tell
    with pytest.raises(CertificateError, match="contributions differ"):
        compile_model(model, tmp_path / "misread", **WHO)


@pytest.mark.parametrize("concerned", [{0}, {1}, {2}, {0, 2}, {0, 1, 2}])
def test_trees_that_xgboost_cannot_explain_are_left_out_of_the_comparison(tmp_path, json_model, concerned):
    model = with_covers(json_model, lambda number, tree: leave_out_a_leaf(tree) if number in concerned else None)

    assert compile_model(model, tmp_path / "out", **WHO).n_trees == 3


def test_rounds_of_several_trees_are_left_out_whole(tmp_path, train_model):
    json_model = bytes(train_model(4, num_parallel_tree=3, subsample=0.5).save_raw("json"))
    model = with_covers(json_model, lambda number, tree: leave_out_a_leaf(tree) if number == 4 else None)

    assert compile_model(model, tmp_path / "out", **WHO).n_trees == 12


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", available_engines())
def test_every_engine_is_tried_alone_and_in_batches(tmp_path, monkeypatch, ubj_model, name, alone):
    honest = TableEngine.margin if alone else TableEngine.margins

    def one_ulp_off(self, row, *out):
        got = honest(self, row, *out)
        if self.name != name:
            return got
        if alone:
            return float(np.nextafter(np.float32(got), np.float32(9)))
        out[0][:1] = np.nextafter(out[0][:1], np.float32(9))
        return None

    monkeypatch.setattr(TableEngine, "margin" if alone else "margins", one_ulp_off)

    with pytest.raises(CertificateError, match="booster differ on"):
        compile_model(ubj_model, tmp_path / "out", **WHO)
