"""Intervals hold the noise-free value about as often as they say: production's noise drawn again and again.

Few runs, so that bounds are wide: an interval of 95% falls below 89% in 400 draws once in ten million times, one that is
30% too narrow holds 83% and nearly always does. ``python -m bench.run --only intervals`` measures it to a percent.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from insitu_privacy import bootstrap
from insitu_privacy.mechanisms import ExactCells
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.postprocess import Postprocessor
from insitu_privacy.render import render

from bench.held import held
from tests.testkit.care import plan

LEAST, MOST = 0.89, 0.995
CELLS = 400
NODES = 2


@pytest.fixture(scope="module")
def post() -> Iterator[Postprocessor]:
    with Postprocessor(timeout_s=60) as made:
        yield made


@pytest.fixture(scope="module")
def site() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.execute("""
            CREATE TABLE visit AS SELECT i AS visit_id, i AS person_id, ['er', 'in', 'out'][1 + i % 3] AS kind,
            DATE '2016-01-01' + CAST(i * 7919 % 181 AS INTEGER) AS start, CAST(i * 37 % 1000 AS DOUBLE) AS cost,
            i % 5 AS stage, CAST(NULL AS VARCHAR) AS diagnosis FROM range(6000) AS r(i)
        """)
        made.execute("""
            CREATE TABLE person AS SELECT i AS person_id, 1950 + i % 30 AS birth_year FROM range(6000) AS r(i)
        """)
        yield made


def exact(made: PrivacyPlan, site: duckdb.DuckDBPyConnection) -> list[list[ExactCells]]:
    tables = {"visit": "visit", "person": "person"}
    found = [
        ExactCells(tuple(site.execute(render(one, dialect="duckdb", tables=tables, cap_key="k")).fetchall()))
        for one in made.releases
    ]
    return [found] * NODES


@pytest.fixture(autouse=True)
def fewer_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends are less even from run to run, and hold the value as often."""
    monkeypatch.setattr(bootstrap, "_COPIES", 199)
    monkeypatch.setattr(bootstrap, "_WHOLE_BUDGET", 600)


def check(post: Postprocessor, site: duckdb.DuckDBPyConnection, made: PrivacyPlan, rows: int) -> None:
    runs = -(-CELLS // rows)
    for one in held("", made, exact(made, site), post, runs):
        assert one.bounded == one.cells == runs * rows
        assert one.share is not None
        assert LEAST <= one.share <= MOST, one


@pytest.mark.parametrize(
    ("epsilon", "columns"),
    [
        ("1", "COUNT(*) AS n, 2 * COUNT(*) + 1 AS twice"),
        ("2", "AVG(cost) AS mean"),
        ("1", "100.0 * COUNT_IF(cost < 300) / COUNT(*) AS share"),
        ("10", "STDDEV(cost) AS spread, VARIANCE(cost) AS variance"),
    ],
)
def test_of_sums_and_counts(post: Postprocessor, site: duckdb.DuckDBPyConnection, epsilon: str, columns: str) -> None:
    made = plan(
        f"SELECT birth, {columns} FROM (SELECT p.birth_year - p.birth_year % 5 AS birth, v.cost FROM person p "
        "JOIN visit v ON v.person_id = p.person_id) AS c WHERE birth IN (1950, 1955, 1960, 1965, 1970, 1975) GROUP BY birth",
        epsilon=epsilon,
    )
    check(post, site, made, 6)


def test_of_quantiles_of_dates(post: Postprocessor, site: duckdb.DuckDBPyConnection) -> None:
    """Of half a year: each draw takes a tree of noise, and this one is small."""
    days = "LEAST(GREATEST(start, DATE '2016-01-01'), DATE '2016-06-30')"
    made = plan(f"SELECT kind, MEDIAN({days}) AS middle FROM visit GROUP BY kind", epsilon="0.5")
    (one,) = held("", made, exact(made, site), post, CELLS // 3 + 1)
    assert one.bounded > 0.95 * one.cells
    assert one.share is not None
    assert LEAST <= one.share <= MOST, one


def test_through_the_sql_above_several_releases(post: Postprocessor, site: duckdb.DuckDBPyConnection) -> None:
    sql = (
        "SELECT kind, COUNT(*) AS n, 100.0 * COUNT(*) / (SELECT COUNT(*) FROM person) AS share FROM visit "
        "GROUP BY kind ORDER BY n DESC LIMIT 2"
    )
    made = plan(sql, epsilon="0.5")
    assert not made.rows_are_cells
    check(post, site, made, 2)
