"""The sensitivity of every release, on real engines: take one person away, and look at what moves.

Nothing about the data is assumed: ``worlds`` makes it as dirty as it can be. For a release with statistics j, at most
``max_groups`` groups may change, and none by more than ``linf`` of j.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.plan import PrivacyPlan, Release
from insitu_privacy.render import render

from tests.privacy.queries import planned
from tests.privacy.worlds import worlds
from tests.testkit.care import (
    Row,
    Unit,
    World,
    cells,
    clean_world,
    fill_duckdb,
    fill_postgres,
    run_duckdb,
    run_postgres,
    whole,
    without,
)

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
RELAXED = settings(deadline=None, max_examples=12, suppress_health_check=CHECKS)
Cells = dict[Row, tuple[int, ...]]
Run = Callable[[str], list[Row]]


def released(release: Release, rows: list[Row]) -> Cells:
    """The cells that a release may speak of: all groups, or those of its public keys."""
    found = cells(rows, len(release.keys))
    if release.cells is None:
        return found
    return {key: found[key] for key in product(*(key.domain or () for key in release.keys)) if key in found}


def assert_within_sensitivity(name: str, plan: PrivacyPlan, dialect: str, run: Run) -> Cells:
    (release,) = plan.releases
    full = released(release, run(render(release, dialect=dialect, tables=whole(), cap_key="k")))
    less = released(release, run(render(release, dialect=dialect, tables=without(), cap_key="k")))
    nothing = (0,) * len(release.statistics)
    moved = {
        key: tuple(a - b for a, b in zip(full.get(key, nothing), less.get(key, nothing), strict=True))
        for key in full.keys() | less.keys()
        if full.get(key) != less.get(key)
    }
    if not release.keys:
        moved = {key: change for key, change in moved.items() if any(change)}
    note(f"{dialect}, {name}: {moved}")
    assert len(moved) <= release.bounds.max_groups, f"{dialect}: too many groups change in {name!r}: {moved}"
    for change in moved.values():
        for statistic, amount in zip(release.statistics, change, strict=True):
            assert abs(amount) <= statistic.linf, f"{dialect}: {statistic.kind} moves too far in {name!r}: {moved}"
    return full


def one_of(world: World, width: int) -> st.SearchStrategy[Unit]:
    return st.sampled_from(world.units(width) or [(1, 0)[:width]])


_CASES = st.tuples(worlds(), st.sampled_from((1, 2, 3)), st.sampled_from((1, 2, 3)), st.data())


@RELAXED
@given(case=_CASES)
def test_one_person_moves_no_statistic_by_more_than_its_sensitivity_on_duckdb(
    duck: duckdb.DuckDBPyConnection, case: tuple[World, int, int, Any]
) -> None:
    world, rows, groups, data = case
    for width in (1, 2):
        fill_duckdb(duck, world, data.draw(one_of(world, width)))
        for name, plan in planned(rows, groups, width).items():
            assert_within_sensitivity(name, plan, "duckdb", lambda text: run_duckdb(duck, text))


@RELAXED
@given(case=_CASES)
def test_one_person_moves_no_statistic_by_more_than_its_sensitivity_on_postgres(
    pg: psycopg.Connection[Any], case: tuple[World, int, int, Any]
) -> None:
    world, rows, groups, data = case
    for width in (1, 2):
        fill_postgres(pg, world, data.draw(one_of(world, width)))
        for name, plan in planned(rows, groups, width).items():
            assert_within_sensitivity(name, plan, "postgres", lambda text: run_postgres(pg, text))
