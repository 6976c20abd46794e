"""What features and model agree on: the names of a row, in order, and a fingerprint of how they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fraudsdk.errors import SchemaMismatchError


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """
    One column of a row.

    Attributes
    ----------
    name : str
        Unique within a schema.
    family : str
        ``"amount"``, ``"calendar"``, ``"velocity"``, ``"deviation"``, ``"recency"``, ``"geography"``, ``"risk"``,
        ``"device"``, ``"declines"``, ``"laundering"``, ``"category"`` or ``"custom"``.  Reasons are grouped by it.
    reason : str
        Stable reason code that a contribution of this feature is reported under.
    description : str
        One sentence for analysts.
    categorical : bool
        True when the value is an integer vocabulary code (0 = unknown) rather than a quantity.
    """

    name: str
    family: str
    reason: str
    description: str
    categorical: bool = False


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """
    The columns of a row and the fingerprint of the feature set that computes them.

    Attributes
    ----------
    features : tuple of FeatureInfo
        In row order.
    fingerprint : str
        SHA-256 (hex) over the canonical form of the feature set; two sets with one fingerprint give the same bits.
    """

    features: tuple[FeatureInfo, ...]
    fingerprint: str

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in row order."""
        return tuple(feature.name for feature in self.features)

    def positions(self) -> Mapping[str, int]:
        """Name -> index in the row."""
        return {feature.name: index for index, feature in enumerate(self.features)}

    def require(self, names: tuple[str, ...], fingerprint: str, *, whose: str) -> None:
        """
        Refuse a model that was trained on other features.

        Raises
        ------
        SchemaMismatchError
            Prints both fingerprints and the first differing feature.
        """
        if fingerprint == self.fingerprint and names == self.names:
            return
        ours = self.names
        differing = next(
            (i for i in range(max(len(ours), len(names))) if ours[i : i + 1] != names[i : i + 1]),
            None,
        )
        first = (
            "the names agree, their definitions differ"
            if differing is None
            else f"first difference at column {differing}: "
            f"{(ours[differing : differing + 1] or ('nothing',))[0]!r} here, "
            f"{(names[differing : differing + 1] or ('nothing',))[0]!r} there"
        )
        raise SchemaMismatchError(
            f"the feature set's fingerprint is {self.fingerprint[:16]}, {whose} was built for {fingerprint[:16]}; {first}; "
            "load the feature set that the model was trained with"
        )
