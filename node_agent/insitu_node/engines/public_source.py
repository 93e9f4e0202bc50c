"""Public tables that a dataset brings along as files: CSV or Parquet bytes to typed columns.

The bytes are those the dataset's digest covers, so that every node joins to the same rows. An empty CSV cell is NULL,
except in a text column that is not nullable, where it is the empty text. What is not here: making a table of it, which
each engine does its own way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

from insitu_privacy.dataset import Column, ColumnType, Table
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.public_files import check_csv, is_parquet, read_parquet
from insitu_privacy.untrusted import Refusable

if TYPE_CHECKING:
    import pyarrow as pa

Value = int | float | str | bool | date | datetime | None


def read_source(table: Table, data: bytes) -> dict[str, list[Value]]:
    """The declared columns of a public table. Raises ConfigInvalid where the file does not hold them."""
    try:
        return _read_parquet(table, data) if is_parquet(table.source or "") else _read_csv(table, data)
    except Refusable as error:
        _refuse(table, str(error))
    except (ValueError, ArithmeticError, InvalidOperation, UnicodeDecodeError, csv.Error) as error:
        _refuse(table, type(error).__name__)


def arrow(table: Table, columns: Mapping[str, list[Value]]) -> pa.Table:
    """The columns as Arrow, in the types that the contract declares."""
    import pyarrow as pa

    types: Mapping[ColumnType, pa.DataType] = {
        "integer": pa.int64(),
        "decimal": pa.float64(),
        "text": pa.string(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "boolean": pa.bool_(),
    }
    try:
        arrays = [pa.array(columns[name], type=types[column.type]) for name, column in table.columns.items()]
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        _refuse(table, type(error).__name__)
    return pa.Table.from_arrays(arrays, names=list(table.columns))


def _refuse(table: Table, reason: str) -> NoReturn:
    raise ConfigInvalid("INSITU-CONFIG-INVALID", path=table.source, reason=f"table {table.name}: {reason}") from None


def _read_csv(table: Table, data: bytes) -> dict[str, list[Value]]:
    check_csv(data)
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    missing = [name for name in table.columns if name not in (reader.fieldnames or ())]
    if missing:
        _refuse(table, f"no column {missing[0]}")
    rows = list(reader)
    return {name: [_cell(table, column, row[name]) for row in rows] for name, column in table.columns.items()}


def _cell(table: Table, column: Column, text: str | None) -> Value:
    if text is None:
        _refuse(table, "a row is shorter than the header")
    if text == "" and (column.nullable or column.type != "text"):
        return None
    return _PARSERS[column.type](text)


def _boolean(text: str) -> bool:
    return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[text.strip().lower()]


def _flag(text: str) -> bool:
    try:
        return _boolean(text)
    except KeyError:
        raise ValueError("not a boolean") from None


_PARSERS: Mapping[ColumnType, Callable[[str], Value]] = MappingProxyType(
    {
        "integer": int,
        "decimal": lambda text: float(Decimal(text)),
        "text": str,
        "date": date.fromisoformat,
        "timestamp": datetime.fromisoformat,
        "boolean": _flag,
    }
)


def _read_parquet(table: Table, data: bytes) -> dict[str, list[Value]]:
    found = read_parquet(data)
    missing = [name for name in table.columns if name not in found.column_names]
    if missing:
        _refuse(table, f"no column {missing[0]}")
    return {name: found.column(name).to_pylist() for name in table.columns}
