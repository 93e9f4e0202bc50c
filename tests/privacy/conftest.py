"""One database of each engine for the whole session; tests fill its tables anew for each world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from tests.testkit.care import create
from tests.testkit.databases import new_database
from tests.testkit.hostile_world import HostileWorld, hostile_world


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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileWorld]:
    """A federation whose gateway is hostile.

    One for each file: its loop runs in a thread of this process, and gRPC has crashed where it was left running beside
    the loops of other tests.
    """
    with hostile_world(Path(tmp_path_factory.mktemp("hostile"))) as started:
        yield started
