"""Runs the outer SQL over merged releases, and again over perturbed copies for confidence intervals.

Everything here works on values that are already private: it costs no budget and needs no trust. The SQL comes from
the plan, but a gateway runs it for strangers, so DuckDB is in memory and locked down: no files, no network, no
extensions, bounded memory and time, configuration locked.

What nodes left out because a group did not reach the threshold is in no sum, so that such a cell has no interval.
Intervals are those of ``bootstrap``: the outer SQL is run again over perturbed copies. There a ratio has a value only
where its denominator is above zero, so that a ratio whose denominator may be zero for all the noise lets know has no
interval rather than one that means nothing.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from insitu_privacy.bootstrap import (
    WHOLE_COPIES,
    Copies,
    cell_deviations,
    is_numeric,
    number_of_copies,
    row_deviation,
    stacked_copies,
)
from insitu_privacy.dataset import ColumnType
from insitu_privacy.errors import SqlRefused
from insitu_privacy.improve import Improvement, Improving
from insitu_privacy.improved_intervals import count_columns, stretched
from insitu_privacy.merge import MergedRelease, merge
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.published import published_table
from insitu_privacy.released import Released, point_table, released_relations, warnings
from insitu_privacy.tree import Array
from insitu_privacy.watch import TooSlow, Watch

JsonScalar = int | float | str | bool | None
Interval = tuple[float, float] | None


ROWS_LIMIT = 100_000
"""Rows of an answer: a product of released relations with each other is nobody's question."""
TEXT_LIMIT = 2**26
"""Characters of an answer's texts."""
_BATCH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """A column of the answer."""

    name: str
    type: ColumnType
    noisy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTable:
    """The answer: rows of JSON scalars, and for each noisy cell its interval at ``level``."""

    columns: tuple[OutputColumn, ...]
    rows: tuple[tuple[JsonScalar, ...], ...]
    intervals: tuple[tuple[Interval, ...], ...]
    level: float
    warnings: tuple[str, ...]


