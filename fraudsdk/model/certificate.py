"""
The parity certificate: what was compared, how many rows differed, and the bytes of both sides.

Written by `fraudsdk.compiler.certify`; an artefact without one that matches its bytes is not loaded.

    source_sha256 ---- the model file that was compiled
    booster_sha256 --- model.ubj, which explains
    native_sha256 ---- forest.bin or model.so, which scores
    manifest_sha256 -- all that manifest.json states: names, calibration, ..., and the hash of every other file

What it cannot show: who wrote it.  It holds hashes, no signature, so it finds a file that was damaged, mixed up or edited
alone, and not a directory that was rewritten as a whole, certificate included.  Let nobody write to the directory who may
not choose the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from fraudsdk.errors import CertificateError
from fraudsdk.model.documents import DocumentReader

FORMAT: Final = 2

# Random rows that every certificate must hold; fewer for wide models, whose every row costs as much as many narrow ones.
_RANDOM_ROWS: Final = 20_000
_RANDOM_ROWS_OF_WIDE_MODELS: Final = 1_000
_RANDOM_CELLS: Final = 20_000_000

# Log-odds.  The worst case of rounding grows with the square of the trees, and reaches 0.01 for a thousand trees with leaves of
# 0.1; a certificate that allowed as much would pass a wrong leaf too.  Real sums stay far below (with gcc they were bit-equal,
# ADR 0003), and 0.001 moves no probability by more than 0.00025.
MAX_BOUND: Final = 1e-3


def required_rows(n_features: int) -> int:
    """Rows that a certificate must compare at least, and how many of them are random; `n_features` is the length of a row."""
    return min(_RANDOM_ROWS, max(_RANDOM_ROWS_OF_WIDE_MODELS, _RANDOM_CELLS // max(n_features, 1)))


@dataclass(frozen=True, slots=True)
class Suite:
    """
    One family of inputs and how booster and artefact compared on it.

    Attributes
    ----------
    inputs : str
        What the rows were made to probe.
    reference : str
        The XGBoost call that gave the truth.
    rows, unequal : int
        Rows compared, and rows where the float32 bits of the margins differed.
    max_abs_difference : float
        Largest difference of margins.
    reference_sha256, artefact_sha256 : str
        Of the margins of each side, float32 little-endian, in order.
    """

    inputs: str
    reference: str
    rows: int
    unequal: int
    max_abs_difference: float
    reference_sha256: str
    artefact_sha256: str

    def check(self) -> None:
        """
        Refuse figures that no comparison gives.

        Raises
        ------
        CertificateError
            Names the suite.
        """
        possible = 0 <= self.unequal <= self.rows and 0.0 <= self.max_abs_difference < math.inf
        # Equal bits have equal hashes and no difference.  The reverse does not hold: hashes are of batches, and a row
        # may differ only when it is scored alone.
        agreed = self.reference_sha256 == self.artefact_sha256 and self.max_abs_difference == 0.0
        if not possible or (self.unequal == 0 and not agreed):
            raise CertificateError(
                f"the parity certificate contradicts itself on {self.inputs[:80]!r}: {self.unequal:,} of {self.rows:,} rows "
                f"differ, by up to {self.max_abs_difference:g}, hashes {self.reference_sha256[:16]} and "
                f"{self.artefact_sha256[:16]}; compile the model again"
            )


@dataclass(frozen=True, slots=True)
class Certificate:
    """
    Evidence that native code equals the booster.

    Attributes
    ----------
    backend : str
        ``"table"`` or ``"c"``.
    reference : str
        Library and version that gave the truth.
    seed : int
        The rows can be made again from it.
    bound : float
        Largest difference that was allowed.  0 for ``"table"``; for ``"c"``, what float32 rounding can explain, and
        at most `MAX_BOUND`.
    source_sha256 : str
        Of the model file that was compiled.
    booster_sha256 : str
        Of the booster that gave the truth and explains, as the artefact carries it.
    native_sha256 : str
        Of the file that was tried: forest tables or C library.
    manifest_sha256 : str
        Of what the manifest states; see `fraudsdk.model.manifest.Manifest.statement_sha256`.
    suites : tuple of Suite
        In the order in which they ran.
    """

    backend: str
    reference: str
    seed: int
    bound: float
    source_sha256: str
    booster_sha256: str
    native_sha256: str
    manifest_sha256: str
    suites: tuple[Suite, ...]

    @property
    def rows(self) -> int:
        """Rows compared."""
        return sum(suite.rows for suite in self.suites)

    @property
    def unequal(self) -> int:
        """Rows whose bits differed."""
        return sum(suite.unequal for suite in self.suites)

    @property
    def max_abs_difference(self) -> float:
        """Largest difference of margins."""
        return max((suite.max_abs_difference for suite in self.suites), default=0.0)

    def check(self, *, n_features: int) -> None:
        """
        Refuse a certificate that certifies too little, contradicts itself, or records a failure.

        Parameters
        ----------
        n_features : int
            Length of the model's rows, for `required_rows`.

        Raises
        ------
        CertificateError
            Says how many rows differed, and by how much.
        """
        required = required_rows(n_features)
        if self.rows < required:
            raise CertificateError(
                f"the parity certificate compares {self.rows:,} rows, {required:,} are required; compile the model again"
            )
        if not 0.0 <= self.bound <= MAX_BOUND:
            raise CertificateError(
                f"the parity certificate allows margins to differ by {self.bound:g}, the cap is {MAX_BOUND:g}; compile the "
                "model again"
            )
        if self.backend == "table" and (self.unequal or self.bound != 0.0):
            raise CertificateError(
                f"compiled model and booster differ on {self.unequal:,} of {self.rows:,} rows, by up to "
                f"{self.max_abs_difference:g}; compile the model again, and report it if that does not help"
            )
        if not self.max_abs_difference <= self.bound:
            raise CertificateError(
                f"compiled model and booster differ by {self.max_abs_difference:g}, rounding explains {self.bound:g}; "
                "use the table backend"
            )
        for suite in self.suites:
            suite.check()

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads; totals are added for those who read the file."""
        return {
            "format": FORMAT,
            **asdict(self),
            "suites": [asdict(suite) for suite in self.suites],
            "rows": self.rows,
            "unequal": self.unequal,
            "max_abs_difference": self.max_abs_difference,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Certificate:
        """
        The certificate that `to_dict` wrote.

        Raises
        ------
        CertificateError
            A field is missing or of the wrong type.
        """
        read = DocumentReader(value, "the parity certificate", CertificateError)
        read.constant("format", FORMAT)
        return cls(
            backend=read.text("backend"),
            reference=read.text("reference"),
            seed=read.count("seed"),
            bound=read.number("bound"),
            source_sha256=read.text("source_sha256"),
            booster_sha256=read.text("booster_sha256"),
            native_sha256=read.text("native_sha256"),
            manifest_sha256=read.text("manifest_sha256"),
            suites=tuple(_suite(suite) for suite in read.items("suites")),
        )


def _suite(value: Mapping[str, Any]) -> Suite:
    read = DocumentReader(value, "a suite of the parity certificate", CertificateError)
    return Suite(
        inputs=read.text("inputs"),
        reference=read.text("reference"),
        rows=read.count("rows"),
        unequal=read.count("unequal"),
        max_abs_difference=read.number("max_abs_difference"),
        reference_sha256=read.text("reference_sha256"),
        artefact_sha256=read.text("artefact_sha256"),
    )
