"""Random forests without XGBoost, a twin that walks them one node at a time, and artefacts made of them by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fraudsdk.model.certificate import Certificate, Suite
from fraudsdk.model.documents import to_json
from fraudsdk.model.forest import Tree, build_tables, depth_of, write_forest
from fraudsdk.model.manifest import FileEntry, Manifest

N_FEATURES = 7
CATEGORICAL = {5: 40, 6: 3}  # feature -> number of categories


def random_tree(rng: np.random.Generator, *, depth: int, categorical: bool = True, chain: bool = False) -> Tree:
    """A tree of at most `depth`; a chain has one inner node per level, as deep lossguide trees nearly do."""
    left, feature, threshold, value, default_left = [-1], [0], [0.0], [0.0], [False]
    categories: dict[int, np.ndarray] = {}
    level = [0]
    for at_depth in range(depth + 1):
        following: list[int] = []
        for k, node in enumerate(level):
            splits = at_depth < depth and (k == 0 if chain else at_depth == 0 or rng.random() < 0.8)
            if not splits:
                value[node] = float(rng.normal())
                continue
            left[node] = len(left)
            feature[node] = int(rng.integers(0, N_FEATURES if categorical else 5))
            default_left[node] = bool(rng.random() < 0.5)
            n = CATEGORICAL.get(feature[node])
            if n is None:
                threshold[node] = float(np.float32(rng.normal()))
            else:
                categories[node] = np.sort(rng.choice(n, int(rng.integers(1, n + 1)), replace=False)).astype(np.int32)
            for column, empty in ((left, -1), (feature, 0), (threshold, 0.0), (value, 0.0), (default_left, False)):
                column.extend([empty, empty])  # type: ignore[list-item]
            following += [left[node], left[node] + 1]
        level = following
    return Tree(
        left=np.array(left, np.int32),
        feature=np.array(feature, np.int32),
        threshold=np.array(threshold, np.float32),
        value=np.array(value, np.float32),
        default_left=np.array(default_left, np.bool_),
        categories=categories,
    )


def random_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    for feature, n_categories in CATEGORICAL.items():
        rows[:, feature] = rng.integers(-2, n_categories + 3, n) + rng.choice([0.0, 0.5], n)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, -1e-45, 3e38, 2.0**24, 1e10], np.float32)
    replaced = rng.random(rows.shape) < 0.2
    rows[replaced] = rng.choice(odd, int(replaced.sum()))
    return rows


def twin_margin(trees: list[Tree], row: np.ndarray, base_margin: np.float32) -> np.float32:
    """As XGBoost's documentation has it, one test at a time."""
    total = np.float32(base_margin)
    for tree in trees:
        node = 0
        while tree.left[node] != -1:
            value = row[tree.feature[node]]
            if np.isnan(value):
                goes_left = bool(tree.default_left[node])
            elif node in tree.categories:
                goes_left = value < 0 or value >= 2**24 or int(value) not in tree.categories[node]
            else:
                goes_left = bool(value < tree.threshold[node])
            node = int(tree.left[node]) + (0 if goes_left else 1)
        total = np.float32(total + tree.value[node])
    return total


@pytest.fixture(scope="session")
def make_tree() -> Callable[..., Tree]:
    return random_tree


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., np.ndarray]:
    return random_rows


@pytest.fixture(scope="session")
def twin() -> Callable[..., np.float32]:
    return twin_margin


@pytest.fixture
def trees() -> list[Tree]:
    rng = np.random.default_rng(11)
    return [random_tree(rng, depth=5, categorical=k % 3 == 0) for k in range(21)]


@pytest.fixture
def tables(trees: list[Tree]) -> np.ndarray:
    return build_tables(trees, n_features=N_FEATURES, base_margin=np.float32(-2.25))


def write_artefact(directory: Path, tables: np.ndarray, n_trees: int, **changes: object) -> Path:
    """An artefact of these tables whose hashes all agree; `changes` go to the manifest."""
    directory.mkdir(parents=True)
    forest = write_forest(tables)
    values = {
        "name": "cards",
        "version": "1",
        "created_at": "2026-11-23T10:00:00Z",
        "backend": "table",
        "source_sha256": "b" * 64,
        "feature_names": tuple(f"f{k}" for k in range(N_FEATURES)),
        "schema_fingerprint": "cd" * 32,
        "objective": "binary:logistic",
        "base_margin": -2.25,
        "n_trees": n_trees,
        "depth": depth_of(tables),
        "training_metrics": {},
        "libraries": {"xgboost": "3.2.0"},
        "calibration": None,
        "files": _entries({"forest.bin": forest, "model.ubj": b"{}"}),
    }
    stated = Manifest(**{**values, **changes})  # type: ignore[arg-type]
    suite = Suite("random rows", "Booster.predict", 20_000, 0, 0.0, "a" * 64, "a" * 64)
    certificate = Certificate(
        backend="table",
        reference="xgboost 3.2.0",
        seed=1,
        bound=0.0,
        source_sha256="b" * 64,
        booster_sha256=hashlib.sha256(b"{}").hexdigest(),
        native_sha256=hashlib.sha256(forest).hexdigest(),
        manifest_sha256=stated.statement_sha256(),
        suites=(suite,),
    )
    files = {"forest.bin": forest, "model.ubj": b"{}", "certificate.json": to_json(certificate.to_dict())}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    (directory / "manifest.json").write_bytes(replace(stated, files=_entries(files)).to_json())
    return directory


def _entries(files: dict[str, bytes]) -> dict[str, FileEntry]:
    return {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}


@pytest.fixture(scope="session")
def make_artefact() -> Callable[..., Path]:
    return write_artefact


@pytest.fixture
def artefact(tmp_path: Path, tables: np.ndarray, trees: list[Tree]) -> Path:
    return write_artefact(tmp_path / "cards", tables, len(trees))
