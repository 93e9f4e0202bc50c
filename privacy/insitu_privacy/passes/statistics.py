"""Pass 6: every SQL aggregate becomes additive integer statistics, and an expression that reads them back.

DESIGN.md section 4, Statistics. A statistic that two aggregates need is measured once. An AVG's sum is centred on the
middle of its bounds, and a SUM, a VARIANCE and a STDDEV of the same expression are read from the same two statistics,
the latter with the squares besides. What has no entry here is refused, with the nearest thing that works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.domains import is_bounded
from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes.allow_arguments import check_arguments
from insitu_privacy.passes.frontier import Aggregate, Frontier
from insitu_privacy.passes.quantiles import Wish, wish
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.plan import StatisticKind

_HINTS: Mapping[type[exp.Expr], str] = {
    exp.ApproxDistinct: "Use COUNT(DISTINCT ...) over the privacy unit.",
    exp.ArrayAgg: "Group by the column and count.",
    exp.GroupConcat: "Group by the column and count.",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A statistic the query needs, before its bounds are known."""

    kind: StatisticKind
    value: Expression | None
    node: exp.Expr = field(compare=False)
    """The aggregate's syntax, for errors."""
    centred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the post-processing reads an aggregate back from statistics."""

    kind: str
    """``count``, ``sum``, ``average``, ``variance`` and ``deviation``, each of a population or a sample."""
    parts: tuple[int, ...]
    """Indices of statistics: (count,), (sum,), (sum, rows), or (sum, rows, sum of squares)."""
    middle: Fraction = Fraction(0)
    """Of a variance, what its squares are taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The statistics of a release and, by aggregate placeholder, how to read them."""

    wanted: tuple[Wanted, ...]
    readings: Mapping[str, Reading]
    trees: tuple[Wanted, ...] = ()
    """Trees of counts."""
    quantiles: Mapping[str, tuple[int, Wish]] = field(default_factory=dict)
    """By placeholder, what is read from which tree."""


def statistics(front: Frontier, tracked: Tracked) -> Measured:
    """The statistics that the aggregates of a release need. Raises SqlRefused for aggregates without any."""
    found = {aggregate.name: _aggregate(aggregate, tracked) for aggregate in front.aggregates}
    wishes = {name: function for name, function in found.items() if function.wish is not None}
    calls = _with_shared_counts({name: function for name, function in found.items() if name not in wishes})
    averaged = {function.value for function in calls.values() if function.is_mean}
    table = _Table()
    readings = {name: table.reading(function, averaged) for name, function in calls.items()}
    if not found:  # group keys alone: each is kept or dropped by its number of units
        table.index(Wanted("units", None, front.keys[0].node))
    trees = _Table()
    quantiles = {
        name: (trees.index(Wanted("leaves", function.value, function.node)), function.wish)
        for name, function in wishes.items()
        if function.wish is not None
    }
    return Measured(wanted=tuple(table.wanted), readings=readings, trees=tuple(trees.wanted), quantiles=quantiles)


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    value: Expression | None
    node: exp.Expr
    nullable: bool = False
    shared: bool = False
    """Whether its rows are counted as those of the whole group, where they are declared never to be NULL."""
    wish: Wish | None = None
    """Of a quantile, what is asked for."""
    square: Expression | None = None
    """Of a variance, the square of the value less its middle."""
    middle: Fraction = Fraction(0)
    """Of a variance, the middle of the value's bounds."""

    @property
    def is_mean(self) -> bool:
        """Whether it is read from a centred sum and its rows."""
        return self.name == "average" or self.square is not None


def _with_shared_counts(calls: Mapping[str, _Function]) -> dict[str, _Function]:
    """One count for all where several are asked of values that are declared never to be NULL.

    Alone, such a count is of the value itself: what is out of bounds reads as NULL and is not counted.
    """
    counted = {call.value: call.nullable for call in calls.values() if call.name == "rows" or call.is_mean}
    if sum(not nullable for nullable in counted.values()) < 2:
        return dict(calls)
    return {
        name: replace(call, value=None) if call.name == "rows" and not call.nullable else replace(call, shared=True)
        for name, call in calls.items()
    }