class Postprocessor:
    """An in-memory DuckDB, locked down. Safe to share between threads: one query runs at a time."""

    def __init__(self, memory_limit_mb: int = 512, timeout_s: float = 10.0) -> None:
        self._lock = threading.Lock()
        self._timeout = timeout_s
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "enable_external_access": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "memory_limit": f"{memory_limit_mb}MB",
                "max_temp_directory_size": "0KB",
                "threads": 1,
            },
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET lock_configuration = true")

    def __enter__(self) -> Postprocessor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the database."""
        with self._lock:
            self._connection.close()

    def run(
        self,
        plan: PrivacyPlan,
        merged: Sequence[MergedRelease],
        *,
        level: float = 0.95,
        improve: Sequence[Improvement] = (),
    ) -> ResultTable:
        """The answer of a plan from its merged releases, improved as is asked (``improve``).

        Raises SqlRefused where the outer SQL fails or takes too long (INSITU-SQL-NOT-TOTAL), or gives too many rows
        (INSITU-SQL-TOO-MANY-ROWS).
        """
        with self._lock:
            watch = Watch(self._timeout, self._connection.interrupt)
            try:
                with watch.running():
                    return self._run(plan, merged, level, watch, improve)
            except (duckdb.Error, RuntimeError, TooSlow):  # an interrupt may come as either of the first two
                hint = "Simplify the arithmetic over aggregates."
                raise SqlRefused("INSITU-SQL-NOT-TOTAL", name="the post-processing", hint=hint) from None

    def rehearse(self, plan: PrivacyPlan) -> None:
        """Runs the outer SQL of a plan on zeros, before anything is asked of nodes.

        Raises SqlRefused where it can never run: operations on wrong types, which the planner does not look at.
        """
        zeros = [[_zeros(release) for release in plan.releases]]
        self.run(
            replace(plan, copies_sql="", output=tuple(replace(one, noisy=False) for one in plan.output)),
            merge(plan, zeros),
        )

    def _run(
        self,
        plan: PrivacyPlan,
        merged: Sequence[MergedRelease],
        level: float,
        watch: Watch,
        improve: Sequence[Improvement],
    ) -> ResultTable:
        relations = released_relations(plan, merged)
        with self._published(plan):
            if not improve:
                return self._made(plan, relations, level, watch)[0]
            improving = Improving(relations, improve, plan.copies_sql)
            fitted, ids = self._made(plan, improving.fitted(), level, watch, improving=improving)
            if not improving.cuts:
                return fitted
            silent = replace(plan, output=tuple(replace(one, noisy=False) for one in plan.output))
            shown, shown_ids = self._made(silent, improving.points(), level, watch, noisy=noisy_places(plan))
            return replace(
                fitted,
                rows=shown.rows,
                intervals=stretched(shown.rows, shown_ids, fitted.intervals, ids, count_columns(plan)),
            )

    @contextmanager
    def _published(self, plan: PrivacyPlan) -> Iterator[None]:
        """The public tables of a plan, there as long as its SQL runs."""
        try:
            for table in plan.public:
                self._connection.register(table.name, published_table(table))
            yield
        finally:
            for table in plan.public:
                self._connection.unregister(table.name)

    def _made(
        self,
        plan: PrivacyPlan,
        relations: Sequence[Released],
        level: float,
        watch: Watch,
        *,
        improving: Improving | None = None,
        noisy: Sequence[int] | None = None,
    ) -> tuple[ResultTable, list[Any]]:
        """The answer, and what each of its rows is known by: its cell, or what is not ``noisy`` in it."""
        found, types = self._answers(
            plan.postprocessing, relations, [point_table(one, plan.postprocessing) for one in relations]
        )
        types = types[1:] if plan.rows_are_cells else types
        if plan.rows_are_cells:
            cells, rows = [row[0] for row in found], [row[1:] for row in found]
            ids: list[Any] = cells
            spread = self._spread(plan, relations[0], level) if found else {}
            whole = relations[0].whole
            deviations = [
                {index: (low[cell], high[cell]) for index, (low, high) in spread.items()} if whole[cell] else {}
                for cell in cells
            ]
        else:
            rows = found
            ids = [_row_key(row, noisy_places(plan) if noisy is None else noisy) for row in rows]
            deviations = self._deviations_by_row(plan, relations, rows, level, watch, improving=improving)
        columns = tuple(
            OutputColumn(name=column.name, type=kind, noisy=column.noisy)
            for column, kind in zip(plan.output, types, strict=True)
        )
        values = tuple(tuple(_scalar(value, kind) for value, kind in zip(row, types, strict=True)) for row in rows)
        intervals = tuple(
            tuple(_interval(spread_of.get(index), value) for index, value in enumerate(cells))
            for spread_of, cells in zip(deviations, values, strict=True)
        )
        said = (*warnings(relations), *(improving.warnings if improving is not None else ()))
        return ResultTable(columns=columns, rows=values, intervals=intervals, level=level, warnings=said), ids

    def _answers(
        self, sql: str, relations: Sequence[Released], tables: Sequence[pa.Table]
    ) -> tuple[list[tuple[Any, ...]], list[ColumnType]]:
        """The rows of a statement over ``tables``, one for each relation, and the types of its columns."""
        cursor = self._connection
        try:
            for one, table in zip(relations, tables, strict=True):
                cursor.register(one.name, table)
            result = cursor.execute(sql)
            types = [_column_type(str(item[1])) for item in result.description]
            try:
                return _fetched(result), types
            except SqlRefused:
                cursor.abort()  # the rest of the rows
                raise
        finally:
            for one in relations:
                cursor.unregister(one.name)

    def _deviations_by_row(
        self,
        plan: PrivacyPlan,
        relations: Sequence[Released],
        rows: Sequence[tuple[Any, ...]],
        level: float,
        watch: Watch,
        *,
        improving: Improving | None,
    ) -> list[dict[int, tuple[float, float]]]:
        """For SQL over whole releases: it is run again on perturbed copies, and rows are found by what is not noisy."""
        noisy = noisy_places(plan)
        keys = [_row_key(row, noisy) for row in rows]
        partial = not all(all(one.whole) for one in relations)
        if not noisy or partial:
            return [{} for _ in rows]
        copies = [Copies(plan, one) for one in (relations if improving is None else improving.raw)]
        seen_rows: dict[Any, list[tuple[Any, ...]]] = {key: [] for key, times in Counter(keys).items() if times == 1}
        for number in range(WHOLE_COPIES):
            watch.check()
            tables = [one.table(number) for one in copies]
            tables = tables if improving is None else improving.fit_copies(tables)
            found, _ = self._answers(plan.copies_sql, relations, tables)
            for row in found:
                if (key := _row_key(row, noisy)) in seen_rows:
                    seen_rows[key].append(row)
        made: list[dict[int, tuple[float, float]]] = []
        for key, row in zip(keys, rows, strict=True):
            watch.check()
            others = seen_rows.get(key)
            made.append(
                {}
                if others is None
                else {index: row_deviation([one[index] for one in others], row[index], level) for index in noisy}
            )
        return made

    def _spread(
        self,
        plan: PrivacyPlan,
        one: Released,
        level: float,
    ) -> dict[int, tuple[Array, Array]]:
        """By output column: lower and upper deviation of each cell, NaN where it is not bounded."""
        noisy = noisy_places(plan)
        if not noisy:
            return {}
        cells = len(one.keys)
        copies = number_of_copies(one)
        cursor = self._connection
        cursor.register(one.name, stacked_copies(plan, one, copies))
        try:
            answers = cursor.sql(plan.copies_sql).to_arrow_table()  # one thread keeps the rows' order
        finally:
            cursor.unregister(one.name)
        return {
            index: cell_deviations(answers.column(place), copies, cells, level)
            for place, index in enumerate(noisy)
            if is_numeric(answers.column(place).type)
        }


def _fetched(result: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """All rows, within the limits: what Python holds is not in DuckDB's limit of memory."""
    rows: list[tuple[Any, ...]] = []
    characters = 0
    while batch := result.fetchmany(_BATCH):
        rows += batch
        characters += sum(len(value) for row in batch for value in row if isinstance(value, str))
        if len(rows) > ROWS_LIMIT:
            raise SqlRefused("INSITU-SQL-TOO-MANY-ROWS", limit=f"{ROWS_LIMIT} rows")
        if characters > TEXT_LIMIT:
            raise SqlRefused("INSITU-SQL-TOO-MANY-ROWS", limit=f"{TEXT_LIMIT} characters of text")
    return rows


