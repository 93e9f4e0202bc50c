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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from insitu_privacy.bootstrap import (
    WHOLE_COPIES,
    number_of_copies,
    stacked_copies,
)
from insitu_privacy.copied import COPIED_ROWS, Copied
from insitu_privacy.dataset import ColumnType
from insitu_privacy.errors import SqlRefused
from insitu_privacy.improve import Improvement, Improving
from insitu_privacy.improved_intervals import count_columns, stretched
from insitu_privacy.merge import MergedRelease, merge
from insitu_privacy.percentiles import Spread, as_number, cell_spread, is_measured, row_spread
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.published import published_table
from insitu_privacy.reaches import Interval, Reach, interval, reach, unbounded
from insitu_privacy.released import Released, point_table, released_relations, suppressed_rows, warnings
from insitu_privacy.stacked import COPIES, COPY, for_all_copies
from insitu_privacy.watch import TooSlow, Watch

JsonScalar = int | float | str | bool | None


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
    suppressed: tuple[int, ...] = ()
    """Places of the rows that are made of suppressed cells; where rows are not cells, of those without any noisy value
    in an answer that has suppressed cells."""


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
                suppressed=shown.suppressed,
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
            plan.postprocessing, {one.name: point_table(one, plan.postprocessing) for one in relations}
        )
        if plan.rows_are_cells:
            types, rows = types[1:], [row[1:] for row in found]
            ids: list[Any] = [row[0] for row in found]
            reaches = self._reaches_by_cell(plan, relations[0], ids, level)
        else:
            rows = found
            ids = [_row_key(row, noisy_places(plan) if noisy is None else noisy) for row in rows]
            reaches = self._reaches_by_row(plan, relations, rows, level, watch, improving=improving)
        columns = tuple(
            OutputColumn(name=column.name, type=kind, noisy=column.noisy)
            for column, kind in zip(plan.output, types, strict=True)
        )
        values = tuple(tuple(_scalar(value, kind) for value, kind in zip(row, types, strict=True)) for row in rows)
        intervals = tuple(
            tuple(
                interval(own.get(index), raw) if shown is not None else None
                for index, (raw, shown) in enumerate(zip(row, cells, strict=True))
            )
            for own, row, cells in zip(reaches, rows, values, strict=True)
        )
        named = {index: column.name for index, column in enumerate(columns) if column.noisy}
        said = (*warnings(relations), *unbounded(named, values, intervals, reaches))
        said += improving.warnings if improving is not None else ()
        suppressed = suppressed_rows(
            relations, values, ids if plan.rows_are_cells else None, noisy_places(plan) if noisy is None else noisy
        )
        table = ResultTable(
            columns=columns, rows=values, intervals=intervals, level=level, warnings=said, suppressed=suppressed
        )
        return table, ids

    def _answers(
        self, sql: str, tables: Mapping[str, pa.Table], limit: int = ROWS_LIMIT
    ) -> tuple[list[tuple[Any, ...]], list[ColumnType]]:
        """The rows of a statement over ``tables``, and the types of its columns."""
        cursor = self._connection
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            result = cursor.execute(sql)
            types = [_column_type(str(item[1])) for item in result.description]
            try:
                return _fetched(result, limit), types
            except SqlRefused:
                cursor.abort()  # the rest of the rows
                raise
        finally:
            for name in tables:
                cursor.unregister(name)

    def _reaches_by_row(
        self,
        plan: PrivacyPlan,
        relations: Sequence[Released],
        rows: Sequence[tuple[Any, ...]],
        level: float,
        watch: Watch,
        *,
        improving: Improving | None,
    ) -> list[dict[int, Reach]]:
        """For SQL over whole releases: it is run again on perturbed copies, and rows are found by what is not noisy."""
        noisy = noisy_places(plan)
        if not noisy:
            return [{} for _ in rows]
        if not all(all(one.whole) for one in relations):
            return [dict.fromkeys(noisy, "partial") for _ in rows]
        keys = [_row_key(row, noisy) for row in rows]
        seen: dict[Any, list[tuple[Any, ...]]] = {key: [] for key, times in Counter(keys).items() if times == 1}
        copied = Copied(plan, relations, len(rows), improving)
        try:
            number = self._read_copies(plan, copied, watch, lambda found: _sorted_in(found, noisy, seen))
        except SqlRefused:
            return [dict.fromkeys(noisy, "many") for _ in rows]
        made: list[dict[int, Reach]] = []
        for key, row in zip(keys, rows, strict=True):
            watch.check()
            others = seen.get(key, [])
            if len(others) < number:
                made.append(dict.fromkeys(noisy, "rows"))
                continue
            measured = [index for index in noisy if as_number(row[index]) is not None]
            spreads = {index: row_spread([one[index] for one in others], row[index], level) for index in measured}
            made.append({index: reach(spread, 0) for index, spread in spreads.items()})
        return made

    def _read_copies(
        self, plan: PrivacyPlan, copied: Copied, watch: Watch, read: Callable[[list[tuple[Any, ...]]], None]
    ) -> int:
        """Has the rows of all copies read, the copy's number before each. How many copies there are."""
        number = copied.number
        sql = for_all_copies(plan.copies_sql, copied.names)
        try:
            for first in range(0, number, copied.at_once):
                watch.check()
                last = min(number, first + copied.at_once)
                tables = copied.tables(first, last)
                tables[COPIES] = pa.table({COPY: pa.array(range(first, last), type=pa.int64())})
                read(self._answers(sql, tables, COPIED_ROWS)[0])
        except (duckdb.BinderException, duckdb.NotImplementedException):  # before any row: what LATERAL cannot hold
            number = WHOLE_COPIES
            for copy in range(number):
                watch.check()
                found, _ = self._answers(plan.copies_sql, copied.tables(copy, copy + 1))
                read([(copy, *row) for row in found])
        return number

    def _reaches_by_cell(
        self, plan: PrivacyPlan, one: Released, cells: Sequence[int], level: float
    ) -> list[dict[int, Reach]]:
        """For each cell of the answer and each of its noisy columns of numbers or dates."""
        spreads = self._spreads(plan, one, level) if cells else {}
        whole = one.whole
        return [
            {index: reach(spread, cell) if whole[cell] else "partial" for index, spread in spreads.items()}
            for cell in cells
        ]

    def _spreads(self, plan: PrivacyPlan, one: Released, level: float) -> dict[int, Spread]:
        noisy = noisy_places(plan)
        if not noisy:
            return {}
        copies = number_of_copies(one)
        cursor = self._connection
        cursor.register(one.name, stacked_copies(plan, one, copies))
        try:
            answers = cursor.sql(plan.copies_sql).to_arrow_table()  # one thread keeps the rows' order
        finally:
            cursor.unregister(one.name)
        return {
            index: cell_spread(answers.column(place), copies, len(one.keys), level)
            for place, index in enumerate(noisy)
            if is_measured(answers.column(place).type)
        }


def _fetched(result: duckdb.DuckDBPyConnection, limit: int) -> list[tuple[Any, ...]]:
    """All rows, within the limits: what Python holds is not in DuckDB's limit of memory."""
    rows: list[tuple[Any, ...]] = []
    characters = 0
    while batch := result.fetchmany(_BATCH):
        rows += batch
        characters += sum(len(value) for row in batch for value in row if isinstance(value, str))
        if len(rows) > limit:
            raise SqlRefused("INSITU-SQL-TOO-MANY-ROWS", limit=f"{limit} rows")
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


def _sorted_in(rows: Sequence[tuple[Any, ...]], noisy: Sequence[int], seen: dict[Any, list[tuple[Any, ...]]]) -> None:
    """Adds rows of copies to those of their key, where one alone has the key in its copy."""
    keys = [(row[0], _row_key(row[1:], noisy)) for row in rows]
    times = Counter(keys)
    for one, row in zip(keys, rows, strict=True):
        if times[one] == 1 and one[1] in seen:
            seen[one[1]].append(row[1:])


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