class _Table:
    """Statistics in the order they are first needed."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []

    def index(self, wanted: Wanted) -> int:
        if wanted not in self.wanted:
            self.wanted.append(wanted)
        return self.wanted.index(wanted)

    def reading(self, function: _Function, averaged: set[Expression | None]) -> Reading:
        value, node = function.value, function.node
        if function.name in ("rows", "units", "entities"):
            kinds: dict[str, StatisticKind] = {"rows": "rows", "units": "units", "entities": "entities"}
            return Reading(kind="count", parts=(self.index(Wanted(kinds[function.name], value, node)),))
        if value not in averaged:
            return Reading(kind="sum", parts=(self.index(Wanted("sum", value, node)),))
        counted = None if function.shared and not function.nullable else value
        parts = (
            self.index(Wanted("sum", value, node, centred=True)),
            self.index(Wanted("rows", counted, node)),
        )
        if function.square is None:
            return Reading(kind=function.name, parts=parts)
        squares = self.index(Wanted("sum", function.square, node, centred=True))
        return Reading(kind=function.name, parts=(*parts, squares), middle=function.middle)


def _aggregate(aggregate: Aggregate, tracked: Tracked) -> _Function:
    node, condition = aggregate.node, None
    if isinstance(node, exp.Filter):
        condition = tracked.allow.condition(node.expression.this)
        node = node.this
    rule = _AGGREGATES.get(type(node))
    if rule is not None:
        check_arguments(node)
    else:
        hint = _HINTS.get(type(node), "Use COUNT, COUNT(DISTINCT unit), SUM or AVG.")
        raise refusal(
            "INSITU-SQL-AGGREGATE", node, name=node.sql_name() if isinstance(node, exp.Func) else node.key, hint=hint
        )
    return _filtered(rule(node, tracked), condition, tracked)


def _filtered(function: _Function, condition: Expression | None, tracked: Tracked) -> _Function:
    if condition is None:
        return function

    def where(value: Expression) -> Expression:
        return call(Op.CASE, condition, value, Literal(tracked.facts.facts(value).type, None))

    value = function.value if function.value is not None else Literal("boolean", True)
    square = None if function.square is None else where(function.square)
    return replace(function, value=where(value), square=square, nullable=True)


def _count(node: exp.Expr, tracked: Tracked) -> _Function:
    if isinstance(node.this, exp.Distinct):
        return _count_distinct(node, tracked)
    if node.this is None or isinstance(node.this, exp.Star):
        return _Function("rows", None, node)
    if node.expressions:
        raise forbidden(node, "COUNT of several expressions", "Count one, or use COUNT(*).")
    value = tracked.allow.expression(node.this)
    nullable = tracked.facts.facts(value).nullable
    plain = isinstance(value, Literal) or tracked.is_identifying(value)  # read without bounds to be out of
    return _Function("rows", None if plain and not nullable else value, node, nullable=nullable)


def _count_distinct(node: exp.Expr, tracked: Tracked) -> _Function:
    operands = node.this.expressions
    if len(operands) == 1 and isinstance(operands[0], exp.Tuple):
        operands = operands[0].expressions
    lowered = tuple(tracked.allow.expression(operand) for operand in operands)
    if len(operands) == 1 and isinstance(operands[0], (exp.DPipe, exp.Concat)):
        parts = _joined_parts(operands[0])
        columns = tuple(map(tracked.allow.expression, parts)) if all(isinstance(p, exp.Column) for p in parts) else ()
        if tracked.is_unit(columns):
            lowered = columns
        elif tracked.entity_among(columns):
            return _Function("entities", lowered[0], node, nullable=True)
    found = _distinct(lowered, tracked, node)
    if found is None and len(lowered) == 1 and isinstance(lowered[0], Call):
        guard = _guard(lowered[0])
        inner = guard and _distinct(guard[1:], tracked, node)
        found = _filtered(inner, guard[0], tracked) if guard and inner else None
    if found is not None:
        return found
    hint = f"Count persons with {tracked.counting_units()}."
    raise refusal("INSITU-SQL-AGGREGATE", node, name="COUNT(DISTINCT) of anything but the privacy unit", hint=hint)


def _distinct(lowered: tuple[Expression, ...], tracked: Tracked, node: exp.Expr) -> _Function | None:
    """Persons, or entities: each value is one unit's, so that their numbers add up."""
    if tracked.is_unit(lowered):
        return _of_units(lowered, tracked, node)
    if len(lowered) != 1 or not tracked.entity_among(lowered):
        return None
    if tracked.is_part_of_unit(lowered[0]):  # each unit has one value
        there = call(Op.CASE, call(Op.IS_NULL, lowered[0]), Literal("boolean", None), Literal("boolean", True))
        return _Function("units", there, node, nullable=True)
    return _Function("entities", lowered[0], node, nullable=True)


