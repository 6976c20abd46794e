"""The rule language: what it says, what it refuses, and how it says so."""

from __future__ import annotations

import math
import operator as op

import numpy as np
import pytest

from fraudsdk.domain.transaction import FIELD_PARSERS
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy import Condition, Name, ValueType
from fraudsdk.policy.expression import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES

NUMBER, TEXT, BOOLEAN = ValueType.NUMBER, ValueType.TEXT, ValueType.BOOLEAN
NAN = math.nan

NAMES = {
    "amount": Name(NUMBER),
    "score": Name(NUMBER),
    "balance": Name(NUMBER),
    "ratio": Name(NUMBER, is_float32=True),
    "user_count_1h": Name(NUMBER, is_float32=True),
    "mcc": Name(TEXT, spell=FIELD_PARSERS["mcc"]),
    "card_id": Name(TEXT, spell=FIELD_PARSERS["card_id"]),
    "merchant_country": Name(TEXT, spell=FIELD_PARSERS["merchant_country"]),
    "card_country": Name(TEXT, spell=FIELD_PARSERS["card_country"]),
    "channel": Name(TEXT, spell=FIELD_PARSERS["channel"]),
    "type": Name(TEXT, spell=FIELD_PARSERS["type"]),
    "card_present": Name(BOOLEAN),
}
OPERATORS = {"<": op.lt, "<=": op.le, "==": op.eq, "!=": op.ne, ">=": op.ge, ">": op.gt}
SLOTS = {name: slot for slot, name in enumerate(NAMES)}
ABSENT = {name: NAN if declared.type is NUMBER else None for name, declared in NAMES.items()}


def holds(text, **values):
    predicate = Condition.parse(text, where="rule 'r'").compile(NAMES, SLOTS)
    return predicate(tuple((ABSENT | values).values()))


def refusal(text):
    with pytest.raises(ConfigurationError) as refused:
        Condition.parse(text, where="rule 'r'").compile(NAMES, SLOTS)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("amount > 500", {"amount": 500.01}, True),
        ("amount > 500", {"amount": 500.0}, False),
        ("500 < amount", {"amount": 500.01}, True),
        ("0.2 <= score < 0.9", {"score": 0.2}, True),
        ("0.2 <= score < 0.9", {"score": 0.9}, False),
        ("amount == -1.5", {"amount": -1.5}, True),
        ("amount != 3", {"amount": 4.0}, True),
        ("amount + 1 > balance", {"amount": 2.5, "balance": 3.0}, True),
        ("amount - balance * 2 == 1", {"amount": 7.0, "balance": 3.0}, True),
        ("amount / balance >= 0.5", {"amount": 2.0, "balance": 4.0}, True),
        ("-amount < 0", {"amount": 1.0}, True),
        ("min(amount, balance, 2) == 2", {"amount": 5.0, "balance": 3.0}, True),
        ("max(amount, balance) == 5", {"amount": 5.0, "balance": 3.0}, True),
        ("abs(amount - balance) > 1", {"amount": 1.0, "balance": 3.0}, True),
        ("amount in (1, 2, 3)", {"amount": 2.0}, True),
        ("amount not in [1, 2, 3]", {"amount": 4.0}, True),
        ("amount + 1 in (2,)", {"amount": 1.0}, True),
        ('mcc == "7995"', {"mcc": "7995"}, True),
        ('"7995" == mcc', {"mcc": "7995"}, True),
        ('mcc != "7995"', {"mcc": "5411"}, True),
        ('mcc in ("7995", "6051")', {"mcc": "6051"}, True),
        ('mcc not in ("7995", "6051")', {"mcc": "5411"}, True),
        ("merchant_country != card_country", {"merchant_country": "GB", "card_country": "FR"}, True),
        ("merchant_country == card_country", {"merchant_country": "GB", "card_country": "GB"}, True),
        ("card_present", {"card_present": True}, True),
        ("not card_present", {"card_present": False}, True),
        ("not (amount > 5 or card_present)", {"amount": 1.0, "card_present": False}, True),
        ("amount > 1 and amount < 3 and score < 1", {"amount": 2.0, "score": 0.5}, True),
        ("amount > 9 or amount < 1 or score < 1", {"amount": 2.0, "score": 0.5}, True),
        ("true", {}, True),
        ("not true or False", {}, False),
        ("missing(amount) and missing(mcc) and missing(card_present)", {}, True),
        ("known(amount) and known(mcc) and known(card_present)", {"amount": 0.0, "mcc": "0000", "card_present": False}, True),
        ("not missing(mcc)", {"mcc": "5411"}, True),
    ],
)  # fmt: skip
def test_a_condition_holds_when_it_is_true(text, values, expected):
    assert expected is holds(text, **values)


