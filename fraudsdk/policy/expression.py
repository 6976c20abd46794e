"""
The language of rules: small, typed, and incapable of doing anything but compare.

    amount > 500 and merchant_country != card_country and user_count_1h >= 5 or mcc in ("7995", "6051")

====================  ==================================================================
logic                 ``and``  ``or``  ``not``  ``true``  ``false``
comparison            ``<  <=  ==  !=  >=  >``, chained: ``0.2 <= score < 0.9``
membership            ``in``  ``not in`` a list of literals
arithmetic            ``+  -  *  /``, ``min(...)``  ``max(...)``  ``abs(x)``
absence               ``missing(name)``  ``known(name)``
====================  ==================================================================

A condition is read by Python's parser, never by its compiler: nodes outside a short list are refused, and what is left
becomes a tree of closures over a tuple of values.  Nothing is evaluated from text, there are no attributes, calls of
anything else, loops or powers, and a size limit bounds the time.

Missing values follow Kleene's logic.  Whatever is computed from a missing value is missing; a comparison with one is
unknown; ``not`` unknown is unknown; and a condition *holds* only where it is known to be true.  So with `balance`
missing neither ``balance > 5`` nor ``not balance > 5`` holds, while ``balance > 5 or amount > 9`` may.  A division by
zero is missing.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final

import numpy as np

from fraudsdk.domain.masking import shown
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.errors import ConfigurationError

MAX_CHARACTERS: Final = 2_000
MAX_DEPTH: Final = 32
MAX_NODES: Final = 256

Values = Sequence[Any]
Predicate = Callable[[Values], bool]
Number = Callable[[Values], float]


class ValueType(Enum):
    """What a name stands for."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Name:
    """
    A name that conditions may use.

    Attributes
    ----------
    type : ValueType
        Of its values.  In the tuple of values a missing number is NaN; missing text or a missing boolean is None.
    spell : callable or None
        For text: turns a literal into what a transaction holds for it, or raises `RefusedValue`.
    is_float32 : bool
        True for a feature.  A literal compared with it is rounded to float32 too, so that ``ratio >= 0.7`` holds for
        the ratio 0.7, whose float32 is a little less.
    """

    type: ValueType
    spell: Callable[[str], Any] | None = None
    is_float32: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """
    A condition that was read and found well-formed, not yet compiled.

    Attributes
    ----------
    text : str
        As it was written.
    where : str
        What a message calls it, such as ``"rule 'large_foreign'"``.
    names : frozenset of str
        The names it reads, declared or not.
    """

    text: str
    where: str
    names: frozenset[str]
    _tree: ast.expr

    @classmethod
    def parse(cls, text: str, *, where: str) -> Condition:
        """
        Read a condition.

        Raises
        ------
        ConfigurationError
            Not in the language, or too large; names the column.
        """
        tree = _Reader(text, where).read()
        calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in calls}
        return cls(text, where, frozenset(names - _TRUTH.keys()), tree)

    def compile(self, names: Mapping[str, Name], slots: Mapping[str, int]) -> Predicate:
        """
        Check names and types, and make the function that says whether the condition holds.

        Parameters
        ----------
        names : mapping of str to Name
            Everything that may be mentioned.
        slots : mapping of str to int
            Where in the tuple of values each of this condition's `names` will be.

        Raises
        ------
        ConfigurationError
            A name that is not declared (the closest one is suggested), or types that do not fit; names the column.

        Examples
        --------
        >>> condition = Condition.parse("amount > 500 and mcc in ('7995', '6051')", where="an example")
        >>> names = {"amount": Name(ValueType.NUMBER), "mcc": Name(ValueType.TEXT)}
        >>> holds = condition.compile(names, {"amount": 0, "mcc": 1})
        >>> holds((900.0, "7995")), holds((900.0, None))
        (True, False)
        """
        return _Compiler(self, names, slots).condition(self._tree, wanted=True)


_TRUTH: Final = {"true": True, "false": False}

_ALLOWED: Final = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div),
    *(ast.Compare, ast.Lt, ast.LtE, ast.Eq, ast.NotEq, ast.GtE, ast.Gt, ast.In, ast.NotIn),
    *(ast.Call, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Set),
)

