"""
The forests that all contestants run, trained here, and kept by what they are made of so that the next run need not.

Rows are noise with a faint signal on purpose: trees then grow to nearly all the leaves that their depth allows (nine in ten
at depth 6, eight at depth 8), which is about the most work a forest of that size can be.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

N_FEATURES = 80
# Name -> trees, depth, rows to train on.
SHAPES = {"100x6": (100, 6, 20_000), "300x6": (300, 6, 20_000), "600x8": (600, 8, 40_000)}
MADE = {"version": "1", "created_at": "2026-11-24T00:00:00Z"}


def make_rows(n: int, seed: int) -> np.ndarray:
    """float32[n, 80], one value in twenty missing."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def make_labels(rows: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(rows)
    signal = (
        known[:, 0] * known[:, 1]
        + known[:, 2]
        + np.sin(2 * known[:, 3])
        + known[:, 4:20].sum(axis=1) * known[:, 20] / 2
    )
    return (signal + 8 * np.random.default_rng(8).normal(size=len(rows)) > 0).astype(np.float32)


class Shelf:
    """
    Files that take long to make, kept under the digest of what they are made from.

    Parameters
    ----------
    folder : Path
        Pytest's own cache, which ``pytest --cache-clear`` empties.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, name: str, recipe: dict[str, Any], make: Callable[[Path], None]) -> Path:
        """The file of that recipe; `make` writes it where it is not there yet."""
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:20]
        path = self._folder / f"{digest}-{name}"
        if not path.exists():
            aside = path.with_name(f"{path.name}.part")
            make(aside)
            aside.rename(path)
        return path


def train_xgboost(shelf: Shelf, shape: str) -> bytes:
    """A UBJ model of that shape."""
    n_trees, depth, n_rows = SHAPES[shape]
    settings = {
        "objective": "binary:logistic",
        "max_depth": depth,
        # So that every split gains something, and a tree stops at its depth: no regularisation, and margins that hardly
        # move.  Half the columns each, so that trees differ nevertheless.
        "eta": 1.6 / n_trees,
        "base_score": 0.5,
        "lambda": 0.0,
        "colsample_bytree": 0.5,
        "min_child_weight": 0.0,
        "max_delta_step": 1.0,
        "nthread": 1,
    }

    def make(path: Path) -> None:
        import xgboost

        rows = make_rows(n_rows, 7)
        booster = xgboost.train(settings, xgboost.DMatrix(rows, make_labels(rows)), n_trees)
        path.write_bytes(bytes(booster.save_raw("ubj")))

    recipe = {"settings": settings, "trees": n_trees, "rows": n_rows, "data": 2, "xgboost": version("xgboost")}
    return shelf.file(f"xgboost-{shape}.ubj", recipe, make).read_bytes()


def train_lightgbm(shelf: Shelf, shape: str) -> Path:
    """A LightGBM text model of that shape, of the same rows."""
    n_trees, depth, n_rows = SHAPES[shape]
    settings = {
        "objective": "binary",
        "max_depth": depth,
        "num_leaves": 2**depth,
        "learning_rate": 0.02,
        "min_data_in_leaf": 1,
        "min_sum_hessian_in_leaf": 0.0,
        "boost_from_average": False,
        "num_threads": 1,
        "deterministic": True,
        "verbose": -1,
    }

    def make(path: Path) -> None:
        import lightgbm

        rows = make_rows(n_rows, 7)
        lightgbm.train(settings, lightgbm.Dataset(rows, make_labels(rows)), n_trees).save_model(str(path))

    recipe = {"settings": settings, "trees": n_trees, "rows": n_rows, "data": 2, "lightgbm": version("lightgbm")}
    return shelf.file(f"lightgbm-{shape}.txt", recipe, make)


def compile_c_library(shelf: Shelf, booster: bytes, directory: Path) -> Path:
    """What tl2cgen and the system's compiler make of a model."""
    from fraudsdk.compiler import c_backend, c_build
    from fraudsdk.compiler.compile import compile_model

    def make(path: Path) -> None:
        compile_model(booster, directory / "c", name="bench", backend="c", **MADE)
        shutil.copy(directory / "c" / "model.so", path)

    recipe = {
        "booster": hashlib.sha256(booster).hexdigest(),
        "sources": [hashlib.sha256(Path(m.__file__).read_bytes()).hexdigest() for m in (c_backend, c_build)],
        "tl2cgen": version("tl2cgen"),
        "treelite": version("treelite"),
    }
    return shelf.file("tl2cgen.so", recipe, make)


def train_catalogue(shelf: Shelf, replayed: Any) -> bytes:
    """300 trees of depth 6 on the reference features of a replayed table."""
    from fraudsdk.training.train import TrainParams, fit_trees

    params = TrainParams(
        num_boost_round=300,
        early_stopping_rounds=None,
        max_depth=6,
        learning_rate=0.03,
        min_child_weight=0.0,
        reg_lambda=0.0,
        max_bin=256,
        nthread=1,
    )
    matrix = replayed.matrix()

    def make(path: Path) -> None:
        path.write_bytes(fit_trees(matrix.rows, matrix.label, matrix.schema, params).booster)

    recipe = {
        "params": asdict(params),
        "rows": hashlib.sha256(matrix.rows.tobytes() + matrix.label.tobytes()).hexdigest(),
        "xgboost": version("xgboost"),
    }
    return shelf.file("catalogue-300x6.ubj", recipe, make).read_bytes()


def compile_with_features(booster: bytes, out: Path, features: Any, vocabulary: Any, policy: Any) -> Path:
    """An artefact that a scorer can be opened with."""
    from fraudsdk.compiler.compile import compile_model

    compile_model(
        booster,
        out,
        name="bench",
        **MADE,
        feature_names=features.names,
        schema_fingerprint=features.fingerprint,
        extra_files={
            "features.toml": features.to_toml().encode(),
            "vocabulary.json": json.dumps(vocabulary.to_dict()).encode(),
            "policy.toml": policy.to_toml().encode(),
        },
    )
    return out


def booster_of(model: Path) -> Any:
    """The booster of an artefact, for one thread."""
    import xgboost

    booster = xgboost.Booster(model_file=str(model / "model.ubj"))
    booster.set_param({"nthread": 1})
    return booster
