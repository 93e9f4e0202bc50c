"""What a request's own bounds do to real rows: a person's sum is cut where its rows add up to more."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import duckdb
import psycopg
import pytest
from insitu_privacy.fits import ReleaseFit, StatisticFit
from insitu_privacy.render import render

from tests.testkit.care import World, clean_world, fill_duckdb, fill_postgres, plan, run_duckdb, run_postgres, whole

SQL = "SELECT SUM(cost) AS total FROM visit"


def three_and_one() -> World:
    """Three visits of 100 each by one person, one of 10 by another."""
    world = clean_world(6)
    like = world.visit[0]
    costs = [(1, 100.0), (1, 100.0), (1, 100.0), (2, 10.0)]
    visits = tuple(
        (place, person, person % 2, *like[3:6], cost, *like[7:]) for place, (person, cost) in enumerate(costs)
    )
    return replace(world, visit=visits, act=(), line=())


@pytest.mark.parametrize(("limit", "total"), [(None, 310), (250, 260), (5, 10)])
@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_a_persons_sum_is_cut_where_its_rows_add_up_to_more(
    dialect: str, limit: int | None, total: int, duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]
) -> None:
    (base,) = plan(SQL, max_rows_per_group=5).releases
    step = base.statistics[0].granularity
    cap = StatisticFit(linf=None if limit is None else int(Fraction(limit) / step))
    (release,) = plan(SQL, fits=(ReleaseFit(max_rows_per_group=5, max_groups=1, statistics=(cap,)),)).releases
    text = render(release, dialect=dialect, tables=whole(), cap_key="k")
    if dialect == "duckdb":
        fill_duckdb(duck, three_and_one())
        ((value, *_),) = run_duckdb(duck, text)
    else:
        fill_postgres(pg, three_and_one())
        ((value, *_),) = run_postgres(pg, text)
    assert int(value) * step == total
