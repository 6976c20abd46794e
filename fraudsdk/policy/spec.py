"""A policy as it is declared: one frozen object, one TOML file, the same thing in both forms."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy._toml import Inline, Table, date_time, dumps, microseconds
from fraudsdk.policy.bands import ScoreBands
from fraudsdk.policy.fallback import FallbackSpec, Segment
from fraudsdk.policy.lists import EntityList, ListEntry, ListKind
from fraudsdk.policy.reasons import BLOCKED, ReasonTexts
from fraudsdk.policy.rules import Effect, Rule

# The form of the file; a file of another version is refused rather than read in part.
VERSION: Final = 1
# A band that is left out: TOML has no null, and an absent key means the default.
_NO_BAND: Final = "none"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """
    Everything that turns a score into a decision.

    Attributes
    ----------
    bands : ScoreBands
        Thresholds of the calibrated score.
    rules : tuple of Rule
        In any order; priority decides.
    lists : tuple of EntityList
        Block and allow lists.
    fallback : FallbackSpec or None
        None = `fraudsdk.policy.fallback.default_fallback`.
    reasons : Mapping of str to ReasonTexts
        Own texts for codes of the shipped catalogue, and new codes.
    explain_rate : float
        Share of approved transactions that are explained as well, 0 to 1; chosen by transaction id, so that a replay
        explains the same ones.  Whatever is not approved by the model's doing is always explained.

    Examples
    --------
    >>> spec = PolicySpec.from_toml('''
    ... version = 1
    ... [[rules]]
    ... name = "gambling"
    ... when = "mcc in ('7995',) and amount > 500"
    ... then = "REVIEW"
    ... ''')
    >>> PolicySpec.from_toml(spec.to_toml()) == spec
    True
    """

    bands: ScoreBands = field(default_factory=ScoreBands)
    rules: tuple[Rule, ...] = ()
    lists: tuple[EntityList, ...] = ()
    fallback: FallbackSpec | None = None
    reasons: Mapping[str, ReasonTexts] = field(default_factory=dict, hash=False)
    explain_rate: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.explain_rate <= 1.0:
            raise ConfigurationError(f"explain_rate must be from 0 to 1, was {self.explain_rate}")

    @classmethod
    def load(cls, path: str | Path) -> PolicySpec:
        """
        Read a policy file.

        Raises
        ------
        ConfigurationError
            No such file, not TOML, or not a policy; names the file and the key.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}; name a policy file in TOML") from error
        try:
            return cls.from_toml(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from error

    @classmethod
    def from_toml(cls, text: str) -> PolicySpec:
        """
        Read the text of a policy file.

        Raises
        ------
        ConfigurationError
            Not TOML, an unknown key, or a value that a policy cannot have.
        """
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"not a TOML file: {error}") from error
        return _read(Table(content, ""))

    def to_toml(self) -> str:
        """The policy file that `from_toml` reads back as this object."""
        return dumps(_content(self))


def _read(table: Table) -> PolicySpec:
    version = table.require("version", int)
    if version != VERSION:
        raise ConfigurationError(f"version must be {VERSION}, was {version}; convert the file, or upgrade the library")
    bands, fallback, reasons = table.table("bands"), table.table("fallback"), table.table("reasons")
    spec = PolicySpec(
        bands=ScoreBands() if bands is None else _read_bands(bands),
        rules=tuple(_read_rule(rule) for rule in table.tables("rules")),
        lists=tuple(_read_list(entity_list) for entity_list in table.tables("lists")),
        fallback=None if fallback is None else _read_fallback(fallback),
        reasons={} if reasons is None else {code: _read_texts(texts) for code, texts in reasons.named_tables()},
        explain_rate=table.get("explain_rate", float, 0.0),
    )
    table.end()
    return spec


def _read_bands(table: Table) -> ScoreBands:
    default = ScoreBands()
    bands = ScoreBands(
        review=_read_threshold(table, "review", default.review),
        step_up=_read_threshold(table, "step_up", default.step_up),
        decline=_read_threshold(table, "decline", default.decline),
    )
    table.end()
    return bands


