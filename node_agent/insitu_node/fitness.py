"""Whether a site's tables fit their contract: columns and types, and then the data itself, for the custodian alone.

Counts of rows that break a declaration are exact and private: they go to the custodian's terminal and nowhere else. A
row that breaks one does no harm to privacy (a value outside its domain or bounds reads as NULL), only to usefulness.
What is not here: repairing anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import structlog
from insitu_privacy.dataset import Column, ColumnType, Dataset, Table
from insitu_privacy.dialect import Dialect
from insitu_privacy.dialects import DIALECTS
from insitu_privacy.errors import ConfigInvalid, InsituError, Unavailable
from insitu_privacy.relations import Scan

from insitu_node.engines.base import Engine, SiteColumn, select

_log = structlog.get_logger("insitu.node.fitness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not fit. ``error`` keeps the dataset from being served right, ``warning`` does not."""

    level: Literal["error", "warning"]
    table: str
    column: str | None
    text: str


def findings(dataset: Dataset, engine: Engine) -> list[Finding]:
    """All that does not fit, tables in order of name."""
    return [finding for _, table in sorted(dataset.tables.items()) for finding in _table(table, engine)]


def _table(table: Table, engine: Engine) -> list[Finding]:
    if table.name not in engine.tables:
        text = "is not mapped: queries that use it are refused here"
        return [Finding(level="warning", table=table.name, column=None, text=text)]
    try:
        found = {column.name: column for column in engine.describe(table.name)}
    except ConfigInvalid as error:
        return [Finding(level="error", table=table.name, column=None, text=error.text)]
    shape = [
        Finding(level="error", table=table.name, column=name, text=reason)
        for name, column in table.columns.items()
        if (reason := misfit(name, column.type, found)) is not None
    ]
    return shape or _data(table, engine)


def misfit(name: str, kind: ColumnType, found: Mapping[str, SiteColumn]) -> str | None:
    """Why a site's table cannot serve a column; None where it can."""
    if name not in found:
        return "no such column"
    if kind not in found[name].serves:
        return f"is {found[name].type}, which does not serve as {kind}: cast it in the mapping"
    return None


class Shapes:
    """Whether the columns that a query reads are there and of a type that serves; of no row is anything read.

    What was found of a table is kept: a site's table that changes is looked at again when the node starts.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], Mapping[str, SiteColumn]] = {}

    def check(self, engine: Engine, scans: Iterable[Scan]) -> None:
        """Raises Unavailable (INSITU-NODE-TABLE) where a query cannot run here, whatever the data."""
        for scan in scans:
            through = [step.path.through for step in scan.unit_path]
            for table in (scan.table, *through):
                if table not in engine.tables:
                    raise Unavailable("INSITU-NODE-TABLE", name=table)
            for table, name, kind in _read(scan):
                reason = misfit(name, kind, self._columns(engine, table))
                if reason is not None:
                    _log.error("table does not fit", table=table, column=name, reason=reason)
                    raise Unavailable("INSITU-NODE-TABLE", name=table)

    def _columns(self, engine: Engine, table: str) -> Mapping[str, SiteColumn]:
        place = (id(engine), table)
        if place not in self._found:
            try:
                described = engine.describe(table)
            except ConfigInvalid as error:
                _log.error("table does not fit", table=table, reason=error.text)
                raise Unavailable("INSITU-NODE-TABLE", name=table) from None
            self._found[place] = {column.name: column for column in described}
        return self._found[place]


def _read(scan: Scan) -> Iterator[tuple[str, str, ColumnType]]:
    """Every column that a scan reads, those on its way to the unit among them: table, name and type."""
    units = [column.type for column in scan.columns if column.name.startswith("_unit_")]
    yield from ((scan.table, one.name, one.type) for one in scan.columns if not one.name.startswith("_unit_"))
    before = scan.table
    for step in scan.unit_path:
        for table in (before, step.path.through):
            yield from ((table, name, kind) for name, kind in zip(step.path.on, step.types, strict=True))
        before = step.path.through
        yield from ((before, name, kind) for name, kind in zip(step.unit, units, strict=False))


def _data(table: Table, engine: Engine) -> list[Finding]:
    dialect = DIALECTS[engine.dialect]
    checks = [check for column in table.columns.values() for check in _column_checks(column, dialect)]
    if table.unit:
        missing = " OR ".join(f"{dialect.identifier(name)} IS NULL" for name in table.unit)
        checks.append((None, missing, "rows have no privacy unit and are left out"))
    found = []
    try:
        found += _counted(table, engine, checks)
        if table.key and (count := _repeated(table, table.key, engine, dialect)):
            text = f"{count} values of the public key stand in more than one row"
            found.append(Finding(level="error", table=table.name, column=None, text=text))
        if table.one_row_per_unit and (count := _repeated(table, table.unit, engine, dialect)):
            text = f"{count} privacy units have more than one row"
            found.append(Finding(level="warning", table=table.name, column=None, text=text))
    except InsituError as error:
        found.append(Finding(level="error", table=table.name, column=None, text=error.text))
    return found


def _column_checks(column: Column, dialect: Dialect) -> list[tuple[str | None, str, str]]:
    name = dialect.identifier(column.name)
    checks: list[tuple[str | None, str, str]] = []
    guarded = dialect.guard(column, name)
    if guarded != name:
        broken = f"{name} IS NOT NULL AND ({guarded}) IS NULL"
        checks.append((column.name, broken, "values are outside the declared domain or bounds and read as NULL"))
    if not column.nullable:
        checks.append((column.name, f"{name} IS NULL", "values are NULL in a column that is not declared nullable"))
    return checks


def _counted(table: Table, engine: Engine, checks: list[tuple[str | None, str, str]]) -> list[Finding]:
    if not checks:
        return []
    counts = ", ".join(f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)" for _, condition, _ in checks)
    (row,) = engine.execute(f"SELECT {counts} FROM ({select(engine.tables[table.name])}) AS t")
    return [
        Finding(level="warning", table=table.name, column=column, text=f"{count} {text}")
        for (column, _, text), count in zip(checks, row, strict=True)
        if count
    ]


def _repeated(table: Table, columns: tuple[str, ...], engine: Engine, dialect: Dialect) -> object:
    """How many combinations of columns stand in more than one row."""
    names = ", ".join(dialect.identifier(name) for name in columns)
    there = " AND ".join(f"{dialect.identifier(name)} IS NOT NULL" for name in columns)
    source = f"SELECT {names} FROM ({select(engine.tables[table.name])}) AS t WHERE {there} GROUP BY {names} "
    source += "HAVING COUNT(*) > 1"
    ((count,),) = engine.execute(f"SELECT COUNT(*) FROM ({source}) AS repeated")
    return count