# What people try first, in the words of this language.
_REMEDIES: Final[dict[type[ast.AST], str]] = {
    ast.Is: "write missing(x), known(x), == or !=",
    ast.IsNot: "write missing(x), known(x), == or !=",
    ast.Pow: "write x * x",
    ast.BitAnd: "write `and`",
    ast.BitOr: "write `or`",
    ast.Invert: "write `not`",
    ast.IfExp: "write two rules",
    ast.Attribute: "use a plain name",
    ast.Subscript: "use a plain name",
}


class _Reader:
    """From text to a syntax tree of allowed nodes and bounded size."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        # A rule in a file may span lines.  Same length, so that columns still count.
        self._text = text.translate({ord("\n"): " ", ord("\r"): " ", ord("\t"): " "}) if isinstance(text, str) else text

    def read(self) -> ast.expr:
        self._check_characters()
        leading = len(self._text) - len(self._text.lstrip())
        try:
            tree = ast.parse(self._text.strip(), mode="eval").body
        except SyntaxError as error:
            column = (error.offset or 1) + leading
            raise ConfigurationError(f"{self._where}, column {column}: not a condition ({error.msg})") from error
        except (ValueError, MemoryError, RecursionError) as error:
            raise self._error("nested too deeply to be read; split the rule") from error
        self._check_nodes(tree)
        return tree

    def _check_characters(self) -> None:
        if not isinstance(self._text, str):
            raise self._error(f"must be text, was {type(self._text).__name__}")
        if not self._text.strip():
            raise self._error("is empty; write a condition, or `true`")
        if len(self._text) > MAX_CHARACTERS:
            raise self._error(
                f"must have at most {MAX_CHARACTERS} characters, had {len(self._text)}; split it, or use a list"
            )
        # "#" would silently cut a rule of several lines; a backslash is only good for hiding what a literal says.
        forbidden = next((c for c in self._text if c in "#\\" or not c.isprintable()), None)
        if forbidden is not None:
            column = self._text.index(forbidden) + 1
            raise self._error(f"column {column}: the character {forbidden!r} is not part of the language; leave it out")

    def _check_nodes(self, tree: ast.expr) -> None:
        level: list[ast.expr] = [tree]
        n_nodes = depth = 0
        self._check_node(tree)
        while level:
            depth += 1
            n_nodes += len(level)
            if depth > MAX_DEPTH or n_nodes > MAX_NODES:
                raise self._error(
                    f"must nest at most {MAX_DEPTH} deep and have at most {MAX_NODES} names, literals and operations; "
                    "split the rule, or use a list"
                )
            children = [child for node in level for child in ast.iter_child_nodes(node)]
            for child in children:
                self._check_node(child)
            level = [child for child in children if isinstance(child, ast.expr)]

    def _check_node(self, node: ast.AST) -> None:
        if not isinstance(node, _ALLOWED):
            remedy = _REMEDIES.get(type(node), "see docs/policy.md for what is")
            raise self._error(f"{_column(self._text, node)}{type(node).__name__} is not part of the language; {remedy}")
        if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.keywords):
            raise self._error(f"{_column(self._text, node)}only min, max, abs, missing and known can be called")

    def _error(self, problem: str) -> ConfigurationError:
        separator = ", " if problem.startswith("column") else ": "
        return ConfigurationError(f"{self._where}{separator}{problem}")


def _column(text: str, node: ast.AST) -> str:
    offset = getattr(node, "col_offset", None)
    if offset is None:  # an operator has no position of its own
        return ""
    stripped = text.lstrip()
    # The parser counts bytes of UTF-8.
    characters = len(stripped.encode()[:offset].decode(errors="ignore"))
    return f"column {len(text) - len(stripped) + characters + 1}: "


_OPPOSITE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_MIRRORED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}

# Every predicate below is false for a missing operand (NaN, None).  ``x == x`` is false for NaN alone.
_NUMBER_WITH_NUMBER: Final[dict[type[ast.cmpop], Callable[[Number, Number], Predicate]]] = {
    ast.Lt: lambda a, b: lambda v: a(v) < b(v),
    ast.LtE: lambda a, b: lambda v: a(v) <= b(v),
    ast.Gt: lambda a, b: lambda v: a(v) > b(v),
    ast.GtE: lambda a, b: lambda v: a(v) >= b(v),
    ast.Eq: lambda a, b: lambda v: a(v) == b(v),
    ast.NotEq: lambda a, b: lambda v: (x := a(v)) == x and (y := b(v)) == y and x != y,
}
# A name against a literal is what rules are made of: one call instead of three.
_NAME_WITH_LITERAL: Final[dict[type[ast.cmpop], Callable[[int, float], Predicate]]] = {
    ast.Lt: lambda i, c: lambda v: v[i] < c,
    ast.LtE: lambda i, c: lambda v: v[i] <= c,
    ast.Gt: lambda i, c: lambda v: v[i] > c,
    ast.GtE: lambda i, c: lambda v: v[i] >= c,
    ast.Eq: lambda i, c: lambda v: v[i] == c,
    ast.NotEq: lambda i, c: lambda v: (x := v[i]) == x and x != c,
}
_TEXT_WITH_LITERAL: Final[dict[type[ast.cmpop], Callable[[int, Any], Predicate]]] = {
    ast.Eq: lambda i, c: lambda v: v[i] == c,
    ast.NotEq: lambda i, c: lambda v: (x := v[i]) is not None and x != c,
}
_TEXT_WITH_TEXT: Final[dict[type[ast.cmpop], Callable[[int, int], Predicate]]] = {
    ast.Eq: lambda i, j: lambda v: (x := v[i]) is not None and x == v[j],
    ast.NotEq: lambda i, j: lambda v: (x := v[i]) is not None and (y := v[j]) is not None and x != y,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: lambda a, b: lambda v: a(v) + b(v),
    ast.Sub: lambda a, b: lambda v: a(v) - b(v),
    ast.Mult: lambda a, b: lambda v: a(v) * b(v),
    ast.Div: lambda a, b: lambda v: a(v) / d if (d := b(v)) else math.nan,
}


class _Compiler:
    """
    From a syntax tree to closures.

    `condition` is told which truth value is wanted and pushes every ``not`` down to the comparisons.  There a missing
    operand makes both a comparison and its opposite false, so two truth values suffice: the result is true exactly
    where Kleene's three-valued logic says "true".
    """

    def __init__(self, condition: Condition, names: Mapping[str, Name], slots: Mapping[str, int]) -> None:
        self._where = condition.where
        self._text = condition.text
        self._names = names
        self._slots = slots

    # Conditions.

    def condition(self, node: ast.expr, *, wanted: bool) -> Predicate:
        """A predicate that is true where `node` is known to be `wanted`."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value, wanted=wanted) for value in node.values]
            return _every(parts) if isinstance(node.op, ast.And) is wanted else _some(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self.condition(node.operand, wanted=not wanted)
        if isinstance(node, ast.Compare):
            return self._chain(node, wanted)
        if isinstance(node, ast.Call) and self._function(node) in ("missing", "known"):
            return self._absence(node, missing=(self._function(node) == "missing") is wanted)
        truth = _truth(node)
        if truth is not None:
            result = truth is wanted
            return lambda v: result
        return self._boolean_name(node, wanted)

    def _boolean_name(self, node: ast.expr, wanted: bool) -> Predicate:
        if self._type(node) is not ValueType.BOOLEAN:
            raise self._error(
                node, f"is {_described(self._type(node))} where a condition is needed; compare it with something"
            )
        slot = self._slot(node)
        return lambda v: v[slot] is wanted

    def _chain(self, node: ast.Compare, wanted: bool) -> Predicate:
        operands = [node.left, *node.comparators]
        parts = [
            self._comparison(left, type(op), right, wanted)
            for left, op, right in zip(operands, node.ops, operands[1:], strict=False)
        ]
        return _every(parts) if wanted else _some(parts)

    def _comparison(self, left: ast.expr, op: type[ast.cmpop], right: ast.expr, wanted: bool) -> Predicate:
        effective = op if wanted else _OPPOSITE[op]
        if op in (ast.In, ast.NotIn):
            return self._membership(left, right, positive=effective is ast.In)
        types = {self._type(left), self._type(right)}
        if types == {ValueType.NUMBER}:
            return self._number_comparison(left, effective, right)
        if types == {ValueType.TEXT}:
            return self._text_comparison(left, effective, right)
        if types == {ValueType.BOOLEAN}:
            raise self._error(left, "is true or false and is not compared; write `x` or `not x`")
        raise self._error(right, f"is {_described(self._type(right))}, compared with {_described(self._type(left))}")

    def _number_comparison(self, left: ast.expr, op: type[ast.cmpop], right: ast.expr) -> Predicate:
        if isinstance(left, ast.Name) and (literal := self._literal(right)) is not None:
            return _NAME_WITH_LITERAL[op](self._slot(left), self._rounded(left, literal))
        if isinstance(right, ast.Name) and (literal := self._literal(left)) is not None:
            return _NAME_WITH_LITERAL[_MIRRORED[op]](self._slot(right), self._rounded(right, literal))
        return _NUMBER_WITH_NUMBER[op](self._number(left), self._number(right))

    def _text_comparison(self, left: ast.expr, op: type[ast.cmpop], right: ast.expr) -> Predicate:
        if op not in _TEXT_WITH_TEXT:
            raise self._error(left, "is text and has no order; use ==, != or in")
        if isinstance(left, ast.Name) and isinstance(right, ast.Name):
            return _TEXT_WITH_TEXT[op](self._slot(left), self._slot(right))
        name, literal = (left, right) if isinstance(left, ast.Name) else (right, left)
        if not isinstance(name, ast.Name):
            raise self._error(left, "compares two literals; one side must be a name")
        return _TEXT_WITH_LITERAL[op](self._slot(name), self._spelt(name, literal))

    def _membership(self, left: ast.expr, right: ast.expr, *, positive: bool) -> Predicate:
        if not isinstance(right, (ast.List, ast.Tuple, ast.Set)) or not right.elts:
            raise self._error(
                right, 'must be a list of literals such as ("7995", "6051"), with a comma even for one: ("7995",)'
            )
        if self._type(left) is ValueType.TEXT and isinstance(left, ast.Name):
            slot, texts = self._slot(left), frozenset(self._spelt(left, element) for element in right.elts)
            if positive:
                return lambda v: v[slot] in texts
            return lambda v: (x := v[slot]) is not None and x not in texts
        if self._type(left) is not ValueType.NUMBER:
            raise self._error(left, "cannot be looked up in a list; only a text name or a number can")
        number, numbers = self._number(left), frozenset(self._listed_number(left, element) for element in right.elts)
        if positive:
            return lambda v: number(v) in numbers
        return lambda v: (x := number(v)) == x and x not in numbers

    def _absence(self, node: ast.Call, *, missing: bool) -> Predicate:
        if len(node.args) != 1 or not isinstance(node.args[0], ast.Name) or _truth(node.args[0]) is not None:
            raise self._error(node, "takes one name")
        name = node.args[0]
        slot = self._slot(name)
        if self._type(name) is ValueType.NUMBER:
            return (lambda v: v[slot] != v[slot]) if missing else (lambda v: v[slot] == v[slot])
        return (lambda v: v[slot] is None) if missing else (lambda v: v[slot] is not None)

    # Numbers.

    def _number(self, node: ast.expr) -> Number:
        literal = self._literal(node)
        if literal is not None:
            return lambda v: literal
        if self._type(node) is not ValueType.NUMBER:
            raise self._error(node, f"is {_described(self._type(node))} where a number is needed")
        if isinstance(node, ast.Name):
            return operator.itemgetter(self._slot(node))
        if isinstance(node, ast.BinOp):
            return _ARITHMETIC[type(node.op)](self._number(node.left), self._number(node.right))
        if isinstance(node, ast.UnaryOp):
            operand = self._number(node.operand)
            return (lambda v: -operand(v)) if isinstance(node.op, ast.USub) else operand
        assert isinstance(node, ast.Call), "_type knows no other number"
        return self._call(node)

    def _call(self, node: ast.Call) -> Number:
        function, arguments = self._function(node), [self._number(argument) for argument in node.args]
        if function == "abs":
            if len(arguments) != 1:
                raise self._error(node, "takes one number")
            (argument,) = arguments
            return lambda v: abs(argument(v))
        if len(arguments) < 2:
            raise self._error(node, "takes two numbers or more")
        choose: Callable[[list[float]], float] = min if function == "min" else max
        return lambda v: _chosen(choose, [argument(v) for argument in arguments])

    # Leaves.

    def _type(self, node: ast.expr) -> ValueType:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return ValueType.TEXT
        if _truth(node) is not None or isinstance(node, (ast.BoolOp, ast.Compare)):
            return ValueType.BOOLEAN
        if isinstance(node, ast.Name):
            return self._declared(node).type
        if isinstance(node, ast.UnaryOp):
            return ValueType.BOOLEAN if isinstance(node.op, ast.Not) else ValueType.NUMBER
        if isinstance(node, ast.Call):
            return ValueType.BOOLEAN if self._function(node) in ("missing", "known") else ValueType.NUMBER
        if isinstance(node, ast.BinOp) or self._literal(node) is not None:
            return ValueType.NUMBER
        raise self._error(node, "is neither a number, a text nor a condition")

    def _declared(self, node: ast.Name) -> Name:
        name = self._names.get(node.id)
        if name is None:
            closest = get_close_matches(node.id, self._names, n=1)
            hint = f"; did you mean {closest[0]!r}?" if closest else "; use a transaction field or a feature's name"
            raise ConfigurationError(f"{self._position(node)}unknown name {shown(node.id)}{hint}")
        return name

    def _slot(self, node: ast.expr) -> int:
        assert isinstance(node, ast.Name), "only names have slots"
        self._declared(node)
        return self._slots[node.id]

    def _function(self, node: ast.Call) -> str:
        assert isinstance(node.func, ast.Name), "the reader has checked"
        if node.func.id not in ("min", "max", "abs", "missing", "known"):
            raise self._error(node, "is no function; only min, max, abs, missing and known can be called")
        return node.func.id

    def _literal(self, node: ast.expr) -> float | None:
        """The value of a number literal, with its sign; None for anything else."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            inner = self._literal(node.operand)
            return inner if inner is None or isinstance(node.op, ast.UAdd) else -inner
        if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
            return None
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self._error(node, "is too large for a number")
        return value

    def _listed_number(self, left: ast.expr, element: ast.expr) -> float:
        literal = self._literal(element)
        if literal is None:
            raise self._error(element, "must be a number literal, as what is looked up is a number")
        return self._rounded(left, literal)

    def _rounded(self, name: ast.expr, literal: float) -> float:
        if not (isinstance(name, ast.Name) and self._declared(name).is_float32):
            return literal
        with np.errstate(over="ignore"):  # beyond float32 compares as infinity does
            return float(np.float32(literal))

    def _spelt(self, name: ast.Name, node: ast.expr) -> str:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            raise self._error(node, f"must be a text literal, as {name.id} is text")
        spell = self._declared(name).spell
        try:
            spelt = node.value if spell is None else spell(node.value)
        except RefusedValue as refusal:
            raise ConfigurationError(
                f"{self._position(node)}{name.id} {refusal.problem}; {refusal.remedy}"
            ) from refusal
        if not spelt:
            raise self._error(node, f"is empty; write missing({name.id})")
        return spelt

    def _error(self, node: ast.expr, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self._position(node)}{_source(node)} {problem}")

    def _position(self, node: ast.expr) -> str:
        return f"{self._where}, {_column(self._text, node)}"


def _truth(node: ast.expr) -> bool | None:
    if isinstance(node, ast.Name):
        return _TRUTH.get(node.id)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, bool) else None


def _described(value_type: ValueType) -> str:
    return {ValueType.NUMBER: "a number", ValueType.TEXT: "text", ValueType.BOOLEAN: "true or false"}[value_type]


def _source(node: ast.expr) -> str:
    """What a message shows of the rule; long digit runs are hidden, as a literal may be a card number by mistake."""
    return shown(ast.unparse(node))


def _every(parts: list[Predicate]) -> Predicate:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda v: first(v) and second(v)

    def holds(v: Values) -> bool:
        for part in parts:  # noqa: SIM110  (all() with a generator takes three times as long)
            if not part(v):
                return False
        return True

    return holds


def _some(parts: list[Predicate]) -> Predicate:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda v: first(v) or second(v)

    def holds(v: Values) -> bool:
        for part in parts:  # noqa: SIM110
            if part(v):
                return True
        return False

    return holds


def _chosen(choose: Callable[[list[float]], float], numbers: list[float]) -> float:
    # Python's min and max would let a NaN win or lose by its place.
    return math.nan if any(number != number for number in numbers) else choose(numbers)
