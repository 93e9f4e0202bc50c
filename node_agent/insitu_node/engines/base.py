"""What the node needs of a database: run one read-only statement, soon enough, and say nothing when it fails.

An engine is opened on one site's mapping of one dataset. After that it is locked: no write, no file and no network
beyond what that mapping itself reads, no extension, bounded time and memory (P6). This is the second wall: the first is
that no text of a researcher ever reaches an engine, only what ``insitu_privacy.render`` writes of a plan (P1).

``session`` is taken before the budget is reserved, so that a database that is away costs nothing: it raises Unavailable
(INSITU-NODE-DATABASE). What goes wrong inside a session is ExecutionFailed (INSITU-NODE-FAILED), one constant text
(P4); the custodian's log has the class of the error and its SQLSTATE, never its message, which may quote data (P5).

Values come back as Python ``int`` (of any size), ``str``, ``bool``, ``date``, naive UTC ``datetime`` and ``float``;
NaN, infinities and dates that Python cannot hold come back as None.

What is not here: mapping rows to groups, and noise (``insitu_privacy.mechanisms``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, Protocol
from uuid import UUID

import structlog
from insitu_privacy.dataset import ColumnType, Dataset, Table
from insitu_privacy.errors import ExecutionFailed
from insitu_privacy.plan import KeyValue

Row = tuple[KeyValue, ...]
Convert = Callable[[object], KeyValue]

_log = structlog.get_logger("insitu.node.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteColumn:
    """A column as the site's database has it: its name, the engine's name of its type, and what that can serve as."""

    name: str
    type: str
    serves: frozenset[ColumnType]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What one engine may use of the machine."""

    statement_timeout_s: float
    memory_limit_mb: int | None
    workers: int
    threads: int
    temporary: Path | None
    """Where large intermediate results may spill; None to forbid it."""


class Session(Protocol):
    """One consistent, read-only view of the database, for the statements of one query."""

    def execute(self, sql: str) -> list[Row]:
        """All rows of one SELECT. Raises ExecutionFailed."""


class Engine(Protocol):
    """A database of the site, opened for one dataset. Safe for use from several threads."""

    @property
    def dialect(self) -> Literal["duckdb", "postgres"]:
        """The dialect that ``render`` is to write."""

    @property
    def tables(self) -> Mapping[str, str]:
        """For each table that the site serves, what ``render`` is to write for it: a name or a SELECT."""

    def session(self) -> AbstractContextManager[Session]:
        """Raises Unavailable where the database is away. Nothing of the data has been read by then."""

    def execute(self, sql: str) -> list[Row]:
        """One statement in a session of its own."""

    def describe(self, table: str) -> tuple[SiteColumn, ...]:
        """The columns of a mapped table."""

    def close(self) -> None:
        """Interrupts what runs and gives everything back."""


def served(dataset: Dataset, mapping: Mapping[str, str]) -> Mapping[str, Table]:
    """The tables a site serves: those it maps, and public ones that come with the dataset. No other exists there."""
    return {name: table for name, table in dataset.tables.items() if name in mapping or table.source is not None}


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mapped(text: str) -> str:
    """The site's text for a table, as ``render`` takes it: a name, or a SELECT that ends in a line of its own.

    A file's name, quoted or not, becomes a SELECT of the file.
    """
    body = text.strip().rstrip(";").rstrip()
    if body.strip("'").lower().endswith(FILE_ENDINGS) and "(" not in body and not body.upper().startswith(_QUERY):
        name = body.strip("'").replace("'", "''")
        return f"SELECT * FROM '{name}'\n"
    return f"{body}\n" if body.upper().startswith(_QUERY) else body


def select(source: str) -> str:
    """All columns of a mapped table."""
    return f"SELECT * FROM ({source}) AS src" if source.upper().startswith(_QUERY) else f"SELECT * FROM {source} AS src"


_QUERY = ("SELECT", "WITH", "VALUES")
FILE_ENDINGS = (".parquet", ".csv", ".csv.gz", ".json", ".ndjson")


def failed(error: BaseException, sqlstate: str | None = None) -> ExecutionFailed:
    """The one constant error; what the custodian may know goes to the log."""
    _log.warning("statement failed", error=type(error).__name__, sqlstate=sqlstate)
    return ExecutionFailed("INSITU-NODE-FAILED")


def from_decimal(value: object) -> KeyValue:
    """Whole decimals as ``int``, others as the nearest ``float``."""
    if not isinstance(value, Decimal):
        return from_any(value)
    if not value.is_finite():
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def from_float(value: object) -> KeyValue:
    """Finite floats as they are; NaN and infinities as None."""
    return value if isinstance(value, float) and math.isfinite(value) else None


def from_date(value: object) -> KeyValue:
    """Dates, without a time zone; None for what is not one."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value if isinstance(value, date) else None


def from_any(value: object) -> KeyValue:
    """A value of a type that needs no care; anything unknown as its text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return from_float(value)
    if isinstance(value, date):
        return from_date(value)
    if isinstance(value, Decimal):
        return from_decimal(value)
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no value of type {type(value).__name__} leaves an engine")


def converted(rows: list[tuple[object, ...]], converts: Sequence[Convert | None]) -> list[Row]:
    """Rows with each column converted; None where a column needs nothing, which costs nothing."""
    if all(convert is None for convert in converts):
        return rows  # type: ignore[return-value]  # no column needs converting: each value is a KeyValue already
    columns = list(zip(*rows, strict=True))
    done = [
        column if convert is None else [None if value is None else convert(value) for value in column]
        for column, convert in zip(columns, converts, strict=False)  # no rows, no columns
    ]
    return list(zip(*done, strict=True))
