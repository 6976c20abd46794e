"""
The native road through the border and the one in Python are one: the same bits, and never a value that Python refuses.
"""

from __future__ import annotations

import ipaddress
import math
import sys
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fraudsdk.domain.card_number import passes_luhn
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.domain.transaction import TransactionType
from fraudsdk.encoding import Encoder, Vocabulary
from fraudsdk.errors import InvalidTransactionError

LONG_NAME = "a_name_of_a_field_that_is_longer_than_four_words"
LAYOUT = RecordLayout(
    identifiers=(*IDENTIFIERS, *CATEGORIES, "tier"),
    numbers=(*NUMBERS, *CATEGORIES, "points", LONG_NAME, "tier"),
    custom_numbers=("points", LONG_NAME),
    custom_categories=("tier",),
)
VOCABULARY = Vocabulary(
    {
        "channel": ("pos", "ecommerce", "mail-order by telephone", "ünïcode"),
        "currency": ("EUR", "JPY"),
        "merchant_country": ("GB", "XK"),
        "mcc": ("5411", "0742"),
        "three_ds": ("Y",),
        "tier": ("gold", "Gold", "platinum plus"),
    }
)
RATES = {"JPY": "0.0061", "KWD": "3.01", "USD": "0.9", "CLF": "31.1234567890123456789", "TND": "0.00000000000000001"}
FULL = Encoder(LAYOUT, key=b"sixteen byte key", vocabulary=VOCABULARY, currency="EUR", rates=RATES)
SPARSE = Encoder(
    RecordLayout(("user_id",), ("amount",), ("points", LONG_NAME), ("tier",)),
    key=b"another sixteen!",
    vocabulary=VOCABULARY,
    currency="JPY",
)
ENCODERS = (FULL, SPARSE)

EVERYDAY = {
    "transaction_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "event_time": "2026-11-23T10:00:00Z",
    "amount": "12.50",
    "currency": "EUR",
    "type": "authorisation",
    "direction": "debit",
    "declined": False,
    "user_id": "u-1",
    "card_id": "c-1",
    "merchant_id": 20491,
    "device_id": None,
    "ip": "203.0.113.7",
    "session_id": "b3f1",
    "counterparty_id": "",
    "device_fingerprint": "7d793037a0760186574b0282f2f435e7",
    "email_hash": "e" * 64,
    "channel": "ecommerce",
    "entry_mode": "chip",
    "mcc": "5411",
    "merchant_country": "GB",
    "card_country": "DEU",
    "ip_country": "826",
    "three_ds": "attempted",
    "latitude": 48.1,
    "longitude": -11,
    "card_present": True,
    "account_age_days": 500.0,
    "balance": -12.5,
    "points": 7,
    "tier": "gold",
}


class OwnText(str):
    """Text that another library made."""

    __slots__ = ()


class OwnFloat(float):
    """A float that another library made."""

    __slots__ = ()


def number_with_check_digit(body):
    return next(body + check for check in "0123456789" if passes_luhn(body + check))


