"""Write docs/features.md: the feature reference, from the catalogue itself."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path

from fraudsdk.features.catalogue import LIMITS, reference_feature_set
from fraudsdk.features.spec import Feature
from fraudsdk.policy.reasons import ReasonCatalogue

HEAD = """\
# Features of the reference set

Generated from `fraudsdk/features/catalogue.py` by `make docs`; do not edit.

{n} features, fingerprint `{fingerprint}` (in {currency}; the limits are {limits}).  What a window, a tie, a late event or an
unknown value means is in [semantics.md](semantics.md).  NaN = missing; an entity that the transaction does not name is missing,
an entity never seen before counts as zero.
"""


def main() -> None:
    features = reference_feature_set()
    reasons = ReasonCatalogue.shipped().entries
    lines = [
        HEAD.format(
            n=len(features.names),
            fingerprint=features.fingerprint[:16],
            currency=features.currency,
            limits=", ".join(f"{limit:,.0f}" for limit in LIMITS),
        )
    ]
    for family, members in groupby(features.features, key=lambda feature: feature.family):
        lines += [
            "",
            f"## {family.capitalize()}",
            "",
            "| feature | what it is | declared as | reason |",
            "|---|---|---|---|",
        ]
        for feature in members:
            reason = f"{feature.reason} {reasons[feature.reason].text}"
            lines.append(f"| `{feature.name}` | {feature.description} | {declared(feature)} | {reason} |")
    Path(__file__).with_name("features.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def declared(feature: Feature) -> str:
    """The line's keys, as the file form has them."""
    parts = [f"`{feature.aggregate}`"]
    keys = ("field", "entity", "window", "delay", "half_life")
    parts.extend(f"{key} {getattr(feature, key)}" for key in keys if getattr(feature, key))
    if feature.filter:
        parts.append("filter " + ", ".join(feature.filter))
    if feature.of:
        parts.append(" / ".join(feature.of))
    if feature.current:
        parts.append("current")
    if not math.isnan(feature.bound):
        parts.append(f"bound {feature.bound:g}")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