@pytest.mark.parametrize("value", [4.0, 5.0, 6.0])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_comparison_means_the_same_from_either_side_and_under_not(operator, value):
    expected = OPERATORS[operator](value, 5.0)

    assert expected is holds(f"amount {operator} 5", amount=value)
    assert (not expected) is holds(f"not amount {operator} 5", amount=value)
    mirrored = operator.translate(str.maketrans("<>", "><"))
    assert expected is holds(f"5 {mirrored} amount", amount=value)
    assert expected is holds(f"amount {operator} balance", amount=value, balance=5.0)


@pytest.mark.parametrize(
    "text",
    [
        "amount > 5",
        "not amount > 5",
        "amount == 5",
        "amount != 5",
        "not amount != 5",
        "amount in (1,)",
        "amount not in (1,)",
        "not (1 < amount < 9)",
        "amount * 0 == 0",
        "not amount + 1 < 5",
        "min(amount, 3) <= 3",
        "max(3, amount) >= 3",
        "abs(amount) >= 0",
        'mcc == "7995"',
        'mcc != "7995"',
        'not mcc == "7995"',
        'mcc in ("7995",)',
        'mcc not in ("7995",)',
        "merchant_country == card_country",
        "merchant_country != card_country",
        "card_present",
        "not card_present",
        "card_present or not card_present",
    ],
)
def test_nothing_is_concluded_from_a_missing_value(text):
    assert not holds(text)


def test_what_does_not_depend_on_the_missing_value_still_holds():
    assert holds("balance > 5 or amount > 9", amount=10.0)
    assert holds("not (balance > 5 and amount > 9)", amount=1.0)


def test_one_known_country_does_not_differ_from_an_unknown_one():
    assert not holds("merchant_country != card_country", merchant_country="GB")
    assert not holds("card_country != merchant_country", merchant_country="GB")


def test_a_division_by_zero_is_missing():
    assert not holds("amount / balance > 0", amount=1.0, balance=0.0)
    assert not holds("not amount / balance > 0", amount=1.0, balance=0.0)


@pytest.mark.parametrize("threshold", [0.1, 0.7, 1e-3, 16_777_217.0])
def test_a_feature_equals_the_literal_it_was_computed_from(threshold):
    # float32(0.7) is 0.699999988: against the unrounded literal neither == nor >= would hold.
    value = float(np.float32(threshold))

    assert holds(f"ratio == {threshold}", ratio=value)
    assert holds(f"{threshold} <= ratio", ratio=value)
    assert holds(f"ratio in ({threshold},)", ratio=value)


def test_a_transaction_field_is_compared_in_full_precision():
    assert not holds("amount == 0.7", amount=float(np.float32(0.7)))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('merchant_country == "GBR"', {"merchant_country": "GB"}),
        ('merchant_country in ("826", "fr")', {"merchant_country": "FR"}),
        ('channel == "POS"', {"channel": "pos"}),
        ('type == "authorization"', {"type": FIELD_PARSERS["type"]("authorisation")}),
    ],
)
def test_a_literal_is_read_as_the_border_reads_it(text, values):
    assert holds(text, **values)


