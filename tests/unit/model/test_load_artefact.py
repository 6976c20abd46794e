"""An artefact scores only if every byte of it is vouched for."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from fraudsdk.errors import CertificateError, InvalidModelError, ModelNotFoundError, SchemaMismatchError
from fraudsdk.model.artefact import load_artefact
from fraudsdk.model.certificate import required_rows
from fraudsdk.model.manifest import Manifest


def rewrite(artefact, name, change):
    """Edit a JSON file of an artefact, and its hash in the manifest with it, as an attacker would."""
    document = json.loads((artefact / name).read_text())
    change(document)
    put(artefact, name, json.dumps(document).encode())


def put(artefact, name, data):
    """Write a file of an artefact, and its hash into the manifest."""
    (artefact / name).write_bytes(data)
    if name != "manifest.json":
        digest = hashlib.sha256(data).hexdigest()
        rewrite(artefact, "manifest.json", lambda m: m["files"][name].update(sha256=digest))


def certify_again(artefact):
    """Make the certificate vouch for the manifest as it is, which nothing can find out."""
    stated = json.loads((artefact / "manifest.json").read_text())
    del stated["format"], stated["files"]["certificate.json"]
    digest = hashlib.sha256(json.dumps(stated, indent=1, sort_keys=True).encode() + b"\n").hexdigest()
    rewrite(artefact, "certificate.json", lambda c: c.update(manifest_sha256=digest))


def test_a_loaded_model_gives_the_margins_of_the_twin(artefact, trees, make_rows, twin):
    model = load_artefact(artefact)
    rows = make_rows(np.random.default_rng(4), 50)

    expected = np.array([twin(trees, row, np.float32(-2.25)) for row in rows], np.float32)

    assert expected.tobytes() == model.margins(rows).tobytes()
    assert expected.tolist() == [model.margin(row) for row in rows]
    assert "cards/1" == model.version
    assert artefact == model.source_path


def test_sixteen_threads_get_what_one_gets(artefact, make_rows):
    model = load_artefact(artefact)
    rows = make_rows(np.random.default_rng(6), 400)
    expected = model.margins(rows).tobytes()

    def score(_):
        return np.array([model.margin(row) for row in rows], np.float32).tobytes(), model.margins(rows).tobytes()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(score, range(48)))

    assert {(expected, expected)} == set(answers)


@pytest.mark.parametrize("where", ["nowhere", "a_file/inside"])
def test_no_artefact_is_said_to_be_none(tmp_path, where):
    (tmp_path / "a_file").write_text("")

    with pytest.raises(ModelNotFoundError, match=r"manifest\.json"):
        load_artefact(tmp_path / where)


@pytest.mark.parametrize("name", ["forest.bin", "model.ubj", "certificate.json"])
def test_a_missing_file_is_named(artefact, name):
    (artefact / name).unlink()

    with pytest.raises(ModelNotFoundError, match=name):
        load_artefact(artefact)


@pytest.mark.parametrize("name", ["forest.bin", "model.ubj", "certificate.json"])
def test_a_changed_byte_is_noticed(artefact, name):
    data = bytearray((artefact / name).read_bytes())
    data[-2] ^= 1
    (artefact / name).write_bytes(bytes(data))

    with pytest.raises(CertificateError, match=f"{name} has SHA-256"):
        load_artefact(artefact)


def swap_hash(document):
    document["native_sha256"] = "0" * 64


def one_row_differs(document):
    document["suites"][0]["unequal"] = 1


def compares_nothing(document):
    document["suites"] = []


def allows_anything(document):
    document["bound"] = 1e9
    document["suites"][0]["unequal"] = 5


def allows_a_little(document):
    document["bound"] = 1e-6
    document["suites"][0].update(unequal=5, max_abs_difference=1e-7)


def compares_one_row(document):
    document["suites"] = [{**document["suites"][0], "rows": 1}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (swap_hash, "for another model"),
        (lambda d: d.update(source_sha256="0" * 64), "for another model"),
        (lambda d: d.update(backend="c"), "for another model"),
        (lambda d: d.update(booster_sha256="0" * 64), r"its SHA-256 of model\.ubj is '0000"),
        (lambda d: d.update(manifest_sha256="0" * 64), r"its SHA-256 of what manifest\.json states is '0000"),
        (lambda d: d.update(reference="nothing at all"), "its reference is 'nothing at all'"),
        (lambda d: d.pop("booster_sha256"), "booster_sha256 must be a text"),
        (lambda d: d.pop("manifest_sha256"), "manifest_sha256 must be a text"),
        (one_row_differs, "differ on 1 of 20,000 rows"),
        (compares_nothing, "compares 0 rows, 20,000 are required"),
        (compares_one_row, "compares 1 rows, 20,000 are required"),
        (lambda d: d["suites"][0].update(rows=19_999), "compares 19,999 rows"),
        (allows_anything, "allows margins to differ by 1e"),
        (allows_a_little, "differ on 5 of 20,000 rows"),
        (lambda d: d.update(bound=-1.0), "allows margins to differ by -1"),
        (lambda d: d["suites"][0].update(reference_sha256="0" * 64), "contradicts itself on 'random rows'"),
        (lambda d: d["suites"][0].update(max_abs_difference=-0.5), "contradicts itself on 'random rows'"),
        (
            lambda d: d["suites"][0].update(max_abs_difference=float("inf")),
            "max_abs_difference must be a finite number",
        ),
        (lambda d: d["suites"][0].update(max_abs_difference=0.5), "differ by 0.5"),
        (lambda d: d["suites"][0].update(rows=-1), "rows must be a whole number"),
        (lambda d: d["suites"][0].update(rows=True), "rows must be a whole number"),
        (lambda d: d.update(suites={}), "suites must be a list"),
        (lambda d: d.pop("seed"), "seed must be"),
        (lambda d: d.update(format=1), "format must be 2"),
    ],
)
def test_a_certificate_that_does_not_vouch_for_these_bytes_is_refused(artefact, change, reason):
    rewrite(artefact, "certificate.json", change)

    with pytest.raises(CertificateError, match=reason):
        load_artefact(artefact)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(n_trees=20), "the manifest says"),
        (lambda m: m.update(base_margin=0.0), "the manifest says"),
        (lambda m: m.update(depth=4), "the manifest says"),
        (lambda m: m["feature_names"].pop(), "the manifest says"),
        (lambda m: m.update(backend="cuda"), "backend must be"),
        (lambda m: m.update(name="../../etc"), "name must be"),
        (lambda m: m["files"].update({"../../etc/passwd": {"sha256": "0" * 64, "n_bytes": 1}}), "file name must be"),
        (lambda m: m["files"].update({"x": {"sha256": "zz", "n_bytes": 1}}), "64 hex digits"),
        (lambda m: m["files"].update({"x": []}), "must be an object"),
        (lambda m: m["files"].pop("certificate.json"), r"lists no certificate\.json"),
        (lambda m: m.update(feature_names="f0"), "list of texts"),
        (lambda m: m.update(calibration={"kind": "exec"}), "calibration"),
        (lambda m: m.update(calibration=[]), "calibration must be an object"),
        (lambda m: m.pop("objective"), "objective must be a text, was absent"),
        (lambda m: m["training_metrics"].update(auc=float("nan")), "cannot be written again"),
    ],
)
def test_a_malformed_manifest_is_refused(artefact, change, reason):
    rewrite(artefact, "manifest.json", change)
    if "certificate.json" in json.loads((artefact / "manifest.json").read_text())["files"]:
        certify_again(artefact)

    with pytest.raises(InvalidModelError, match=reason):
        load_artefact(artefact)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "accounts"},
        {"version": "2"},
        {"created_at": "2020-01-01"},
        {"feature_names": ["f1", "f0", "f2", "f3", "f4", "f5", "f6"]},
        {"schema_fingerprint": "00" * 32},
        {"objective": "binary:logitraw"},
        {"base_margin": 0.0},
        {"training_metrics": {"average_precision": 0.99}},
        {"calibration": {"kind": "platt", "slope": 1e-9, "intercept": -20.0}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_manifest_states_is_certified_with_the_model(artefact, change):
    rewrite(artefact, "manifest.json", lambda m: m.update(change))

    with pytest.raises(CertificateError, match=r"its SHA-256 of what manifest\.json states"):
        load_artefact(artefact)


def test_another_booster_is_not_taken_for_the_certified_one(artefact):
    put(artefact, "model.ubj", b'{"learner": {}}')

    with pytest.raises(CertificateError, match=r"its SHA-256 of model\.ubj"):
        load_artefact(artefact)


def test_a_manifest_may_be_laid_out_in_another_way(artefact):
    manifest = json.loads((artefact / "manifest.json").read_text())
    (artefact / "manifest.json").write_text(json.dumps(dict(reversed(manifest.items())), indent=4))

    assert "cards/1" == load_artefact(artefact).version


def test_a_manifest_keeps_its_hash_whatever_its_metrics_are(artefact):
    # Numbers sort one way as keys in Python, another as the texts that JSON makes of them.
    stated = replace(load_artefact(artefact).manifest, training_metrics={10: (1, 2.5), 9: None, 100: {"-0": -0.0}})

    assert stated.statement_sha256() == Manifest.from_json(stated.to_json()).statement_sha256()


@pytest.mark.parametrize(
    ("n_features", "expected"),
    [(0, 20_000), (1, 20_000), (1_000, 20_000), (4_000, 5_000), (4_096, 4_882), (10**6, 1_000)],
)
def test_wide_models_need_fewer_rows_but_never_few(n_features, expected):
    assert expected == required_rows(n_features)


@pytest.mark.parametrize("data", [b"", b"[]", b"{" * 100_000, b"\xff\xfe", b'{"format": 1'])
def test_a_manifest_that_is_none_is_refused(artefact, data):
    (artefact / "manifest.json").write_bytes(data)

    with pytest.raises(InvalidModelError, match=r"manifest\.json"):
        load_artefact(artefact)


def test_forest_tables_are_checked_even_if_every_hash_agrees(artefact):
    # Whoever can write the forest can write its hashes too; the walk must still be safe.
    data = bytearray((artefact / "forest.bin").read_bytes())
    data[-40:-36] = b"\xff\xff\xff\x7f"
    forest = bytes(data[: len(data) // 2])
    digest = hashlib.sha256(forest).hexdigest()
    (artefact / "forest.bin").write_bytes(forest)
    rewrite(artefact, "manifest.json", lambda m: m["files"]["forest.bin"].update(sha256=digest))
    rewrite(artefact, "certificate.json", lambda c: c.update(native_sha256=digest))
    certify_again(artefact)

    with pytest.raises(InvalidModelError, match="forest"):
        load_artefact(artefact)


@pytest.mark.parametrize(
    "row",
    [
        np.zeros(6, np.float32),
        np.zeros(8, np.float32),
        np.zeros((1, 7), np.float32),
        np.zeros(7),
        np.zeros(7, np.int32),
        np.zeros((7, 2), np.float32)[:, 0],
    ],
    ids=["short", "long", "two-dimensional", "float64", "int32", "strided"],
)
def test_a_row_of_another_kind_is_refused(artefact, row):
    model = load_artefact(artefact)

    with pytest.raises(SchemaMismatchError, match=r"cards/1 reads float32\[7\]"):
        model.margin(row)


@pytest.mark.parametrize("rows", [np.zeros((3, 6), np.float32), np.zeros((3, 7)), np.zeros(7, np.float32)])
def test_rows_of_another_kind_are_refused(artefact, rows):
    with pytest.raises(SchemaMismatchError, match=r"float32\[n, 7\]"):
        load_artefact(artefact).margins(rows)


def test_strided_and_read_only_rows_are_copied(artefact, make_rows):
    model = load_artefact(artefact)
    rows = make_rows(np.random.default_rng(8), 10)
    strided = np.repeat(rows, 2, axis=0)[::2]
    frozen = rows.copy()
    frozen.flags.writeable = False

    assert model.margins(rows).tobytes() == model.margins(strided).tobytes() == model.margins(frozen).tobytes()


def test_a_file_that_the_model_does_not_carry_is_said_to_be_missing(artefact):
    with pytest.raises(ModelNotFoundError, match=r"carries no 'vocabulary\.json'"):
        load_artefact(artefact).read("vocabulary.json")


def test_a_carried_file_is_verified_again_when_it_is_read(artefact):
    model = load_artefact(artefact)
    (artefact / "model.ubj").write_bytes(b"{ }")

    with pytest.raises(CertificateError):
        model.read("model.ubj")


def test_a_file_that_travels_with_the_model_is_vouched_for_too(tmp_path, make_artefact, tables, trees):
    artefact = make_artefact(tmp_path / "m", tables, len(trees))

    rewrite(artefact, "manifest.json", lambda m: m["files"].update({"policy.toml": {"sha256": "0" * 64, "n_bytes": 1}}))
    put(artefact, "policy.toml", b"version = 1\n")
    rewrite(artefact, "manifest.json", lambda m: m["files"]["policy.toml"].update(n_bytes=12))

    with pytest.raises(CertificateError, match=r"what manifest\.json states"):
        load_artefact(artefact)


def test_rows_that_are_not_aligned_are_copied(artefact, make_rows):
    model = load_artefact(artefact)
    rows = make_rows(np.random.default_rng(7), 20)
    moved = np.frombuffer(bytearray(rows.nbytes + 1), np.float32, rows.size, offset=1).reshape(rows.shape)
    moved[:] = rows
    assert not moved.flags.aligned

    assert model.margins(rows).tobytes() == model.margins(moved).tobytes()
    with pytest.raises(SchemaMismatchError, match="build rows with the feature set"):
        model.margin(moved[0])