digits = st.text("0123456789", min_size=11, max_size=20)
card_numbers = digits.map(number_with_check_digit)
disguised = st.builds(
    lambda number, blank, before, after: (
        before + blank.join(number[i : i + 4] for i in range(0, len(number), 4)) + after
    ),
    card_numbers,
    st.sampled_from(["", " ", "-", "_", ".", "  "]),
    st.sampled_from(["", "-", "u", "B", "b", ";", "%B", "#", "x"]),
    st.sampled_from(["", "=2512", "=", "D25121010000", "D2512101F", "D", "^NAME", "^", "-", "f", "@a.com", "é", "\n"]),
)
tokens = st.one_of(
    st.text("0123456789abcdefABCDEF-", max_size=40),
    st.text(st.characters(max_codepoint=0x2FF), max_size=20),
    st.text(" ~\x1f\x7f!a1", max_size=18),
    st.text("ab", min_size=120, max_size=135),
)
identifiers = st.one_of(
    tokens,
    digits,
    disguised,
    st.integers(),
    st.integers(10**11, 10**20),
    st.sampled_from(
        [None, "", " ", 0, -1, 2**63 - 1, -(2**63), -(2**63) + 1, 2**63, 10**200, True, 1.0, math.nan, b"u"]
    ),
    tokens.map(OwnText),
    st.integers(-5, 5).map(np.int64),
)
spellings = st.sampled_from(
    [
        "pos",
        "POS",
        "Pos",
        "pOs",
        "ecommerce",
        "mail-order by telephone",
        "Mail-Order by telephone",
        "gold",
        "GOLD",
        "Gold",
    ]
    + [
        "platinum plus",
        "unheard of",
        "é",
        "ünïcode",
        "UNLISTED",
        "x" * 63,
        "x" * 64,
        "x" * 65,
        " pos",
        "pos ",
        "y",
        "Y",
    ]
)
categories = st.one_of(spellings, identifiers)
countries = st.one_of(
    st.sampled_from(
        ["GB", "gb", "Gb", "gB", "GBR", "826", 826, 36, "036", "36", 1000, -5, "XK", "xk", "ZZZ", "999", 999]
    )
    | st.text("ABZ19", max_size=4),
    identifiers,
)
codes = st.one_of(st.sampled_from(["5411", "0742", 742, 5411, 12345, -1, "9999", "541", "54111", "54a1"]), identifiers)
moments = st.integers(6 * 10**14, 73 * 10**14).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
zones = st.integers(-24 * 60 + 1, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
zoned = st.builds(datetime.astimezone, moments, zones | st.sampled_from([ZoneInfo("UTC"), ZoneInfo("Asia/Tokyo")]))


def with_one_change(text, place, character):
    place %= len(text) + 1
    return text[:place] + character + text[place + 1 :]


spelt_times = st.one_of(
    moments.map(datetime.isoformat),
    zoned.map(datetime.isoformat),
    moments.map(lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.%fZ")),
    moments.map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")),
    st.builds(
        lambda numbers, fraction, zone: "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*numbers) + fraction + zone,
        st.tuples(
            st.integers(1985, 2205),
            st.integers(0, 13),
            st.integers(0, 32),
            st.integers(0, 25),
            *[st.integers(0, 61)] * 2,
        ),
        st.sampled_from(["", ".1", ".123456", ".1234567", ".123456789", ".", ".000000", ".5x"]),
        st.sampled_from(["Z", "z", "+00:00", "-00:00", "+01:00", "-23:59", "+24:00", "+05:99", "+0100", "", "+1:00"]),
    ),
)
times = st.one_of(
    spelt_times,
    st.builds(with_one_change, spelt_times, st.integers(0, 40), st.sampled_from("0123456789-:.TtZz +é")),
    moments,
    zoned,
    moments.map(lambda moment: moment.replace(tzinfo=None)),
    moments.map(lambda moment: np.datetime64(moment.replace(tzinfo=None))),
    st.sampled_from([None, "", "now", 1.7e9, math.nan, "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z"]),
    st.sampled_from(["1989-12-31T23:30:00-01:00", "1990-01-01T00:30:00+01:00", "2199-12-31T23:59:59.999999Z"]),
    st.sampled_from(["2200-01-01T00:30:00+01:00", "2016-12-31T23:59:60Z", "2100-02-29T00:00:00Z"]),
)
epochs = st.one_of(
    st.integers(6 * 10**8, 73 * 10**8),
    st.integers(6 * 10**11, 73 * 10**11),
    st.integers(6 * 10**14, 73 * 10**14),
    st.integers(6 * 10**8, 73 * 10**8).map(float),
    st.floats(6e8, 7.3e9),
    st.sampled_from([None, 0, -1, 2**63, 10**30, "1700000000", "", True, math.nan, math.inf, Decimal("1.7e9"), -0.0]),
)
amounts = st.one_of(
    st.integers(-10, 10**16),
    st.integers(0, 10**7).map(lambda minor: minor / 100),
    st.floats(),
    st.floats(0, 1e14).map(lambda amount: round(amount, 2)),
    st.integers(0, 10**17).map(lambda minor: f"{minor / 1000:.3f}"),
    st.integers(0, 10**5).map(lambda minor: f"{minor // 100}.{minor % 100:02}"),
    st.text("0123456789.", max_size=17),
    st.text("0123456789.-+eE _,٣", max_size=9),
    st.sampled_from([None, "", "1.", ".5", "-0", -0.0, 0, 0.0, 0.1 + 0.2, 1e22, 10**15, 10**15 + 1, 2**64, True]),
    st.sampled_from([math.nan, math.inf, Decimal("12.50"), np.float32(0.1), np.int64(5), OwnText("1"), OwnFloat(1.5)]),
    st.sampled_from([float(10**15), 1e13, "9" * 15, "99999999999.9999", "0" * 15]),
)
currencies = st.one_of(
    st.sampled_from(sorted(CURRENCY_EXPONENTS)),
    st.sampled_from(["EUR", "eur", "Eur", "XAU", "", "978", 978, None, " EUR"]),
)
flags = st.sampled_from(
    [None, True, False, 0, 1, 2, -1, 0.0, 1.0, -0.0, 0.5, math.nan, 2**64, "true", "False", "YES", "y", "N", "0", "1.0"]
    + ["maybe", "", " true", "é", Decimal(1), np.True_, OwnText("yes"), "tRUE"]
)
kinds = st.sampled_from(
    [
        None,
        "authorisation",
        "AUTHORISATION",
        "Authorization",
        "refund",
        "reversal",
        "chargeback",
        "Chargeback",
        "",
        "gift",
    ]
    + [TransactionType.REFUND, 5, " refund", "aUTHORISATION", math.nan]
)
numbers = st.one_of(
    st.floats(),
    st.floats(-200, 200),
    st.integers(-(10**4), 10**5),
    st.integers(-(10**20), 10**20),
    digits.map(number_with_check_digit).map(int),
    digits.map(number_with_check_digit).map(float),
    st.sampled_from(
        [None, -0.0, 90, 90.0, -90.0000001, 180, 73_000, 1e12, -1e12, 1e15, 1e16, "12.5", "", True, np.float64(1)]
    )
    | st.sampled_from([np.float32(0.1), np.int8(3), Decimal("1.5"), OwnFloat(2.5), "x", 2**53 + 1]),
)
# Groups of an IPv6 address, mostly zero, with two colons anywhere or nowhere.
spelt_groups = st.builds(
    lambda groups, gap: ":".join([*groups[:gap], "", *groups[gap:]] if gap >= 0 else groups),
    st.lists(st.sampled_from(["0", "0", "0", "1", "ffff", "ab", "00", "A", "12345", "1.2.3.4"]), max_size=8),
    st.integers(-1, 8),
).map(lambda text: ":" + text if text.startswith(":") else text + ":" * text.endswith(":"))
ANYTHING = {
    "transaction_id": identifiers,
    "event_time": times,
    "event_time_us": epochs,
    "event_time_ms": epochs,
    "event_time_s": epochs,
    "amount": amounts,
    "amount_minor": amounts,
    "currency": currencies,
    "type": kinds,
    "direction": st.sampled_from([None, "debit", "CREDIT", "Credit", "", "both", 1]),
    "declined": flags,
    "original_transaction_id": st.one_of(identifiers, st.just(EVERYDAY["transaction_id"])),
    **dict.fromkeys(IDENTIFIERS, identifiers),
    "ip": st.one_of(
        st.ip_addresses().map(str),
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(lambda address: address.exploded),
        spelt_groups,
        st.text("0123456789.", max_size=16),
        st.sampled_from(
            ["01.2.3.4", "1.2.3", "1.2.3.4.", "1.2.3.256", "::1", "::ffff:1.2.3.4", " 1.2.3.4", "1.2.3.4/8"]
        ),
        identifiers,
    ),
    **dict.fromkeys(("channel", "entry_mode", "three_ds", "tier"), categories),
    "mcc": codes,
    **dict.fromkeys(("merchant_country", "card_country", "ip_country"), countries),
    **dict.fromkeys(("latitude", "longitude", "home_latitude", "home_longitude"), numbers),
    **dict.fromkeys(("account_age_days", "balance", "points", LONG_NAME), numbers),
    "card_present": flags,
    "pan": st.one_of(st.none(), card_numbers),
    "custom": st.one_of(st.none(), st.just({}), st.just({"points": 1})),
    "cvv": st.none(),
    "amoumt": st.none(),
}
changes = st.lists(
    st.sampled_from(sorted(ANYTHING)).flatmap(lambda name: st.tuples(st.just(name), ANYTHING[name])),
    min_size=1,
    max_size=6,
)


def by_python(encoder, mapping):
    """Bytes of the row, or None where the mapping is refused."""
    ints, numbers = encoder.empty(1)
    try:
        encoder.encode(encoder.prepare(mapping), ints, numbers)
    except InvalidTransactionError:
        return None
    return ints.tobytes(), numbers.tobytes()


def natively(encoder, mapping):
    """Bytes of the row, or None where the native road leaves the mapping to Python."""
    ints, numbers = encoder.empty(1)
    ints[:], numbers[:] = 77, 77.0  # every column must be written
    return (ints.tobytes(), numbers.tobytes()) if encoder.read_native(mapping, ints, numbers) else None


def canonical(text):
    """The canonical spelling of an address; None for no address, and for IPv4 in the clothes of IPv6."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(address, "ipv4_mapped", None) else str(address)


def changed(mapping, changes):
    mapping = dict(mapping)
    for name, value in changes:
        mapping.pop(name, None)  # so that the order of the fields changes as well
        mapping[name] = value
    return mapping


@settings(max_examples=500, deadline=None)
@given(changes)
@example([("amount", None), ("amount_minor", 1250)])
@example([("type", "reversal"), ("original_transaction_id", "t-0")])
@example([("type", "chargeback"), ("original_transaction_id", EVERYDAY["transaction_id"])])
def test_what_is_read_natively_is_what_python_reads(changes):
    mapping = changed(EVERYDAY, changes)
    for encoder in ENCODERS:
        native = natively(encoder, mapping)

        assert native in (None, by_python(encoder, mapping))


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(set(ANYTHING) - {"cvv", "amoumt"})).flatmap(
        lambda name: st.tuples(st.just(name), ANYTHING[name])
    )
)
def test_one_field_alone_is_read_as_python_reads_it(change):
    """
    The least mapping there can be: nothing else hides what the field does.
    """
    least = {"transaction_id": "t-1", "event_time_us": 1795428000000000, "amount_minor": 1250, "user_id": "u-1"}
    without = {"event_time": "event_time_us", "amount": "amount_minor"}.get(change[0])
    mapping = changed({name: value for name, value in least.items() if name != without}, [change])
    for encoder in ENCODERS:
        native = natively(encoder, mapping)

        assert native in (None, by_python(encoder, mapping))


def in_zoneinfo_utc(moment):
    return moment.replace(tzinfo=ZoneInfo("UTC"))


def values_as_most_hosts_send_them():
    return {
        "transaction_id": st.one_of(
            st.uuids().map(str), st.integers(1, 10**12), st.from_regex(r"\A[a-z]{1,3}-[0-9]{1,18}\Z")
        ),
        "event_time": st.one_of(
            moments.map(datetime.isoformat),
            moments,
            moments.map(lambda moment: moment.replace(tzinfo=ZoneInfo("UTC"))),
            moments.map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")),
        ).filter(lambda time: "1990" < str(time) < "2199"),
        "amount": st.one_of(st.integers(0, 10**9), st.integers(0, 10**9).map(lambda minor: f"{minor / 100:.2f}"))
        | st.integers(0, 10**9).map(lambda minor: minor / 100),
        "currency": st.sampled_from(["EUR", "USD", "GBP", "eur", None]),
        "type": st.sampled_from(["authorisation", "AUTHORIZATION", "refund", None]),
        "direction": st.sampled_from(["debit", "credit", "DEBIT", None]),
        "declined": st.sampled_from([None, True, False, "yes", 0]),
        "user_id": st.one_of(st.uuids().map(str), st.integers(0, 10**9), st.emails()),
        "card_id": st.from_regex(r"\Atok_[0-9a-f]{32}\Z"),
        "ip": st.ip_addresses().filter(lambda address: not getattr(address, "ipv4_mapped", None)).map(str),
        "channel": st.sampled_from(["pos", "POS", "ecommerce", "moto"]),
        "mcc": st.one_of(st.integers(0, 9999), st.integers(0, 9999).map("{:04}".format)),
        "merchant_country": st.sampled_from(["GB", "gb", "GBR", "826", 826, "XK"][:5]),
        "latitude": st.one_of(st.floats(-90, 90), st.integers(-90, 90), st.just(math.nan)),
        "balance": st.floats(-1e9, 1e9),
        "card_present": st.sampled_from([None, True, False, 1.0, 0.0]),
        "points": st.integers(-(10**9), 10**9),
        "tier": st.sampled_from(["gold", "Silver", "platinum plus", None, ""]),
    }


@settings(max_examples=1000, deadline=None)
@given(st.ip_addresses(v=6).map(str) | spelt_groups)
@example("::ffff:1.2.3.4")
@example("::ffff:102:304")
@example("1:0:0:2::3")
@example("1:0:0:2:0:0:0:3")
@example("1::2:0:0:3:4:5")
@example("::")
def test_only_canonical_addresses_are_taken_as_they_are(text):
    """
    Two spellings of one address must not become two entities.
    """
    mapping = {**EVERYDAY, "ip": text}
    native = natively(FULL, mapping)

    assert native in (None, by_python(FULL, mapping))
    if text == canonical(text):
        assert native is not None


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(values_as_most_hosts_send_them()))
def test_what_most_hosts_send_is_read_natively(mapping):
    assert natively(FULL, mapping) == by_python(FULL, mapping) is not None


def test_the_mapping_of_these_tests_is_read_natively():
    assert natively(FULL, EVERYDAY) == by_python(FULL, EVERYDAY) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: OrderedDict(EVERYDAY),
        lambda: [("transaction_id", "t-1")],
        lambda: None,
        lambda: "transaction",
        lambda: {OwnText(name): value for name, value in EVERYDAY.items()},
        lambda: {**EVERYDAY, 7: None},
        lambda: {**EVERYDAY, "Ünknown": None},
        dict,
    ],
)
def test_anything_but_a_plain_dict_of_known_names_is_left_to_python(make):
    assert natively(FULL, make()) is None


def test_names_that_are_not_interned_are_found():
    mapping = {"".join(list(name)): value for name, value in {**EVERYDAY, LONG_NAME: 3.0}.items()}

    assert natively(FULL, mapping) == by_python(FULL, mapping) is not None


def test_a_layout_that_names_a_field_twice_is_left_to_python():
    layout = RecordLayout(("user_id", "user_id"), ("amount",))
    encoder = Encoder(layout, key=b"sixteen byte key", vocabulary=VOCABULARY, currency="EUR")

    assert (
        natively(encoder, {"transaction_id": "t-1", "user_id": "u", "amount": 1, "event_time_s": 1_700_000_000}) is None
    )


@pytest.mark.parametrize(("n_ints", "n_numbers", "row"), [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0, 1, 0)])
def test_arrays_that_do_not_fit_are_not_written(n_ints, n_numbers, row):
    ints = np.zeros((1, LAYOUT.n_ints + n_ints), np.int64)
    numbers = np.zeros((1, len(LAYOUT.numbers) + n_numbers))
    with pytest.raises(ValueError, match=r"Encoder\.empty"):
        FULL.read_native(EVERYDAY, ints, numbers, row)


def test_any_row_of_a_block_can_be_written_natively():
    ints, numbers = FULL.empty(3)
    before = ints[0].tobytes()
    FULL.read_native(EVERYDAY, ints, numbers, 1)

    assert (ints[1].tobytes(), numbers[1].tobytes()) == natively(FULL, EVERYDAY)
    assert before == ints[0].tobytes() == ints[2].tobytes()


def test_the_objects_that_are_read_keep_their_reference_counts():
    """
    A hundred thousand mappings, half of them with something odd in them, and not a count is lost or leaked.
    """
    random = Random(11)
    odd = [
        "4111111111111111",
        " blank",
        "é",
        Decimal("1.5"),
        object(),
        [1],
        {"a": 1},
        10**40,
        b"x",
        "\ud800",
        None,
        True,
    ]
    values = [*EVERYDAY.values(), *odd, datetime(2026, 11, 23, tzinfo=UTC), "a name of " + str(random.random())]
    names = [*EVERYDAY, "pan", "custom", "event_time_s", "cvv"]
    ints, numbers = FULL.empty(1)
    mapping: dict[str, object] = {}
    # The interpreter itself counts on None, True and small integers.
    watched = [
        value for value in (*values, *names, mapping) if not isinstance(value, int | type(None)) or (value or 0) > 256
    ]
    before = [sys.getrefcount(value) for value in watched]
    n_written = 0
    for i in range(100_000):
        mapping.clear()
        mapping.update(EVERYDAY)
        if i % 2:
            mapping[random.choice(names)] = random.choice(values)
        n_written += FULL.read_native(mapping, ints, numbers)
    mapping.clear()

    assert 50_000 <= n_written < 90_000
    assert before == [sys.getrefcount(value) for value in watched]
