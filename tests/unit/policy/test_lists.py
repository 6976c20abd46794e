"""Block and allow lists: what is found, until when, and what wins over what."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.decision import Outcome
from fraudsdk.domain.transaction import Transaction
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy import Effect, EntityList, ListEntry, ListKind, Rule
from fraudsdk.policy.lists import MAX_ENTRIES, ListIndex

APPROVE, REVIEW, STEP_UP, DECLINE = Outcome
NOON_US = 1_795_428_000_000_000
BLOCK, ALLOW = ListKind


def a_list(kind, field, *ids, name=None, **options):
    entries = tuple(entry if isinstance(entry, ListEntry) else ListEntry(entry) for entry in ids)
    return EntityList(name or f"{kind.value}_{field}", kind, field, entries, **options)


BLOCKED_USER = a_list(BLOCK, "user_id", "u-1")
ALLOWED_CARD = a_list(ALLOW, "card_id", "c-1")
BLOCKING_RULE = Rule("blocks", "true", DECLINE)
OVERRIDING_RULE = Rule("overrides", "true", REVIEW, override_allow=True)


# Precedence, pair by pair.


def test_a_block_beats_an_allow(decide):
    decision = decide(0.01, lists=(ALLOWED_CARD, BLOCKED_USER))

    assert (DECLINE, "block_list") == (decision.outcome, decision.decided_by)


def test_a_block_beats_a_rule_that_says_exactly_approve(decide):
    rules = (Rule("lets_through", "true", APPROVE, effect=Effect.EXACTLY, priority=99, override_allow=True),)

    assert "block_list" == decide(0.01, rules=rules, lists=(BLOCKED_USER,)).decided_by


def test_a_block_beats_the_band(decide):
    assert DECLINE is decide(0.0, lists=(BLOCKED_USER,)).outcome


def test_an_allow_beats_a_rule(decide):
    decision = decide(0.01, rules=(BLOCKING_RULE,), lists=(ALLOWED_CARD,))

    assert (APPROVE, "allow_list", ()) == (decision.outcome, decision.decided_by, decision.reasons)


def test_an_allow_beats_the_band(decide):
    decision = decide(0.99, lists=(ALLOWED_CARD,))

    assert (APPROVE, "allow_list") == (decision.outcome, decision.decided_by)


def test_a_rule_that_overrides_allow_beats_it(decide):
    decision = decide(0.01, rules=(BLOCKING_RULE, OVERRIDING_RULE), lists=(ALLOWED_CARD,))

    assert (REVIEW, "rule:overrides") == (decision.outcome, decision.decided_by)


def test_a_block_beats_a_rule_that_overrides_allow(decide):
    decision = decide(0.01, rules=(OVERRIDING_RULE,), lists=(ALLOWED_CARD, BLOCKED_USER))

    assert (DECLINE, "block_list") == (decision.outcome, decision.decided_by)


def test_a_rule_beats_the_band(decide):
    assert "rule:blocks" == decide(0.5, rules=(BLOCKING_RULE,)).decided_by


# What is found.


@pytest.mark.parametrize(
    ("field", "listed"),
    [
        ("user_id", "u-1"),
        ("card_id", "c-1"),
        ("merchant_id", "m-1"),
        ("ip", "203.0.113.7"),
        ("ip", " 203.0.113.7 "),
        ("ip", "203.0.113.0/24"),
        ("ip", "203.0.113.7/32"),
        ("ip", "0.0.0.0/0"),
        ("mcc", "5411"),
        ("merchant_country", "GBR"),
        ("card_country", "gb"),
        ("currency", "gbp"),
    ],
)
def test_an_entry_finds_its_transaction_in_any_spelling(decide, field, listed):
    decision = decide(0.01, lists=(a_list(BLOCK, field, listed),))

    assert "block_list" == decision.decided_by


@pytest.mark.parametrize(
    ("field", "listed"),
    [("user_id", "u-2"), ("card_id", "u-1"), ("ip", "203.0.114.0/24"), ("ip", "::/0"), ("device_id", "d-1")],
)
def test_an_entry_finds_nothing_else(decide, field, listed):
    assert APPROVE is decide(0.01, lists=(a_list(BLOCK, field, listed),)).outcome


@pytest.mark.parametrize("address", ["2001:db8::1", "2001:DB8:0:0:0:0:0:1", "fe80::1%eth0"])
def test_an_ipv6_address_is_found_in_its_network(decide, make_transaction, address):
    lists = (a_list(BLOCK, "ip", "2001:db8::/32", "fe80::/10"),)

    assert "block_list" == decide(0.01, txn=make_transaction(ip=address), lists=lists).decided_by


def test_an_ipv4_address_in_ipv6_clothing_is_still_blocked(decide, make_transaction):
    txn = make_transaction(ip="::ffff:203.0.113.7")

    assert DECLINE is decide(0.01, txn=txn, lists=(a_list(BLOCK, "ip", "203.0.113.0/24"),)).outcome


@given(
    address=st.ip_addresses(),
    networks=st.lists(st.ip_addresses().flatmap(
        lambda a: st.integers(0, a.max_prefixlen).map(lambda n: ipaddress.ip_network((a, n), strict=False))
    ), max_size=8),
)  # fmt: skip
def test_networks_find_what_the_standard_library_finds(address, networks):
    mapped = getattr(address, "ipv4_mapped", None)
    networks = [network for network in networks if getattr(network.network_address, "ipv4_mapped", None) is None]
    expected = any((mapped or address) in network for network in networks)

    index = ListIndex((a_list(BLOCK, "ip", *map(str, networks)),))

    assert expected is (index.find(Transaction("t-1", NOON_US, 1, ip=str(address))) is not None)


def test_a_transaction_without_the_field_is_not_found(decide, make_transaction):
    lists = (a_list(BLOCK, "ip", "0.0.0.0/0"), a_list(BLOCK, "mcc", "5411"))

    assert APPROVE is decide(0.01, txn=make_transaction(ip=None, mcc=None), lists=lists).outcome


@pytest.mark.parametrize("field_and_id", [("user_id", "u-1"), ("ip", "203.0.113.0/24")])
def test_an_entry_ends_at_its_expiry_in_event_time(decide, make_transaction, field_and_id):
    field, listed = field_and_id
    lists = (a_list(BLOCK, field, ListEntry(listed, expires_at_us=NOON_US)),)

    assert DECLINE is decide(0.01, txn=make_transaction(event_time_us=NOON_US - 1), lists=lists).outcome
    assert APPROVE is decide(0.01, txn=make_transaction(event_time_us=NOON_US), lists=lists).outcome


def test_of_two_entries_of_one_id_the_one_that_expires_later_counts(decide):
    entries = (ListEntry("u-1", NOON_US + 1), ListEntry("u-1", NOON_US - 1))

    for order in (entries, entries[::-1]):
        assert DECLINE is decide(0.01, lists=(a_list(BLOCK, "user_id", *order),)).outcome
    assert DECLINE is decide(0.01, lists=(a_list(BLOCK, "user_id", entries[1], "u-1"),)).outcome


def test_an_expired_allow_does_not_shadow_a_valid_one_of_another_field(decide):
    lists = (a_list(ALLOW, "user_id", ListEntry("u-1", NOON_US - 1)), ALLOWED_CARD)

    assert "allow_list" == decide(0.95, lists=lists).decided_by


# Reasons.


def test_a_block_gives_the_analyst_the_list_and_the_customer_nothing(decide, explain):
    (reason,) = decide(0.95, lists=(a_list(BLOCK, "user_id", "u-1", name="stolen_cards"),)).reasons

    assert "BLK01" == reason.code
    assert "stolen_cards" in reason.text
    assert "list" not in reason.customer_text and "stolen" not in reason.customer_text
    assert 0 == explain.n_calls  # the model had no part in it


# What is refused.


@pytest.mark.parametrize(
    ("field", "listed", "words"),
    [
        ("mcc", "54111", "mcc must be four digits"),
        ("ip", "203.0.113.300", "must be an IPv4 or IPv6 address"),
        ("ip", "203.0.113.7/24", "no bits after the prefix"),
        ("ip", "::ffff:203.0.113.0/120", "write it as IPv4"),
        ("merchant_country", "England", "merchant_country"),
        ("user_id", " ", "is empty"),
        ("user_id", 7, "must be text, was int"),
    ],
)
def test_an_entry_that_no_transaction_could_carry_is_refused(decide, field, listed, words):
    with pytest.raises(ConfigurationError, match=words) as refused:
        decide(0.01, lists=(a_list(BLOCK, field, listed, name="mine"),))

    assert "list 'mine'" in str(refused.value)


@pytest.mark.parametrize("pan", ["4111111111111111", "4111 1111 1111 1111"])
def test_a_card_number_is_refused_and_not_repeated(decide, pan):
    with pytest.raises(ConfigurationError, match="card number") as refused:
        decide(0.01, lists=(a_list(BLOCK, "card_id", pan),))

    assert "4111" not in str(refused.value)


def test_a_list_over_an_unknown_field_is_refused():
    with pytest.raises(ConfigurationError, match="did you mean 'user_id'"):
        a_list(BLOCK, "userid", "u-1")


def test_two_lists_of_one_name_are_refused(decide):
    with pytest.raises(ConfigurationError, match="two lists are named 'mine'"):
        decide(0.01, lists=(a_list(BLOCK, "user_id", name="mine"), a_list(ALLOW, "card_id", name="mine")))


def test_the_number_of_entries_is_bounded():
    entries = (ListEntry("u-1"),) * (MAX_ENTRIES + 1)

    with pytest.raises(ConfigurationError, match="at most 1000000 entries"):
        ListIndex((EntityList("mine", BLOCK, "user_id", entries),))


@pytest.mark.parametrize("expires_at_us", [-1, 1.5, 2**63])
def test_an_expiry_that_no_calendar_has_is_refused(expires_at_us):
    with pytest.raises(ConfigurationError, match="expires_at_us"):
        ListEntry("u-1", expires_at_us)
