"""The contract of profiles, run on DuckDB and on PostgreSQL: with hardly any noise, a profile is what the rows say."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from insitu_node.engines.base import Engine, EngineLimits
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_node.engines.postgres import PostgresEngine
from insitu_privacy.data_profile import DataProfile, day_number

from tests.testkit.care import bundle, care, clean_world, columns, create, fill_duckdb, fill_postgres
from tests.testkit.databases import new_database, new_duckdb
from tests.testkit.profilers import Site

WORLD = clean_world(60, visits=6, acts=4)
LIMITS = EngineLimits(statement_timeout_s=20, memory_limit_mb=512, workers=1, threads=1, temporary=None)
MAPPING = {table: table for table in ("person", "visit", "act", "line")}
ENORMOUS = 10**9

Rows = list[dict[str, Any]]


def rows(table: str) -> Rows:
    """The rows of a table, each with the person it belongs to."""
    named = [dict(zip(columns(table), row, strict=True)) for row in getattr(WORLD, table)]
    if table in ("person", "visit"):
        return named
    above, key = ("visit", "visit_id") if table == "act" else ("act", "act_id")
    owner = {row[key]: row["person_id"] for row in rows(above)}
    return [{**row, "person_id": owner[row[key]]} for row in named]


def expected(table: str, kind: str, column: str | None, edges: Sequence[Fraction]) -> list[float]:
    """Units in each bin, counted in Python."""
    of_unit: dict[Any, Rows] = defaultdict(list)
    for row in rows(table):
        of_unit[row["person_id"]].append(row)
    bins: Counter[int] = Counter()
    for own in of_unit.values():
        values = [row[column] for row in own if row[column] is not None] if column else []
        if kind == "values":
            for value in values:
                bins[_bin(value, edges)] += Fraction(1, len(values))  # type: ignore[assignment]
        elif kind == "rows":
            bins[_bin(len(own), edges)] += 1
        elif kind == "distinct":
            bins[_bin(len(set(values)), edges)] += 1
        elif values:
            bins[_bin(sum(values), edges)] += 1
    return [float(bins[place]) for place in range(len(edges) + 1)]


def _bin(value: Any, edges: Sequence[Fraction]) -> int:
    return bisect_right(edges, value if isinstance(value, (int, float)) else day_number(value))


class ProfileContract:
    """Every engine passes these."""

    @pytest.fixture
    def engine(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
        raise NotImplementedError

    @pytest.fixture
    def profile(self, engine: Engine, tmp_path: Path) -> DataProfile:
        site = Site(folder=tmp_path, dataset=care(), engine=engine, budget=Fraction(ENORMOUS))
        return site.profile(ENORMOUS).profile.profile

    def test_every_measure_counts_units_as_the_rows_say(self, profile: DataProfile) -> None:
        assert len(profile.histograms) == 22
        for one in profile.histograms:
            measure = one.measure
            exact = expected(measure.table, measure.kind, measure.column, measure.edges)
            assert one.counts == pytest.approx(exact, abs=0.002), measure
            assert one.deviation <= 0.002


class TestDuckDB(ProfileContract):
    @pytest.fixture
    def engine(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
        path = new_duckdb(tmp_path / "site.duckdb", *create())
        with duckdb.connect(str(path)) as connection:
            fill_duckdb(connection, WORLD)
        engine = DuckDBEngine(
            dataset=care(), bundle=bundle(), database=path, schema=None, mapping=MAPPING, base=tmp_path, limits=LIMITS
        )
        yield engine
        engine.close()


class TestPostgres(ProfileContract):
    @pytest.fixture
    def engine(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
        url = new_database(request.getfixturevalue("postgres_url"), *create())
        with psycopg.connect(url, autocommit=True) as connection:
            fill_postgres(connection, WORLD)
        engine = PostgresEngine(
            dataset=care(), bundle=bundle(), database=url, schema=None, mapping=MAPPING, limits=LIMITS
        )
        yield engine
        engine.close()
