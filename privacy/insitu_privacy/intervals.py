"""Interval arithmetic over the operations of ``expressions``: bounds of a result from bounds of its arguments.

An interval is inclusive; None where nothing is known. A bound that cannot be shown is absent, or ``MISSING`` where the
other end is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from fractions import Fraction

from insitu_privacy.calendar import add_months
from insitu_privacy.expressions import Op
from insitu_privacy.facts import MISSING, Facts, Interval


def interval_of(op: Op, args: list[Facts]) -> Interval | None:
    """Bounds of an operation on arguments with these facts."""
    if op in (Op.CASE, Op.COALESCE, Op.NULLIF):
        carried = args if op is not Op.CASE else [*args[1::2], args[-1]]
        return _joined([fact for fact in (carried[:1] if op is Op.NULLIF else carried) if fact.values != ()])
    if op in (Op.LEAST, Op.GREATEST):
        return _extreme(op, args)
    rule = _INTERVALS.get(op)
    if rule is None:
        return None
    intervals = [fact.interval for fact in args]
    if any(interval is None for interval in intervals):
        return _FIXED.get(op)
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


def _ordinal(value: date | datetime) -> int:
    return (value.date() if isinstance(value, datetime) else value).toordinal()


def _days(a: Interval, b: Interval) -> Interval:
    return Fraction(_ordinal(b[0]) - _ordinal(a[1])), Fraction(_ordinal(b[1]) - _ordinal(a[0]))


def _shifted(a: Interval, n: Interval) -> Interval | None:
    try:
        return a[0] + timedelta(days=int(n[0])), a[1] + timedelta(days=int(n[1]))
    except OverflowError:
        return None


def _months(a: Interval, n: Interval) -> Interval | None:
    ends = [add_months(end, int(n[0])) for end in a]
    return None if None in ends else (ends[0], ends[1])


def _day_of(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


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
    Op.TO_INTEGER: lambda a: (Fraction(0), Fraction(1)),
    Op.YEAR: lambda a: (Fraction(a[0].year), Fraction(a[1].year)),
    Op.QUARTER: lambda a: (Fraction(1), Fraction(4)),
    Op.MONTH: lambda a: (Fraction(1), Fraction(12)),
    Op.DAY: lambda a: (Fraction(1), Fraction(31)),
    Op.DAYS_BETWEEN: _days,
    Op.ADD_DAYS: _shifted,
    Op.ADD_MONTHS: _months,
    Op.TO_WHOLE: _whole,
    Op.BUCKET: lambda a, low, high, parts: (Fraction(0), parts[1] + 1),
    Op.TO_DATE: lambda a: (_day_of(a[0]), _day_of(a[1])),
    Op.TRUNC_YEAR: lambda a: (date(a[0].year, 1, 1), date(a[1].year, 1, 1)),
    Op.TRUNC_MONTH: lambda a: (date(a[0].year, a[0].month, 1), date(a[1].year, a[1].month, 1)),
}
_FIXED: Mapping[Op, Interval] = {
    Op.QUARTER: (Fraction(1), Fraction(4)),
    Op.MONTH: (Fraction(1), Fraction(12)),
    Op.DAY: (Fraction(1), Fraction(31)),
    Op.TO_INTEGER: (Fraction(0), Fraction(1)),
}
