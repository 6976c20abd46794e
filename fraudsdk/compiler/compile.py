"""
`compile_model`: a model file in, an artefact directory out, or an error and nothing left behind.

The directory appears in one rename, complete and certified, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace as replace_fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from fraudsdk.compiler.c_backend import build_library
from fraudsdk.compiler.certify import certify
from fraudsdk.compiler.documents import MAX_BYTES
from fraudsdk.compiler.frontend import load_treelite, trees_of
from fraudsdk.compiler.reference import empty_forest_margin, load_booster
from fraudsdk.compiler.shap import check_contributions, shap_tables_of
from fraudsdk.compiler.validate import ValidatedModel, check_feature_names, validate_model
from fraudsdk.compiler.vendors import vendor
from fraudsdk.errors import ConfigurationError, InvalidModelError, ModelNotFoundError
from fraudsdk.model.artefact import table_engine
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.documents import to_json
from fraudsdk.model.engine import Engine, TableEngine, available_engines
from fraudsdk.model.forest import Tree, build_tables, write_forest
from fraudsdk.model.library import LibraryEngine
from fraudsdk.model.manifest import (
    BACKENDS,
    BOOSTER,
    CERTIFICATE,
    FOREST,
    LIBRARY,
    MANIFEST,
    RESERVED,
    SHAP,
    FileEntry,
    Manifest,
    plain_name,
)
from fraudsdk.model.shap_tables import write_shap

CERTIFICATE_SEED: Final = 20_260_701


def compile_model(
    source: Path | bytes,
    out: Path,
    *,
    name: str,
    version: str,
    created_at: str,
    feature_names: tuple[str, ...] | None = None,
    schema_fingerprint: str = "",
    training_metrics: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    backend: str = "table",
    replace: bool = False,
) -> Manifest:
    """
    Compile an XGBoost model into a certified artefact.

    All trees of the model are compiled, as ``Booster.predict`` uses all: to keep the best iteration of an early-stopped
    model, save ``booster[: booster.best_iteration + 1]``.

    Parameters
    ----------
    source : Path or bytes
        What ``Booster.save_model`` wrote, ``.json`` or ``.ubj``.
    out : Path
        Directory to create.
    name, version : str
        Plain names; decisions carry ``"name/version"``.
    created_at : str
        ISO 8601.
    feature_names : tuple of str, optional
        In row order.  By default the model's own, or ``f0``, ``f1``, ... where it has none.
    schema_fingerprint : str
        Of the feature set that the model was trained on.
    training_metrics : mapping, optional
        JSON values for the manifest.
    calibration : Calibration, optional
        Margin -> probability.
    extra_files : mapping of str to bytes, optional
        Files that travel with the model, such as its vocabulary.
    backend : str
        ``"table"``, or ``"c"`` for a C library (needs a C compiler).
    replace : bool
        Whether an artefact at `out` may be replaced.

    Returns
    -------
    Manifest
        As written.

    Raises
    ------
    ModelNotFoundError
        No model file.
    InvalidModelError
        The model is refused; nothing of it was executed.
    CertificateError
        Native code and booster differ.
    ConfigurationError
        An argument is unusable, or `out` exists.

    Examples
    --------
    >>> compile_model(Path("model.ubj"), Path("compiled_models/cards/1"), name="cards", version="1",
    ...               created_at="2026-11-23T10:00:00Z")                                      # doctest: +SKIP
    """
    extras = dict(extra_files or {})
    _check_arguments(out, name, version, created_at, backend, extras, replace)
    data = source if isinstance(source, bytes) else _read_source(source)
    validated = validate_model(data)
    names = _feature_names(feature_names, validated)
    # Inside the parent, so that the last step is a rename within one file system.
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        booster = load_booster(data)
        (aside / BOOSTER).write_bytes(bytes(booster.save_raw("ubj")))
        trees = trees_of(load_treelite(aside / BOOSTER), validated)
        base_margin = empty_forest_margin(validated)
        depth = max(tree.depth() for tree in trees)
        engines = _native(aside, backend, trees, validated.n_features, depth, base_margin)
        shap_tables = shap_tables_of(validated, trees, base_margin)
        check_contributions(shap_tables, booster, validated, trees, base_margin=base_margin, seed=CERTIFICATE_SEED)
        (aside / SHAP).write_bytes(write_shap(shap_tables))
        for file_name, content in extras.items():
            (aside / file_name).write_bytes(content)
        stated = Manifest(
            name=name,
            version=version,
            created_at=created_at,
            backend=backend,
            source_sha256=hashlib.sha256(data).hexdigest(),
            feature_names=names,
            schema_fingerprint=schema_fingerprint,
            objective=validated.objective,
            base_margin=float(base_margin),
            n_trees=len(trees),
            depth=depth,
            training_metrics=dict(training_metrics or {}),
            libraries=_libraries(backend),
            calibration=None if calibration is None else calibration.to_dict(),
            files=_entries(aside),
        )
        certificate = certify(
            engines,
            booster,
            trees=trees,
            n_features=validated.n_features,
            backend=backend,
            base_margin=base_margin,
            source_sha256=stated.source_sha256,
            booster_sha256=_digest(aside / BOOSTER),
            native_sha256=_digest(aside / stated.native_file),
            manifest_sha256=_statement_sha256(stated),
            seed=CERTIFICATE_SEED,
        )
        (aside / CERTIFICATE).write_bytes(to_json(certificate.to_dict()))
        manifest = replace_fields(stated, files=_entries(aside))
        (aside / MANIFEST).write_bytes(manifest.to_json())
        _publish(aside, out, replace)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _entries(folder: Path) -> dict[str, FileEntry]:
    return {path.name: FileEntry(_digest(path), path.stat().st_size) for path in sorted(folder.iterdir())}


def _check_arguments(
    out: Path, name: str, version: str, created_at: str, backend: str, extras: Mapping[str, bytes], replace: bool
) -> None:
    plain_name(name, "model name")
    plain_name(version, "model version")
    if backend not in BACKENDS:
        raise ConfigurationError(f"backend must be table or c, was {backend!r}; choose one")
    try:
        datetime.fromisoformat(created_at)
    except ValueError as error:
        raise ConfigurationError(
            f"created_at must be ISO 8601, was {created_at[:40]!r}; pass one such as 2026-11-23T10:00:00Z"
        ) from error
    for file_name in extras:
        if plain_name(file_name, "name of an extra file") in RESERVED:
            raise ConfigurationError(f"an extra file may not be called {file_name}, which the artefact uses; rename it")
    if out.exists() and not replace:
        raise ConfigurationError(f"{out} exists; choose another version, or ask to replace it")


def _read_source(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no model file at {path}; save one with Booster.save_model") from error
    except OSError as error:
        raise InvalidModelError(f"{path} cannot be read: {error.strerror}; give a .json or .ubj file") from error
    return data


def _feature_names(given: tuple[str, ...] | None, model: ValidatedModel) -> tuple[str, ...]:
    if given is None:
        return model.feature_names or tuple(f"f{index}" for index in range(model.n_features))
    if len(given) != model.n_features:
        raise InvalidModelError(
            f"the model has {model.n_features} features, {len(given)} names were given; name the columns it was trained on"
        )
    if model.feature_names and tuple(given) != model.feature_names:
        first = next(i for i, (a, b) in enumerate(zip(given, model.feature_names, strict=True)) if a != b)
        raise InvalidModelError(
            f"feature {first} is {model.feature_names[first]!r} in the model, {given[first]!r} was given; name the columns in "
            "the order of training"
        )
    check_feature_names(tuple(given))
    return tuple(given)


def _native(
    aside: Path, backend: str, trees: list[Tree], n_features: int, depth: int, base_margin: np.float32
) -> list[Engine]:
    """Write the native file, and load it in the ways it may be loaded, the one that this CPU gets first."""
    if backend == "c":
        build_library(aside, n_features=n_features, n_trees=len(trees), base_margin=base_margin)
        return [LibraryEngine(aside / LIBRARY, sha256=_digest(aside / LIBRARY), n_features=n_features)]
    (aside / FOREST).write_bytes(write_forest(build_tables(trees, n_features=n_features, base_margin=base_margin)))

    forest = (aside / FOREST).read_bytes()

    def load(name: str | None) -> TableEngine:
        return table_engine(
            forest,
            n_features=n_features,
            n_trees=len(trees),
            depth=depth,
            base_margin=float(base_margin),
            name=name,
        )

    engines: list[Engine] = [load(None)]
    # The others too: another CPU gets them, and whoever asks for one by its name.
    for name in available_engines():
        if name != engines[0].name:
            with contextlib.suppress(
                ConfigurationError
            ):  # this forest is too large for blocks, and no start will make any
                engines.append(load(name))
    return engines


def _libraries(backend: str) -> dict[str, str]:
    packages = ["xgboost", "treelite", *(["tl2cgen"] if backend == "c" else [])]
    return {package: str(vendor(package).__version__) for package in packages} | {"numpy": np.__version__}


def _statement_sha256(manifest: Manifest) -> str:
    try:
        return manifest.statement_sha256()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"training metrics must be JSON values, without NaN or infinity: {error}") from error


def _publish(aside: Path, out: Path, replace: bool) -> None:
    """Make `aside` appear at `out`, durable before it is visible."""
    aside.chmod(0o755)  # mkdtemp's 0700 would hide the model from the service that runs it
    for path in aside.iterdir():
        _sync(path)
    _sync(aside)
    if out.exists() and replace:
        retired = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
        os.rename(out, retired / out.name)
        os.rename(aside, out)
        shutil.rmtree(retired, ignore_errors=True)
    else:
        os.rename(aside, out)
    _sync(out.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
