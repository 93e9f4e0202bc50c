"""Rows of constants, as a union of SELECTs without FROM."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

ROWS_LIMIT = 500
"""Rows that a query may write out: each is a SELECT of its own."""


def union_of(rows: Sequence[Sequence[exp.Expr]], names: Sequence[str]) -> exp.Query:
    """SELECTs of one row each, put together by UNION ALL: halves of halves, so that it is not deep."""
    if len(rows) == 1:
        items = [
            exp.Alias(this=value.copy(), alias=exp.to_identifier(name))
            for value, name in zip(rows[0], names, strict=True)
        ]
        return exp.Select(expressions=items)
    middle = len(rows) // 2
    left, right = union_of(rows[:middle], names), union_of(rows[middle:], names)
    return exp.Union(this=left, expression=right, distinct=False)
