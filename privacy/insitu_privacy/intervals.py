"""Interval arithmetic over the operations of ``expressions``: bounds of a result from bounds of its arguments.

An interval is inclusive; None where nothing is known. A bound that cannot be shown is absent, or ``MISSING`` where the
other end is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from insitu_privacy.calendar import (
    add_days,
    add_months,
    add_seconds,
    day_of,
    first_of_quarter,
    microseconds,
    midnight,
    monday_of,
    seconds_of,
)
from insitu_privacy.expressions import Op
from insitu_privacy.facts import MISSING, Facts, Interval


def interval_of(op: Op, args: list[Facts]) -> Interval | None:
    """Bounds of an operation on arguments with these facts."""
    if op in (Op.CASE, Op.COALESCE, Op.NULLIF):
        carried = args if op is not Op.CASE else [*args[1::2], args[-1]]
        return _joined([fact for fact in (carried[:1] if op is Op.NULLIF else carried) if fact.values != ()])
    if op in (Op.LEAST, Op.GREATEST):
        return _extreme(op, args)
    if op in _FIXED:
        return _FIXED[op]
    rule = _INTERVALS.get(op)
    intervals = [fact.interval for fact in args]
    if rule is None or any(interval is None for interval in intervals):
        return None
    return rule(*intervals)


def _joined(facts: list[Facts]) -> Interval | None:
    intervals = [fact.interval for fact in facts]
    if not intervals or any(interval is None for interval in intervals):
        return None
    return min(i[0] for i in intervals if i), max(i[1] for i in intervals if i)


def _extreme(op: Op, args: list[Facts]) -> Interval | None:
    """LEAST and GREATEST ignore NULL, so each argument may be the result alone where the others are NULL.

    Of dates, an interval with one end missing is none.
    """
    sure = [fact.interval for fact in args if fact.interval is not None and not fact.nullable]
    every = [fact.interval for fact in args]
    if op is Op.LEAST:
        high = min((i[1] for i in sure), default=None)
        if high is None:
            return None if None in every else (min(i[0] for i in every if i), max(i[1] for i in every if i))
        low = None if None in every else min(i[0] for i in every if i)
        return (low, high) if low is not None else (-MISSING, high) if isinstance(high, Fraction) else None
    low = max((i[0] for i in sure), default=None)
    if low is None:
        return None if None in every else (min(i[0] for i in every if i), max(i[1] for i in every if i))
    high = None if None in every else max(i[1] for i in every if i)
    return (low, high) if high is not None else (low, MISSING) if isinstance(low, Fraction) else None


def _products(a: Interval, b: Interval) -> Interval:
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _quotient(a: Interval, b: Interval) -> Interval | None:
    if b[0] <= 0 <= b[1]:
        return None
    corners = [x / y for x in a for y in b]
    return min(corners), max(corners)


def _int_quotient(a: Interval, b: Interval) -> Interval:
    """A whole divisor other than 0 is at least 1 in size, so the quotient is no larger than the dividend."""
    bound = max(abs(a[0]), abs(a[1]))
    exact = _quotient(a, b)
    return (-bound, bound) if exact is None else (Fraction(math.trunc(exact[0])), Fraction(math.trunc(exact[1])))


def _modulus(a: Interval, b: Interval) -> Interval:
    bound = max(abs(b[0]), abs(b[1]))
    return (Fraction(0) if a[0] >= 0 else -bound), (Fraction(0) if a[1] <= 0 else bound)


def _absolute(a: Interval) -> Interval:
    ends = (abs(a[0]), abs(a[1]))
    return (Fraction(0) if a[0] <= 0 <= a[1] else min(ends)), max(ends)


def _whole(a: Interval) -> Interval:
    return Fraction(a[0].__floor__()), Fraction(a[1].__ceil__())


def _days(a: Interval, b: Interval) -> Interval:
    first, last = (tuple(day_of(end).toordinal() for end in ends) for ends in (a, b))
    return Fraction(last[0] - first[1]), Fraction(last[1] - first[0])


def _units(a: Interval, b: Interval, unit: Interval) -> Interval:
    first, last = (tuple(seconds_of(end) // unit[0] for end in ends) for ends in (a, b))
    return Fraction(last[0] - first[1]), Fraction(last[1] - first[0])


_MOST = Fraction(10**12)
_SHIFTS: Mapping[Op, tuple[Callable[[Any, int], Any], date, date]] = {
    Op.ADD_DAYS: (add_days, date.min, date.max),
    Op.ADD_MONTHS: (add_months, date.min, date.max),
    Op.ADD_SECONDS: (add_seconds, datetime.min, datetime.max),  # noqa: DTZ901  # no zones here
}


def _shifted_ends(op: Op, a: Interval, n: Interval) -> tuple[Any, Any] | None:
    """The ends, each None where it leaves the calendar; None where the shift has no bounds."""
    if max(abs(n[0]), abs(n[1])) > _MOST:
        return None
    shift = _SHIFTS[op][0]
    return shift(a[0], int(n[0])), shift(a[1], int(n[1]))


def _shifted(op: Op) -> Callable[[Interval, Interval], Interval | None]:
    """What leaves the calendar is NULL, so the calendar's ends bound what is left."""

    def rule(a: Interval, n: Interval) -> Interval | None:
        ends, (_, first, last) = _shifted_ends(op, a, n), _SHIFTS[op]
        if ends is None:
            return None
        return (first if ends[0] is None else ends[0]), (last if ends[1] is None else ends[1])

    return rule


def _may_leave(op: Op, a: Interval | None, n: Interval | None) -> bool:
    ends = None if a is None or n is None else _shifted_ends(op, a, n)
    return ends is None or None in ends


