"""DuckDB 2, in this process: a database file, or files that the site's mapping reads, or both.

The instance itself is in memory; the site's file is attached read-only as ``site``, where the mapping's names are
looked up. Public tables that come with the dataset are loaded as ``memory.insitu.<table>``. Then the instance is
locked: external access off except for the very paths that the mapping names, no extensions, configuration locked. Only
a single SELECT is ever run, in a read-only transaction, under ``max_execution_time``.

One connection per worker is kept in its transaction, on one instance, so that caches and threads are shared.
"""

from __future__ import annotations

import glob
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import duckdb
import sqlglot
from insitu_privacy.dataset import ColumnType, Dataset, DatasetBundle
from insitu_privacy.errors import ConfigInvalid, Unavailable
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType  # type: ignore[attr-defined]  # re-exported from its compiled part

from insitu_node.engines.base import (
    Convert,
    EngineLimits,
    Row,
    Session,
    SiteColumn,
    converted,
    failed,
    from_any,
    from_date,
    from_decimal,
    from_float,
    mapped,
    select,
    served,
)
from insitu_node.engines.public_source import arrow, read_source

_INTEGERS = frozenset(["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"])
_PLAIN = _INTEGERS | {"VARCHAR", "BOOLEAN", "UBIGINT", "HUGEINT", "UHUGEINT"}
_DECIMAL_DIGITS = 18
"""Wider decimals, and whole numbers of 128 bits, fail in comparisons with bounds: a mapping casts them."""
_MAGIC = frozenset("*?[")


class DuckDBEngine:
    """An ``Engine`` on DuckDB. ``base`` is the folder that relative paths of the mapping start from."""

    dialect: Literal["duckdb"] = "duckdb"

    def __init__(
        self,
        *,
        dataset: Dataset,
        bundle: DatasetBundle,
        database: Path | None,
        schema: str | None,
        mapping: Mapping[str, str],
        base: Path,
        limits: EngineLimits,
    ) -> None:
        self._dataset = dataset
        self._lock = threading.Lock()
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._busy: set[duckdb.DuckDBPyConnection] = set()
        self._closed = False
        self._place: str | None = None
        self._root = duckdb.connect(":memory:", config=_START)
        try:
            self._limit(limits)
            self._attach(database, schema)
            files: set[str] = set()
            folders: set[str] = set()
            self.tables = {}
            for name in served(dataset, mapping):
                source = mapped(mapping[name]) if name in mapping else self._load(name, bundle)
                self.tables[name], own_files, own_folders = _with_files(source, base.absolute())
                files |= own_files
                folders |= own_folders
            self._lock_down(files, folders)
            for source in self.tables.values():
                self._root.execute(f"DESCRIBE {select(source)}")
        except duckdb.Error as error:
            self._root.close()
            reason = f"DuckDB: {_first_line(error)}"
            raise ConfigInvalid("INSITU-CONFIG-DATABASE", name=dataset.name, reason=reason) from None
        except BaseException:
            self._root.close()
            raise

    def _limit(self, limits: EngineLimits) -> None:
        self._root.execute("SET GLOBAL TimeZone = 'UTC'")
        self._root.execute(f"SET GLOBAL threads = {limits.threads}")
        self._root.execute(f"SET GLOBAL max_execution_time = {int(limits.statement_timeout_s * 1000)}")
        if limits.memory_limit_mb is not None:
            self._root.execute(f"SET GLOBAL memory_limit = '{limits.memory_limit_mb}MiB'")
        spill = "" if limits.temporary is None else str(limits.temporary)
        self._root.execute(f"SET GLOBAL temp_directory = {_text(spill)}")

    def _attach(self, database: Path | None, schema: str | None) -> None:
        self._root.execute("CREATE SCHEMA insitu")
        if database is None:
            return
        if not database.is_file():
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=database, reason="no such file")
        self._root.execute(f"ATTACH {_text(str(database))} AS site (READ_ONLY)")
        self._place = f"site.{_name(schema or 'main')}"
        self._root.execute(f"USE {self._place}")

    def _load(self, name: str, bundle: DatasetBundle) -> str:
        """Makes a table of a public source."""
        table = self._dataset.tables[name]
        assert table.source is not None  # ``served`` names no other
        target = f"memory.insitu.{_name(name)}"
        self._root.register("insitu_source", arrow(table, read_source(table, bundle.files[table.source])))
        self._root.execute(f"CREATE TABLE {target} AS SELECT * FROM insitu_source")
        self._root.unregister("insitu_source")
        return target

    def _lock_down(self, files: set[str], folders: set[str]) -> None:
        self._root.execute(f"SET GLOBAL allowed_paths = [{', '.join(map(_text, sorted(files)))}]")
        self._root.execute(f"SET GLOBAL allowed_directories = [{', '.join(map(_text, sorted(folders)))}]")
        self._root.execute("SET GLOBAL enable_external_access = false")
        self._root.execute("SET GLOBAL lock_configuration = true")

    @contextmanager
    def session(self) -> Iterator[Session]:
        connection = self._take()
        usable = False
        try:
            yield _DuckDBSession(connection)
            usable = True
        finally:
            self._give_back(connection, usable)

    def _take(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._closed:
                raise Unavailable("INSITU-NODE-STOPPED")
            connection = self._idle.pop() if self._idle else self._open()
            self._busy.add(connection)
            return connection

    def _open(self) -> duckdb.DuckDBPyConnection:
        """A connection in its one transaction. It never grows old: nobody writes a file that is attached read-only."""
        connection = self._root.cursor()
        try:
            if self._place is not None:
                connection.execute(f"USE {self._place}")
            connection.execute("BEGIN TRANSACTION READ ONLY")
        except duckdb.Error:
            connection.close()
            raise Unavailable("INSITU-NODE-DATABASE") from None
        return connection

    def _give_back(self, connection: duckdb.DuckDBPyConnection, usable: bool) -> None:
        """Keeps a connection for the next session; one with a statement that failed has a transaction that did."""
        with self._lock:
            self._busy.discard(connection)
            if usable and not self._closed:
                self._idle.append(connection)
                return
            last = self._closed and not self._busy
        connection.close()
        if last:
            self._root.close()

    def execute(self, sql: str) -> list[Row]:
        with self.session() as session:
            return session.execute(sql)

    def describe(self, table: str) -> tuple[SiteColumn, ...]:
        with self.session() as session:
            rows = session.execute(f"DESCRIBE {select(self.tables[table])}")
        return tuple(SiteColumn(name=str(name), type=str(kind), serves=_serves(str(kind))) for name, kind, *_ in rows)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in busy:
            connection.interrupt()
        for connection in idle:
            connection.close()
        if not busy:
            self._root.close()  # DuckDB refuses to close it under a running statement: the last session does it then


class _DuckDBSession:
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def execute(self, sql: str) -> list[Row]:
        try:
            statements = self._connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ValueError("not one SELECT")
            cursor = self._connection.execute(statements[0])
            converts = [_convert(str(column[1])) for column in cursor.description or ()]
            return converted(cursor.fetchall(), converts)
        except Exception as error:  # noqa: BLE001  # whatever it is, its text may quote data
            raise failed(error) from None


_START: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_extension_repositories": "forbidden",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "preserve_insertion_order": "false",
}


