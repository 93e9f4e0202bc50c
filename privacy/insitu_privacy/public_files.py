"""The public files of a dataset, CSV or Parquet bytes: their columns, and the types they are written in.

Looking at these files is no look at private data: they are public, and the dataset's digest covers them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

from insitu_privacy.dataset import ColumnType

Cells = Sequence[object]

_WRITTEN: tuple[tuple[ColumnType, re.Pattern[str]], ...] = (
    ("integer", re.compile(r"-?(0|[1-9][0-9]{0,14})", re.ASCII)),  # a leading zero is a code, not a number
    ("decimal", re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}", re.ASCII)),
    ("date", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)),
)


def read_public(name: str, data: bytes) -> Mapping[str, Cells]:
    """The columns of a file by name; cells of a CSV are text. Raises ValueError where it cannot be read."""
    if not name.lower().endswith(".parquet"):
        return _read_csv(data)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except pa.ArrowException as error:
        raise ValueError("not a Parquet file") from error
    return {column: table.column(column).to_pylist() for column in table.column_names}


def _read_csv(data: bytes) -> Mapping[str, Cells]:
    try:
        header, *rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError("not a CSV file") from error
    if len(columns) != len(header):
        raise ValueError("rows and header differ in length")
    return dict(zip(header, columns, strict=True))


def written_type(cells: Cells) -> ColumnType:
    """The narrowest type that all cells fit; text where there are none or they differ."""
    present = [cell for cell in cells if cell is not None and cell != ""]
    for kind, pattern in _WRITTEN:
        if present and all(pattern.fullmatch(str(cell)) for cell in present):
            return kind
    return "boolean" if present and all(isinstance(cell, bool) for cell in present) else "text"
