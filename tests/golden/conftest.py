"""``--golden-write`` writes the golden files anew: look at what changed before you commit it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import psycopg
import pytest

from tests.testkit.care import clean_world, create, fill_duckdb, fill_postgres
from tests.testkit.databases import new_database


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-write", action="store_true", help="write the golden files instead of comparing with them"
    )


@pytest.fixture
def golden_write(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--golden-write", default=False))


WORLD = clean_world(60, visits=6, acts=3)


@pytest.fixture(scope="session")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in create():
            connection.execute(statement)
        fill_duckdb(connection, WORLD)
        yield connection


@pytest.fixture(scope="session")
def pg(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(new_database(postgres_url, *create()), autocommit=True) as connection:
        fill_postgres(connection, WORLD)
        yield connection
