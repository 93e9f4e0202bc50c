"""Runs the outer SQL over merged releases, and again over perturbed copies for confidence intervals.

Everything here works on values that are already private: it costs no budget and needs no trust. The SQL comes from
the plan, but a gateway runs it for strangers, so DuckDB is in memory and locked down: no files, no network, no
extensions, bounded memory and time, configuration locked.

What nodes left out because a group did not reach the threshold is in no sum, so that such a cell has no interval.
Intervals are a parametric bootstrap: each statistic is perturbed by noise of its own law, one draw per node, the
outer SQL is run on all copies, and the spread of a cell's copies around it gives its interval. The generator is seeded
with the plan and the values, so that gateway and SDK compute the same intervals.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from insitu_privacy.dataset import ColumnType
from insitu_privacy.errors import SqlRefused
from insitu_privacy.merge import MergedRelease
from insitu_privacy.plan import Mechanism, PrivacyPlan, Release

JsonScalar = int | float | str | bool | None
Interval = tuple[float, float] | None
_COPIES = 999
_CELL_BUDGET = 100_000
"""Copies times cells: larger relations get fewer copies, at least 199."""
_WHOLE_COPIES = 100
"""Copies of a whole answer, where its rows are not cells: each is a run of the outer SQL of its own."""
_POOL = 2**19

_ARROW: dict[ColumnType, pa.DataType] = {
    "integer": pa.int64(),
    "decimal": pa.float64(),
    "text": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "boolean": pa.bool_(),
}


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

    def run(self, plan: PrivacyPlan, merged: Sequence[MergedRelease], *, level: float = 0.95) -> ResultTable:
        """The answer of a plan from its merged releases.

        Raises SqlRefused (INSITU-SQL-NOT-TOTAL) where the outer SQL fails or takes too long.
        """
        with self._lock, self._timed():
            try:
                return self._run(plan, merged, level)
            except (duckdb.Error, RuntimeError):  # an interrupt may come as either
                hint = "Simplify the arithmetic over aggregates."
                raise SqlRefused("INSITU-SQL-NOT-TOTAL", name="the post-processing", hint=hint) from None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        timer = threading.Timer(self._timeout, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _run(self, plan: PrivacyPlan, merged: Sequence[MergedRelease], level: float) -> ResultTable:
        visible = [_suppressed(one) for one in merged]
        points = [_point_table(one, seen, plan.postprocessing) for one, seen in zip(merged, visible, strict=True)]
        found, types = self._answers(plan, merged, points)
        if plan.rows_are_cells:
            cells, rows = [row[0] for row in found], [row[1:] for row in found]
            spread = self._spread(plan, merged[0], visible[0], level) if found else {}
            whole = [count == merged[0].answered for count in merged[0].nodes]
            deviations = [
                {index: (low[cell], high[cell]) for index, (low, high) in spread.items()} if whole[cell] else {}
                for cell in cells
            ]
        else:
            rows = found
            deviations = self._deviations_by_row(plan, merged, visible, rows, level)
        columns = tuple(
            OutputColumn(name=column.name, type=kind, noisy=column.noisy)
            for column, kind in zip(plan.output, types, strict=True)
        )
        values = tuple(tuple(_scalar(value, kind) for value, kind in zip(row, types, strict=True)) for row in rows)
        intervals = tuple(
            tuple(_interval(spread_of.get(index), value) for index, value in enumerate(cells))
            for spread_of, cells in zip(deviations, values, strict=True)
        )
        return ResultTable(
            columns=columns, rows=values, intervals=intervals, level=level, warnings=_warnings(merged, visible)
        )

    def _answers(
        self, plan: PrivacyPlan, merged: Sequence[MergedRelease], tables: Sequence[pa.Table]
    ) -> tuple[list[tuple[Any, ...]], list[ColumnType]]:
        """The rows of the post-processing over ``tables``, one for each release, and the types of its columns."""
        cursor = self._connection
        try:
            for one, table in zip(merged, tables, strict=True):
                cursor.register(one.release.name, table)
            result = cursor.execute(plan.postprocessing)
            types = [_column_type(str(item[1])) for item in result.description[1 if plan.rows_are_cells else 0 :]]
            return result.fetchall(), types
        finally:
            for one in merged:
                cursor.unregister(one.release.name)

    def _deviations_by_row(
        self,
        plan: PrivacyPlan,
        merged: Sequence[MergedRelease],
        visible: Sequence[list[bool]],
        rows: Sequence[tuple[Any, ...]],
        level: float,
    ) -> list[dict[int, tuple[float, float]]]:
        """For SQL over whole releases: it is run again on perturbed copies, and rows are found by what is not noisy."""
        noisy = [index for index, column in enumerate(plan.output) if column.noisy]
        keys = [_row_key(row, noisy) for row in rows]
        partial = any(count < one.answered for one in merged for count in one.nodes)
        if not noisy or partial or len(set(keys)) < len(keys):
            return [{} for _ in rows]
        copies = [_Copies(plan, one, seen, _WHOLE_COPIES) for one, seen in zip(merged, visible, strict=True)]
        seen_rows: dict[Any, list[tuple[Any, ...]]] = {key: [] for key in keys}
        for number in range(_WHOLE_COPIES):
            found, _ = self._answers(plan, merged, [one.table(number) for one in copies])
            for row in found:
                if (key := _row_key(row, noisy)) in seen_rows:
                    seen_rows[key].append(row)
        return [
            {index: _row_deviation([other[index] for other in seen_rows[key]], row[index], level) for index in noisy}
            for key, row in zip(keys, rows, strict=True)
        ]

    def _spread(
        self,
        plan: PrivacyPlan,
        one: MergedRelease,
        visible: list[bool],
        level: float,
    ) -> dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """By output column: lower and upper deviation of each cell, NaN where it is not bounded."""
        noisy = [index for index, column in enumerate(plan.output) if column.noisy]
        if not noisy:
            return {}
        cells = len(one.keys)
        copies = max(199, min(_COPIES, _CELL_BUDGET // max(cells, 1)))
        cursor = self._connection
        cursor.register(one.release.name, _copies_table(plan, one, visible, copies))
        try:
            answers = cursor.sql(plan.cell_sql).to_arrow_table()  # one thread keeps the rows' order
        finally:
            cursor.unregister(one.release.name)
        return {
            index: _deviations(answers.column(place), copies, cells, level)
            for place, index in enumerate(noisy)
            if _is_numeric(answers.column(place).type)
        }


# -- tables ----------------------------------------------------------------------------------------------------------


def _warnings(merged: Sequence[MergedRelease], visible: Sequence[list[bool]]) -> tuple[str, ...]:
    return tuple(
        f"{hidden} of {len(seen)} cells have fewer than {one.release.suppress_below} by their noisy count "
        "and are suppressed"
        for one, seen in zip(merged, visible, strict=True)
        if (hidden := sum(not shown for shown in seen))
    )


def _suppressed(one: MergedRelease) -> list[bool]:
    """Which cells are shown: those whose noisy count reaches ``suppress_below``."""
    least = one.release.suppress_below
    counts = [s.value is None and s.kind in ("units", "rows") for s in one.release.statistics]
    units = [s.value is None and s.kind == "units" for s in one.release.statistics]
    index = units.index(True) if True in units else counts.index(True) if True in counts else None
    if not least or index is None:
        return [True] * len(one.keys)
    return [count >= least for count in one.statistics[index]]


def _key_columns(one: MergedRelease, repeat: int, sql: str) -> dict[str, pa.Array]:
    """The key columns that a statement reads, once for each copy."""
    columns = {}
    for place, column in enumerate(one.release.keys):
        if f"{one.release.name}.{column.name}" not in sql:
            continue
        array = pa.array([key[place] for key in one.keys], type=_ARROW[column.type])
        columns[column.name] = pa.concat_arrays([array] * repeat) if repeat > 1 else array
    return columns


def _point_table(one: MergedRelease, visible: list[bool], sql: str) -> pa.Table:
    columns = {"__cell": pa.array(range(len(one.keys)), type=pa.int64()), **_key_columns(one, 1, sql)}
    for index, values in enumerate(one.statistics):
        shown = [value if seen else None for value, seen in zip(values, visible, strict=True)]
        columns[f"s{index}"] = pa.array(shown, type=pa.int64())
    return pa.table(columns)


def _copies_table(plan: PrivacyPlan, one: MergedRelease, visible: list[bool], copies: int) -> pa.Table:
    cells = len(one.keys)
    generator = np.random.Generator(np.random.PCG64(_seed(plan, one)))
    columns: dict[str, Any] = {
        "__cell": np.tile(np.arange(cells, dtype=np.int64), copies),
        **_key_columns(one, copies, plan.cell_sql),
    }
    hidden = None if all(visible) else np.tile(~np.array(visible, dtype=bool), copies)
    for index, values in enumerate(one.statistics):
        if f"{one.release.name}.s{index}" not in plan.cell_sql:
            continue
        noise = _noise(generator, one.release, index, one.nodes, copies)
        noise[:cells] = 0  # the first copy carries none: it is what the others are measured against
        noise += np.tile(np.array(values, dtype=np.int64), copies)
        columns[f"s{index}"] = pa.array(noise, mask=hidden)
    return pa.table(columns)


class _Copies:
    """Perturbed copies of one release, one table each."""

    def __init__(self, plan: PrivacyPlan, one: MergedRelease, visible: list[bool], copies: int) -> None:
        self._cells = len(one.keys)
        self._keys = _key_columns(one, 1, plan.postprocessing)
        self._hidden = None if all(visible) else ~np.array(visible, dtype=bool)
        generator = np.random.Generator(np.random.PCG64(_seed(plan, one)))
        self._values = [
            np.array(values, dtype=np.int64)
            + _noise(generator, one.release, index, one.nodes, copies).reshape(copies, -1)
            for index, values in enumerate(one.statistics)
        ]

    def table(self, number: int) -> pa.Table:
        columns = {"__cell": pa.array(range(self._cells), type=pa.int64()), **self._keys}
        for index, values in enumerate(self._values):
            columns[f"s{index}"] = pa.array(values[number], mask=self._hidden)
        return pa.table(columns)


def _seed(plan: PrivacyPlan, one: MergedRelease) -> int:
    text = f"{plan.digest}:{one.statistics}:{one.nodes}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@lru_cache(maxsize=64)
def _pool(mechanism: Mechanism, nodes: int) -> np.ndarray[Any, Any]:
    """Draws of the sum of ``nodes`` nodes' noise at scale 1, made once: a stretch of it at a random place serves."""
    generator = np.random.Generator(np.random.PCG64(nodes))
    if mechanism == "gaussian":
        return generator.normal(0.0, math.sqrt(nodes), _POOL)
    total = np.zeros(_POOL)
    for _ in range(nodes):
        total += generator.laplace(0.0, 1.0, _POOL)
    return total


