"""Compiled conditions against a naive three-valued interpreter, on random conditions and random gaps."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.errors import ConfigurationError
from fraudsdk.policy import Condition, Name, ValueType

NAN = math.nan
NUMBERS = ("a", "b", "c")
TEXTS = ("s", "t")
FLAGS = ("p", "q")
NAMES = {
    **dict.fromkeys(NUMBERS, Name(ValueType.NUMBER)),
    **dict.fromkeys(TEXTS, Name(ValueType.TEXT)),
    **dict.fromkeys(FLAGS, Name(ValueType.BOOLEAN)),
}
SLOTS = {name: slot for slot, name in enumerate(NAMES)}

# A tree is (operator, operand...); a leaf is a name or a literal.


def numbers():
    leaves = st.one_of(
        st.sampled_from([("number", name) for name in NUMBERS]), st.integers(-3, 3).map(lambda n: ("literal", n))
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["+", "-", "*", "/", "min", "max"]), inner, inner),
            st.tuples(st.sampled_from(["neg", "abs"]), inner),
        ),
        max_leaves=4,
    )


def leaves():
    texts = st.sampled_from([("text", name) for name in TEXTS])
    strings = st.sampled_from([("string", "x"), ("string", "y")])
    return st.one_of(
        st.tuples(st.sampled_from(["<", "<=", "==", "!=", ">=", ">"]), numbers(), numbers()),
        st.tuples(st.just("chain"), numbers(), numbers(), numbers()),
        st.tuples(st.sampled_from(["in", "not in"]), numbers(), st.just(("numbers", 0, 1, -2))),
        st.tuples(st.sampled_from(["in", "not in"]), texts, st.just(("strings", "x", "z"))),
        st.tuples(st.sampled_from(["==", "!="]), texts, st.one_of(texts, strings)),
        st.sampled_from([("flag", name) for name in FLAGS]),
        st.tuples(st.sampled_from(["missing", "known"]), st.sampled_from(NUMBERS + TEXTS + FLAGS)),
        st.sampled_from([("truth", True), ("truth", False)]),
    )


CONDITIONS = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner, inner),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=8,
)
VALUES = st.fixed_dictionaries(
    {
        **dict.fromkeys(NUMBERS, st.sampled_from([NAN, -2.0, -1.0, 0.0, 1.0, 2.0, 0.5])),
        **dict.fromkeys(TEXTS, st.sampled_from([None, "x", "y"])),
        **dict.fromkeys(FLAGS, st.sampled_from([None, True, False])),
    }
)


def written(tree):
    operator, *operands = tree
    match operator:
        case "number" | "text" | "flag":
            return operands[0]
        case "literal":
            return str(operands[0])
        case "string":
            return f'"{operands[0]}"'
        case "truth":
            return "true" if operands[0] else "false"
        case "numbers" | "strings":
            return repr(tuple(operands))
        case "neg":
            return f"(-{written(operands[0])})"
        case "not":
            return f"(not {written(operands[0])})"
        case "min" | "max" | "abs":
            return f"{operator}({', '.join(written(operand) for operand in operands)})"
        case "missing" | "known":
            return f"{operator}({operands[0]})"
        case "chain":
            return f"({written(operands[0])} <= {written(operands[1])} < {written(operands[2])})"
        case _:
            return "(" + f" {operator} ".join(written(operand) for operand in operands) + ")"


def absent(value):
    return value is None or value != value


def interpreted(tree, values):
    """The value of a number or text, None where it is missing; True, False or None for a condition (Kleene)."""
    operator, *operands = tree
    match operator:
        case "number" | "text" | "flag":
            value = values[operands[0]]
            return None if absent(value) else value
        case "literal" | "string" | "truth":
            return operands[0]
        case "missing":
            return absent(values[operands[0]])
        case "known":
            return not absent(values[operands[0]])
        case "numbers" | "strings":
            return operands
        case "chain":
            low, middle, high = operands
            return interpreted(("and", ("<=", low, middle), ("<", middle, high)), values)
    results = [interpreted(operand, values) for operand in operands]
    if operator == "and":
        return False if False in results else None if None in results else True
    if operator == "or":
        return True if True in results else None if None in results else False
    if None in results:
        return None
    return computed(operator, *results)


def computed(operator, *operands):
    match operator, *operands:
        case "not", a:
            return not a
        case "neg", a:
            return -a
        case "abs", a:
            return abs(a)
        case "+", a, b:
            return a + b
        case "-", a, b:
            return a - b
        case "*", a, b:
            return a * b
        case "/", a, b:
            return a / b if b else None
        case "min", a, b:
            return min(a, b)
        case "max", a, b:
            return max(a, b)
        case "<", a, b:
            return a < b
        case "<=", a, b:
            return a <= b
        case "==", a, b:
            return a == b
        case "!=", a, b:
            return a != b
        case ">=", a, b:
            return a >= b
        case ">", a, b:
            return a > b
        case "in", a, listed:
            return a in listed
        case "not in", a, listed:
            return a not in listed
    raise AssertionError(operator)


@settings(max_examples=400)
@given(tree=CONDITIONS, values=VALUES)
def test_a_condition_holds_exactly_where_three_valued_logic_says_true(tree, values):
    predicate = Condition.parse(written(tree), where="a random condition").compile(NAMES, SLOTS)

    assert (interpreted(tree, values) is True) is predicate(tuple(values[name] for name in NAMES))


@given(text=st.text(alphabet="amount mcc()<>=!and or not in [],.'\"0123456789+-*/_:lambda", max_size=60))
def test_any_text_is_a_condition_or_a_configuration_error(text):
    try:
        condition = Condition.parse(text, where="fuzz")
        predicate = condition.compile(
            {"amount": Name(ValueType.NUMBER), "mcc": Name(ValueType.TEXT)}, {"amount": 0, "mcc": 1}
        )
    except ConfigurationError:
        return
    assert predicate((1.0, "5411")) in (True, False)
