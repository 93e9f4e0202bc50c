"""Whether a site's tables fit their contract: columns and types, and then the data itself, for the custodian alone.

Counts of rows that break a declaration are exact and private: they go to the custodian's terminal and nowhere else. A
row that breaks one does no harm to privacy (a value outside its domain or bounds reads as NULL), only to usefulness.
What is not here: repairing anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from insitu_privacy.dataset import Column, Dataset, Table
from insitu_privacy.dialects import DIALECTS, Dialect
from insitu_privacy.errors import ConfigInvalid, InsituError

from insitu_node.engines.base import Engine, select


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
    shape = []
    for name, column in table.columns.items():
        if name not in found:
            shape.append(Finding(level="error", table=table.name, column=name, text="no such column"))
        elif column.type not in found[name].serves:
            text = f"is {found[name].type}, which does not serve as {column.type}: cast it in the mapping"
            shape.append(Finding(level="error", table=table.name, column=name, text=text))
    return shape or _data(table, engine)


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
    source = f"SELECT {names} FROM ({select(engine.tables[table.name])}) AS t GROUP BY {names} HAVING COUNT(*) > 1"
    ((count,),) = engine.execute(f"SELECT COUNT(*) FROM ({source}) AS repeated")
    return count
