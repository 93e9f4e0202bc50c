"""Pass 3: the allowlist. A scalar syntax tree becomes an ``Expression``, or is refused.

What has no entry in the tables below never reaches a database: an unknown function, a subquery, a parameter, a cast
that may fail. Types are checked here, and arithmetic whose public bounds would let it overflow is refused, so that
whatever passes is total on both engines. What is not here: aggregates and relations (``frontier``, ``track``), and
functions of dates and text (``allow_functions``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Protocol

from sqlglot import exp

from insitu_privacy.calendar import midnight
from insitu_privacy.dataset import ColumnType
from insitu_privacy.domains import Inference, is_bounded
from insitu_privacy.evaluate import apply, literal_value
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op, call, replace
from insitu_privacy.facts import Facts
from insitu_privacy.guarded import WRITTEN
from insitu_privacy.passes.allow_arguments import check_arguments, not_listed
from insitu_privacy.passes.spans import forbidden, refusal

_NUMBERS: tuple[ColumnType, ...] = ("integer", "decimal")
_MOMENTS: frozenset[ColumnType] = frozenset({"date", "timestamp"})
_INTEGER_RESULT = Fraction(2**62)
_WEIGHT_LIMIT = 50_000
_LITERAL_LIMIT = 1_000
"""Characters of a text that stands for what it is computed from: a longer one would be written over and over."""
_WRITTEN: Mapping[Op, int] = {**WRITTEN, Op.MUL: 3, Op.DIV: 3, Op.ROUND: 2, Op.TO_INTEGER: 2, Op.BUCKET: 4}
"""How often ``dialects`` writes the arguments of an operation."""
_DECIMAL_RESULT = Fraction(10**30)


class Subqueries(Protocol):
    """Translates IN, EXISTS and comparisons with subqueries (``cohorts``)."""

    def lower(self, node: exp.Expr, allow: Allow) -> Expression | None:
        """The condition, or None where the node holds no subquery of its own."""


class Allow:
    """Translates scalar syntax over the columns that ``inference`` knows.

    Raises SqlRefused for everything outside the language, with the clause underlined.
    """

    def __init__(
        self,
        inference: Inference,
        resolve: Callable[[str, str], ColumnRef],
        *,
        known: Mapping[exp.Expr, Expression] | None = None,
        subqueries: Subqueries | None = None,
    ) -> None:
        from insitu_privacy.passes import allow_functions, allow_operators, allow_patterns

        self._inference = inference
        self._resolve = resolve
        self._known = known or {}
        self._subqueries = subqueries
        self._lowered: dict[int, tuple[exp.Expr, Expression]] = {}
        self._weights: dict[int, tuple[Expression, int]] = {}
        self._folded: dict[int, tuple[Expression, Expression]] = {}
        self._rules = {**allow_functions.RULES, **allow_functions.RAW, **allow_operators.RULES}
        self._rules |= dict.fromkeys((exp.RegexpLike, exp.RegexpILike, exp.SimilarTo), allow_patterns.matches)

    def column(self, table: str, name: str) -> ColumnRef:
        """A column by the name its table has in the query."""
        return self._resolve(table, name)

    def moved(
        self, inference: Inference, columns: Mapping[ColumnRef, ColumnRef], known: Mapping[exp.Expr, Expression]
    ) -> Allow:
        """A translation over a relation made of this one's rows, where its columns stand under other names."""

        def resolve(table: str, name: str) -> ColumnRef:
            return columns[self._resolve(table, name)]

        before = {node: _moved(expression, columns) for node, expression in self._known.items()}
        return Allow(inference, resolve, known={**before, **known})

    def close(self) -> None:
        """From here on subqueries are refused: the relation they belong to is complete."""
        self._subqueries = None

    def facts_of(self, expression: Expression) -> Facts:
        """What is publicly known of an expression made here."""
        return self._inference.facts(expression)

    def type_of(self, expression: Expression) -> ColumnType:
        """The type of an expression made here."""
        return self._inference.facts(expression).type

    def bounded(self, expression: Expression) -> bool:
        """Whether an expression has public bounds on both sides."""
        return is_bounded(self._inference.facts(expression).interval)

    def condition(self, node: exp.Expr) -> Expression:
        """A boolean expression."""
        return self.require(self.expression(node), ("boolean",), node)

    def expression(self, node: exp.Expr) -> Expression:
        """Any scalar expression. A node is translated once, however many operations share it."""
        kept = self._lowered.get(id(node))
        if kept is None:
            kept = self._lowered[id(node)] = (node, self._translated(node))
        return kept[1]

    def _translated(self, node: exp.Expr) -> Expression:
        if self._known and node in self._known:  # comparing trees takes a while
            return self._known[node]
        if self._subqueries is not None:
            looked_into = self._subqueries.lower(node, self)
            if looked_into is not None:
                return looked_into
        rule = self._rules.get(type(node))
        if rule is None:
            raise not_listed(node)
        check_arguments(node)
        lowered = rule(self, node)
        if isinstance(lowered, Call):
            self._check_overflow(lowered, node)
            if self.weight(lowered) > _WEIGHT_LIMIT:
                raise refusal("INSITU-SQL-TOO-LONG", node, limit=f"{_WEIGHT_LIMIT} operations, written out")
        return self.folded(lowered)

    def folded(self, expression: Expression) -> Expression:
        """An operation on literals as the literal it gives; conditions stay what they are.

        Kept by identity, as weights are.
        """
        if not isinstance(expression, Call):
            return expression
        kept = self._folded.get(id(expression))
        if kept is None:
            kept = self._folded[id(expression)] = (expression, self._constant(expression))
        return kept[1]

    def _constant(self, expression: Call) -> Expression:
        literals = [item for item in map(self.folded, expression.args) if isinstance(item, Literal)]
        kind = self.type_of(expression)
        if kind == "boolean" or len(literals) < len(expression.args):
            return expression
        try:
            value = apply(expression.op, [literal_value(item) for item in literals])
            if isinstance(value, str) and len(value) > _LITERAL_LIMIT:
                return expression
            exact = Fraction(value) if kind == "decimal" and value is not None else value  # type: ignore[arg-type]
            return Literal(kind, exact)  # type: ignore[arg-type]  # floats are decimals
        except (OverflowError, ValueError):  # an infinity, or no number
            return expression

    def weight(self, expression: Expression) -> int:
        """How long an expression is once a dialect writes it out: some operations write their arguments more than once.

        Kept by identity, with the expression: arguments are shared, and a tree may stand for exponentially many.
        """
        if isinstance(expression, ColumnRef):
            return self._inference.facts(expression).weight
        if not isinstance(expression, Call):
            return 1
        kept = self._weights.get(id(expression))
        if kept is None:
            times = _WRITTEN.get(expression.op, 1)
            weight = 1 + times * sum(self.weight(argument) for argument in expression.args)
            kept = self._weights[id(expression)] = (expression, weight)
        return kept[1]

    def require(self, lowered: Expression, kinds: tuple[ColumnType, ...], node: exp.Expr) -> Expression:
        """The expression, refused where it is of another type; an untyped NULL takes the first."""
        if _is_null(lowered):
            return Literal(kinds[0], None)
        kind = self.type_of(lowered)
        if kind not in kinds:
            hint = f"Use an expression of type {' or '.join(kinds)} here."
            raise refusal("INSITU-SQL-TYPE", node, name="this operation", type=kind, hint=hint)
        return lowered

    def numbers(self, *nodes: exp.Expr) -> list[Expression]:
        """Numeric operands."""
        return [self.require(self.counted(node), _NUMBERS, node) for node in nodes]

    def counted(self, node: exp.Expr) -> Expression:
        """An operand of arithmetic: a moment that is formatted to digits alone is the number that they are."""
        from insitu_privacy.passes.allow_moments import formatted_number

        lowered = self.expression(node)
        if self.type_of(lowered) != "text":
            return lowered
        number = formatted_number(self, node)
        return lowered if number is None else number

    def carried(self, *nodes: exp.Expr) -> list[Expression]:
        """Operands of which one becomes the result: alike, and all decimals where one is.

        Engines would decide each for itself which type that is: one would keep an integer, and overflow.
        """
        operands = self.alike(*nodes, compared=False)
        kinds = [self.type_of(item) for item in operands]
        if "decimal" not in kinds:
            return operands
        return [
            call(Op.TO_DECIMAL, item) if kind == "integer" and not _is_null(item) else item
            for item, kind in zip(operands, kinds, strict=True)
        ]

    def alike(self, *nodes: exp.Expr, compared: bool = True) -> list[Expression]:
        """Operands of one comparable type.

        Text literals next to dates become dates. Where they are compared, texts next to numbers and dates become those,
        NULL where they are none; and days next to timestamps become their midnights.
        """
        operands = [self.expression(node) for node in nodes]
        kinds = self._kinds(operands)
        if kinds & _MOMENTS:
            operands = [self._as_moment(item, node, compared) for item, node in zip(operands, nodes, strict=True)]
            operands = _of_one_moment(operands, self._kinds(operands), self.type_of)
        elif compared and "text" in kinds and kinds & set(_NUMBERS):
            made = Op.TEXT_TO_DECIMAL if "decimal" in kinds else Op.TEXT_TO_INTEGER
            operands = [self._as_number(item, node, made) for item, node in zip(operands, nodes, strict=True)]
        names = [self.type_of(item) for item in operands if not _is_null(item)]
        families = {"number" if kind in _NUMBERS else kind for kind in names}
        if len(families) > 1:
            hint = "Compare and combine values of one type; CAST one of them."
            raise refusal("INSITU-SQL-TYPE", nodes[0].parent, name="this", type=" and ".join(sorted(names)), hint=hint)
        return [_typed_null(item, names) for item in operands]

    def _kinds(self, operands: list[Expression]) -> set[ColumnType]:
        return {self.type_of(item) for item in operands if not _is_null(item)}

    def _as_moment(self, item: Expression, node: exp.Expr, compared: bool) -> Expression:
        if _is_null(item) or self.type_of(item) != "text":
            return item
        if isinstance(item, Literal):
            return date_literal(str(item.value), node)
        return call(Op.TEXT_TO_TIMESTAMP, item) if compared else item

    def _as_number(self, item: Expression, node: exp.Expr, made: Op) -> Expression:
        if _is_null(item) or self.type_of(item) != "text":
            return item
        if not isinstance(item, Literal):
            return call(made, item)
        number = self.folded(call(Op.TEXT_TO_INTEGER, item))
        number = self.folded(call(Op.TEXT_TO_DECIMAL, item)) if _is_null(number) else number
        if _is_null(number):
            raise refusal("INSITU-SQL-TYPE", node, name="a number", type="this text", hint="Write a number.")
        return number

    def _check_overflow(self, lowered: Call, node: exp.Expr) -> None:
        """Integers are read within 2^53, so that dividing them is total; all else must stay within public bounds."""
        if lowered.op not in (Op.ADD, Op.SUB, Op.MUL, Op.DIV) or any(_is_null(item) for item in lowered.args):
            return
        facts = self._inference.facts(lowered)
        if lowered.op is Op.DIV:
            facts = self._inference.facts(lowered.args[0])
            if facts.type == "integer":
                return
        interval = facts.interval
        limit = _INTEGER_RESULT if facts.type == "integer" else _DECIMAL_RESULT
        if interval is None or not is_bounded(interval) or max(abs(interval[0]), abs(interval[1])) >= limit:
            raise refusal("INSITU-SQL-UNBOUNDED", node, name="this arithmetic", hint="LEAST(GREATEST(x, 0), 1000)")


