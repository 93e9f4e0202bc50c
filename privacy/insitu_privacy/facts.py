"""What is publicly known of an expression's values: ``Facts``, and the limits that intervals are held to."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from insitu_privacy.dataset import ColumnType
from insitu_privacy.evaluate import Value

INTEGER_LIMIT = Fraction(2**53)
"""Integers are read within these limits, exact in both engines' doubles, but they are no public bounds."""
MISSING = Fraction(10**60)
"""Stands for a missing end of an interval, so that LEAST(GREATEST(x, 0), 500) bounds an unbounded x on both sides."""
_BOUND_LIMIT = Fraction(10**30)

Interval = tuple[Any, Any]
"""Inclusive (low, high): Fractions for numbers, dates or datetimes for those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is publicly known of an expression's values."""

    type: ColumnType
    nullable: bool
    interval: Interval | None = None
    values: tuple[Value, ...] | None = None
    """The finite domain without NULL, sorted."""
    constant: bool = False
    """The same for all rows of a privacy unit, as far as it is declared."""
    weight: int = 1
    """How long it is once a database writes out what it is computed from."""


def is_bounded(interval: Interval | None) -> bool:
    """Whether both ends are real public bounds."""
    if interval is None or not isinstance(interval[0], Fraction):
        return interval is not None
    return interval[0] > -_BOUND_LIMIT and interval[1] < _BOUND_LIMIT
