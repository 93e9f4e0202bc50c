"""Reads tables into a bounded statement: the site's mapping, the guards of its columns, rows without a unit dropped;
and writes derived sources, to any depth.

A guard makes NULL of what lies outside a column's declared domain or bounds. Where a condition of the query drops the
rows in which the column is NULL anyway, the guard stands as a condition beside it instead: the same rows, and the
database can skip what it need not read. That holds where nothing but total operations reads the column, for the two
conditions may be evaluated in either order.

A table whose columns need no guard, or only such conditions, is read under the query's alias, with the conditions
beside the query's own: a short statement is bound in half the time, which is much of what a small table takes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from insitu_privacy.dataset import Column, ColumnType
from insitu_privacy.dialect import Dialect
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op, columns_of, walk
from insitu_privacy.facts import INTEGER_LIMIT
from insitu_privacy.implied import implied
from insitu_privacy.relations import (
    Aggregate,
    Body,
    Combination,
    Derived,
    Grouping,
    Join,
    PathStep,
    Projection,
    Relation,
    Scan,
    Single,
    Source,
    Window,
    Windowing,
)

_STATEMENT = re.compile(r"(SELECT|WITH|VALUES|FROM)\b", re.IGNORECASE)
_PRESENCE = "_unit_has_"
"""Begins with what no column of a dataset may begin with."""
_PARTS = frozenset({Op.YEAR, Op.QUARTER, Op.MONTH, Op.DAY})
_COMPARISONS = frozenset({Op.EQ, Op.LT, Op.LE, Op.GT, Op.GE, Op.IN})
_HARMLESS = _COMPARISONS | {Op.NE, Op.IS_NULL, Op.LIKE, Op.ILIKE, Op.AND, Op.OR, Op.NOT}
"""Operations that are total on any value of a column's type, in bounds or not: infinite dates have no year."""


