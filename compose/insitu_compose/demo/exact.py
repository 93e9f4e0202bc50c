"""The exact answers, computed from the data of all three hospitals at once.

Only a demonstration can do this: it made up the hospitals. In a federation nobody holds all the data, and exact
answers leave no hospital; these stand beside the private ones so that a reader can judge them.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from insitu_compose.demo.eunomia import source_file

Key = tuple[object, ...]
Row = tuple[object, ...]


def exact_rows(sql: str, key_columns: tuple[int, ...]) -> Mapping[Key, Row]:
    """The rows of ``sql`` over everyone's data, by the values of their key columns."""
    with duckdb.connect(str(source_file()), read_only=True) as everyone:
        rows = everyone.execute(sql).fetchall()
    return {key_of(row, key_columns): row for row in rows}


def key_of(row: Row, key_columns: tuple[int, ...]) -> Key:
    """The key of a row, equal for equal numbers of any type."""
    return tuple(_plain(row[index]) for index in key_columns)


def _plain(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
