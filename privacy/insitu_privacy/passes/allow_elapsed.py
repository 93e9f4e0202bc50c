"""The allowlist's lengths of time in whole units: what has passed in full, as AGE, TIMESTAMPDIFF and intervals tell it.
Moments count by their whole seconds.

``date_diff`` counts boundaries (``allow_moments``): a year lies between New Year's Eve and New Year. Here it does not.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from insitu_privacy.dataset import ColumnType
from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes.allow import Allow, as_timestamp

_SECONDS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3_600, "DAY": 86_400, "WEEK": 604_800}
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_WITHIN = {"HOUR": (3_600, 24), "MINUTE": (60, 60), "SECOND": (1, 60)}
"""Parts of an interval of days and a clock: their seconds, and how many make the next larger one."""

UNITS = frozenset({*_SECONDS, *_MONTHS})
Moment = Callable[[Allow, exp.Expr], Expression]


def _integer(value: int) -> Literal:
    return Literal("integer", value)


def elapsed(allow: Allow, start: Expression, end: Expression, unit: str) -> Expression:
    """How many whole units have passed, rounded toward zero."""
    if unit in _SECONDS:
        return _over(_seconds(allow, start, end), _SECONDS[unit])
    return _over(_months(allow, start, end), _MONTHS[unit])


def part_of_difference(allow: Allow, part: str, start: Expression, end: Expression) -> Expression | None:
    """EXTRACT of the difference of two timestamps, which is an interval of days and a clock; None for other parts."""
    if part == "DAY":
        return elapsed(allow, start, end, "DAY")
    if part not in _WITHIN:
        return None
    seconds, around = _WITHIN[part]
    return call(Op.MOD, _over(_seconds(allow, start, end), seconds), _integer(around))


def part_of_age(allow: Allow, part: str, start: Expression, end: Expression) -> Expression | None:
    """EXTRACT of AGE: whole years, and the whole months beyond them; None for other parts."""
    if part == "YEAR":
        return elapsed(allow, start, end, "YEAR")
    return call(Op.MOD, elapsed(allow, start, end, "MONTH"), _integer(12)) if part == "MONTH" else None


def _over(value: Expression, divisor: int) -> Expression:
    return value if divisor == 1 else call(Op.INTDIV, value, _integer(divisor))


def _seconds(allow: Allow, start: Expression, end: Expression) -> Expression:
    return call(Op.UNITS_BETWEEN, *(_timestamp(allow, one) for one in (start, end)), _integer(1))


def _timestamp(allow: Allow, value: Expression) -> Expression:
    kind: ColumnType = allow.type_of(value)
    return as_timestamp(value) if kind == "date" else value


def _months(allow: Allow, start: Expression, end: Expression) -> Expression:
    """Boundaries of months between, less the one whose day, or time of day, has not come yet."""
    years = call(Op.SUB, call(Op.YEAR, end), call(Op.YEAR, start))
    months = call(Op.ADD, call(Op.MUL, years, _integer(12)), call(Op.SUB, call(Op.MONTH, end), call(Op.MONTH, start)))
    before, after = _place(allow, start), _place(allow, end)
    zero, one = _integer(0), _integer(1)
    early = call(Op.AND, call(Op.GT, months, zero), call(Op.LT, after, before))
    late = call(Op.AND, call(Op.LT, months, zero), call(Op.GT, after, before))
    return Call(Op.CASE, (early, call(Op.SUB, months, one), late, call(Op.ADD, months, one), months))


def _place(allow: Allow, value: Expression) -> Expression:
    """Seconds since the month began, by the days' numbers."""
    days = call(Op.MUL, call(Op.DAY, value), _integer(86_400))
    if allow.type_of(value) == "date":
        return days
    clock = call(
        Op.ADD, call(Op.MUL, call(Op.HOUR, value), _integer(3_600)), call(Op.MUL, call(Op.MINUTE, value), _integer(60))
    )
    return call(Op.ADD, days, call(Op.ADD, clock, call(Op.SECOND, value)))
