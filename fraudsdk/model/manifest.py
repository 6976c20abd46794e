"""The manifest of an artefact: what it is, what it was made from, and the hash of every file beside it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from fraudsdk.errors import InvalidModelError
from fraudsdk.model.documents import DocumentReader, parse, to_json

FORMAT: Final = 1
BACKENDS: Final = ("table", "c")

MANIFEST: Final = "manifest.json"
CERTIFICATE: Final = "certificate.json"
BOOSTER: Final = "model.ubj"
FOREST: Final = "forest.bin"
SHAP: Final = "shap.bin"
LIBRARY: Final = "model.so"
LIBRARY_HEADER: Final = "fraudsdk_model.h"
RESERVED: Final = (MANIFEST, CERTIFICATE, BOOSTER, FOREST, SHAP, LIBRARY, LIBRARY_HEADER)

# A plain name: no separator, no leading dot, so that no entry of a manifest can point outside its directory.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and SHA-256 (hex) of one file of an artefact."""

    sha256: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    What an artefact says about itself.

    Attributes
    ----------
    name, version : str
        Of the model; plain names.
    created_at : str
        ISO 8601, given by whoever compiled it.
    backend : str
        ``"table"`` (Numba over forest tables) or ``"c"`` (a C library).
    source_sha256 : str
        Of the model file that was compiled.
    feature_names : tuple of str
        In row order.
    schema_fingerprint : str
        Of the feature set that the model was trained on; empty where none was given.
    objective : str
        XGBoost's name of it.
    base_margin : float
        Margin of the empty forest, log-odds; a float32.
    n_trees, depth : int
        Number of trees; edges to the deepest leaf.
    training_metrics : mapping
        Whatever the trainer measured.
    libraries : mapping of str to str
        Versions of what built the artefact.
    calibration : mapping or None
        See `fraudsdk.model.calibration`.
    files : mapping of str to FileEntry
        Every file of the artefact but the manifest itself.
    """

    name: str
    version: str
    created_at: str
    backend: str
    source_sha256: str
    feature_names: tuple[str, ...]
    schema_fingerprint: str
    objective: str
    base_margin: float
    n_trees: int
    depth: int
    training_metrics: Mapping[str, Any]
    libraries: Mapping[str, str]
    calibration: Mapping[str, Any] | None
    files: Mapping[str, FileEntry]

    @property
    def native_file(self) -> str:
        """The file that scores."""
        return FOREST if self.backend == "table" else LIBRARY

    def to_json(self) -> bytes:
        """
        Bytes of ``manifest.json``.

        Raises
        ------
        ValueError, TypeError
            A metric is not a JSON value; NaN and infinity are none.
        """
        return to_json({"format": FORMAT, **asdict(self)})

    def statement_sha256(self) -> str:
        """
        SHA-256 of all that the manifest states, every file but the certificate included, for that certificate.

        The same before and after a manifest is written and read, however the file is laid out.

        Raises
        ------
        ValueError, TypeError, RecursionError
            A metric is not a JSON value; NaN and infinity are none.
        """
        stated = asdict(self)
        stated["files"].pop(CERTIFICATE, None)
        # Through JSON and back: a metric's key that is a number, say, is sorted as the text that a reader will find.
        return hashlib.sha256(to_json(json.loads(to_json(stated)))).hexdigest()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """
        The manifest that `to_json` wrote.

        Raises
        ------
        InvalidModelError
            A field is missing, of the wrong type, or names a file elsewhere.
        """
        read = DocumentReader(parse(data, MANIFEST, InvalidModelError), MANIFEST, InvalidModelError)
        read.constant("format", FORMAT)
        backend = read.text("backend")
        if backend not in BACKENDS:
            raise InvalidModelError(
                f"{MANIFEST}: backend must be table or c, was {backend[:40]!r}; compile the model again"
            )
        manifest = cls(
            name=plain_name(read.text("name"), "name"),
            version=plain_name(read.text("version"), "version"),
            created_at=read.text("created_at"),
            backend=backend,
            source_sha256=read.text("source_sha256"),
            feature_names=read.texts("feature_names"),
            schema_fingerprint=read.text("schema_fingerprint"),
            objective=read.text("objective"),
            base_margin=read.number("base_margin"),
            n_trees=read.count("n_trees"),
            depth=read.count("depth"),
            training_metrics=read.mapping("training_metrics"),
            libraries={name: str(version) for name, version in read.mapping("libraries").items()},
            calibration=read.optional_mapping("calibration"),
            files={plain_name(name, "file name"): _entry(name, entry) for name, entry in read.mapping("files").items()},
        )
        for needed in (manifest.native_file, CERTIFICATE, BOOSTER):
            if needed not in manifest.files:
                raise InvalidModelError(f"{MANIFEST} lists no {needed}; compile the model again")
        return manifest


def plain_name(name: str, what: str) -> str:
    """
    `name`, if it is one: letters, digits, dot, dash and underscore, not a leading dot, at most 128 of them.

    Raises
    ------
    InvalidModelError
        It is not; it may lead out of the artefact's directory.
    """
    if not _PLAIN_NAME.fullmatch(name):
        raise InvalidModelError(
            f"{what} must be 1 to 128 letters, digits, dots, dashes or underscores, not begin with a dot, and was "
            f"{name[:80]!r}; choose another"
        )
    return name


def _entry(name: str, value: Any) -> FileEntry:
    if not isinstance(value, dict):
        raise InvalidModelError(f"{MANIFEST}: entry of {name} must be an object; compile the model again")
    read = DocumentReader(value, f"{MANIFEST}, {name}", InvalidModelError)
    sha256 = read.text("sha256")
    if not _SHA256.fullmatch(sha256):
        raise InvalidModelError(f"{MANIFEST}: sha256 of {name} must be 64 hex digits; compile the model again")
    return FileEntry(sha256=sha256, n_bytes=read.count("n_bytes"))
