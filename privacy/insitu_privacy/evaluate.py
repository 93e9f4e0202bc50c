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

from insitu_privacy.calendar import add_months
from insitu_privacy.expressions import ColumnRef, Exists, Expression, Literal, Op

Value = int | float | str | bool | date | datetime | None
"""Decimals are floats here, as in the engines: IEEE arithmetic gives all three the same values."""


def evaluate(expression: Expression, columns: Mapping[ColumnRef, Value]) -> Value:
    """The value of an expression where columns have the given values; NULL is None."""
    if isinstance(expression, ColumnRef):
        return columns[expression]
    if isinstance(expression, Literal):
        return literal_value(expression)
    if isinstance(expression, Exists):
        raise TypeError("a look into a cohort is no constant")
    return apply(expression.op, [evaluate(argument, columns) for argument in expression.args])


def literal_value(literal: Literal) -> Value:
    """A literal as engines hold it."""
    return float(literal.value) if isinstance(literal.value, Fraction) else literal.value


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


_TINY = 1e-150
"""As in ``dialects``: floats nearer to zero count as zero in products and quotients."""


def _divided(a: float, b: float) -> float | None:
    if abs(b) < _TINY:
        return None
    return 0.0 if abs(a) < _TINY else float(a) / float(b)


def _truncated(a: int, b: int) -> int | None:
    if b == 0:
        return None
    size = abs(a) // abs(b)
    return size if (a < 0) == (b < 0) else -size


def _remainder(a: int, b: int) -> int | None:
    quotient = _truncated(a, b)
    return None if quotient is None else a - b * quotient


def _round(a: float) -> float:
    return math.copysign(math.floor(abs(a) + 0.5), a)


def _shifted(day: date, days: int) -> date | None:
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return None


def _bucket(a: float, low: float, high: float, parts: int) -> int:
    if a < low:
        return 0
    return parts + 1 if a >= high else min(math.floor((float(a) - low) * parts / (high - low)), parts - 1) + 1


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
    Op.DIV: _divided,
    Op.INTDIV: _truncated,
    Op.MOD: _remainder,
    Op.NEG: lambda a: -a,
    Op.ABS: abs,
    Op.FLOOR: lambda a: float(math.floor(a)),
    Op.CEIL: lambda a: float(math.ceil(a)),
    Op.ROUND: _round,
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
    Op.ADD_DAYS: _shifted,
    Op.ADD_MONTHS: add_months,
    Op.TO_DATE: _day,
    Op.TO_DECIMAL: float,
    Op.TO_INTEGER: int,
    Op.TO_WHOLE: round,
    Op.TO_TEXT: str,
    Op.BUCKET: _bucket,
    Op.LOWER: str.lower,
    Op.UPPER: str.upper,
    Op.LENGTH: len,
    Op.SUBSTRING: lambda text, start, length: text[start - 1 : start - 1 + length],
    Op.CONCAT: lambda *parts: "".join(parts),
}
