"""
Margin + lists + rules -> `Decision`: score bands, a typed rule language, block and allow lists, reasons, the fallback.

Refuses to evaluate code, to guess where a value is missing, and to decide silently with less than the full answer.
"""

from __future__ import annotations

from fraudsdk.policy.bands import ScoreBands
from fraudsdk.policy.expression import Condition, Name, ValueType
from fraudsdk.policy.fallback import FallbackSpec, Segment, default_fallback
from fraudsdk.policy.lists import EntityList, ListEntry, ListKind
from fraudsdk.policy.policy import Policy
from fraudsdk.policy.reasons import FeatureReasons, ReasonCatalogue, ReasonTexts, principal_reasons
from fraudsdk.policy.rules import Effect, Rule
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.policy.values import major_units

__all__ = [
    "Condition",
    "Effect",
    "EntityList",
    "FallbackSpec",
    "FeatureReasons",
    "ListEntry",
    "ListKind",
    "Name",
    "Policy",
    "PolicySpec",
    "ReasonCatalogue",
    "ReasonTexts",
    "Rule",
    "ScoreBands",
    "Segment",
    "ValueType",
    "default_fallback",
    "major_units",
    "principal_reasons",
]