def _moved(expression: Expression, columns: Mapping[ColumnRef, ColumnRef]) -> Expression:
    return replace(expression, lambda node: columns.get(node) if isinstance(node, ColumnRef) else None)


# -- what rules share -------------------------------------------------------------------------------------------------


def _is_null(item: Expression) -> bool:
    return isinstance(item, Literal) and item.value is None


def _typed_null(item: Expression, kinds: list[ColumnType]) -> Expression:
    return Literal(kinds[0], None) if _is_null(item) and kinds else item


def _of_one_moment(
    operands: list[Expression], kinds: set[ColumnType], type_of: Callable[[Expression], ColumnType]
) -> list[Expression]:
    """Days and timestamps as one of the two: as days where the only timestamps are literals at midnight."""
    if not {"date", "timestamp"} <= kinds:
        return operands
    moments = [item for item in operands if type_of(item) == "timestamp"]
    if all(isinstance(item, Literal) and _is_midnight(item.value) for item in moments):
        return [
            Literal("date", item.value.date())
            if isinstance(item, Literal) and isinstance(item.value, datetime)
            else item
            for item in operands
        ]
    return [as_timestamp(item) if type_of(item) == "date" else item for item in operands]


def _is_midnight(value: object) -> bool:
    return isinstance(value, datetime) and value == midnight(value.date())


