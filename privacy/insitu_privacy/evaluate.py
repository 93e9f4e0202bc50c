"""Evaluates expressions on constants, to carry finite public domains through them.

Agrees with what ``dialects`` writes for the engines (a contract test runs both). Where they differed, a group key
would fall outside the computed domain and its rows would be dropped: a loss of accuracy, never of privacy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

from insitu_privacy.expressions import ColumnRef, Expression, Literal, Op

Value = int | Fraction | str | bool | date | datetime | None


def evaluate(expression: Expression, columns: Mapping[ColumnRef, Value]) -> Value:
    """The value of an expression where columns have the given values; NULL is None."""
    if isinstance(expression, ColumnRef):
        return columns[expression]
    if isinstance(expression, Literal):
        return expression.value
    return apply(expression.op, [evaluate(argument, columns) for argument in expression.args])


def apply(op: Op, args: Sequence[Value]) -> Value:
    """One operation on values, by the rules of SQL: most give NULL where an argument is NULL."""
    if op in _OWN_NULLS:
        return _OWN_NULLS[op](args)
    if any(value is None for value in args):
        return None
    result: Value = _STRICT[op](*args)
    return result


def _and(args: Sequence[Value]) -> Value:
    if any(value is False for value in args):
        return False
    return None if any(value is None for value in args) else True


def _or(args: Sequence[Value]) -> Value:
    if any(value is True for value in args):
        return True
    return None if any(value is None for value in args) else False


def _case(args: Sequence[Value]) -> Value:
    for index in range(0, len(args) - 1, 2):
        if args[index] is True:
            return args[index + 1]
    return args[-1]


def _in(args: Sequence[Value]) -> Value:
    if args[0] is None:
        return None
    if args[0] in [value for value in args[1:] if value is not None]:
        return True
    return None if None in args[1:] else False


def _nullif(args: Sequence[Value]) -> Value:
    return None if args[0] == args[1] and args[0] is not None else args[0]


def _present(args: Sequence[Value]) -> list[Any]:
    return [value for value in args if value is not None]


_OWN_NULLS: Mapping[Op, Callable[[Sequence[Value]], Value]] = {
    Op.AND: _and,
    Op.OR: _or,
    Op.CASE: _case,
    Op.IN: _in,
    Op.NULLIF: _nullif,
    Op.IS_NULL: lambda args: args[0] is None,
    Op.COALESCE: lambda args: next(iter(_present(args)), None),
    Op.LEAST: lambda args: min(_present(args), default=None),
    Op.GREATEST: lambda args: max(_present(args), default=None),
}


def _truncated(a: Fraction, b: Fraction) -> int | None:
    return None if b == 0 else math.trunc(Fraction(a) / Fraction(b))


def _round(a: Fraction) -> int:
    return math.floor(a + Fraction(1, 2)) if a >= 0 else math.ceil(a - Fraction(1, 2))


def _like(text: str, pattern: str) -> bool:
    """SQL LIKE without escapes, in time linear in the text for each pattern part."""
    ends = {0}
    for char in pattern:
        if char == "%":
            ends = set(range(min(ends), len(text) + 1)) if ends else ends
        else:
            ends = {end + 1 for end in ends if end < len(text) and char in ("_", text[end])}
    return len(text) in ends


def _day(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


_STRICT: Mapping[Op, Callable[..., Any]] = {
    Op.ADD: lambda a, b: a + b,
    Op.SUB: lambda a, b: a - b,
    Op.MUL: lambda a, b: a * b,
    Op.DIV: lambda a, b: None if b == 0 else Fraction(a) / Fraction(b),
    Op.INTDIV: _truncated,
    Op.MOD: lambda a, b: None if b == 0 else a - b * _truncated(a, b),
    Op.NEG: lambda a: -a,
    Op.ABS: abs,
    Op.FLOOR: lambda a: Fraction(math.floor(a)),
    Op.CEIL: lambda a: Fraction(math.ceil(a)),
    Op.ROUND: lambda a: Fraction(_round(a)),
    Op.EQ: lambda a, b: a == b,
    Op.NE: lambda a, b: a != b,
    Op.LT: lambda a, b: a < b,
    Op.LE: lambda a, b: a <= b,
    Op.GT: lambda a, b: a > b,
    Op.GE: lambda a, b: a >= b,
    Op.LIKE: _like,
    Op.ILIKE: lambda text, pattern: _like(text.lower(), pattern.lower()),
    Op.NOT: lambda a: not a,
    Op.YEAR: lambda a: a.year,
    Op.QUARTER: lambda a: (a.month + 2) // 3,
    Op.MONTH: lambda a: a.month,
    Op.DAY: lambda a: a.day,
    Op.TRUNC_YEAR: lambda a: date(a.year, 1, 1),
    Op.TRUNC_MONTH: lambda a: date(a.year, a.month, 1),
    Op.DAYS_BETWEEN: lambda a, b: _day(b).toordinal() - _day(a).toordinal(),
    Op.ADD_DAYS: lambda a, n: a + timedelta(days=n),
    Op.TO_DATE: _day,
    Op.TO_DECIMAL: Fraction,
    Op.TO_INTEGER: int,
    Op.LOWER: str.lower,
    Op.UPPER: str.upper,
    Op.LENGTH: len,
    Op.SUBSTRING: lambda text, start, length: text[start - 1 : start - 1 + length],
    Op.CONCAT: lambda *parts: "".join(parts),
}
