"""What a relation's own conditions say of a column, so that its guard need not say it again.

A row that passes ``day >= '2021-01-01'`` is not before a declared minimum of 2020. Only comparisons with a constant of
the column's own type count: nothing is converted, and so nothing rounded, on either side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from insitu_privacy.dataset import Column
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op

_FLIPPED = {Op.LT: Op.GT, Op.LE: Op.GE, Op.GT: Op.LT, Op.GE: Op.LE, Op.EQ: Op.EQ}
_FROM_BELOW, _FROM_ABOVE = frozenset({Op.GE, Op.GT, Op.EQ, Op.IN}), frozenset({Op.LE, Op.LT, Op.EQ, Op.IN})
_ORDERED = frozenset({"integer", "date", "timestamp"})
"""Decimals are compared as the database has them, and read as doubles: the one says little of the other."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Whether a value is known not to lie below a declaration, and not above; of listed values, both or neither."""

    low: bool
    high: bool


NO_ENDS, BOTH_ENDS = Ends(low=False, high=False), Ends(low=True, high=True)


def implied(column: Column, reference: ColumnRef, where: Iterable[Expression]) -> Ends:
    """What is known of a column's values in the rows that pass all of ``where``."""
    found = [_says(column, reference, term) for term in where]
    return Ends(low=any(one.low for one in found), high=any(one.high for one in found))


def _says(column: Column, reference: ColumnRef, term: Expression) -> Ends:
    if not isinstance(term, Call) or reference not in term.args:
        return NO_ENDS
    constants = [one.value for one in term.args if isinstance(one, Literal) and one.type == column.type]
    if len(constants) + 1 != len(term.args) or None in constants:
        return NO_ENDS
    op = term.op if term.args[0] == reference else _FLIPPED.get(term.op)
    if column.values is not None:
        return BOTH_ENDS if op in (Op.EQ, Op.IN) and {*constants} <= {*column.values} else NO_ENDS
    if column.type not in _ORDERED:
        return NO_ENDS
    return Ends(
        low=op in _FROM_BELOW and all(_is_ordered(column.minimum, one) for one in constants),
        high=op in _FROM_ABOVE and all(_is_ordered(one, column.maximum) for one in constants),
    )


def _is_ordered(low: Any, high: Any) -> bool:
    """Whether both are there, of one kind, and in this order."""
    if low is None or high is None or isinstance(low, datetime) != isinstance(high, datetime):
        return False
    return bool(low <= high)
