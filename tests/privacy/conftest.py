"""One database of each engine for the whole session; tests fill its tables anew for each world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import psycopg
import pytest

from tests.testkit.care import create
from tests.testkit.databases import new_database


@pytest.fixture(scope="session")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in create():
            connection.execute(statement)
        yield connection


@pytest.fixture(scope="session")
def pg(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(new_database(postgres_url, *create()), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET jit = off")
        yield connection
