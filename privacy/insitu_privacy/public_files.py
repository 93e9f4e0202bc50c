"""The public files of a dataset, CSV or Parquet bytes: their columns, and the types they are written in.

Looking at these files is no look at private data: they are public, and the dataset's digest covers them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from insitu_privacy.dataset import ColumnType
from insitu_privacy.untrusted import PUBLIC_BYTES, PUBLIC_CELLS, Refusable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Cells = Sequence[object]

_WRITTEN: tuple[tuple[ColumnType, re.Pattern[str]], ...] = (
    ("integer", re.compile(r"-?(0|[1-9][0-9]{0,14})", re.ASCII)),  # a leading zero is a code, not a number
    ("decimal", re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}", re.ASCII)),
    ("date", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)),
)


def read_public(name: str, data: bytes) -> Mapping[str, Cells]:
    """The columns of a file by name; cells of a CSV are text. Raises ValueError where it cannot be read."""
    if not is_parquet(name):
        return _read_csv(data)
    table = read_parquet(data)
    return {column: table.column(column).to_pylist() for column in table.column_names}


def names_in(name: str, data: bytes) -> Sequence[str]:
    """The names of a file's columns, its rows unread. Raises ValueError."""
    if is_parquet(name):
        names: list[str] = _opened(data).schema_arrow.names
        return names
    try:
        return next(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError("not a CSV file") from error


def is_parquet(name: str) -> bool:
    """Whether a file of this name is read as Parquet, not as CSV."""
    return name.lower().endswith(".parquet")


def check_csv(data: bytes) -> None:
    """B3: raises Refusable where a CSV may hold more than ``PUBLIC_CELLS``."""
    if data.count(b",") + data.count(b"\n") > PUBLIC_CELLS:
        raise Refusable(f"it may hold more than {PUBLIC_CELLS} cells")


def read_parquet(data: bytes) -> pa.Table:
    """The table in a Parquet file of flat columns, each of another name. Raises ValueError.

    B3: what the file claims to hold is looked at before it is unpacked; of texts, which a dictionary may hold once and
    repeat without end, before they are written out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _opened(data).schema_arrow
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    try:
        table = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts).read(use_threads=False)
        _check_texts(table)
        return table.cast(schema)
    except Refusable:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError("not a Parquet file") from error


def _opened(data: bytes) -> pq.ParquetFile:
    """The file with its claims checked, no row read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError("not a Parquet file") from error
    _check_claims(file.metadata)
    return file


def _check_claims(claims: pq.FileMetaData) -> None:
    if claims.num_rows * max(1, claims.num_columns) > PUBLIC_CELLS:
        raise Refusable(f"it claims more than {PUBLIC_CELLS} cells")
    if sum(claims.row_group(group).total_byte_size for group in range(claims.num_row_groups)) > PUBLIC_BYTES:
        raise Refusable(f"it claims more than {PUBLIC_BYTES} bytes")
    columns = [claims.schema.column(index) for index in range(claims.num_columns)]
    if any(column.max_repetition_level > 0 or column.max_definition_level > 1 for column in columns):
        raise Refusable("its columns hold lists or structures")
    if len({column.path for column in columns}) < len(columns):
        raise Refusable("two columns have one name")


def _check_texts(table: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    size = 0
    for column in table.columns:
        for chunk in column.chunks:
            if pa.types.is_dictionary(chunk.type):
                lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
                size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if size > PUBLIC_BYTES:
        raise Refusable(f"its texts take more than {PUBLIC_BYTES} bytes")


def _read_csv(data: bytes) -> Mapping[str, Cells]:
    check_csv(data)
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