def _noise(
    generator: np.random.Generator, release: Release, index: int, nodes: Sequence[int], copies: int
) -> np.ndarray[Any, Any]:
    """Noise of ``nodes[i]`` nodes' mechanisms in cell i, for each copy, rounded to integers."""
    scale = float(release.statistics[index].scale)
    total = np.zeros((copies, len(nodes)))
    for count in sorted(set(nodes) - {0}):
        places = np.flatnonzero(np.array(nodes) == count)
        wanted = copies * len(places)
        pool = _pool(release.mechanism, count)
        start = int(generator.integers(0, _POOL))
        drawn = (
            pool.take(range(start, start + wanted), mode="wrap") if start + wanted > _POOL else pool[start:][:wanted]
        )
        total[:, places] = drawn.reshape(copies, len(places))
    rounded: np.ndarray[Any, Any] = np.rint(total * scale).clip(-(2.0**61), 2.0**61).astype(np.int64).reshape(-1)
    return rounded


# -- answers ---------------------------------------------------------------------------------------------------------


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _deviations(
    answer: Any, copies: int, cells: int, level: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """How far below and above a cell its copies lie at the given level; NaN where a copy has no value."""
    values = answer.cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    table = values.reshape(copies, cells)
    least = math.floor((1 - level) / 2 * (copies - 1))
    with np.errstate(invalid="ignore"):  # infinity less infinity: no interval
        spread = np.partition(table[1:] - table[:1], (least, copies - 2 - least, copies - 2), axis=0)  # NaN is last
    low, high = spread[least], spread[copies - 2 - least]
    return np.where(np.isnan(spread[-1]), np.nan, low), high


def _row_key(row: tuple[Any, ...], noisy: Sequence[int]) -> Any:
    return tuple(value for index, value in enumerate(row) if index not in noisy)


def _row_deviation(copies: Sequence[Any], value: Any, level: float) -> tuple[float, float]:
    """How far below and above a value its copies lie; NaN where it is no number, or a copy has none."""
    numbers = [float(one) for one in copies if isinstance(one, (int, float, Decimal)) and not isinstance(one, bool)]
    if len(numbers) < _WHOLE_COPIES or not isinstance(value, (int, float, Decimal)) or isinstance(value, bool):
        return math.nan, math.nan
    ordered = sorted(number - float(value) for number in numbers)
    least = math.floor((1 - level) / 2 * len(ordered))
    return ordered[least], ordered[len(ordered) - 1 - least]


def _interval(spread: tuple[Any, Any] | None, value: JsonScalar) -> Interval:
    """The cell minus the spread: noise that pushed it up by d leaves the exact value d below."""
    if spread is None or not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    low, high = float(spread[0]), float(spread[1])
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    if isinstance(value, int) and low.is_integer() and high.is_integer():
        return value - int(high), value - int(low)
    return value - high, value - low


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
        return number if np.isfinite(number) else None
    if isinstance(value, (bool, int, str)):
        return value
    return str(value)