def as_timestamp(day: Expression) -> Expression:
    """A day's midnight."""
    if isinstance(day, Literal) and isinstance(day.value, date):
        return Literal("timestamp", midnight(day.value))
    return call(Op.TO_TIMESTAMP, day)


_EARLY = re.compile(r"([0-9]{1,3})(-[0-9]{1,2}-[0-9]{1,2})", re.ASCII)


def date_literal(text: str, node: exp.Expr) -> Literal:
    """A DATE or TIMESTAMP literal from ISO 8601 text; refused where it is not one."""
    text = (
        _EARLY.sub(lambda found: f"{found[1]:0>4}{found[2]}", text.strip())
        if _EARLY.fullmatch(text.strip())
        else text.strip()
    )
    plain = apply(Op.TEXT_TO_TIMESTAMP, [text])
    if isinstance(plain, datetime) and ":" not in text:
        return Literal("date", plain.date())
    try:
        moment = plain if isinstance(plain, datetime) else datetime.fromisoformat(text)
    except ValueError:
        raise refusal("INSITU-SQL-TYPE", node, name="DATE", type="this text", hint="Write '2020-01-31'.") from None
    if moment.tzinfo is not None:
        raise refusal("INSITU-SQL-TYPE", node, name="TIMESTAMP", type="a time zone", hint="Leave the zone out.")
    return Literal("timestamp", moment)


def whole_number(node: exp.Expr | None, around: exp.Expr, low: int, high: int) -> int:
    """A literal whole number within limits."""
    negative = isinstance(node, exp.Neg)
    number = node.this if isinstance(node, exp.Neg) else node
    if isinstance(number, exp.Literal) and re.fullmatch("[0-9]{1,9}", number.name):
        value = -int(number.name) if negative else int(number.name)
        if low <= value <= high:
            return value
    raise forbidden(around if node is None else node, "this argument", f"Write a whole number from {low} to {high}.")
