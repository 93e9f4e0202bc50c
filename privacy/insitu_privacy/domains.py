"""Public facts about expressions: type, nullability, interval or finite domain, constancy per unit.

Interval arithmetic over the operations of ``expressions``. Facts hold because every column is read through a guard
that makes NULL of what lies outside its declaration (``dialects.guard``), and every operation is total: they never
rest on data being as declared. A fact that cannot be shown is absent.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any

from insitu_privacy.dataset import Column, ColumnType
from insitu_privacy.evaluate import Value, apply, literal_value
from insitu_privacy.expressions import Call, ColumnRef, Exists, Expression, Literal, Op
from insitu_privacy.facts import INTEGER_LIMIT, MISSING, Facts, Interval, is_bounded
from insitu_privacy.intervals import CALENDAR, interval_of, may_be_undefined

__all__ = ["INTEGER_LIMIT", "Facts", "Inference", "column_facts", "is_bounded", "result_type"]

DOMAIN_LIMIT = 10_000
"""Finite domains larger than this are not enumerated."""
_EVALUATIONS = 100_000
"""Values enumerated for one query: beyond, expressions have no finite domain. Planning stays fast whatever is asked."""
_PERIODS: Mapping[Op, int] = {Op.TRUNC_YEAR: 366, Op.TRUNC_QUARTER: 92, Op.TRUNC_MONTH: 31, Op.TRUNC_WEEK: 7}
"""Days from the first of a period that are surely in the next one."""
_PERIODS_LIMIT = 2_000


def column_facts(column: Column) -> Facts:
    """The facts of a column as it is read: what is out of bounds or domain has become NULL."""
    values: tuple[Value, ...] | None = None if column.values is None else tuple(column.values)
    if column.type == "boolean":
        values = (False, True)
    interval = _declared_interval(column)
    if values is None and column.type == "integer" and column.minimum is not None and column.maximum is not None:
        values = _integers(interval)
    return Facts(
        type=column.type,
        nullable=column.nullable,
        interval=interval,
        values=values,
        constant=column.constant_per_unit,
    )


def _declared_interval(column: Column) -> Interval | None:
    if column.values is not None and column.type in ("integer", "date"):
        return _hull(tuple(column.values), column.type)
    if column.type == "integer":
        low = column.minimum if column.minimum is not None else -MISSING
        return low, column.maximum if column.maximum is not None else MISSING
    if column.minimum is None or column.maximum is None:
        return None
    return column.minimum, column.maximum


def _integers(interval: Interval | None) -> tuple[Value, ...] | None:
    if interval is None or interval[1] - interval[0] >= DOMAIN_LIMIT:
        return None
    return tuple(range(int(interval[0]), int(interval[1]) + 1))


def _periods(op: Op, interval: Interval | None) -> tuple[Value, ...] | None:
    """The first days of all months, weeks ... between two of them; None where they are unbounded, or too many."""
    if interval is None or type(interval[0]) is not date or type(interval[1]) is not date:
        return None
    step, found = timedelta(days=_PERIODS[op]), list[Value]()
    if interval[1] - interval[0] >= step * _PERIODS_LIMIT:
        return None
    start = interval[0]
    while start <= interval[1]:
        found.append(start)
        start = apply(op, [start + step])  # type: ignore[assignment]  # a date
    return tuple(found)


class Inference:
    """Facts of expressions over the columns of one relation, with what its WHERE clause adds.

    ``refine`` gives a new inference that knows a condition holds for every row.
    """

    def __init__(self, columns: Mapping[ColumnRef, Facts], known: Mapping[Expression, Facts] | None = None) -> None:
        self._columns = columns
        self._known = dict(known or {})
        self._seen: dict[int, tuple[Expression, Facts]] = {}
        self._left = _EVALUATIONS

    def facts(self, expression: Expression) -> Facts:
        """What is known of an expression. Types are right: the ``allow`` pass has checked them."""
        seen = self._seen.get(id(expression))
        if seen is None:  # kept with the expression, so that its id stays its own
            seen = self._seen[id(expression)] = (expression, self._facts(expression))
        return seen[1]

    def _facts(self, expression: Expression) -> Facts:
        known = self._known.get(expression) if self._known else None
        if known is not None:
            return known
        if isinstance(expression, ColumnRef):
            return self._columns[expression]
        if isinstance(expression, Literal):
            return _literal_facts(expression)
        if isinstance(expression, Exists):
            return Facts(type="boolean", nullable=False, values=(False, True))
        return self._call_facts(expression)

    def refine(self, conditions: Iterable[Expression]) -> Inference:
        """The inference for rows on which all conditions are true."""
        refined = Inference(self._columns, self._known)
        for condition in conditions:
            if isinstance(condition, Call):
                refined._learn(condition)
        return refined

    def _learn(self, condition: Call) -> None:
        if all(isinstance(argument, Literal) for argument in condition.args):
            return
        if condition.op in (Op.EQ, Op.LT, Op.LE, Op.GT, Op.GE, Op.IN):
            target, *literals = condition.args
            if isinstance(target, Literal) and len(literals) == 1:
                self._learn(Call(_FLIPPED[condition.op], (literals[0], target)))
            elif all(isinstance(item, Literal) for item in literals):
                self._know(target, _restricted(self.facts(target), condition))
        elif condition.op is Op.NOT and isinstance(condition.args[0], Call):
            inner = condition.args[0]
            if inner.op is Op.IS_NULL:
                self._know(inner.args[0], replace(self.facts(inner.args[0]), nullable=False))

    def _know(self, expression: Expression, facts: Facts) -> None:
        self._known[expression] = facts
        self._seen.clear()

    def _call_facts(self, expression: Call) -> Facts:
        args = [self.facts(argument) for argument in expression.args]
        kind = result_type(expression.op, [fact.type for fact in args])
        interval = interval_of(expression.op, args)
        if expression.op is Op.MUL and expression.args[0] == expression.args[1] and interval is not None:
            interval = (max(interval[0], Fraction(0)), interval[1])  # a square
        values = None
        if (cost := _combinations(args)) <= min(DOMAIN_LIMIT, self._left):
            self._left -= cost
            values = _call_values(expression.op, args)
        if values is None and kind == "integer" and expression.op in _CALENDAR_PARTS:
            values = _integers(interval)
        if values is None and expression.op in _PERIODS:
            values = _periods(expression.op, interval)
        return Facts(
            type=kind,
            nullable=_call_nullable(expression.op, args),
            interval=_hull(values, kind) if values else interval,
            values=values,
            constant=all(fact.constant for fact in args),
        )


_FLIPPED: Mapping[Op, Op] = {Op.EQ: Op.EQ, Op.LT: Op.GT, Op.LE: Op.GE, Op.GT: Op.LT, Op.GE: Op.LE, Op.IN: Op.IN}


def _literal_facts(literal: Literal) -> Facts:
    if literal.value is None:
        return Facts(type=literal.type, nullable=True, values=(), constant=True)
    values = (literal_value(literal),)
    return Facts(type=literal.type, nullable=False, interval=_hull(values, literal.type), values=values, constant=True)


def _hull(values: tuple[Value, ...], kind: ColumnType) -> Interval | None:
    if not values or kind in ("text", "boolean"):
        return None
    low, high = min(values), max(values)  # type: ignore[type-var]  # one type, no None
    return (Fraction(low), Fraction(high)) if kind in ("integer", "decimal") else (low, high)  # type: ignore[arg-type]


def _restricted(facts: Facts, condition: Call) -> Facts:
    literals = [literal_value(argument) for argument in condition.args[1:] if isinstance(argument, Literal)]
    candidates = facts.values
    if candidates is None and condition.op in (Op.IN, Op.EQ):
        candidates = tuple(sorted({value for value in literals if value is not None}))
    values = candidates
    if candidates is not None:
        values = _true_of(condition.op, candidates, literals)
    interval = _hull(values, facts.type) if values else _cut(facts, condition.op, literals)
    return replace(facts, nullable=False, values=values, interval=interval)


def _true_of(op: Op, candidates: tuple[Value, ...], literals: list[Value]) -> tuple[Value, ...]:
    """The candidates that a comparison with the literals is true of. A long list is not walked through."""
    if op is Op.IN:
        listed = {value for value in literals if value is not None}
        return tuple(value for value in candidates if value in listed)
    return tuple(value for value in candidates if apply(op, [value, *literals]) is True)


def _cut(facts: Facts, op: Op, literals: list[Value]) -> Interval | None:
    if facts.interval is None or literals[0] is None or facts.type in ("text", "boolean"):
        return facts.interval
    low, high = facts.interval
    bound: Any = literals[0] if facts.type in ("date", "timestamp") else Fraction(literals[0])  # type: ignore[arg-type]
    if type(bound) is not type(low):
        return facts.interval
    if op in (Op.LT, Op.LE):
        return low, max(low, min(high, bound))
    if op in (Op.GT, Op.GE):
        return min(high, max(low, bound)), high
    return facts.interval


# -- types -----------------------------------------------------------------------------------------------------------

_BOOLEAN = frozenset({Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE, Op.IN, Op.IS_NULL, Op.LIKE, Op.ILIKE, Op.AND, Op.OR})
_INTEGER = frozenset({Op.INTDIV, Op.YEAR, Op.QUARTER, Op.MONTH, Op.DAY, Op.DAYS_BETWEEN, Op.TO_INTEGER, Op.LENGTH,
                     Op.TO_WHOLE, Op.BUCKET, Op.HOUR, Op.MINUTE, Op.SECOND, Op.DOW, Op.ISODOW, Op.DOY, Op.WEEK,
                     Op.UNITS_BETWEEN, Op.TEXT_TO_INTEGER, Op.POSITION})  # fmt: skip
_DECIMAL = frozenset({Op.DIV, Op.TO_DECIMAL, Op.FLOOR, Op.CEIL, Op.ROUND, Op.EPOCH, Op.TEXT_TO_DECIMAL, Op.SQRT, Op.LN,
                     Op.LOG10, Op.EXP, Op.POWER, Op.SIN, Op.COS, Op.ASIN, Op.ACOS, Op.ATAN})  # fmt: skip
_DATE = frozenset({Op.TRUNC_YEAR, Op.TRUNC_QUARTER, Op.TRUNC_MONTH, Op.TRUNC_WEEK, Op.ADD_DAYS, Op.ADD_MONTHS,
                   Op.TO_DATE, Op.MAKE_DATE, Op.TEXT_TO_DATE})  # fmt: skip
_TIMESTAMP = frozenset({Op.TO_TIMESTAMP, Op.ADD_SECONDS, Op.TEXT_TO_TIMESTAMP})
_TEXT = frozenset({Op.LOWER, Op.UPPER, Op.SUBSTRING, Op.CONCAT, Op.TO_TEXT, Op.TRIM, Op.LTRIM, Op.RTRIM, Op.REPLACE,
                   Op.RIGHT, Op.LPAD, Op.RPAD, Op.SPLIT_PART})  # fmt: skip
_GROUPS: Mapping[ColumnType, frozenset[Op]] = {
    "boolean": _BOOLEAN, "integer": _INTEGER, "date": _DATE, "timestamp": _TIMESTAMP, "text": _TEXT,
}  # fmt: skip
_CALENDAR_PARTS = frozenset({*CALENDAR, Op.YEAR, Op.DAYS_BETWEEN, Op.UNITS_BETWEEN, Op.BUCKET})


def result_type(op: Op, args: list[ColumnType]) -> ColumnType:
    """The type an operation gives for arguments of these types."""
    for kind, group in _GROUPS.items():
        if op in group:
            return kind
    if op is Op.NOT:
        return "boolean"
    if op in _DECIMAL:
        return "integer" if op in (Op.FLOOR, Op.CEIL, Op.ROUND) and args == ["integer"] else "decimal"
    carried = args if op is not Op.CASE else [*args[1::2], args[-1]]
    return "decimal" if "decimal" in carried else carried[0]


def _call_nullable(op: Op, args: list[Facts]) -> bool:
    if op is Op.IS_NULL:
        return False
    if op in (Op.COALESCE, Op.LEAST, Op.GREATEST):
        return all(fact.nullable for fact in args)
    if op is Op.CASE:
        return any(fact.nullable for fact in [*args[1::2], args[-1]])
    if op is Op.NULLIF:
        return True
    if op in (Op.DIV, Op.INTDIV, Op.MOD):
        return any(fact.nullable for fact in args) or _may_be_zero(args[1])
    return any(fact.nullable for fact in args) or may_be_undefined(op, args)


def _may_be_zero(fact: Facts) -> bool:
    if fact.values is not None:
        return 0 in fact.values
    return fact.interval is None or fact.interval[0] <= 0 <= fact.interval[1]


# -- finite domains --------------------------------------------------------------------------------------------------


def _combinations(args: list[Facts]) -> int:
    """How many combinations of finite domains an operation would be evaluated on, at most."""
    count = 1
    for fact in args:
        count *= 1 + len(fact.values or ())
        if count > DOMAIN_LIMIT:
            break
    return count


def _call_values(op: Op, args: list[Facts]) -> tuple[Value, ...] | None:
    if op is Op.IS_NULL or (op in _BOOLEAN) or op is Op.NOT:
        return (False, True)
    if op is Op.CASE:
        return _union(args[1::2] + args[-1:])
    if op is Op.COALESCE:
        return _union(args)
    choices = tuple((*fact.values, None) if fact.nullable else fact.values for fact in args if fact.values is not None)
    if len(choices) < len(args):
        return None
    kinds = tuple(frozenset(map(type, choice)) for choice in choices)
    return _results(op, choices) if any(float in kind for kind in kinds) else _kept_results(op, kinds, choices)


@lru_cache(maxsize=64)
def _kept_results(
    op: Op, kinds: tuple[frozenset[type], ...], choices: tuple[tuple[Value, ...], ...]
) -> tuple[Value, ...]:
    """What is found of one expression several times: for rows before conditions and after, for a look and for the plan.

    By type, for 1 and TRUE are equal here; and not of floats, for 0.0 and -0.0 are, too.
    """
    return _results(op, choices)


def _results(op: Op, choices: tuple[tuple[Value, ...], ...]) -> tuple[Value, ...]:
    results = {apply(op, list(combination)) for combination in itertools.product(*choices)}
    return tuple(sorted(value for value in results if value is not None))


def _union(facts: list[Facts]) -> tuple[Value, ...] | None:
    found: set[Any] = set()
    for fact in facts:
        if fact.values is None:
            return None
        found.update(fact.values)
    return tuple(sorted(found))
