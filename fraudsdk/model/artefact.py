"""
An artefact directory -> a `CompiledModel` that scores.

    <dir>/manifest.json       what it is, and the SHA-256 of every other file
    <dir>/certificate.json    booster against native code: rows compared, rows unequal
    <dir>/forest.bin          the forest tables; or model.so and fraudsdk_model.h, with backend "c"
    <dir>/shap.bin            tables of explanations; artefacts of older compilers have none
    <dir>/model.ubj           the booster that all this was compiled from
    <dir>/...                 what the compiler was asked to add: vocabulary, feature set, policy

Nothing is loaded that does not match its hash, nothing scores without a certificate for its bytes, and nothing is
unpickled.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.errors import (
    CertificateError,
    ConfigurationError,
    InvalidModelError,
    ModelError,
    ModelNotFoundError,
    SchemaMismatchError,
)
from fraudsdk.model import layout
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.certificate import Certificate
from fraudsdk.model.counterfactual import ChangeSearch
from fraudsdk.model.documents import parse
from fraudsdk.model.engine import Engine, TableEngine, check_engine
from fraudsdk.model.explainer import ShapExplainer
from fraudsdk.model.forest import depth_of, read_forest
from fraudsdk.model.library import LibraryEngine
from fraudsdk.model.manifest import BOOSTER, CERTIFICATE, FOREST, MANIFEST, SHAP, Manifest
from fraudsdk.model.shap_tables import Int32Array as ShapTables
from fraudsdk.model.shap_tables import read_shap, require_forest

# Largest file of an artefact that is read into memory; a forest of 2 M nodes has 24 MB.
MAX_FILE_BYTES: Final = 512 * 1024 * 1024


class CompiledModel:
    """
    A model that scores, as `load_artefact` returns it.  Immutable and thread-safe.

    Attributes
    ----------
    manifest : Manifest
        What the artefact says about itself.
    certificate : Certificate
        What was compared before it was written.
    source_path : Path
        The artefact's directory.
    calibration : Calibration
        Margin -> probability; the sigmoid where the artefact has none.
    explainer : ShapExplainer or None
        What takes margins apart; None where the artefact has no `SHAP` file.
    changes : ChangeSearch or None
        What looks for the smallest change that moves a verdict; None likewise.
    """

    def __init__(
        self,
        manifest: Manifest,
        certificate: Certificate,
        engine: Engine,
        source_path: Path,
        shap_tables: ShapTables | None = None,
    ) -> None:
        self.manifest = manifest
        self.certificate = certificate
        self.source_path = source_path
        self.calibration = Calibration.identity()
        if manifest.calibration is not None:
            self.calibration = Calibration.from_dict(manifest.calibration)
        self._engine = engine
        self._margin = engine.direct if isinstance(engine, TableEngine) else engine.margin
        self._row_shape = (len(manifest.feature_names),)
        self.explainer = None if shap_tables is None else ShapExplainer(shap_tables, self._margins_to_explain)
        self.changes = None if shap_tables is None else ChangeSearch(shap_tables, self.margins)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of a row's columns, in order."""
        return self.manifest.feature_names

    @property
    def schema_fingerprint(self) -> str:
        """Fingerprint of the feature set that the model was trained on."""
        return self.manifest.schema_fingerprint

    @property
    def engine(self) -> str:
        """What computes margins: ``"avx512"``, ``"avx2"``, ``"portable"``, or ``"c"`` for a C library."""
        return self._engine.name

    @property
    def version(self) -> str:
        """``"name/version"``, as decisions carry it."""
        return f"{self.manifest.name}/{self.manifest.version}"

    def margin(self, row: npt.NDArray[np.float32]) -> float:
        """
        Margin of one row.

        Parameters
        ----------
        row : float32[n_features]
            C-contiguous and writable (kernels have one signature); NaN = missing.  Left unchanged.

        Returns
        -------
        float
            Log-odds of fraud, a float32 in a Python float.

        Raises
        ------
        SchemaMismatchError
            The row has another length or type.

        Examples
        --------
        >>> model = load_artefact("compiled_models/reference")       # doctest: +SKIP
        >>> model.margin(np.zeros(len(model.feature_names), np.float32))   # doctest: +SKIP
        -4.59511
        """
        if row.shape != self._row_shape:
            raise self._mismatch(row, self._row_shape)
        try:
            return self._margin(row)
        except TypeError as error:  # the engine's, for another type or layout; asking numpy first would cost 100 ns
            raise self._mismatch(row, self._row_shape) from error

    def margins(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """
        Margins of many rows, the same bits as `margin` gives one by one.

        Parameters
        ----------
        rows : float32[n, n_features]
            NaN = missing.  Copied if not C-contiguous, aligned and writable; left unchanged.

        Raises
        ------
        SchemaMismatchError
            The rows have another length or type.
        """
        if rows.ndim != 2 or rows.shape[1:] != self._row_shape or rows.dtype != np.float32:
            raise self._mismatch(rows, ("n", *self._row_shape))
        out = np.empty(len(rows), np.float32)
        if len(rows):
            self._engine.margins(np.require(rows, requirements=("C", "W", "A")), out)
        return out

    @property
    def native(self) -> tuple[int, int] | None:
        """
        For kernels that score without Python: the addresses of ``float32 f(int64 row, int64 tables)`` and of the tables.

        ``row`` is the address of float32[n_features], 4-byte aligned.  The function is thread-safe and takes no lock; both
        addresses are valid as long as this model lives.  None where the model is a C library.

        Warning
        -------
        Nothing is checked behind this call: a shorter row is read past its end.
        """
        return self._engine.native() if isinstance(self._engine, TableEngine) else None

    def contributions(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """
        Exact SHAP contributions to the margins of many rows.

        Parameters
        ----------
        rows : float32[n, n_features]
            NaN = missing.  Copied if not C-contiguous, aligned and writable; left unchanged.

        Returns
        -------
        float64[n, n_features + 1]
            Log-odds per feature; the last column is the expected margin.  A row adds up to its margin.

        Raises
        ------
        ModelError
            The artefact carries no explanations.
        SchemaMismatchError
            The rows have another length or type.
        ExplanationError
            A row does not add up.
        """
        if self.explainer is None:
            raise ModelError(f"{self.version} carries no {SHAP}, which explains it; compile the model again")
        return self.explainer.contributions(rows)

    def warm_up(self) -> None:
        """Touch all that scoring will touch, so that the first transaction pays for none of it."""
        nothing_known = np.full(self._row_shape, np.nan, np.float32)
        self.margin(nothing_known)
        self.margins(np.tile(nothing_known, (layout.LANES, 1)))
        if self.explainer is not None:
            self.explainer.contributions(nothing_known[np.newaxis, :])

    def read(self, name: str) -> bytes:
        """
        Bytes of a file that the artefact carries, such as its vocabulary.

        Raises
        ------
        ModelNotFoundError
            The manifest lists no such file.
        CertificateError
            Its bytes are not those in the manifest.
        """
        return _read_verified(self.source_path, self.manifest, name)

    def _margins_to_explain(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # A batch of one row costs eight times what the row costs alone, and most explanations are of one.
        if rows.ndim == 2 and len(rows) == 1:
            return np.array([self.margin(rows[0])], np.float32)
        return self.margins(rows)

    def _mismatch(self, rows: npt.NDArray[np.float32], shape: tuple[object, ...]) -> SchemaMismatchError:
        expected = ", ".join(map(str, shape))
        return SchemaMismatchError(
            f"{self.version} reads float32[{expected}], C-contiguous and writable, was given {rows.dtype}{list(rows.shape)}; "
            "build rows with the feature set that the model was trained on"
        )


def load_artefact(path: Path | str, *, engine: str | None = None) -> CompiledModel:
    """
    Load and verify an artefact, and warm it up.

    Parameters
    ----------
    path : Path or str
        The artefact's directory.
    engine : str, optional
        ``"avx512"``, ``"avx2"`` or ``"portable"``; by default the fastest for this CPU and forest.  All give the same bits.

    Raises
    ------
    ConfigurationError
        This CPU lacks the engine, the engine does not take this forest, or the artefact is a C library, which has its own.
    ModelNotFoundError
        No artefact there, or a file of it is missing.
    CertificateError
        A file is not the one in the manifest, or the certificate does not vouch for the native code.
    InvalidModelError
        A file is malformed.
    """
    if engine is not None:
        check_engine(engine)
    directory = Path(path)
    manifest = Manifest.from_json(_read(directory / MANIFEST))
    for name in manifest.files:
        _read_verified(directory, manifest, name)
    certificate = Certificate.from_dict(
        parse(_read_verified(directory, manifest, CERTIFICATE), CERTIFICATE, CertificateError)
    )
    _check_certificate(certificate, manifest)
    model = CompiledModel(
        manifest, certificate, _engine(directory, manifest, engine), directory, _shap_tables(directory, manifest)
    )
    model.warm_up()
    return model


def table_engine(
    forest: bytes, *, n_features: int, n_trees: int, depth: int, base_margin: float, name: str | None = None
) -> TableEngine:
    """
    Engine of a forest file, which must be the forest that the manifest describes.

    Raises
    ------
    InvalidModelError
        It is malformed, or another forest.
    ConfigurationError
        The engine of that name cannot be had.
    """
    tables = read_forest(forest)
    base = float(tables[layout.BASE_MARGIN : layout.BASE_MARGIN + 1].view(np.float32)[0])
    found = (int(tables[layout.N_FEATURES]), int(tables[layout.N_TREES]), depth_of(tables), base)
    if found != (n_features, n_trees, depth, base_margin):
        raise InvalidModelError(
            f"{FOREST} has (features, trees, depth, base margin) {found}, the manifest says "
            f"{(n_features, n_trees, depth, base_margin)}; compile the model again"
        )
    return TableEngine(tables, name)


def _engine(directory: Path, manifest: Manifest, name: str | None) -> Engine:
    n_features = len(manifest.feature_names)
    if manifest.backend == "table":
        return table_engine(
            _read_verified(directory, manifest, FOREST),
            n_features=n_features,
            n_trees=manifest.n_trees,
            depth=manifest.depth,
            base_margin=manifest.base_margin,
            name=name,
        )
    if name is not None:
        raise ConfigurationError(
            f"{manifest.name}/{manifest.version} is a C library and has one engine, {name!r} was asked for; leave it out, or "
            "compile the model with backend table"
        )
    native = manifest.native_file
    return LibraryEngine(directory / native, sha256=manifest.files[native].sha256, n_features=n_features)


def _shap_tables(directory: Path, manifest: Manifest) -> ShapTables | None:
    if SHAP not in manifest.files:
        return None
    tables = read_shap(_read_verified(directory, manifest, SHAP))
    require_forest(tables, n_features=len(manifest.feature_names), n_trees=manifest.n_trees)
    return tables


def _check_certificate(certificate: Certificate, manifest: Manifest) -> None:
    for what, certified, found in (
        ("backend", certificate.backend, manifest.backend),
        ("reference", certificate.reference, f"xgboost {manifest.libraries.get('xgboost')}"),
        ("SHA-256 of the source", certificate.source_sha256, manifest.source_sha256),
        (f"SHA-256 of {BOOSTER}", certificate.booster_sha256, manifest.files[BOOSTER].sha256),
        (f"SHA-256 of {manifest.native_file}", certificate.native_sha256, manifest.files[manifest.native_file].sha256),
        (f"SHA-256 of what {MANIFEST} states", certificate.manifest_sha256, _statement_sha256(manifest)),
    ):
        if certified != found:
            raise CertificateError(
                f"the parity certificate is for another model: its {what} is {certified[:16]!r}, this model's is "
                f"{found[:16]!r}; compile the model again"
            )
    certificate.check(n_features=len(manifest.feature_names))


def _statement_sha256(manifest: Manifest) -> str:
    try:
        return manifest.statement_sha256()
    except (ValueError, RecursionError) as error:  # JSON readers take NaN, infinity and a depth that writers refuse
        raise InvalidModelError(f"{MANIFEST} cannot be written again: {error}; compile the model again") from error


def _read_verified(directory: Path, manifest: Manifest, name: str) -> bytes:
    entry = manifest.files.get(name)
    if entry is None:
        raise ModelNotFoundError(
            f"{manifest.name}/{manifest.version} carries no {name[:80]!r}; it has {', '.join(sorted(manifest.files))}"
        )
    data = _read(directory / name)
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise CertificateError(
            f"{directory / name} has SHA-256 {digest[:16]}, its manifest says {entry.sha256[:16]}; it was changed after it was "
            "certified: compile the model again"
        )
    return data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # By its size: to ask for the cap would set aside as much, which takes 2 ms a file.
            data = file.read(min(os.fstat(file.fileno()).st_size, MAX_FILE_BYTES) + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFoundError(
            f"no {path.name} in {path.parent}; compile a model into it, or give another path"
        ) from error
    except OSError as error:  # no descriptor is left, no permission, a disk that fails
        raise ModelError(f"{path} cannot be read: {error.strerror}; see to that, or give another path") from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidModelError(f"{path} has over {MAX_FILE_BYTES:,} bytes; compile the model again")
    return data
