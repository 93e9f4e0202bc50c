"""What the tables of a dataset must agree on, so that a planned join never compares a number with text.

Equality of the unit is added to joins on entity keys (``passes.track``), also between columns that the query does not
name: a database would fail on every such query, and the dataset's author would be the last to know.
"""

from __future__ import annotations

from collections.abc import Mapping

from insitu_privacy.dataset import ColumnType, Table
from insitu_privacy.errors import ConfigInvalid


def check_types(tables: Mapping[str, Table]) -> None:
    """Raises ConfigInvalid where units, entity keys or unit paths have one type here and another there."""
    units: dict[int, tuple[str, tuple[ColumnType, ...]]] = {}
    for table in tables.values():
        if table.unit:
            other, types = units.setdefault(len(table.unit), (table.name, _types(table, table.unit)))
            _check_same(f"{table.name}: its unit", _types(table, table.unit), f"that of {other}", types)
        for column in table.columns.values():
            for owner, name in column.references:
                _check_same(
                    f"{table.name}.columns.{column.name}",
                    (column.type,),
                    f"{owner}.{name}",
                    _types(tables[owner], (name,)),
                )
        if table.unit_path is not None:
            through, on = tables[table.unit_path.through], table.unit_path.on
            _check_same(
                f"{table.name}: its unit_path.on", _types(table, on), f"that of {through.name}", _types(through, on)
            )


def _types(table: Table, columns: tuple[str, ...]) -> tuple[ColumnType, ...]:
    return tuple(table.columns[name].type for name in columns)


def _check_same(what: str, types: tuple[ColumnType, ...], other: str, others: tuple[ColumnType, ...]) -> None:
    if types != others:
        reason = f"tables.{what} is {', '.join(types)}, and {other} is {', '.join(others)}: give both the same type"
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path="dataset.toml", reason=reason)