def test_a_condition_may_span_lines():
    assert holds("amount > 1\n  and\n\tamount < 3", amount=2.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("amout > 5", ["column 1", "unknown name 'amout'", "did you mean 'amount'?"]),
        ("amount > 5 and usr_count_1h > 2", ["column 16", "did you mean 'user_count_1h'?"]),
        ("  amount > scor", ["column 12", "did you mean 'score'?"]),
        ('channel == "café" and amout > 5', ["column 23"]),
        ("amount", ["'amount' is a number where a condition is needed"]),
        ("mcc and amount > 5", ["'mcc' is text where a condition is needed"]),
        ("amount > mcc", ["'mcc' is text, compared with a number"]),
        ('amount > "5"', ["is text, compared with a number"]),
        ("mcc == 7995", ["'7995' is a number, compared with text"]),
        ('mcc < "7995"', ["'mcc' is text and has no order"]),
        ("mcc + 1 > 2", ["'mcc' is text where a number is needed"]),
        ("card_present == true", ["write `x` or `not x`"]),
        ("card_present == amount", ["is a number, compared with true or false"]),
        ("(amount > 1) + 1 > 1", ["is true or false where a number is needed"]),
        ('"a" == "b"', ["compares two literals"]),
        ('mcc in ("7995")', ["must be a list of literals", "a comma even for one"]),
        ("mcc in ()", ["must be a list of literals"]),
        ("mcc in (channel,)", ["must be a text literal"]),
        ('amount in ("1",)', ["must be a number literal"]),
        ("card_present in (true,)", ["cannot be looked up in a list"]),
        ('mcc == "79956"', ["mcc must be four digits, was '79956'"]),
        ('merchant_country == "England"', ["merchant_country"]),
        ('channel == ""', ["is empty; write missing(channel)"]),
        ("missing(amount + 1)", ["takes one name"]),
        ("missing(amount, mcc)", ["takes one name"]),
        ("known(true)", ["takes one name"]),
        ("abs(amount, 1) > 1", ["takes one number"]),
        ("min(amount) > 1", ["takes two numbers or more"]),
        ("pow(amount, 2) > 1", ["is no function"]),
        ("amount > 1e999", ["too large for a number"]),
        ("amount > " + "9" * 400, ["too large for a number"]),
        ("amount > 1j", ["is neither a number"]),
        ('amount > b"x"', ["is neither a number"]),
        ("amount > None", ["is neither a number"]),
        ("amount > [1]", ["is neither a number"]),
        ("amount ** 2 > 1", ["Pow is not part of the language; write x * x"]),
        ("amount % 2 == 1", ["Mod is not part of the language"]),
        ("amount // 2 == 1", ["FloorDiv is not part of the language"]),
        ("mcc is None", ["Is is not part of the language; write missing(x)"]),
        ("amount > 1 & amount < 3", ["BitAnd is not part of the language; write `and`"]),
        ("amount > 1 if score > 1 else true", ["IfExp is not part of the language"]),
        ("mcc.upper() == 'x'", ["can be called"]),
        ("mcc.real == 'x'", ["Attribute is not part of the language"]),
        ("mcc[0] == 'x'", ["Subscript is not part of the language"]),
        ("(lambda: true)()", ["can be called"]),
        ("[x for x in mcc] == 1", ["ListComp is not part of the language"]),
        ("f'{mcc}' == 'x'", ["JoinedStr is not part of the language"]),
        ("(amount := 5) > 1", ["NamedExpr is not part of the language"]),
        ("__import__('os').system('true')", ["can be called"]),
        ("max(*[amount, 1]) > 1", ["Starred is not part of the language"]),
        ("max(amount, key=abs) > 1", ["can be called"]),
        ("amount > 5 # and mcc == '7995'", ["'#' is not part of the language"]),
        ('mcc == "\\x37995"', ["is not part of the language"]),
        ("amount > 5\x00", ["is not part of the language"]),
        ("amount >", ["column", "not a condition"]),
        ("amount > 5)", ["column 11", "not a condition"]),
        ("amount > 5; score > 1", ["not a condition"]),
        ("import os", ["not a condition"]),
        ("", ["is empty"]),
        (" \n", ["is empty"]),
        (None, ["must be text, was NoneType"]),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_with_its_place_and_a_remedy(text, words):
    message = refusal(text)

    assert message.startswith("rule 'r'")
    for word in words:
        assert word in message


def test_a_card_number_in_a_rule_is_refused_and_not_repeated():
    message = refusal('card_id == "4111 1111 1111 1111"')

    assert "card number" in message
    assert "4111" not in message


def test_a_card_number_in_a_rule_that_is_wrong_elsewhere_is_not_repeated_either():
    assert "411111111111" not in refusal('4111111111111111 > "4111111111111111"')


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        ("amount > 1" + " " * (MAX_CHARACTERS - 10), "amount > 1" + " " * (MAX_CHARACTERS - 9)),
        ("not " * (MAX_DEPTH - 2) + "amount > 1", "not " * (MAX_DEPTH - 1) + "amount > 1"),
        (
            f"amount in ({','.join('1' * (MAX_NODES - 3))})",
            f"amount in ({','.join('1' * (MAX_NODES - 2))})",
        ),
    ],
)
def test_size_is_bounded(largest, too_large):
    Condition.parse(largest, where="rule 'r'").compile(NAMES, SLOTS)

    assert "must" in refusal(too_large)


@pytest.mark.parametrize("text", ["(" * 900 + "1" + ")" * 900, "-" * 1_900 + "amount > 1", "not " * 490 + "true"])
def test_a_nesting_bomb_is_refused_like_anything_else(text):
    refusal(text)


def test_the_names_that_a_condition_reads_are_known_before_it_is_compiled():
    condition = Condition.parse("max(amount, 1) > 2 and missing(mcc) or true", where="rule 'r'")

    assert {"amount", "mcc"} == condition.names
