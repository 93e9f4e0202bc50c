"""Public tables where the post-processing runs: read from the files that come with the dataset.

They are public, and covered by the dataset's digest, so that gateway and SDK read the same. Values that do not fit
their declared type are NULL, as they are when a node reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa

from insitu_privacy.dataset import ColumnType
from insitu_privacy.plan import PublicTable
from insitu_privacy.public_files import read_public
from insitu_privacy.released import ARROW


@lru_cache(maxsize=32)
def published_table(table: PublicTable) -> pa.Table:
    """The rows of a public table, in its declared types."""
    cells = read_public(table.source, table.content)
    return pa.table(
        {
            name: pa.array([_read(cell, kind) for cell in cells.get(name, ())], type=ARROW[kind])
            for name, kind in table.columns
        }
    )


def _read(cell: object, kind: ColumnType) -> Any:
    if cell is None or cell == "":
        return None
    try:
        return _READERS[kind](cell)
    except (KeyError, OverflowError, TypeError, ValueError):
        return None


def _whole(cell: object) -> int:
    number = int(str(cell))
    if abs(number) >= 2**63:
        raise OverflowError
    return number


def _date(cell: object) -> date:
    if isinstance(cell, datetime):
        return cell.date()
    return cell if isinstance(cell, date) else date.fromisoformat(str(cell))


def _moment(cell: object) -> datetime:
    if isinstance(cell, datetime):
        return cell.replace(tzinfo=None)
    return datetime.fromisoformat(str(cell))


def _boolean(cell: object) -> bool:
    if isinstance(cell, bool):
        return cell
    return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[str(cell).lower()]


_READERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    "integer": _whole,
    "decimal": float,
    "text": str,
    "date": _date,
    "timestamp": _moment,
    "boolean": _boolean,
}
