"""A policy file and a `PolicySpec` are the same thing, and a mistake in the file is named."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy import (
    Effect,
    EntityList,
    FallbackSpec,
    ListEntry,
    ListKind,
    PolicySpec,
    ReasonTexts,
    Rule,
    ScoreBands,
    Segment,
)

FILE = """
version = 1
explain_rate = 0.05

[bands]
review = 0.3
decline = "none"

[[rules]]
name = "large_abroad"
when = '''
amount > 500
  and merchant_country != card_country
'''
then = "STEP_UP"
effect = "exactly"
priority = 10
reason = "GEO02"
override_allow = true

[[lists]]
name = "stolen"
kind = "block"
field = "card_id"
entries = ["c-1", { id = "c-2", expires = 2026-12-31T00:00:00+01:00 }, { id = "c-3" }]

[fallback]
default = "DECLINE"

[[fallback.segments]]
name = "small"
when = "amount < 25"
outcome = "APPROVE"

[[fallback.rules]]
name = "careful"
when = "amount > 5000"
then = "DECLINE"

[reasons.VEL01]
text = "Hurried."
customer_text = "There was a lot going on."
"""
SPEC = PolicySpec(
    bands=ScoreBands(review=0.3, decline=None),
    rules=(
        Rule(
            "large_abroad",
            "amount > 500\n  and merchant_country != card_country\n",
            Outcome.STEP_UP,
            effect=Effect.EXACTLY,
            priority=10,
            reason="GEO02",
            override_allow=True,
        ),
    ),
    lists=(
        EntityList(
            "stolen",
            ListKind.BLOCK,
            "card_id",
            (ListEntry("c-1"), ListEntry("c-2", expires_at_us=1_798_671_600_000_000), ListEntry("c-3")),
        ),
    ),
    fallback=FallbackSpec(
        Outcome.DECLINE,
        (Segment("small", "amount < 25", Outcome.APPROVE),),
        (Rule("careful", "amount > 5000", Outcome.DECLINE),),
    ),
    reasons={"VEL01": ReasonTexts("Hurried.", "There was a lot going on.")},
    explain_rate=0.05,
)


def test_a_file_says_all_that_a_spec_can():
    assert SPEC == PolicySpec.from_toml(FILE)


def test_a_file_with_nothing_but_its_version_is_the_default_policy():
    assert PolicySpec() == PolicySpec.from_toml("version = 1")


@pytest.mark.parametrize("spec", [PolicySpec(), SPEC])
def test_a_spec_round_trips(spec):
    assert spec == PolicySpec.from_toml(spec.to_toml())


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    text=TEXT.filter(str.strip),
    ids=st.lists(st.tuples(TEXT, st.none() | st.integers(0, 253_402_300_799_999_999)), max_size=5),
    review=st.none() | st.floats(0, 0.5),
    rate=st.floats(0, 1),
    priority=st.integers(-(2**63), 2**63 - 1),
)
def test_any_text_and_number_round_trips(text, ids, review, rate, priority):
    spec = PolicySpec(
        bands=ScoreBands(review=review),
        rules=(Rule("r", text, Outcome.REVIEW, priority=priority, text=text),),
        lists=(EntityList(text, ListKind.ALLOW, "user_id", tuple(ListEntry(*entry) for entry in ids)),),
        reasons={text: ReasonTexts(text, text)},
        explain_rate=rate,
    )

    assert spec == PolicySpec.from_toml(spec.to_toml())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the policy lacks 'version'"),
        ("version = 2", "version must be 1, was 2"),
        ("version = '1'", "version must be a whole number, was '1'"),
        ("version = true", "version must be a whole number, was True"),
        ("version = ", "not a TOML file"),
        ("version = 1\nrule = []", "unknown key 'rule'; did you mean 'rules'"),
        ("version = 1\nexplain_rate = 2", "explain_rate must be from 0 to 1, was 2"),
        ("version = 1\nexplain_rate = nan", "explain_rate must be from 0 to 1, was nan"),
        ("version = 1\n[bands]\nreveiw = 0.1", "bands has the unknown key 'reveiw'; did you mean 'review'"),
        ("version = 1\n[bands]\nreview = 'off'", "bands.review must be a number, was 'off'"),
        ("version = 1\n[bands]\nreview = 0.95", "bands.decline must be above bands.review"),
        ("version = 1\nbands = 0.2", "bands must be a table, was float"),
        ("version = 1\nrules = {}", "rules must be an array"),
        ("version = 1\nrules = [1]", r"rules\[0\] must be a table, was int"),
        ("version = 1\n[[rules]]\nname = 'r'\nwhen = 'true'", r"rules\[0\] lacks 'then'"),
        ("version = 1\n[[rules]]\nname = 'r'\nthen = 'REVIEW'", r"rules\[0\] lacks 'when'"),
        (
            "version = 1\n[[rules]]\nname = 'r'\nwhen = 'true'\nthen = 'review'",
            r"rules\[0\].then must be one of APPROVE, REVIEW, STEP_UP, DECLINE, was 'review'",
        ),
        (
            "version = 1\n[[rules]]\nname = 'r'\nwhen = 'true'\nthen = 'REVIEW'\npriority = 1.5",
            r"rules\[0\].priority must be a whole number",
        ),
        ("version = 1\n[[lists]]\nname = 'l'\nkind = 'deny'\nfield = 'ip'\nentries = []", "one of block, allow"),
        ("version = 1\n[[lists]]\nname = 'l'\nkind = 'block'\nfield = 'ip'", r"lists\[0\] lacks 'entries'"),
        (
            "version = 1\n[[lists]]\nname = 'l'\nkind = 'block'\nfield = 'ip'\nentries = [{ id = '::1', expires = 2026-12-31 }]",
            "must be a date-time with an offset",
        ),
        (
            "version = 1\n[[lists]]\nname = 'l'\nkind = 'block'\nfield = 'ip'\nentries = [{ id = '::1', expire = 2026-12-31 }]",
            "unknown key 'expire'; did you mean 'expires'",
        ),
        ("version = 1\n[fallback]", "fallback lacks 'default'"),
        ("version = 1\n[fallback]\ndefault = 'PASS'", "fallback.default must be one of APPROVE, .*, was 'PASS'"),
        ("version = 1\n[reasons]\nVEL01 = 'x'", "reasons.VEL01 must be a table"),
        ("version = 1\n[reasons.VEL01]\ntext = 'x'", "reasons.VEL01 lacks 'customer_text'"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named(text, words):
    with pytest.raises(ConfigurationError, match=words):
        PolicySpec.from_toml(text)


def test_a_mistake_names_the_file(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text("version = 7")

    with pytest.raises(ConfigurationError, match=r"policy\.toml: version must be 1, was 7"):
        PolicySpec.load(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_the_operators_error(tmp_path, content):
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="cannot be read"):
        PolicySpec.load(path)


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_a_share_of_explained_approvals_is_from_0_to_1(rate):
    with pytest.raises(ConfigurationError, match="explain_rate"):
        PolicySpec(explain_rate=rate)
