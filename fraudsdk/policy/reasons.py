"""
Why: from exact contributions per feature to at most four principal reasons with stable ids.

Features that mean the same to a person share a reason code.  Their contributions are summed first, signs included, so
that five velocity features pulling up and one pulling down speak once, with their net weight.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.decision import Reason
from fraudsdk.domain.masking import shown
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.errors import ConfigurationError, ModelError

# What adverse-action notices hold (Regulation B, official interpretation of 12 CFR 1002.9(b)(2): four or fewer).
MAX_REASONS: Final = 4

BLOCKED: Final = "BLK01"
SCORE_ALONE: Final = "SCR01"
FALLBACK: Final = "FBK01"

_FAMILY_OF_NEW_REASONS: Final = "custom"


@dataclass(frozen=True, slots=True)
class ReasonTexts:
    """
    What a policy says in its own words.

    Attributes
    ----------
    text : str
        For analysts.
    customer_text : str
        Safe to show to the cardholder.
    """

    text: str
    customer_text: str

    def __post_init__(self) -> None:
        for name in ("text", "customer_text"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ConfigurationError(f"a reason's {name} must be a sentence, was {shown(value)}")


@dataclass(frozen=True, slots=True)
class ReasonEntry:
    """
    One entry of the catalogue.

    Attributes
    ----------
    code : str
        Stable id.
    family : str
        Of the features it stands for, or ``"list"``, ``"rule"``, ``"score"``, ``"fallback"``.
    text, customer_text : str
        As in `ReasonTexts`.
    """

    code: str
    family: str
    text: str
    customer_text: str

    def reason(
        self, feature: str | None = None, value: float | None = None, contribution: float | None = None
    ) -> Reason:
        """This entry as a `Reason` of a decision."""
        return Reason(self.code, self.text, self.customer_text, feature, value, contribution)


@dataclass(frozen=True, slots=True)
class ReasonCatalogue:
    """
    All reasons that can be given.

    Attributes
    ----------
    version : int
        Rises with every change of the shipped catalogue.
    entries : Mapping of str to ReasonEntry
        By code.
    """

    version: int
    entries: Mapping[str, ReasonEntry]

    @classmethod
    def shipped(cls) -> ReasonCatalogue:
        """The catalogue of this version of the library, ``fraudsdk/policy/reasons.toml``."""
        return _shipped()

    def with_texts(self, texts: Mapping[str, ReasonTexts]) -> ReasonCatalogue:
        """Replace the texts of known codes; a code that is not known becomes a new entry."""
        entries = dict(self.entries)
        for code, own in texts.items():
            known = entries.get(code) or ReasonEntry(code, _FAMILY_OF_NEW_REASONS, "", "")
            entries[code] = replace(known, text=own.text, customer_text=own.customer_text)
        return ReasonCatalogue(self.version, MappingProxyType(entries))

    def entry(self, code: str, *, whose: str) -> ReasonEntry:
        """
        The entry of a code.

        Raises
        ------
        ConfigurationError
            Names the code, whose it is, and the closest one.
        """
        entry = self.entries.get(code)
        if entry is None:
            closest = get_close_matches(code, self.entries, n=1)
            hint = f"did you mean {closest[0]!r}? If not, " if closest else ""
            raise ConfigurationError(
                f"{whose} has the reason {shown(code)}, which is not in the catalogue; {hint}give it texts under [reasons]"
            )
        return entry


class FeatureReasons:
    """
    The reasons of one feature schema, grouped once so that explaining does no look-ups.

    Parameters
    ----------
    schema : FeatureSchema
        Its features name their reason codes.
    catalogue : ReasonCatalogue
        Knows all of these codes, or `ConfigurationError` is raised.
    """

    def __init__(self, schema: FeatureSchema, catalogue: ReasonCatalogue) -> None:
        self._names = schema.names
        codes = sorted({feature.reason for feature in schema.features})
        group_of_code = {code: group for group, code in enumerate(codes)}
        whose = {feature.reason: f"feature {feature.name!r}" for feature in schema.features}
        self._entries = [catalogue.entry(code, whose=whose[code]) for code in codes]
        self._group = np.array([group_of_code[feature.reason] for feature in schema.features], dtype=np.intp)
        self._members = [np.flatnonzero(self._group == group) for group in range(len(codes))]

    def principal(
        self, contributions: npt.ArrayLike, row: npt.NDArray[np.float32], *, limit: int = MAX_REASONS
    ) -> tuple[Reason, ...]:
        """
        The weightiest reasons that pulled towards fraud.

        Parameters
        ----------
        contributions : float[n_features + 1]
            Exact SHAP contributions to the margin, log-odds; the last one is the base value and no reason.
        row : float32[n_features]
            The row that was explained; NaN = missing.
        limit : int
            Reasons at most.

        Returns
        -------
        tuple of Reason
            Groups with a net positive contribution, weightiest first; equal ones in the order of their codes.  A reason
            names its heaviest feature, of equal ones the first of the row.

        Raises
        ------
        ModelError
            Not one finite contribution per feature and one base value.
        """
        weights = np.asarray(contributions, dtype=np.float64)
        n_features = len(self._names)
        if weights.shape != (n_features + 1,) or not np.isfinite(weights).all():
            raise ModelError(
                f"contributions must be {n_features + 1} finite numbers, one per feature and the base value, "
                f"were of shape {weights.shape}"
            )
        weights = weights[:-1]
        totals = np.bincount(self._group, weights=weights, minlength=len(self._entries))
        # Groups are numbered in the order of their codes, so a stable sort breaks ties by code.
        weightiest = [int(group) for group in np.argsort(-totals, kind="stable")[:limit] if totals[group] > 0.0]
        return tuple(self._reason(group, float(totals[group]), weights, row) for group in weightiest)

    def _reason(
        self, group: int, total: float, weights: npt.NDArray[np.float64], row: npt.NDArray[np.float32]
    ) -> Reason:
        members = self._members[group]
        heaviest = int(members[weights[members].argmax()])
        return self._entries[group].reason(self._names[heaviest], float(row[heaviest]), total)


def principal_reasons(
    contributions: npt.ArrayLike,
    row: npt.NDArray[np.float32],
    schema: FeatureSchema,
    catalogue: ReasonCatalogue,
    *,
    limit: int = MAX_REASONS,
) -> tuple[Reason, ...]:
    """The principal reasons of one row; see `FeatureReasons`, which is for many rows."""
    return FeatureReasons(schema, catalogue).principal(contributions, row, limit=limit)


@lru_cache(maxsize=1)
def _shipped() -> ReasonCatalogue:
    text = resources.files("fraudsdk.policy").joinpath("reasons.toml").read_text(encoding="utf-8")
    file: dict[str, Any] = tomllib.loads(text)
    entries = {code: ReasonEntry(code, **entry) for code, entry in file["reasons"].items()}
    return ReasonCatalogue(file["version"], MappingProxyType(entries))