def _convert(kind: str) -> Convert | None:
    if kind in _PLAIN or kind.startswith("ENUM"):
        return None
    if kind in ("FLOAT", "DOUBLE"):
        return from_float
    if kind.startswith("DECIMAL"):
        return from_decimal
    return from_date if kind.startswith(("DATE", "TIMESTAMP")) else from_any


def _serves(kind: str) -> frozenset[ColumnType]:
    if kind in _INTEGERS:
        return frozenset({"integer", "decimal"})
    if kind.startswith("DECIMAL"):
        if int(kind[len("DECIMAL(") :].partition(",")[0]) > _DECIMAL_DIGITS:
            return frozenset()
        return frozenset({"integer", "decimal"} if kind.endswith(",0)") else {"decimal"})
    if kind == "TIMESTAMP_NS":  # reaches from 1677 to 2262 only: bounds beyond cannot be compared with it
        return frozenset()
    if kind.startswith("TIMESTAMP"):
        return frozenset({"timestamp"})
    if kind.startswith("ENUM"):
        return frozenset({"text"})
    known: Mapping[str, frozenset[ColumnType]] = {
        "FLOAT": frozenset({"decimal"}),
        "DOUBLE": frozenset({"decimal"}),
        "VARCHAR": frozenset({"text"}),
        "DATE": frozenset({"date", "timestamp"}),
        "BOOLEAN": frozenset({"boolean"}),
    }
    return known.get(kind, frozenset())


def _with_files(text: str, base: Path) -> tuple[str, set[str], set[str]]:
    """A mapping with its file names made absolute, and the files and the folders (of globs) that it reads.

    A file name is a text constant that names a file, or a glob that has one. DuckDB's own ``file_search_path`` does not
    go together with a locked file system.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for token in reversed(_constants(text)):
        place = str(base / token.text)
        if not _MAGIC.isdisjoint(token.text):
            if next(glob.iglob(place, recursive=True), None) is None:  # noqa: PTH207  # globs may be absolute
                continue
            folders.add(_fixed_part(Path(place)) + "/")
        elif Path(place).is_file():
            files.add(place)
        else:
            continue
        text = text[: token.start] + _text(place) + text[token.end + 1 :]
    return text, files, folders


def _constants(sql: str) -> list[Token]:
    try:
        return [token for token in sqlglot.tokenize(sql, read="duckdb") if token.token_type == TokenType.STRING]
    except SqlglotError:
        return []


def _fixed_part(pattern: Path) -> str:
    """The folder of a glob above its first wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[len(fixed.parts) :]:
        if not _MAGIC.isdisjoint(part):
            break
        fixed /= part
    return str(fixed)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _first_line(error: duckdb.Error) -> str:
    """What DuckDB says of the custodian's own mapping, to the custodian: binding it reads no row."""
    return str(error).splitlines()[0]
