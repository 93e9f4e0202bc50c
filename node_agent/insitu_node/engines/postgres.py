"""PostgreSQL 14 and later, through psycopg 3: pooled connections, read-only snapshots.

Every session is one READ ONLY, REPEATABLE READ transaction, so that all statements of a query see one state. Statements
go by the extended protocol, which carries one statement at a time; with ``statement_timeout``, a fixed ``search_path``
that puts temporary objects last, and UTC. Give the node a role that may only read: ``insitu-node check`` says when its
role can do more.

A connection that broke is replaced when a session is opened, never in the middle of one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

import psycopg
import structlog
from insitu_privacy.dataset import ColumnType, Dataset, DatasetBundle, Table
from insitu_privacy.errors import ConfigInvalid, Unavailable
from psycopg import sql as sqltext
from psycopg.adapt import Loader

from insitu_node.engines.base import (
    Convert,
    EngineLimits,
    Row,
    Session,
    SiteColumn,
    converted,
    failed,
    from_any,
    from_decimal,
    from_float,
    mapped,
    select,
    served,
)
from insitu_node.engines.public_source import Value, read_source

_CONNECT_SECONDS = 10
_DAY0 = date(2000, 1, 1)
_MOMENT0 = datetime(2000, 1, 1)  # noqa: DTZ001  # timestamps of a dataset carry no time zone

_log = structlog.get_logger("insitu.node.engine")


class PostgresEngine:
    """An ``Engine`` on PostgreSQL. ``database`` is a connection URL or a libpq string."""

    dialect: Literal["postgres"] = "postgres"

    def __init__(
        self,
        *,
        dataset: Dataset,
        bundle: DatasetBundle,
        database: str,
        schema: str | None,
        mapping: Mapping[str, str],
        limits: EngineLimits,
    ) -> None:
        self._url = database
        self._setup = _setup(schema or "public", limits)
        self._lock = threading.Lock()
        self._idle: list[psycopg.Connection[Any]] = []
        self._busy: set[psycopg.Connection[Any]] = set()
        self._closed = False
        self.tables = {name: _source(table, mapping, bundle) for name, table in served(dataset, mapping).items()}

    @contextmanager
    def session(self) -> Iterator[Session]:
        connection = self._begin()
        try:
            yield _PostgresSession(connection)
        finally:
            self._give_back(connection)

    def _begin(self) -> psycopg.Connection[Any]:
        """A connection in a fresh transaction. An idle one may have died meanwhile: then one attempt with a new one."""
        for fresh in (False, True):
            connection = self._take(fresh)
            try:
                connection.execute("SELECT 1")
                return connection
            except psycopg.Error:
                self._drop(connection)
        raise Unavailable("INSITU-NODE-DATABASE")

    def _take(self, fresh: bool) -> psycopg.Connection[Any]:
        with self._lock:
            if self._closed:
                raise Unavailable("INSITU-NODE-STOPPED")
            connection = self._idle.pop() if self._idle and not fresh else None
            if connection is not None:
                self._busy.add(connection)
                return connection
        connection = self._connect()
        with self._lock:
            self._busy.add(connection)
        return connection

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(
                self._url, connect_timeout=_CONNECT_SECONDS, autocommit=True, prepare_threshold=None
            )
            connection.execute(self._setup)
        except psycopg.Error as error:
            _log.warning("database away", error=type(error).__name__, sqlstate=error.sqlstate)
            raise Unavailable("INSITU-NODE-DATABASE") from None
        for name, loader in _LOADERS.items():
            connection.adapters.register_loader(name, loader)
        connection.autocommit = False
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return connection

    def _give_back(self, connection: psycopg.Connection[Any]) -> None:
        try:
            connection.rollback()
        except psycopg.Error:
            self._drop(connection)
            return
        with self._lock:
            if not self._closed and not connection.closed:
                self._busy.discard(connection)
                self._idle.append(connection)
                return
        self._drop(connection)

    def _drop(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def execute(self, sql: str) -> list[Row]:
        with self.session() as session:
            return session.execute(sql)

    def describe(self, table: str) -> tuple[SiteColumn, ...]:
        connection = self._begin()
        try:
            columns = connection.execute(f"{select(self.tables[table])} LIMIT 0".encode(), binary=True).description
        except psycopg.Error as error:
            raise ConfigInvalid(
                "INSITU-CONFIG-DATABASE", name=table, reason=f"PostgreSQL: {error.diag.message_primary}"
            ) from None
        finally:
            self._give_back(connection)
        return tuple(
            SiteColumn(name=column.name, type=column.type_display, serves=_serves(column.type_display))
            for column in columns or ()
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in busy:
            connection.cancel_safe(timeout=2)
        for connection in idle:
            connection.close()


class _PostgresSession:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, sql: str) -> list[Row]:
        try:
            # binary results make psycopg use the extended protocol, in which the server refuses a second statement
            cursor = self._connection.execute(sql.encode(), binary=True)
            converts = [_CONVERTS.get(column.type_code, from_any) for column in cursor.description or ()]
            return converted(cursor.fetchall(), converts)
        except psycopg.Error as error:
            raise failed(error, error.sqlstate) from None
        except Exception as error:  # noqa: BLE001  # whatever it is, its text may quote data
            raise failed(error) from None


def _setup(schema: str, limits: EngineLimits) -> bytes:
    """Settings of a connection. Simple protocol, once, before any transaction."""
    milliseconds = int(limits.statement_timeout_s * 1000)
    settings = [
        sqltext.SQL("SET search_path = {}, pg_temp").format(sqltext.Identifier(schema)),
        sqltext.SQL("SET default_transaction_read_only = on"),
        sqltext.SQL("SET statement_timeout = {}").format(milliseconds),
        sqltext.SQL("SET lock_timeout = {}").format(milliseconds),
        sqltext.SQL("SET idle_in_transaction_session_timeout = {}").format(milliseconds + 60_000),
        sqltext.SQL("SET TimeZone = 'UTC'"),
        sqltext.SQL("SET standard_conforming_strings = on"),
        sqltext.SQL("SET max_parallel_workers_per_gather = {}").format(limits.threads),
        sqltext.SQL("SET application_name = 'insitu-node'"),
    ]
    if limits.memory_limit_mb is not None:
        # a statement has several sorts and hashes, on each of its processes
        share = max(4, limits.memory_limit_mb // (4 * limits.workers * (limits.threads + 1)))
        settings.append(sqltext.SQL("SET work_mem = {}").format(f"{share}MB"))
    return sqltext.SQL("; ").join(settings).as_bytes()


def _source(table: Table, mapping: Mapping[str, str], bundle: DatasetBundle) -> str:
    if table.name in mapping:
        return mapped(mapping[table.name])
    assert table.source is not None  # ``served`` names no other
    return _constant_table(table, read_source(table, bundle.files[table.source]))


_ARRAY_TYPES: Mapping[ColumnType, str] = MappingProxyType(
    {
        "integer": "bigint[]",
        "decimal": "double precision[]",
        "text": "text[]",
        "date": "date[]",
        "timestamp": "timestamp[]",
        "boolean": "boolean[]",
    }
)


def _constant_table(table: Table, columns: Mapping[str, list[Value]]) -> str:
    """A public table as constant arrays side by side: works where the node may create nothing, as on a replica."""
    arrays = [
        sqltext.SQL("{}::{}").format(sqltext.Literal(columns[name]), sqltext.SQL(_ARRAY_TYPES[column.type]))
        for name, column in table.columns.items()
    ]
    names = [sqltext.Identifier(name) for name in table.columns]
    comma = sqltext.SQL(", ")
    query = sqltext.SQL("SELECT * FROM unnest({}) AS t({})").format(comma.join(arrays), comma.join(names))
    return query.as_string()


class _DateLoader(Loader):
    """int4 days since 2000-01-01. Infinity, and what Python's dates do not reach, is None."""

    format = psycopg.pq.Format.BINARY

    def load(self, data: Any) -> date | None:
        try:
            return _DAY0 + timedelta(days=int.from_bytes(data, "big", signed=True))
        except OverflowError:
            return None


