"""Rows written out: VALUES, as a union of SELECTs without FROM. Works on parsed trees, before names are bound."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from insitu_privacy.passes.spans import forbidden

ROWS_LIMIT = 500


def without_values(tree: exp.Query) -> exp.Query:
    """The query with a union for every VALUES list it reads from. Raises SqlRefused where one has too many rows."""
    for values in list(tree.find_all(exp.Values)):
        rows = [row.expressions if isinstance(row, exp.Tuple) else [row] for row in values.expressions]
        if len(rows) > ROWS_LIMIT:
            raise forbidden(values, f"VALUES of more than {ROWS_LIMIT} rows", "Use a public table of the dataset.")
        if not rows or len({len(row) for row in rows}) > 1:
            raise forbidden(values, "VALUES of rows of different lengths", "Write as many values in each row.")
        alias = values.args.get("alias")
        names = [column.name for column in alias.columns] if isinstance(alias, exp.TableAlias) else []
        names += [f"col{place}" for place in range(len(names), len(rows[0]))]
        made = union_of(rows, names)
        if isinstance(values.parent, (exp.CTE, exp.Subquery)) and alias is None:
            values.replace(made)
        else:
            values.replace(exp.Subquery(this=made, alias=exp.TableAlias(this=alias.this if alias else None)))
    return tree


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