class Sources:
    """Writes the sources of one relation, and with them the relations of derived ones.

    ``exported`` says that other relations read the output: they may do anything with it, before or after the
    conditions here, for databases flatten derived tables. ``coded`` are columns of which only those values are used
    that their guard lets pass: they need none. ``counted`` are columns of which ``presence`` is asked.
    """

    def __init__(
        self,
        relation: Relation,
        output: Iterable[Expression],
        dialect: Dialect,
        tables: Mapping[str, str],
        *,
        exported: bool = False,
        coded: Collection[ColumnRef] = (),
        counted: Collection[ColumnRef] = (),
    ) -> None:
        output = list(output)
        self._coded, self._counted = coded, list(counted)
        self._dialect = dialect
        self._tables = tables
        joined = [term for join in relation.joins for term in join.on]
        self._worked = {column for term in [*relation.where, *joined] for column in _worked(term, _HARMLESS)}
        # computed on rows that passed
        self._worked |= {column for expression in output for column in _worked(expression, _HARMLESS | _PARTS)}
        self._filtered = {
            column for term in relation.where for column in _null_rejected(term) if column.scan not in relation.outer
        } - self._worked
        self._exported = {column for one in output for column in columns_of(one)} if exported else set()
        self._filtered -= self._exported
        self._where = relation.where
        self._conditions: dict[str, list[str]] = {}
        self._given: dict[str | ColumnRef, str] = {}
        for source in relation.sources:
            if isinstance(source, Scan) and source.alias not in relation.outer and self._is_plain(source):
                self._read_plainly(source)
        self._given |= {cohort.alias: self._text(cohort) for cohort in relation.cohorts}

    def _is_plain(self, scan: Scan) -> bool:
        """Whether each column of a table is read by no more than a cast."""
        return not scan.unit_path and all(self._is_plain_column(scan, column) for column in scan.columns)

    def _is_plain_column(self, scan: Scan, column: Column) -> bool:
        reference = ColumnRef(scan.alias, column.name)
        if column.type == "decimal" or reference in self._counted:
            return False
        if column.name in scan.unit and reference not in self._worked:
            return column.type != "integer" or not self._is_converted(column, reference)
        passes = reference in self._coded or reference in self._filtered
        return passes or not self._dialect.conditions(column, column.name)

    def _read_plainly(self, scan: Scan) -> None:
        conditions = self._conditions[scan.alias] = []
        for column in scan.columns:
            place = self._dialect.place(scan.alias, column.name)
            text, own = self._column(scan, column, place)
            conditions += own
            if text != place:
                self._given[ColumnRef(scan.alias, column.name)] = text

    def _text(self, source: Source) -> str:
        """A source under its alias: a table, or a derived one."""
        quote = self._dialect.identifier
        if isinstance(source, Derived):
            body = BodyWriter(self._dialect, self._tables).text(source.body)
            return f"(\n{body}\n) AS {quote(source.alias)}"
        if source.alias in self._conditions:
            return f"{self._table(source.table)} AS {quote(source.alias)}"
        return self._scan(source)

    def _scan(self, scan: Scan) -> str:
        quote = self._dialect.identifier
        columns, conditions = [], []
        for column in scan.columns:
            reference = ColumnRef(scan.alias, column.name)
            place = self._place(column.name)
            text, own = self._column(scan, column, place)
            conditions += own
            columns.append(f"{text} AS {quote(column.name)}")
            if reference in self._counted:
                inside = " AND ".join(self._dialect.conditions(column, place)) or f"{place} IS NOT NULL"
                columns.append(f"CASE WHEN {inside} THEN 1 END AS {quote(self._presence(reference))}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"(SELECT {', '.join(columns) or '1'} FROM {self._source(scan)}{where}) AS {quote(scan.alias)}"

    def _column(self, scan: Scan, column: Column, place: str) -> tuple[str, list[str]]:
        """How a column is read, and the conditions that belong to that."""
        reference, conditions = ColumnRef(scan.alias, column.name), []
        if column.name in scan.unit and reference not in self._worked:
            # only compared and grouped by: any value will do
            text = self._dialect.identity(column, place) if self._is_converted(column, reference) else place
        elif reference in self._coded:
            text = self._dialect.read(column, place)
        elif reference in self._filtered:
            known = implied(column, reference, self._where)
            conditions += self._dialect.conditions(column, place, known=known)
            text = self._dialect.read(column, place) if self._is_converted(column, reference) else place
        else:
            text = self._dialect.guard(column, place)
        if column.name in scan.unit:
            conditions.append(f"{text} IS NOT NULL")
        return text, conditions

    def _is_converted(self, column: Column, reference: ColumnRef) -> bool:
        """Narrow integers are only compared as they are: whoever reads them on would compute in 16 or 32 bits."""
        return column.type != "integer" or reference in self._exported

    def rows(self, first: Source, joins: Iterable[Join], where: tuple[Expression, ...]) -> str:
        """FROM and WHERE over sources in the order given."""
        source = f"FROM {self._text(first)}"
        terms = [*self._conditions.get(first.alias, ())]
        for join in joins:
            terms += self._conditions.get(join.source.alias, ())
            if join.kind == "left":
                on = " AND ".join(map(self.write, join.on)) or "TRUE"
                source += f"\nLEFT JOIN {self._text(join.source)} ON {on}"
            else:
                source += f"\nCROSS JOIN {self._text(join.source)}"
        terms += map(self.write, where)
        return f"{source}\nWHERE {' AND '.join(terms)}" if terms else source

    def write(self, expression: Expression) -> str:
        """An expression over the relation's rows."""
        return self._dialect.write(expression, self._given)

    def presence(self, reference: ColumnRef) -> str:
        """What is NULL where a counted column is, without converting the column."""
        return self._dialect.write(ColumnRef(reference.scan, self._presence(reference)))

    def _presence(self, reference: ColumnRef) -> str:
        return f"{_PRESENCE}{self._counted.index(reference)}"

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
            on = self._equal(step, f"t{index - 1}", f"t{index}")
            source += f" JOIN {self._table(step.path.through)} AS t{index} ON {on}"
        last = len(steps) - 1
        units = {column.name: column.type for column in scan.columns}
        unit = ", ".join(
            f"{self._dialect.exactly(units[own], f't{last}.{quote(name)}')} AS {quote(own)}"
            for own, name in ((f"_unit_{i}", name) for i, name in enumerate(steps[-1].unit))
        )
        on = self._equal(steps[0], "src", "owner")
        return f"(SELECT DISTINCT {entity}, {unit} FROM {source}) AS owner ON {on}"

    def _equal(self, step: PathStep, one: str, other: str) -> str:
        def column(side: str, name: str, kind: ColumnType) -> str:
            return self._dialect.exactly(kind, f"{side}.{self._dialect.identifier(name)}")

        pairs = zip(step.path.on, step.types, strict=True)
        return " AND ".join(f"{column(one, *pair)} = {column(other, *pair)}" for pair in pairs)

    def _table(self, name: str) -> str:
        text = self._tables[name].strip().rstrip(";")
        return f"({text})" if _STATEMENT.match(text) else text


class BodyWriter:
    """Writes the bodies of derived sources. Their columns stand under the unit's names, then their own."""

    def __init__(self, dialect: Dialect, tables: Mapping[str, str]) -> None:
        self._dialect = dialect
        self._tables = tables

    def text(self, body: Body) -> str:
        """A SELECT statement."""
        if isinstance(body, Combination):
            return f"({self.text(body.left)})\n{body.kind.upper()}\n({self.text(body.right)})"
        if isinstance(body, Single):
            return "SELECT 1 AS one"
        if isinstance(body, Projection):
            return self._projection(body)
        if isinstance(body, Windowing):
            return self._windowing(body)
        return self._grouping(body)

    def _projection(self, body: Projection) -> str:
        relation = body.relation
        sources = Sources(
            relation, [expression for _, expression in body.columns], self._dialect, self._tables, exported=True
        )
        columns = self._unit(relation, sources) + [self._named(sources.write(one), name) for name, one in body.columns]
        distinct = "DISTINCT " if body.distinct else ""
        rows = sources.rows(relation.first, relation.joins, relation.where)
        return f"SELECT {distinct}{', '.join(columns) or '1 AS one'}\n{rows}"

    def _grouping(self, body: Grouping) -> str:
        relation = body.relation
        values = [aggregate.value for _, aggregate in body.aggregates if aggregate.value is not None]
        output = [*(expression for _, expression in body.keys), *values]
        sources = Sources(relation, output, self._dialect, self._tables, exported=True)
        keys = self._unit(relation, sources) + [self._named(sources.write(one), name) for name, one in body.keys]
        calls = [self._named(self._aggregate(one, sources), name) for name, one in body.aggregates]
        rows = sources.rows(relation.first, relation.joins, relation.where)
        group = f"\nGROUP BY {', '.join(str(index + 1) for index in range(len(keys)))}" if keys else ""
        return f"SELECT {', '.join([*keys, *calls])}\n{rows}{group}"

    def _windowing(self, body: Windowing) -> str:
        relation = body.relation
        read = [one.value for _, one in body.windows if one.value is not None]
        read += [part for _, one in body.windows for part in (*one.partition, *(each for each, _, _ in one.order))]
        output = [*(expression for _, expression in body.columns), *read]
        sources = Sources(relation, output, self._dialect, self._tables, exported=True)
        columns = self._unit(relation, sources) + [self._named(sources.write(one), name) for name, one in body.columns]
        columns += [self._named(self._window(one, relation, sources), name) for name, one in body.windows]
        return f"SELECT {', '.join(columns)}\n{sources.rows(relation.first, relation.joins, relation.where)}"

    def _window(self, window: Window, relation: Relation, sources: Sources) -> str:
        parts = [sources.write(one) for one in (*relation.unit, *window.partition)]
        order = [
            f"{sources.write(one)} {'DESC' if descending else 'ASC'} NULLS {'FIRST' if nulls_first else 'LAST'}"
            for one, descending, nulls_first in window.order
        ]
        over = f"PARTITION BY {', '.join(parts)}" + (f" ORDER BY {', '.join(order)}" if order else "")
        over += f" {window.frame}" if window.frame else ""
        if window.value is None:
            name = {"count": "COUNT(*)"}.get(window.function, f"{window.function.upper()}()")
            return f"CAST({name} OVER ({over}) AS {self._dialect.bigint})"
        value = sources.write(window.value)
        if window.function in ("lag", "lead"):
            return f"{window.function.upper()}({value}, {window.offset}) OVER ({over})"
        if window.function in ("first", "last"):
            return f"{window.function.upper()}_VALUE({value}) OVER ({over})"
        if window.function == "count":
            return f"CAST(COUNT({value}) OVER ({over}) AS {self._dialect.bigint})"
        if window.function == "sum":
            return self._cut(f"SUM({value}) OVER ({over})", int(INTEGER_LIMIT))
        extreme = self._dialect.least_of if window.function == "least" else self._dialect.greatest_of
        return f"{extreme(window.type, value)} OVER ({over})"

    def _unit(self, relation: Relation, sources: Sources) -> list[str]:
        return [self._named(sources.write(ref), f"_unit_{index}") for index, ref in enumerate(relation.unit)]

    def _named(self, text: str, name: str) -> str:
        return f"{text} AS {self._dialect.identifier(name)}"

    def _aggregate(self, aggregate: Aggregate, sources: Sources) -> str:
        most = int(aggregate.limit)
        if aggregate.value is None:
            return f"CAST(LEAST(COUNT(*), {most}) AS {self._dialect.bigint})"
        value = sources.write(aggregate.value)
        if aggregate.kind in ("count", "distinct"):
            counted = f"DISTINCT {value}" if aggregate.kind == "distinct" else value
            return f"CAST(LEAST(COUNT({counted}), {most}) AS {self._dialect.bigint})"
        if aggregate.kind == "least":
            return self._dialect.least_of(aggregate.type, value)
        if aggregate.kind == "greatest":
            return self._dialect.greatest_of(aggregate.type, value)
        total, exact = self._total(value, aggregate)
        if aggregate.kind == "average":
            step = self._dialect.number("decimal", aggregate.granularity)
            return f"CAST({total} AS {self._dialect.double}) / COUNT({exact}) * {step}"
        limit = int(aggregate.limit / aggregate.granularity)
        cut = self._cut(total, limit)
        if aggregate.type == "integer":
            return cut
        return f"CAST({cut} AS {self._dialect.double}) * {self._dialect.number('decimal', aggregate.granularity)}"

    def _cut(self, total: str, limit: int) -> str:
        """A sum, which engines compute in more than 64 bits, within a limit."""
        cut = f"CASE WHEN {total} > {limit} THEN {limit} WHEN {total} < (-{limit}) THEN (-{limit}) ELSE {total} END"
        return f"CAST({cut} AS {self._dialect.bigint})"

    def _total(self, value: str, aggregate: Aggregate) -> tuple[str, str]:
        """The exact sum of a value in multiples of the granularity, and what is summed: clipped integers."""
        if aggregate.type == "integer":
            return f"SUM({value})", value
        most = int(aggregate.reach / aggregate.granularity)
        whole = (
            f"FLOOR({self._dialect.scaled_by(f'CAST({value} AS {self._dialect.double})', aggregate.granularity)} + 0.5)"
        )
        clipped = f"CASE WHEN {whole} > {most} THEN {most} WHEN {whole} < (-{most}) THEN (-{most}) ELSE {whole} END"
        exact = f"CAST({clipped} AS {self._dialect.bigint})"
        return f"SUM({exact})", exact


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