def _of_units(lowered: tuple[Expression, ...], tracked: Tracked, node: exp.Expr) -> _Function:
    """Units with a row; of a source that is joined left, units with a row where it is there."""
    item = tracked.unit_among(lowered)
    assert item is not None
    if item.alias not in tracked.relation.outer:
        return _Function("units", None, node)
    missing = call(Op.IS_NULL, lowered[0])
    there = call(Op.CASE, missing, Literal("boolean", None), Literal("boolean", True))
    return _Function("units", there, node, nullable=True)


def _joined_parts(node: exp.Expr) -> list[exp.Expr]:
    """What ``a || b`` and CONCAT put together, without the casts to text that some dialects need."""
    if isinstance(node, (exp.Paren, exp.Cast, exp.TryCast)):
        return _joined_parts(node.this)
    if isinstance(node, exp.DPipe):
        return _joined_parts(node.this) + _joined_parts(node.expression)
    if isinstance(node, exp.Concat):
        return [part for item in node.expressions for part in _joined_parts(item)]
    return [] if isinstance(node, exp.Literal) else [node]


def _guard(expression: Call) -> tuple[Expression, Expression] | None:
    """The condition and the value of ``CASE WHEN c THEN x END``."""
    if expression.op is not Op.CASE or len(expression.args) != 3:
        return None
    condition, value, default = expression.args
    return (condition, value) if isinstance(default, Literal) and default.value is None else None


def _numeric(name: str) -> Callable[[exp.Expr, Tracked], _Function]:
    def rule(node: exp.Expr, tracked: Tracked) -> _Function:
        if isinstance(node.this, exp.Distinct):
            raise forbidden(node, "DISTINCT in this aggregate", "Leave DISTINCT out.")
        value = tracked.allow.expression(node.this)
        if tracked.is_identifying(value):
            raise refusal("INSITU-SQL-AGGREGATE", node, name="arithmetic on identifiers", hint="Count them instead.")
        if tracked.facts.facts(value).type == "boolean":
            value = call(Op.TO_INTEGER, value)
        tracked.allow.require(value, ("integer", "decimal"), node.this)
        return _Function(name, value, node, nullable=tracked.facts.facts(value).nullable)

    return rule


def _spread(name: str, *, sample: bool) -> Callable[[exp.Expr, Tracked], _Function]:
    """Variances, from the sums of x and of the square of x - c, where c is the middle of the bounds of x."""

    def rule(node: exp.Expr, tracked: Tracked) -> _Function:
        function = _numeric(name)(node, tracked)
        assert function.value is not None
        facts = tracked.facts.facts(function.value)
        if not is_bounded(facts.interval) or facts.interval is None:
            text = node.this.sql()
            raise refusal("INSITU-SQL-UNBOUNDED", node.this, name=text, hint=f"LEAST(GREATEST({text}, 0), 1000)")
        low, high = facts.interval
        middle = Fraction(((low + high) / 2).__floor__())
        decimal = call(Op.TO_DECIMAL, function.value) if facts.type == "integer" else function.value
        shifted = call(Op.SUB, decimal, Literal("decimal", middle))
        kind = f"{name} of a {'sample' if sample else 'population'}"
        return replace(function, name=kind, square=call(Op.MUL, shifted, shifted), middle=middle)

    return rule


def _count_if(node: exp.Expr, tracked: Tracked) -> _Function:
    condition = tracked.allow.condition(node.this)
    value = call(Op.CASE, condition, Literal("boolean", True), Literal("boolean", None))
    return _Function("rows", value, node, nullable=True)


def _quantile(node: exp.Expr, tracked: Tracked) -> _Function:
    asked = wish(node, tracked)
    return _Function("quantile", asked.value, node, nullable=True, wish=asked)


