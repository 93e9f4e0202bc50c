"""How many rows a condition is taken to keep, as a query optimiser guesses: from public facts and profiles alone.

Ranges of a column with a profile are read from it, conditions on a public domain count its values; for the rest the
customary guesses of System R serve (Selinger et al., Access path selection, SIGMOD 1979, table 1). A wrong guess costs
accuracy, never privacy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction

from insitu_privacy.data_profile import day_number
from insitu_privacy.dataset import Column
from insitu_privacy.expressions import Call, ColumnRef, Exists, Expression, Literal, Op
from insitu_privacy.fitting.curves import Curve

_EQUAL, _RANGE, _LIKE, _NULL, _MEMBER = 0.1, 1 / 3, 0.1, 0.05, 0.05
_LEAST = 1e-4
_FLIPPED: Mapping[Op, Op] = {Op.LT: Op.GT, Op.LE: Op.GE, Op.GT: Op.LT, Op.GE: Op.LE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the columns that conditions read."""

    column: Callable[[ColumnRef], Column | None]
    curve: Callable[[ColumnRef], Curve | None]
    """How the values of a column are spread, if a profile has it."""


def conjuncts(conditions: Iterable[Expression]) -> list[Expression]:
    """Conditions that all hold, without ANDs."""
    found: list[Expression] = []
    for one in conditions:
        found += conjuncts(one.args) if isinstance(one, Call) and one.op is Op.AND else [one]
    return found


def kept_share(conditions: Iterable[Expression], known: Known) -> float:
    """The share of rows for which all conditions hold, taken as independent but for ranges of one column."""
    found = conjuncts(conditions)
    share = 1.0
    for one in found:
        share *= _share(one, known) if _range(one) is None else 1.0
    for column, (low, high) in ranges_of(found).items():
        share *= _between(column, low, high, known)
    return min(1.0, max(_LEAST, share))


def ranges_of(conditions: Iterable[Expression]) -> dict[ColumnRef, tuple[float, float]]:
    """By column, the closed range that conditions which all hold leave of it; dates in days."""
    ranges: dict[ColumnRef, tuple[float, float]] = {}
    for column, low, high in filter(None, map(_range, conjuncts(conditions))):
        before = ranges.get(column, (-math.inf, math.inf))
        ranges[column] = (max(before[0], low), min(before[1], high))
    return ranges


def _share(one: Expression, known: Known) -> float:
    if isinstance(one, Exists):
        return _RANGE
    if not isinstance(one, Call):
        return 0.5
    if one.op is Op.NOT:
        return 1 - _share(one.args[0], known)
    if one.op is Op.AND:
        return kept_share(one.args, known)
    if one.op is Op.OR:
        return min(1.0, sum(kept_share([part], known) for part in one.args))
    if one.op is Op.IS_NULL:
        return _NULL
    if one.op in (Op.LIKE, Op.ILIKE):
        return _LIKE
    if one.op in (Op.EQ, Op.IN, Op.NE):
        return _of_domain(one, known)
    return _RANGE


def _of_domain(one: Call, known: Known) -> float:
    columns = [arg for arg in one.args if isinstance(arg, ColumnRef)]
    values = sum(isinstance(arg, Literal) for arg in one.args)
    column = known.column(columns[0]) if len(columns) == 1 and values else None
    if column is not None and column.values:
        share = values / len(column.values)
    else:
        share = _EQUAL if one.op is not Op.IN else min(0.5, _MEMBER * values)
    return 1 - share if one.op is Op.NE else share


def _range(one: Expression) -> tuple[ColumnRef, float, float] | None:
    """The column and the closed range of ``column < literal`` and the like, YEAR(column) among them."""
    if not isinstance(one, Call) or one.op not in (*_FLIPPED, Op.EQ) or len(one.args) != 2:
        return None
    left, right = one.args
    op = one.op
    if isinstance(left, Literal):
        left, right, op = right, left, _FLIPPED.get(op, op)
    if not isinstance(right, Literal):
        return None
    if isinstance(left, Call) and left.op is Op.YEAR and isinstance(left.args[0], ColumnRef):
        return _in_years(left.args[0], op, right.value)
    value = _number(right.value)
    if not isinstance(left, ColumnRef) or value is None:
        return None
    low = value if op in (Op.GE, Op.GT, Op.EQ) else -math.inf
    high = value if op in (Op.LE, Op.LT, Op.EQ) else math.inf
    return left, low, high


def _in_years(column: ColumnRef, op: Op, value: object) -> tuple[ColumnRef, float, float] | None:
    if not isinstance(value, (int, Fraction)) or not 1 <= value <= 9998:
        return None
    year = int(value)
    first, last = float(day_number(date(year, 1, 1))), float(day_number(date(year, 12, 31)))
    low = {Op.GE: first, Op.EQ: first, Op.GT: last + 1}.get(op, -math.inf)
    high = {Op.LE: last, Op.EQ: last, Op.LT: first - 1}.get(op, math.inf)
    return column, low, high


def _number(value: object) -> float | None:
    if isinstance(value, (date, datetime)):
        return float(day_number(value))
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        return None
    return float(value)


def _between(column: ColumnRef, low: float, high: float, known: Known) -> float:
    curve, facts = known.curve(column), known.column(column)
    if low == high and facts is not None and facts.values:
        return 1 / len(facts.values)
    if curve is not None and low < high:
        return curve.share_between(low, high)
    ends = [_number(end) for end in (facts.minimum, facts.maximum)] if facts is not None else [None]
    if None in ends:
        return _EQUAL if low == high else _RANGE
    first, last = (end for end in ends if end is not None)
    width = max(last - first, 1.0)
    return min(1.0, max(0.0, (min(high, last) - max(low, first) + 1) / (width + 1)))
