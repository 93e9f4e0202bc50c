"""Evaluates expressions on constants, to carry finite public domains through them.

Agrees with what ``dialects`` writes for the engines (a contract test runs both). Where they differed, a group key
would fall outside the computed domain and its rows would be dropped: a loss of accuracy, never of privacy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from insitu_privacy import written
from insitu_privacy.calendar import (
    add_days,
    add_months,
    add_seconds,
    day_of,
    first_of_quarter,
    make_date,
    microseconds,
    midnight,
    monday_of,
    seconds_of,
)
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


def _bucket(a: float, low: float, high: float, parts: int) -> int:
    if a < low:
        return 0
    return parts + 1 if a >= high else min(math.floor((float(a) - low) * parts / (high - low)), parts - 1) + 1


def _like(text: str, pattern: str, escape: str = "") -> bool:
    """SQL LIKE, in time linear in the text for each pattern part."""
    ends, plain = {0}, False
    for char in pattern:
        if char == escape and not plain:
            plain = True
        elif char == "%" and not plain:
            ends = set(range(min(ends), len(text) + 1)) if ends else ends
        else:
            any_char = char == "_" and not plain
            ends = {end + 1 for end in ends if end < len(text) and (any_char or char == text[end])}
            plain = False
    return len(text) in ends


_INTEGER, _DECIMAL, _MOMENT = (re.compile(one) for one in (written.INTEGER, written.DECIMAL, written.MOMENT))
_JOINED = 1_000
"""As in ``dialects``: characters of each part that CONCAT puts together."""


def _moment(text: str) -> datetime | None:
    if not _MOMENT.fullmatch(text):
        return None
    plain, _, fraction = text.partition(".")
    numbers = [int(part) for part in re.findall("[0-9]+", plain)]
    year, month, day, hour, minute, second = numbers + [0] * (6 - len(numbers))
    return datetime(year, month, day, hour, minute, second, int(fraction.ljust(6, "0")))  # noqa: DTZ001


def _text_day(text: str) -> date | None:
    moment = _moment(text)
    return None if moment is None else moment.date()


def _padded(left: bool) -> Callable[[str, int, str], str]:
    def pad(text: str, length: int, filling: str) -> str:
        if len(text) >= length:
            return text[:length]
        more = (filling * length)[: length - len(text)]
        return more + text if left else text + more

    return pad


def _split_part(text: str, separator: str, number: int) -> str:
    parts = text.split(separator)
    return parts[number - 1] if number <= len(parts) else ""


def _limited(function: Callable[[float], float], low: float, high: float) -> Callable[[float], float | None]:
    return lambda a: function(a) if low <= a <= high else None


def _power(a: float, exponent: int) -> float | None:
    if abs(a) > 1e25:
        return None
    return 0.0 if abs(a) < 1e-25 else float(a) ** exponent


def _exp(a: float) -> float | None:
    return None if a > 300 else 0.0 if a < -300 else math.exp(a)


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
    Op.ILIKE: lambda text, pattern, *escape: _like(text.lower(), pattern.lower(), *escape),
    Op.NOT: lambda a: not a,
    Op.YEAR: lambda a: a.year,
    Op.QUARTER: lambda a: (a.month + 2) // 3,
    Op.MONTH: lambda a: a.month,
    Op.DAY: lambda a: a.day,
    Op.HOUR: lambda a: midnight(a).hour,
    Op.MINUTE: lambda a: midnight(a).minute,
    Op.SECOND: lambda a: midnight(a).second,
    Op.DOW: lambda a: a.isoweekday() % 7,
    Op.ISODOW: lambda a: a.isoweekday(),
    Op.DOY: lambda a: a.timetuple().tm_yday,
    Op.WEEK: lambda a: a.isocalendar().week,
    Op.EPOCH: lambda a: float(microseconds(a)) / 1e6,
    Op.TRUNC_QUARTER: first_of_quarter,
    Op.TRUNC_WEEK: monday_of,
    Op.TRUNC_YEAR: lambda a: date(a.year, 1, 1),
    Op.TRUNC_MONTH: lambda a: date(a.year, a.month, 1),
    Op.DAYS_BETWEEN: lambda a, b: day_of(b).toordinal() - day_of(a).toordinal(),
    Op.UNITS_BETWEEN: lambda a, b, unit: seconds_of(b) // unit - seconds_of(a) // unit,
    Op.ADD_DAYS: add_days,
    Op.ADD_MONTHS: add_months,
    Op.ADD_SECONDS: add_seconds,
    Op.MAKE_DATE: make_date,
    Op.TO_DATE: day_of,
    Op.TO_TIMESTAMP: midnight,
    Op.TO_DECIMAL: float,
    Op.TO_INTEGER: int,
    Op.TO_WHOLE: round,
    Op.TO_TEXT: str,
    Op.TEXT_TO_INTEGER: lambda text: int(text) if _INTEGER.fullmatch(text) else None,
    Op.TEXT_TO_DECIMAL: lambda text: float(text) if _DECIMAL.fullmatch(text) else None,
    Op.TEXT_TO_DATE: _text_day,
    Op.TEXT_TO_TIMESTAMP: _moment,
    Op.BUCKET: _bucket,
    Op.LOWER: str.lower,
    Op.UPPER: str.upper,
    Op.LENGTH: len,
    Op.SUBSTRING: lambda text, start, length: text[start - 1 : start - 1 + length],
    Op.CONCAT: lambda *parts: "".join(part[:_JOINED] for part in parts),
    Op.TRIM: lambda text: text.strip(" "),
    Op.LTRIM: lambda text: text.lstrip(" "),
    Op.RTRIM: lambda text: text.rstrip(" "),
    Op.REPLACE: str.replace,
    Op.POSITION: lambda text, part: text.find(part) + 1,
    Op.RIGHT: lambda text, length: text[max(0, len(text) - length) :],
    Op.LPAD: _padded(True),
    Op.RPAD: _padded(False),
    Op.SPLIT_PART: _split_part,
    Op.SQRT: _limited(math.sqrt, 0, math.inf),
    Op.LN: _limited(math.log, _TINY, math.inf),
    Op.LOG10: _limited(math.log10, _TINY, math.inf),
    Op.EXP: _exp,
    Op.POWER: _power,
    Op.SIN: _limited(math.sin, -1e9, 1e9),
    Op.COS: _limited(math.cos, -1e9, 1e9),
    Op.ASIN: _limited(math.asin, -1, 1),
    Op.ACOS: _limited(math.acos, -1, 1),
    Op.ATAN: math.atan,
}
