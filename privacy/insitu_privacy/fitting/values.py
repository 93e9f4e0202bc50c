"""How the values of an expression are spread over rows, where it reads one column whose values a profile has.

For what ``explain`` expects of quantiles and variances: they depend on where values lie, as sums and counts do not.
A profile's values count each unit once in all, so rows are taken to be spread as units are. Conditions on the column
itself, such as ``cost > 100``, cut its values; all others are taken to leave their spread as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction

import numpy as np

from insitu_privacy.data_profile import day_number
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op, columns_of
from insitu_privacy.fitting.curves import Array, Curve
from insitu_privacy.fitting.selectivity import Known, ranges_of

_WHOLE = ("integer", "date", "timestamp")
_HALF = 0.5
_BINARY: Mapping[Op, Callable[[Array, Array], Array]] = {
    Op.ADD: np.add,
    Op.SUB: np.subtract,
    Op.MUL: np.multiply,
    Op.DAYS_BETWEEN: lambda start, end: end - start,
    Op.LEAST: np.minimum,
    Op.GREATEST: np.maximum,
}


def spread(value: Expression, conditions: Sequence[Expression], known: Known) -> Curve | None:
    """The values of an expression; None where it reads anything but one column, or no profile has that."""
    bare = _bare(value)
    columns = columns_of(bare)
    if len(columns) != 1:
        return None
    (ref,) = columns
    column, curve = known.column(ref), known.curve(ref)
    if column is None or curve is None or curve.total <= 0:
        return None
    inside = _cut(curve, ranges_of(conditions).get(ref))
    values = _evaluated(bare, inside.values - (_HALF if column.type in _WHOLE else 0.0))
    if values is None:
        return None
    order = np.argsort(values, kind="stable")
    return Curve(values=values[order], units=inside.units[order])


def leaf_shares(curve: Curve, leaves: int, first: float, step: float) -> tuple[float, ...]:
    """The share of the values that is nearest to each of ``first``, ``first + step``, and so on."""
    middles = (np.cumsum(curve.units) - curve.units / 2) / curve.total
    edges = first + step * (np.arange(leaves - 1) + _HALF)
    below = np.interp(edges, curve.values, middles, left=0.0, right=1.0)
    return tuple(map(float, np.diff(below, prepend=0.0, append=1.0)))


def _cut(curve: Curve, limits: tuple[float, float] | None) -> Curve:
    if limits is None:
        return curve
    inside = (curve.values >= limits[0]) & (curve.values <= limits[1])
    cut = Curve(values=curve.values[inside], units=curve.units[inside])
    return cut if cut.total > 0 else curve


def _bare(value: Expression) -> Expression:
    """Without the conditions, casts and replacements of NULL around it: of rows that count it is the same."""
    if not isinstance(value, Call):
        return value
    guarded = value.op is Op.CASE and len(value.args) == 3
    if guarded and isinstance(value.args[2], Literal) and value.args[2].value is None:
        return _bare(value.args[1])
    if value.op in (Op.TO_DECIMAL, Op.COALESCE):
        return _bare(value.args[0])
    return Call(value.op, tuple(map(_bare, value.args)))


def _evaluated(value: Expression, column: Array) -> Array | None:
    """The expression at each value of its column; None where an operation is none of the plain arithmetic."""
    if isinstance(value, ColumnRef):
        return column
    if isinstance(value, Literal):
        number = _number(value)
        return None if number is None else np.full_like(column, number)
    combine = _BINARY.get(value.op) if isinstance(value, Call) else None
    if combine is None or not isinstance(value, Call) or len(value.args) != 2:
        return None
    left, right = (_evaluated(each, column) for each in value.args)
    return None if left is None or right is None else combine(left, right)


def _number(literal: Literal) -> float | None:
    value = literal.value
    if isinstance(value, (date, datetime)):
        return float(day_number(value))
    return float(value) if isinstance(value, (int, Fraction)) and not isinstance(value, bool) else None