def _epoch(a: Interval) -> Interval:
    return Fraction(microseconds(a[0]), 10**6), Fraction(microseconds(a[1]), 10**6)


_LARGE = Fraction(10**30)
_DEFINED: Mapping[Op, tuple[float, float]] = {
    Op.SQRT: (0, math.inf),
    Op.LN: (1e-150, math.inf),
    Op.LOG10: (1e-150, math.inf),
    Op.EXP: (-math.inf, 300),
    Op.POWER: (-1e25, 1e25),
    Op.SIN: (-1e9, 1e9),
    Op.COS: (-1e9, 1e9),
    Op.ASIN: (-1, 1),
    Op.ACOS: (-1, 1),
}
"""Where functions of decimals have a value."""
_MAY_FAIL = frozenset({Op.TEXT_TO_INTEGER, Op.TEXT_TO_DECIMAL, Op.TEXT_TO_DATE, Op.TEXT_TO_TIMESTAMP, Op.MAKE_DATE})


def may_be_undefined(op: Op, args: list[Facts]) -> bool:
    """Whether an operation may be NULL where no argument is."""
    if op in _MAY_FAIL:
        return True
    if op in _SHIFTS:
        return _may_leave(op, args[0].interval, args[1].interval)
    if op not in _DEFINED:
        return False
    interval, (low, high) = args[0].interval, _DEFINED[op]
    return interval is None or not low <= interval[0] <= interval[1] <= high


def _rising(op: Op, function: Callable[[float], float]) -> Callable[[Interval], Interval | None]:
    """Whole numbers around the values of a function that rises where it is defined."""

    def rule(a: Interval) -> Interval | None:
        low, high = _DEFINED[op]
        ends = [min(max(float(end), low), high) for end in a]
        floor = Fraction(math.floor(function(ends[0])))
        if a[1] >= _LARGE and op is not Op.EXP:  # this end is missing
            return floor, MISSING if op is Op.SQRT else Fraction(710)
        return floor, Fraction(math.ceil(function(ends[1])))

    return rule


def _power(a: Interval, exponent: Interval) -> Interval:
    low, high = _DEFINED[Op.POWER]
    ends = [min(max(end, Fraction(low)), Fraction(high)) for end in a]
    corners = [end ** int(exponent[0]) for end in ends] + [Fraction(0)] * (ends[0] <= 0 <= ends[1])
    return min(corners), max(corners)


def _fixed(low: int, high: int) -> Interval:
    return Fraction(low), Fraction(high)


CALENDAR: Mapping[Op, Interval] = {
    Op.QUARTER: _fixed(1, 4),
    Op.MONTH: _fixed(1, 12),
    Op.DAY: _fixed(1, 31),
    Op.HOUR: _fixed(0, 23),
    Op.MINUTE: _fixed(0, 59),
    Op.SECOND: _fixed(0, 59),
    Op.DOW: _fixed(0, 6),
    Op.ISODOW: _fixed(1, 7),
    Op.DOY: _fixed(1, 366),
    Op.WEEK: _fixed(1, 53),
}
"""Parts of any moment."""
_FIXED: Mapping[Op, Interval] = {
    **CALENDAR,
    Op.TO_INTEGER: _fixed(0, 1),
    Op.SIN: _fixed(-1, 1),
    Op.COS: _fixed(-1, 1),
    Op.ASIN: _fixed(-2, 2),
    Op.ACOS: _fixed(0, 4),
    Op.ATAN: _fixed(-2, 2),
}
"""Bounds whatever the arguments."""


_INTERVALS: Mapping[Op, Callable[..., Interval | None]] = {
    Op.ADD: lambda a, b: (a[0] + b[0], a[1] + b[1]),
    Op.SUB: lambda a, b: (a[0] - b[1], a[1] - b[0]),
    Op.MUL: _products,
    Op.DIV: _quotient,
    Op.INTDIV: _int_quotient,
    Op.MOD: _modulus,
    Op.NEG: lambda a: (-a[1], -a[0]),
    Op.ABS: _absolute,
    Op.FLOOR: _whole,
    Op.CEIL: _whole,
    Op.ROUND: _whole,
    Op.TO_DECIMAL: lambda a: a,
    Op.YEAR: lambda a: (Fraction(a[0].year), Fraction(a[1].year)),
    Op.DAYS_BETWEEN: _days,
    Op.UNITS_BETWEEN: _units,
    Op.EPOCH: _epoch,
    Op.ADD_DAYS: _shifted(Op.ADD_DAYS),
    Op.ADD_MONTHS: _shifted(Op.ADD_MONTHS),
    Op.ADD_SECONDS: _shifted(Op.ADD_SECONDS),
    Op.TO_WHOLE: _whole,
    Op.BUCKET: lambda a, low, high, parts: (Fraction(0), parts[1] + 1),
    Op.TO_DATE: lambda a: (day_of(a[0]), day_of(a[1])),
    Op.TO_TIMESTAMP: lambda a: (midnight(a[0]), midnight(a[1])),
    Op.TRUNC_QUARTER: lambda a: (first_of_quarter(a[0]), first_of_quarter(a[1])),
    Op.TRUNC_WEEK: lambda a: (monday_of(a[0]), monday_of(a[1])),
    Op.SQRT: _rising(Op.SQRT, math.sqrt),
    Op.LN: _rising(Op.LN, math.log),
    Op.LOG10: _rising(Op.LOG10, math.log10),
    Op.EXP: _rising(Op.EXP, math.exp),
    Op.POWER: _power,
    Op.TRUNC_YEAR: lambda a: (date(a[0].year, 1, 1), date(a[1].year, 1, 1)),
    Op.TRUNC_MONTH: lambda a: (date(a[0].year, a[0].month, 1), date(a[1].year, a[1].month, 1)),
}