def _zeros(release: Release) -> ReleasedValues:
    """A release in which nothing was counted."""
    cells = release.cells
    return ReleasedValues(
        keys=() if cells is None else None, statistics=tuple((0,) * (cells or 0) for _ in range(release.width))
    )


# -- answers ---------------------------------------------------------------------------------------------------------


def noisy_places(plan: PrivacyPlan) -> list[int]:
    """The columns of the answer that carry intervals."""
    return [index for index, column in enumerate(plan.output) if column.noisy]


def _row_key(row: tuple[Any, ...], noisy: Sequence[int]) -> Any:
    return tuple(value for index, value in enumerate(row) if index not in noisy)


def _interval(reach: tuple[Any, Any] | None, value: JsonScalar) -> Interval:
    if reach is None or not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    low, high = float(reach[0]), float(reach[1])
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    if isinstance(value, int) and low.is_integer() and high.is_integer():
        return value + int(low), value + int(high)
    return value + low, value + high


def _column_type(name: str) -> ColumnType:
    base = name.upper().split("(")[0]
    if base in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UBIGINT", "UINTEGER", "UHUGEINT"):
        return "integer"
    if base in ("DOUBLE", "FLOAT", "DECIMAL"):
        return "decimal"
    kinds: dict[str, ColumnType] = {"DATE": "date", "TIMESTAMP": "timestamp", "BOOLEAN": "boolean"}
    return kinds.get(base, "text")


def _scalar(value: Any, kind: ColumnType) -> JsonScalar:
    if value is None:
        return None
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if kind == "decimal" or isinstance(value, Decimal):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, (bool, int, str)):
        return value
    return str(value)
