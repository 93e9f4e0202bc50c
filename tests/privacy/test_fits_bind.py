"""What a request's own bounds do to real rows: a person's sum is cut where its rows add up to more, and values beyond
the leaves of a tree count in the first or last of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import duckdb
import psycopg
import pytest
from insitu_privacy.fits import ReleaseFit, StatisticFit
from insitu_privacy.plan import Release
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
    ((value, *_),) = run(dialect, three_and_one(), release, duck, pg)
    assert int(value) * step == total


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_what_lies_beyond_the_leaves_counts_in_the_first_or_last(
    dialect: str, duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]
) -> None:
    ends = StatisticFit(ends=(Fraction(50), Fraction(150)))
    fits = (ReleaseFit(max_rows_per_group=5, max_groups=1, statistics=(ends,)),)
    (release,) = plan("SELECT MEDIAN(cost) AS m FROM visit", fits=fits).releases
    assert release.tree is not None
    place = {
        float(release.statistics[0].center + int(leaf) * release.statistics[0].granularity): int(count)
        for leaf, count in run(dialect, three_and_one(), release, duck, pg)
    }
    assert place == {50.0: release.tree.weight, 100.0: 3 * release.tree.weight}


def run(
    dialect: str, world: World, release: Release, duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]
) -> Sequence[Sequence[Any]]:
    """What the statement of a release gives over a world, on one engine."""
    text = render(release, dialect=dialect, tables=whole(), cap_key="k")
    if dialect == "duckdb":
        fill_duckdb(duck, world)
        return run_duckdb(duck, text)
    fill_postgres(pg, world)
    return run_postgres(pg, text)