_AGGREGATES: Mapping[type[exp.Expr], Callable[[exp.Expr, Tracked], _Function]] = {
    exp.Count: _count,
    exp.CountIf: _count_if,
    exp.Sum: _numeric("sum"),
    exp.Avg: _numeric("average"),
    exp.Min: _quantile,
    exp.Max: _quantile,
    exp.Median: _quantile,
    exp.PercentileCont: _quantile,
    exp.PercentileDisc: _quantile,
    exp.Quantile: _quantile,
    exp.ApproxQuantile: _quantile,
    exp.Variance: _spread("variance", sample=True),
    exp.VariancePop: _spread("variance", sample=False),
    exp.Stddev: _spread("deviation", sample=True),
    exp.StddevSamp: _spread("deviation", sample=True),
    exp.StddevPop: _spread("deviation", sample=False),
}


# -- reading back ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a statistic's integers are read: ``center + granularity * v``."""

    granularity: Fraction
    center: Fraction


def read_back(reading: Reading, scales: Sequence[Scale], released: str) -> exp.Expr:
    """DuckDB syntax that reads an aggregate from the statistics s0, s1, ... of the relation ``released``.

    ``scales`` are those of the reading's parts.
    """
    columns = [exp.column(f"s{part}", table=released) for part in reading.parts]
    if reading.kind == "count":
        return columns[0]
    total = _times(columns[0], scales[0].granularity)
    if len(columns) == 1:
        return total
    if reading.kind == "sum":
        center = scales[0].center
        return total if center == 0 else exp.paren(exp.Add(this=total, expression=_times(columns[1].copy(), center)))
    if reading.kind == "average":
        return _where_counted(columns[1], 0, _mean(columns[0], columns[1], scales[0]))
    return _variance(reading, columns, scales)


def _mean(total: exp.Expr, rows: exp.Expr, scale: Scale) -> exp.Expr:
    added = exp.cast(_times(total.copy(), scale.granularity), "DOUBLE")
    ratio = exp.Div(this=added, expression=rows.copy(), typed=False, safe=True)
    return exp.Add(this=_number(scale.center), expression=ratio)


def _where_counted(rows: exp.Expr, more_than: int, value: exp.Expr) -> exp.Expr:
    counted = exp.GT(this=rows.copy(), expression=exp.Literal.number(more_than))
    return exp.Case(ifs=[exp.If(this=counted, true=value)])


FLOORED = "insitu: a value where it is not below zero"
"""Marks the condition that a variance has a value under; its value is never below zero."""


def _variance(reading: Reading, columns: Sequence[exp.Expr], scales: Sequence[Scale]) -> exp.Expr:
    """E[y^2] - E[y]^2 for y the value from its middle. Where noise pushes it below zero it has no value."""
    kind, (total, rows, squares) = reading.kind, columns
    from_middle = replace(scales[0], center=scales[0].center - reading.middle)
    mean, mean_square = exp.paren(_mean(total, rows, from_middle)), exp.paren(_mean(squares, rows, scales[2]))
    spread: exp.Expr = exp.Sub(this=mean_square, expression=exp.Mul(this=mean, expression=mean.copy()))
    rounding = exp.Mul(this=exp.Literal.number("1e-9"), expression=mean_square.copy())
    above_zero = exp.GTE(
        this=exp.paren(exp.Add(this=exp.paren(spread), expression=rounding)), expression=_number(Fraction(0))
    )
    spread = exp.Greatest(this=spread.copy(), expressions=[_number(Fraction(0))], ignore_nulls=True)
    spread = exp.Case(ifs=[exp.If(this=above_zero, true=spread)])
    spread.meta[FLOORED] = True
    sample = kind.endswith("sample")
    if sample:
        fewer = exp.paren(exp.Sub(this=rows.copy(), expression=exp.Literal.number(1)))
        spread = exp.Div(
            this=exp.Mul(this=exp.paren(spread), expression=rows.copy()), expression=fewer, typed=False, safe=True
        )
    if kind.startswith("deviation"):
        spread = exp.Sqrt(this=spread)
    return _where_counted(rows, 1 if sample else 0, spread)


def _times(column: exp.Expr, factor: Fraction) -> exp.Expr:
    if factor == 1:
        return column
    if factor < 1:  # a power of ten below one: dividing by its whole inverse rounds once
        return exp.paren(exp.Div(this=exp.cast(column, "DOUBLE"), expression=_number(1 / factor), safe=True))
    return exp.paren(exp.Mul(this=column, expression=_number(factor)))


def _number(value: Fraction) -> exp.Expr:
    text = str(value.numerator) if value.denominator == 1 else repr(float(value))
    return exp.paren(exp.Literal.number(text)) if value < 0 else exp.Literal.number(text)
