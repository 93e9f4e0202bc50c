"""Reads tables into a bounded statement: the site's mapping, the guards of its columns, rows without a unit dropped.

A guard makes NULL of what lies outside a column's declared domain or bounds. Where a condition of the query drops the
rows in which the column is NULL anyway, the guard stands as a condition beside it instead: the same rows, and the
database can skip what it need not read. That holds where nothing but total operations reads the column, for the two
conditions may be evaluated in either order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from insitu_privacy.dialects import Dialect
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op, columns_of, walk
from insitu_privacy.plan import Release
from insitu_privacy.relations import Scan

_STATEMENT = re.compile(r"(SELECT|WITH|VALUES|FROM)\b", re.IGNORECASE)
_PARTS = frozenset({Op.YEAR, Op.QUARTER, Op.MONTH, Op.DAY})
_COMPARISONS = frozenset({Op.EQ, Op.LT, Op.LE, Op.GT, Op.GE, Op.IN})
_HARMLESS = _COMPARISONS | {Op.NE, Op.IS_NULL, Op.LIKE, Op.ILIKE, Op.AND, Op.OR, Op.NOT}
"""Operations that are total on any value of a column's type, in bounds or not: infinite dates have no year."""


class Scans:
    """Writes the scans of one release."""

    def __init__(self, release: Release, dialect: Dialect, tables: Mapping[str, str]) -> None:
        self._dialect = dialect
        self._tables = tables
        relation = release.relation
        left = {join.scan.alias for join in relation.joins if join.kind == "left"}
        joined = [term for join in relation.joins for term in join.on]
        output = [*(key.expression for key in release.keys), *release.values]  # computed on rows that passed
        self._worked = {column for term in [*relation.where, *joined] for column in _worked(term, _HARMLESS)}
        self._worked |= {column for expression in output for column in _worked(expression, _HARMLESS | _PARTS)}
        self._filtered = {
            column for term in relation.where for column in _null_rejected(term) if column.scan not in left
        } - self._worked

    def text(self, scan: Scan) -> str:
        """A scan as a derived table under its alias."""
        quote = self._dialect.identifier
        columns, conditions = [], []
        for column in scan.columns:
            reference = ColumnRef(scan.alias, column.name)
            place = self._place(column.name)
            if column.name in scan.unit and reference not in self._worked:
                text = place  # only compared and grouped by: any value will do
            elif reference in self._filtered:
                conditions += self._dialect.conditions(column, place)
                text = place if column.type == "integer" else self._dialect.read(column, place)
            else:
                text = self._dialect.guard(column, place)
            if column.name in scan.unit:
                conditions.append(f"{text} IS NOT NULL")
            columns.append(f"{text} AS {quote(column.name)}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"(SELECT {', '.join(columns) or '1'} FROM {self._source(scan)}{where}) AS {quote(scan.alias)}"

    def _place(self, column: str) -> str:
        quoted = self._dialect.identifier(column)
        return quoted if column.startswith("_unit_") else f"src.{quoted}"

    def _source(self, scan: Scan) -> str:
        if not scan.unit_path:
            return f"{self._table(scan.table)} AS src"
        return f"{self._table(scan.table)} AS src JOIN {self._owners(scan)}"

    def _owners(self, scan: Scan) -> str:
        """Which units own an entity: distinct, so that a duplicated owner row does not multiply lines."""
        quote = self._dialect.identifier
        steps = scan.unit_path
        entity = ", ".join(f"t0.{quote(name)}" for name in steps[0].path.on)
        source = f"{self._table(steps[0].path.through)} AS t0"
        for index, step in enumerate(steps[1:], 1):
            on = " AND ".join(f"t{index - 1}.{quote(name)} = t{index}.{quote(name)}" for name in step.path.on)
            source += f" JOIN {self._table(step.path.through)} AS t{index} ON {on}"
        last = len(steps) - 1
        unit = ", ".join(f"t{last}.{quote(name)} AS {quote(f'_unit_{i}')}" for i, name in enumerate(steps[-1].unit))
        on = " AND ".join(f"src.{quote(name)} = owner.{quote(name)}" for name in steps[0].path.on)
        return f"(SELECT DISTINCT {entity}, {unit} FROM {source}) AS owner ON {on}"

    def _table(self, name: str) -> str:
        text = self._tables[name].strip().rstrip(";")
        return f"({text})" if _STATEMENT.match(text) else text


def _worked(expression: Expression, harmless: frozenset[Op]) -> frozenset[ColumnRef]:
    """Columns that some operation reads which is total only within their bounds."""
    return frozenset(
        column
        for node in walk(expression)
        if isinstance(node, Call) and node.op not in harmless
        for column in columns_of(node)
    )


def _null_rejected(term: Expression) -> list[ColumnRef]:
    """The column that a condition compares with literals: NULL never passes."""
    if not isinstance(term, Call) or term.op not in _COMPARISONS:
        return []
    columns = [argument for argument in term.args if not isinstance(argument, Literal)]
    if len(columns) != 1:
        return []
    return [columns[0]] if isinstance(columns[0], ColumnRef) else []
