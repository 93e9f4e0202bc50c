"""The sensitivity of every release, on real engines: take one person away, and look at what moves.

Nothing about the data is assumed: ``worlds`` makes it as dirty as it can be. For a release with statistics j, at most
``max_groups`` groups may change, and none by more than ``linf`` of j.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.plan import PrivacyPlan, Release
from insitu_privacy.render import render

from tests.privacy.queries import planned
from tests.privacy.worlds import NAN, worlds
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
PHASES = (
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
)  # worlds are small: shrinking them takes minutes and tells no more
DUCKDB = settings(deadline=None, max_examples=4, suppress_health_check=CHECKS, phases=PHASES)
POSTGRES = settings(DUCKDB, max_examples=20)
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
    assert len(moved) <= release.bounds.max_groups, f"{dialect}: too many groups change in {name!r}: {moved}"
    for change in moved.values():
        for statistic, amount in zip(release.statistics, change, strict=True):
            assert abs(amount) <= statistic.linf, f"{dialect}: {statistic.kind} moves too far in {name!r}: {moved}"
    return full


def one_of(world: World, width: int) -> st.SearchStrategy[Unit]:
    return st.sampled_from(world.units(width) or [(1, 0)[:width]])


_CASES = st.tuples(worlds(), st.sampled_from((1, 2, 3)), st.sampled_from((1, 2, 3)), st.data())


@pytest.mark.attacks("P2")
@DUCKDB
@given(case=_CASES)
def test_one_person_moves_no_statistic_by_more_than_its_sensitivity_on_duckdb(
    duck: duckdb.DuckDBPyConnection, case: tuple[World, int, int, Any]
) -> None:
    world, rows, groups, data = case
    for width in (1, 2):
        fill_duckdb(duck, world, data.draw(one_of(world, width)))
        for name, plan in planned(rows, groups, width).items():
            assert_within_sensitivity(name, plan, "duckdb", lambda text: run_duckdb(duck, text))


@POSTGRES
@given(case=_CASES)
def test_one_person_moves_no_statistic_by_more_than_its_sensitivity_on_postgres(
    pg: psycopg.Connection[Any], case: tuple[World, int, int, Any]
) -> None:
    world, rows, groups, data = case
    for width in (1, 2):
        fill_postgres(pg, world, data.draw(one_of(world, width)))
        for name, plan in planned(rows, groups, width).items():
            assert_within_sensitivity(name, plan, "postgres", lambda text: run_postgres(pg, text))


def crowd() -> World:
    """Clean persons and one of everything that is wrong; person 2 has a thousand rows in two groups."""
    base = clean_world(6, visits=3, acts=3)
    twice = [(1, 1, "M", 1950, "east", True, 10.0), (1, 1, "F", 2030, "north", False, 0.0)]
    nobody = [(None, 0, "F", 1980, "east", True, 5.0), (2**60, 0, "F", 1980, None, None, NAN)]
    like = base.visit[0]
    many = [
        (1000 + i, 2, 0, ("in", "er")[i % 7 == 0], *like[4:6], 1000.0, -1e306, 1, "x", *like[10:]) for i in range(1000)
    ]
    odd = [
        (
            i,
            2**60 + i % 3 + 1,
            0,
            ("in", "er", "out")[i % 3],
            *like[4:6],
            1000.0 * (i % 3),
            1.0,
            2,
            "y",
            like[10],
            3,
            "A",
            1,
        )
        for i in range(18)
    ]
    shared = [(1000, 3, 1, "out", *like[4:]), (1001, None, 0, "out", *like[4:]), (None, 4, 0, "er", *like[4:])]
    acts = [(5000 + i, 1000 + i % 3, "I10", 500 - i % 2, -1.0, None) for i in range(60)]
    return World(
        person=(*base.person, *twice, *nobody),
        visit=(*base.visit, *many, *odd, *shared),
        act=(*base.act, *acts, (1, 999_999, "A00", 1, 1.0, None), (2, None, "A00", 1, 1.0, None)),
    )


def comparable(plan: PrivacyPlan) -> bool:
    """Which groups a person keeps goes by a hash of their text, and the engines write decimals differently."""
    return all(key.type != "decimal" for key in plan.releases[0].keys)


UNITS_READ = [name for name in planned(3, 1) if name.startswith("unit ") and "path" not in name]


@pytest.mark.parametrize("name", UNITS_READ)
def test_persons_outside_what_is_declared_of_the_unit_are_never_taken_for_one(
    pg: psycopg.Connection[Any], name: str
) -> None:
    """Where a condition computes with the unit it is read through its guard, and these persons as NULL."""
    world = crowd()
    for unit in world.units()[-3:]:
        assert unit[0] > 2**60
        fill_postgres(pg, world, unit)
        for groups in (1, 2):
            assert_within_sensitivity(name, planned(3, groups)[name], "postgres", lambda text: run_postgres(pg, text))


def narrowed(plan: PrivacyPlan) -> PrivacyPlan:
    """The plan with sums that may move by a few granules only, less than the values need."""
    (release,) = plan.releases
    few = 5 * release.bounds.max_rows_per_group
    statistics = tuple(replace(one, linf=few) if one.kind == "sum" else one for one in release.statistics)
    return replace(plan, releases=(replace(release, statistics=statistics),))


@pytest.mark.attacks("P2")
@pytest.mark.parametrize("width", [1, 2])
def test_sums_are_clipped_to_the_sensitivity_whatever_was_inferred_of_their_values(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], width: int
) -> None:
    world = crowd()
    unit = world.units(width)[1]
    fill_duckdb(duck, world, unit)
    fill_postgres(pg, world, unit)
    summed = 0
    for name, plan in planned(2, 1, width).items():
        tight = narrowed(plan)
        if tight != plan and name != "self join":
            assert_within_sensitivity(name, tight, "postgres", lambda text: run_postgres(pg, text))
            assert_within_sensitivity(name, tight, "duckdb", lambda text: run_duckdb(duck, text))
            summed += 1
    assert summed >= 4


CROWDED = [
    name for name in planned(3, 1) if name != "self join"
]  # a thousand rows joined with a thousand take too long


@pytest.mark.parametrize("unit", [(1,), (2,), (2**60 + 1,), (2, 0)])
def test_each_person_of_a_crowd_stays_within_the_sensitivity_and_both_engines_agree(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], unit: Unit
) -> None:
    world = crowd()
    assert unit in world.units(len(unit))
    fill_duckdb(duck, world, unit)
    fill_postgres(pg, world, unit)
    for name, plan in planned(3, 1, len(unit)).items():
        if name not in CROWDED and len(unit) == 1:
            continue
        one = assert_within_sensitivity(name, plan, "duckdb", lambda text: run_duckdb(duck, text))
        other = assert_within_sensitivity(name, plan, "postgres", lambda text: run_postgres(pg, text))
        assert one == other or not comparable(plan), f"the engines differ in {name!r}"


@pytest.mark.parametrize("name", [name for name, plan in planned(2, 2).items() if plan.releases[0].cells])
def test_the_cells_of_public_keys_do_not_depend_on_the_data(duck: duckdb.DuckDBPyConnection, name: str) -> None:
    (release,) = planned(2, 2)[name].releases
    fill_duckdb(duck, clean_world(5), (1,))
    for tables in (whole(), without(), {**whole(), "visit": "SELECT * FROM visit WHERE FALSE"}):
        rows = run_duckdb(duck, render(release, dialect="duckdb", tables=tables, cap_key="k"))
        values = privatize(release, ExactCells(rows=tuple(rows)))
        assert values.keys is None
        assert [len(row) for row in values.statistics] == [release.cells] * len(release.statistics)


def test_a_group_that_appears_with_one_person_is_announced_by_its_units_alone(pg: psycopg.Connection[Any]) -> None:
    """Key selection goes by the number of units, which is 1 for a group of one person with a thousand rows."""
    (release,) = planned(3, 1)["private text key"].releases
    assert release.threshold is not None
    fill_postgres(pg, crowd(), (2,))
    full = released(release, run_postgres(pg, render(release, dialect="postgres", tables=whole(), cap_key="k")))
    less = released(release, run_postgres(pg, render(release, dialect="postgres", tables=without(), cap_key="k")))
    (mine,) = [key for key in full if full.get(key) != less.get(key)]
    nothing = (0,) * len(release.statistics)
    units = release.threshold.statistic
    assert full[mine][units] - less.get(mine, nothing)[units] == 1


def test_a_person_keeps_as_many_groups_as_the_bound_says_and_always_the_same(pg: psycopg.Connection[Any]) -> None:
    (release,) = planned(3, 2)["public key"].releases
    visits = tuple(
        (i, p, 0, kind, *clean_world(2).visit[0][4:])
        for i in range(3)
        for p in range(200)
        for kind in ("er", "in", "out")
    )
    fill_postgres(pg, World(person=(), visit=visits, act=()))
    answers = [
        cells(run_postgres(pg, render(release, dialect="postgres", tables=whole(), cap_key=key)), 1)
        for key in ("k", "k", "another")
    ]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
    for answer in answers:
        assert sum(counts[0] for counts in answer.values()) == 200 * 2 * 3


@pytest.mark.attacks("P2")
def test_a_duplicated_owner_row_does_not_multiply_lines(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]
) -> None:
    base = clean_world(2, visits=3).visit[0]
    world = World(
        person=(),
        visit=(*tuple((1, 1, 0, kind, *base[4:]) for kind in ("in", "in", "er", "er")), (1, 2, 0, "in", *base[4:])),
        act=((1, 1, "A00", 7, 0.5, None), (2, 1, "A00", 8, 0.5, None)),
    )
    fill_duckdb(duck, world)
    fill_postgres(pg, world)
    (release,) = planned(9, 9)["unit path"].releases
    for dialect, run in (
        ("duckdb", lambda text: run_duckdb(duck, text)),
        ("postgres", lambda text: run_postgres(pg, text)),
    ):
        found = cells(run(render(release, dialect=dialect, tables=whole(), cap_key="k")), 1)
        assert found[("A00",)][:2] == (2 * 2, 2 * 15), "two owners reach two lines each, once"
