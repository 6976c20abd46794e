"""
The parity certificate: what was compared, how many rows differed, and the bytes of both sides.

Written by `fraudsdk.compiler.certify`; an artefact without one that matches its bytes is not loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fraudsdk.errors import CertificateError
from fraudsdk.model.documents import DocumentReader

FORMAT = 1


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
        Largest difference that was allowed.  0 for ``"table"``; for ``"c"``, what float32 rounding can explain.
    source_sha256 : str
        Of the model file that was compiled.
    native_sha256 : str
        Of the file that was tried: forest tables or C library.
    suites : tuple of Suite
        In the order in which they ran.
    """

    backend: str
    reference: str
    seed: int
    bound: float
    source_sha256: str
    native_sha256: str
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

    def check(self) -> None:
        """
        Refuse a certificate that certifies nothing, or records a failure.

        Raises
        ------
        CertificateError
            Says how many rows differed, and by how much.
        """
        if self.rows < 1:
            raise CertificateError("the parity certificate compares no rows; compile the model again")
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
            native_sha256=read.text("native_sha256"),
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