def _read_threshold(table: Table, key: str, default: float | None) -> float | None:
    given = table.raw(key)
    if given is None:
        return default
    return None if given == _NO_BAND else table.require(key, float)


def _read_rule(table: Table) -> Rule:
    rule = Rule(
        name=table.require("name", str),
        when=table.require("when", str),
        then=table.choice("then", Outcome),
        effect=table.choice("effect", Effect, Effect.AT_LEAST),
        priority=table.get("priority", int, 0),
        reason=table.get("reason", str, "RUL01"),
        text=table.optional("text", str),
        customer_text=table.optional("customer_text", str),
        override_allow=table.get("override_allow", bool, False),
    )
    table.end()
    return rule


def _read_list(table: Table) -> EntityList:
    entity_list = EntityList(
        name=table.require("name", str),
        kind=table.choice("kind", ListKind),
        field=table.require("field", str),
        entries=tuple(
            _read_entry(item, f"lists.entries[{i}]") for i, item in enumerate(table.require("entries", list))
        ),
        reason=table.get("reason", str, BLOCKED),
    )
    table.end()
    return entity_list


def _read_entry(item: object, where: str) -> ListEntry:
    if isinstance(item, str):
        return ListEntry(item)
    table = Table(item, where)
    expires = table.raw("expires")
    entry = ListEntry(table.require("id", str), None if expires is None else microseconds(expires, f"{where}.expires"))
    table.end()
    return entry


def _read_fallback(table: Table) -> FallbackSpec:
    fallback = FallbackSpec(
        default=table.choice("default", Outcome),
        segments=tuple(_read_segment(segment) for segment in table.tables("segments")),
        rules=tuple(_read_rule(rule) for rule in table.tables("rules")),
    )
    table.end()
    return fallback


def _read_segment(table: Table) -> Segment:
    segment = Segment(table.require("name", str), table.require("when", str), table.choice("outcome", Outcome))
    table.end()
    return segment


def _read_texts(table: Table) -> ReasonTexts:
    texts = ReasonTexts(table.require("text", str), table.require("customer_text", str))
    table.end()
    return texts


def _content(spec: PolicySpec) -> dict[str, Any]:
    content: dict[str, Any] = {
        "version": VERSION,
        "explain_rate": spec.explain_rate,
        "bands": {
            name: _NO_BAND if threshold is None else threshold
            for name, threshold in (
                ("review", spec.bands.review),
                ("step_up", spec.bands.step_up),
                ("decline", spec.bands.decline),
            )
        },
        "rules": [_rule_content(rule) for rule in spec.rules],
        "lists": [_list_content(entity_list) for entity_list in spec.lists],
        "reasons": {
            code: {"text": texts.text, "customer_text": texts.customer_text} for code, texts in spec.reasons.items()
        },
    }
    if spec.fallback is not None:
        content["fallback"] = {
            "default": spec.fallback.default.value,
            "segments": [
                {"name": segment.name, "when": segment.when, "outcome": segment.outcome.value}
                for segment in spec.fallback.segments
            ],
            "rules": [_rule_content(rule) for rule in spec.fallback.rules],
        }
    return content


def _rule_content(rule: Rule) -> dict[str, Any]:
    content = {
        "name": rule.name,
        "when": rule.when,
        "then": rule.then.value,
        "effect": rule.effect.value,
        "priority": rule.priority,
        "reason": rule.reason,
        "text": rule.text,
        "customer_text": rule.customer_text,
        "override_allow": rule.override_allow,
    }
    return {key: value for key, value in content.items() if value is not None}


def _list_content(entity_list: EntityList) -> dict[str, Any]:
    return {
        "name": entity_list.name,
        "kind": entity_list.kind.value,
        "field": entity_list.field,
        "reason": entity_list.reason,
        "entries": [_entry_content(entry) for entry in entity_list.entries],
    }


def _entry_content(entry: ListEntry) -> str | Inline:
    if entry.expires_at_us is None:
        return entry.id
    return Inline(id=entry.id, expires=date_time(entry.expires_at_us))