class _TimestampLoader(Loader):
    """int8 microseconds since 2000-01-01, in UTC, which is the session's time zone."""

    format = psycopg.pq.Format.BINARY

    def load(self, data: Any) -> datetime | None:
        try:
            return _MOMENT0 + timedelta(microseconds=int.from_bytes(data, "big", signed=True))
        except OverflowError:
            return None


_LOADERS: Mapping[str, type[Loader]] = MappingProxyType(
    {"date": _DateLoader, "timestamp": _TimestampLoader, "timestamptz": _TimestampLoader}
)
_CONVERTS: Mapping[int, Convert | None] = MappingProxyType(
    {
        psycopg.adapters.types[name].oid: convert
        for name, convert in {
            "int2": None,
            "int4": None,
            "int8": None,
            "bool": None,
            "text": None,
            "varchar": None,
            "bpchar": None,
            "date": None,
            "timestamp": None,
            "timestamptz": None,
            "numeric": from_decimal,
            "float4": from_float,
            "float8": from_float,
        }.items()
    }
)


_WHOLE_DIGITS = 18
"""Of a NUMERIC that surely fits 64 bits."""


def _serves(kind: str) -> frozenset[ColumnType]:
    base, _, detail = kind.partition("(")
    if base in ("int2", "int4", "int8"):
        return frozenset({"integer", "decimal"})
    if base == "numeric":
        whole = bool(detail) and (detail.endswith(",0)") or "," not in detail)
        digits = int(detail.rstrip(")").partition(",")[0]) if detail else _WHOLE_DIGITS + 1
        return frozenset({"integer", "decimal"} if whole and digits <= _WHOLE_DIGITS else {"decimal"})
    known: Mapping[str, frozenset[ColumnType]] = {
        "float4": frozenset({"decimal"}),
        "float8": frozenset({"decimal"}),
        "text": frozenset({"text"}),
        "varchar": frozenset({"text"}),
        "bpchar": frozenset({"text"}),
        "date": frozenset({"date", "timestamp"}),
        "timestamp": frozenset({"timestamp"}),
        "timestamptz": frozenset({"timestamp"}),
        "bool": frozenset({"boolean"}),
    }
    return known.get(base, frozenset())
