"""The sensitivity of trees of counts, on real engines: take one person away, and look at which leaves move.

``test_neighbours`` does it for statistics, each a number of its own. A tree is measured as one vector, so that here a
person's leaves are added up: at most ``max_groups`` groups change, in each of them the leaves by at most ``linf``
together, hence each level of the tree by no more, and the whole vector within what its noise is scaled for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from functools import cache, partial
from itertools import product
from typing import Any

import duckdb
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from insitu_privacy.first_look import first_look
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.plan import Release, ReleasedValues, tree_levels
from insitu_privacy.profile_measures import profile_plans
from insitu_privacy.render import render
from insitu_privacy.tree import grown

from tests.privacy import queries
from tests.privacy.worlds import INF, NAN, worlds
from tests.testkit.care import (
    Row,
    Unit,
    World,
    care,
    care_pairs,
    clean_world,
    fill_duckdb,
    fill_postgres,
    plan,
    run_duckdb,
    run_postgres,
    whole,
    without,
)

QUERIES = {
    "no key": "SELECT MEDIAN(cost) FROM visit",
    "whole numbers": "SELECT PERCENTILE_DISC(stage, 0.9), MAX(stage) FROM visit",
    "public key": "SELECT kind, MEDIAN(cost), MIN(cost), MAX(cost) FROM visit GROUP BY kind",
    "two public keys": "SELECT kind, stage, MEDIAN(cost) FROM visit GROUP BY kind, stage",
    "computed public key": "SELECT YEAR(start) AS y, cost > 500 AS dear, MAX(stage) FROM visit GROUP BY 1, 2",
    "key limited by WHERE": "SELECT kind, MIN(stage) FROM visit WHERE kind IN ('in', 'er', 'zz') GROUP BY kind",
    "private text key": "SELECT diagnosis, MEDIAN(cost) FROM visit GROUP BY diagnosis",
    "private integer and date keys": "SELECT ward, noted, MEDIAN(cost), COUNT(*) FROM visit GROUP BY ward, noted",
    "private decimal key": "SELECT weight, MAX(cost) FROM visit GROUP BY weight",
    "private and public keys": "SELECT kind, diagnosis, MEDIAN(start) FROM visit GROUP BY 1, 2",
    "person itself": "SELECT sex, MEDIAN(birth_year), MIN(birth_year) FROM person GROUP BY sex",
    "constant keys of a dirty table": "SELECT region, active, MEDIAN(score) FROM person GROUP BY region, active",
    "declared constant key": "SELECT blood, MEDIAN(cost) FROM visit GROUP BY blood",
    "declared constant key and another": "SELECT blood, kind, MEDIAN(cost) FROM visit GROUP BY blood, kind",
    "person joined": """SELECT p.sex, MEDIAN(v.cost) FROM visit v JOIN person p ON p.person_id = v.person_id
        GROUP BY p.sex""",
    "person joined, with a key of stays": """SELECT p.region, v.kind, QUANTILE(v.cost, 0.1)
        FROM visit v JOIN person p ON p.person_id = v.person_id WHERE p.birth_year > 1920 GROUP BY p.region, v.kind""",
    "person in the values": """SELECT v.kind, MEDIAN(YEAR(v.start) - p.birth_year)
        FROM visit v JOIN person p ON p.person_id = v.person_id GROUP BY v.kind""",
    "filter": "SELECT kind, MEDIAN(cost) FILTER (WHERE stage > 1) FROM visit GROUP BY kind",
    "filter within a group": """SELECT PERCENTILE_CONT(0.75) WITHIN GROUP (ORDER BY cost DESC)
        FILTER (WHERE kind = 'in') FROM visit""",
    "dates": "SELECT kind, MIN(start), MAX(start) FROM visit GROUP BY kind",
    "dates that may be missing": "SELECT stage, MEDIAN(finish) FROM visit GROUP BY stage",
    "timestamps on a unit path": "SELECT code, MAX(at) FROM act GROUP BY code",
    "decimals below zero": "SELECT PERCENTILE_CONT(points, 0.25) FROM act",
    "whole numbers below zero": "SELECT code, MIN(amount) FROM act GROUP BY code",
    "whole numbers in coarse leaves": """SELECT v.diagnosis, MEDIAN(a.amount) FROM act a
        JOIN visit v ON a.visit_id = v.visit_id GROUP BY v.diagnosis""",
    "unit path of two steps": "SELECT item, MEDIAN(price) FROM line GROUP BY item",
    "bounded in SQL": "SELECT kind, MEDIAN(LEAST(GREATEST(weight, -100), 100)) FROM visit GROUP BY kind",
    "stays per person": "SELECT MEDIAN(k), MAX(k) FROM (SELECT person_id, COUNT(*) AS k FROM visit GROUP BY person_id) f",
    "stays per person and kind": """SELECT kind, MEDIAN(dear) FROM (SELECT person_id, kind, SUM(cost) AS dear FROM visit
        GROUP BY 1, 2) f GROUP BY kind""",
    "gaps between stays": """SELECT kind, MEDIAN(gap) FROM (SELECT kind, date_diff('day', LAG(start) OVER (PARTITION BY
        person_id ORDER BY start), start) AS gap FROM visit) f GROUP BY kind""",
    "left to stays": """SELECT p.sex, v.kind, MAX(v.cost) FROM person p LEFT JOIN visit v ON v.person_id = p.person_id
        AND v.stage > 0 GROUP BY p.sex, v.kind""",
    "united": """SELECT what, MEDIAN(x) FROM (SELECT person_id, kind AS what, cost AS x FROM visit UNION ALL
        SELECT person_id, sex, score FROM person) u WHERE what IN ('in', 'F') GROUP BY what""",
    "unit in a condition": "SELECT kind, MAX(cost) FROM visit WHERE person_id % 2 = 0 OR stage >= 0 GROUP BY kind",
}
PAIRS = {
    "public key": "SELECT kind, MEDIAN(cost) FROM visit GROUP BY kind",
    "private key": "SELECT diagnosis, MAX(stage) FROM visit GROUP BY diagnosis",
    "person joined": """SELECT p.sex, MEDIAN(v.cost)
        FROM visit v JOIN person p ON p.person_id = v.person_id AND v.rang = p.rang GROUP BY p.sex""",
    "unit path": "SELECT code, MEDIAN(amount) FROM act GROUP BY code",
    "stays per person": """SELECT MAX(dear) FROM (SELECT person_id, rang, SUM(cost) AS dear FROM visit GROUP BY 1, 2) f""",
}
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
SOME = settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=CHECKS,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes
)
Leaves = dict[int, int]
Forest = dict[Row, Leaves]
Run = Callable[[str], list[Row]]


@cache
def trees(rows: int, groups: int, width: int = 1) -> dict[str, tuple[Release, ...]]:
    """The trees of each query, under contribution bounds that bind."""
    dataset, queries = (care(), QUERIES) if width == 1 else (care_pairs(), PAIRS)
    return {
        name: tuple(
            one
            for one in plan(sql, dataset=dataset, max_rows_per_group=rows, max_groups=groups).releases
            if one.tree is not None
        )
        for name, sql in queries.items()
    }


@cache
def measures(width: int = 1) -> dict[str, Release]:
    """The trees of a profile: in each a person counts once, whatever the contract's own bounds are."""
    dataset = care() if width == 1 else care_pairs()
    return {
        f"{measure.table} {measure.kind} {measure.column}": plan.releases[0]
        for measure, plan in profile_plans(dataset, Fraction(1))
    }


@cache
def looks(width: int = 1) -> dict[str, Release]:
    """The trees of the first look at each query that has one: in each a person counts once, however many rows."""
    dataset, asked = (care(), queries.QUERIES) if width == 1 else (care_pairs(), queries.PAIRS)
    once = partial(plan, dataset=dataset, max_rows_per_group=1, max_groups=1)
    found = {name: first_look(sql, "duckdb", plan(sql, dataset=dataset), dataset, once) for name, sql in asked.items()}
    return {
        f"look at {name} {place}": release
        for name, look in found.items()
        if look is not None
        for place, release in enumerate(once(look.sql).releases)
    }


def statement(release: Release, dialect: str, tables: dict[str, str]) -> str:
    return render(release, dialect=dialect, tables=tables, cap_key="k")


def forest(release: Release, rows: list[Row]) -> Forest:
    """The leaves of each group that a release may speak of: of any, or of those of its public keys."""
    found: Forest = {}
    width = len(release.keys)
    for row in rows:
        leaves = found.setdefault(tuple(row[:width]), {})
        assert row[width] not in leaves, "a leaf is counted once"
        leaves[int(row[width])] = int(row[width + 1])
    if release.cells is None:
        return found
    return {key: found[key] for key in product(*(key.domain or () for key in release.keys)) if key in found}


def moved(full: Forest, less: Forest) -> Forest:
    """By how much each leaf differs, of the groups in which one does."""
    changes = {}
    for key in full.keys() | less.keys():
        with_, without_ = full.get(key, {}), less.get(key, {})
        change = {leaf: with_.get(leaf, 0) - without_.get(leaf, 0) for leaf in with_.keys() | without_.keys()}
        changes[key] = {leaf: amount for leaf, amount in change.items() if amount}
    return {key: change for key, change in changes.items() if change}


def assert_within_sensitivity(name: str, release: Release, changes: Forest) -> None:
    (statistic,), tree = release.statistics, release.tree
    assert tree is not None
    assert statistic.levels == len(tree_levels(tree.leaves))
    assert len(changes) <= release.bounds.max_groups, f"too many groups change in {name!r}: {changes}"
    ends = np.cumsum(tree_levels(tree.leaves))[:-1]
    whole_vector: list[int] = []
    for change in changes.values():
        assert sum(map(abs, change.values())) <= statistic.linf, f"leaves move too far in {name!r}: {changes}"
        vector = grown(tree.leaves, change.items())
        for level in np.split(np.array(vector), ends):
            assert np.abs(level).sum() <= statistic.linf, f"a level moves too far in {name!r}: {changes}"
        whole_vector += vector
    nodes = release.bounds.max_groups * statistic.levels
    assert sum(map(abs, whole_vector)) <= nodes * statistic.linf
    assert sum(amount**2 for amount in whole_vector) <= nodes * statistic.linf**2


def comparable(name: str, release: Release) -> bool:
    """Which groups a person keeps goes by a hash of their text, and the engines write decimals differently; a sum of
    decimals may be on either side of a bin's edge."""
    return all(key.type != "decimal" for key in release.keys) and " sums " not in name


def assert_private_and_alike(duck: Any, pg: Any, name: str, release: Release) -> Forest:
    """What a person moves, on both engines; and both engines' leaves, which are returned."""
    found = []
    engines: dict[str, Run] = {"duckdb": partial(run_duckdb, duck), "postgres": partial(run_postgres, pg)}
    for dialect, run in engines.items():
        full = forest(release, run(statement(release, dialect, whole())))
        less = forest(release, run(statement(release, dialect, without())))
        assert release.tree is not None
        assert all(
            0 <= leaf < release.tree.leaves and count >= 0 for one in full.values() for leaf, count in one.items()
        )
        assert_within_sensitivity(f"{name} on {dialect}", release, moved(full, less))
        found.append(full)
    assert found[0] == found[1] or not comparable(name, release), f"the engines differ in {name!r}"
    return found[0]


def fill(duck: Any, pg: Any, world: World, unit: Unit) -> None:
    fill_duckdb(duck, world, unit)
    fill_postgres(pg, world, unit)


def one_of(world: World, width: int) -> st.SearchStrategy[Unit]:
    return st.sampled_from(world.units(width) or [(1, 0)[:width]])


@SOME
@given(case=st.tuples(worlds(), st.sampled_from((1, 2, 3)), st.sampled_from((1, 2, 3)), st.data()))
def test_one_person_moves_no_tree_by_more_than_its_sensitivity_and_both_engines_agree(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], case: tuple[World, int, int, Any]
) -> None:
    world, rows, groups, data = case
    for width in (1, 2):
        fill(duck, pg, world, data.draw(one_of(world, width)))
        for name, found in trees(rows, groups, width).items():
            for release in found:
                assert_private_and_alike(duck, pg, name, release)


@settings(SOME, max_examples=3)
@given(case=st.tuples(worlds(), st.sampled_from((1, 2)), st.data()))
@pytest.mark.parametrize("made", [measures, looks], ids=["profile", "first look"])
def test_one_person_moves_no_histogram_by_more_than_one_person(
    duck: duckdb.DuckDBPyConnection,
    pg: psycopg.Connection[Any],
    made: Callable[[int], dict[str, Release]],
    case: tuple[World, int, Any],
) -> None:
    world, width, data = case
    fill(duck, pg, world, data.draw(one_of(world, width)))
    for name, release in made(width).items():
        assert_private_and_alike(duck, pg, name, release)


# -- persons with many rows --------------------------------------------------------------------------------------------

_CLEAN = clean_world(6, visits=3, acts=3)
_MOMENT = datetime(2020, 5, 5, 12)
BUSY = 2
"""A person with a thousand stays, whose costs are spread over a thousand leaves."""


def stay(number: int, person: Any, kind: Any = "in", cost: Any = 500.0, **columns: Any) -> Row:
    """A stay of a clean world, but for what is given."""
    places = {"weight": 7, "ward": 8, "diagnosis": 9, "noted": 10, "stage": 11, "blood": 12}
    row = [number, person, 0, kind, *_CLEAN.visit[0][4:6], cost, *_CLEAN.visit[0][7:]]
    for name, value in columns.items():
        row[places[name]] = value
    return tuple(row)


def crowd() -> World:
    """Clean persons, one with a thousand stays and acts, one with two sexes, and rows of nobody."""
    kinds, bloods = ("in", "er", "out"), ("A", "B", None)
    busy = [
        stay(
            1000 + i, BUSY, kinds[i % 3], float(i), diagnosis="xyz"[i % 3], stage=i % 5, blood=bloods[i % 3], ward=i % 4
        )
        for i in range(1000)
    ]
    dirty = [
        stay(3000, 3, "in", NAN),
        stay(3001, 3, "in", INF),
        stay(3002, None, "in", 1.0),
        stay(3003, 3, "zz", 1e308),
    ]
    shared = [stay(1000, 4, "out", 250.0)]  # the key of one of the busy person's stays, for another person
    acts = [(5000 + i, 1000 + i, "I10", i - 50, -1.0 + i / 500, _MOMENT) for i in range(500)]
    dangling = [(1, 999_999, "A00", 1, 1.0, None), (2, None, "A00", 1, 1.0, None)]
    persons = [
        (BUSY, 0, "M", 1950, "east", True, 10.0),
        (BUSY, 0, "F", 2030, "north", False, 0.0),
        (None, 0, "F", 1980, "east", True, 5.0),
    ]
    return World(
        person=(*_CLEAN.person, *persons),
        visit=(*_CLEAN.visit, *busy, *dirty, *shared),
        act=(*_CLEAN.act, *acts, *dangling),
    )


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("unit", [(1,), (BUSY,), (3,), (BUSY, 0)])
def test_each_person_of_a_crowd_stays_within_the_sensitivity_and_both_engines_agree(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], unit: Unit, rows: int, groups: int
) -> None:
    world = crowd()
    assert unit in world.units(len(unit))
    fill(duck, pg, world, unit)
    for name, found in trees(rows, groups, len(unit)).items():
        for release in found:
            assert_private_and_alike(duck, pg, name, release)


@pytest.mark.attacks("P2")
@pytest.mark.parametrize("made", [measures, looks], ids=["profile", "first look"])
@pytest.mark.parametrize("unit", [(BUSY,), (BUSY, 0)])
def test_each_person_of_a_crowd_counts_once_in_each_histogram(
    duck: duckdb.DuckDBPyConnection,
    pg: psycopg.Connection[Any],
    made: Callable[[int], dict[str, Release]],
    unit: Unit,
) -> None:
    fill(duck, pg, crowd(), unit)
    assert len(made(len(unit))) >= 10
    for name, release in made(len(unit)).items():
        found = assert_private_and_alike(duck, pg, name, release)
        assert release.statistics[0].linf == (release.tree.weight if release.tree else 0)
        assert found.keys() <= {()}


def only_of(duck: Any, pg: Any, name: str, rows: int, groups: int) -> tuple[Release, Forest]:
    (release,) = trees(rows, groups)[name]
    return release, assert_private_and_alike(duck, pg, name, release)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_person_of_a_thousand_rows_is_not_lost_among_the_leaves(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], rows: int
) -> None:
    """Truncation costs less than 1 of a row's parts on each leaf, and the person fills 300 leaves."""
    fill(duck, pg, World(person=(), visit=tuple(stay(i, 1, "in", float(i % 300)) for i in range(900)), act=()), (1,))
    release, found = only_of(duck, pg, "no key", rows, 1)
    assert release.tree is not None
    total = sum(found[()].values())
    assert len(found[()]) == 300
    assert rows * release.tree.weight - 300 < total <= rows * release.tree.weight
    assert len(set(found[()].values())) == 1, "equal leaves are scaled alike"


@pytest.mark.parametrize(("rows", "stays"), [(1, 2), (2, 7), (3, 10), (3, 64)])
def test_a_person_with_some_rows_more_than_are_counted_reaches_nearly_the_whole_sensitivity(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], rows: int, stays: int
) -> None:
    fill(duck, pg, World(person=(), visit=tuple(stay(i, 1, "in", float(i)) for i in range(stays)), act=()), (1,))
    release, found = only_of(duck, pg, "public key", rows, 1)
    total = sum(found[("in",)].values())
    assert 0.95 * release.statistics[0].linf < total <= release.statistics[0].linf


def test_each_row_of_a_person_with_few_counts_whole_and_in_the_leaf_of_its_value(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]
) -> None:
    costs = (0.0, 0.24, 0.26, 1000.0, None, NAN, 1000.5)
    fill(duck, pg, World(person=(), visit=tuple(stay(i, i, "er", cost) for i, cost in enumerate(costs)), act=()), (0,))
    release, found = only_of(duck, pg, "public key", 3, 1)
    assert release.tree is not None
    assert release.statistics[0].granularity * 2 == 1
    weight = release.tree.weight
    assert found == {("er",): {0: 2 * weight, 1: weight, 2000: weight}}, "what is NULL or out of bounds has no leaf"


def test_coarse_leaves_hold_the_values_nearest_to_them(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]
) -> None:
    acts = tuple((i, 1, "A00", amount, 0.0, _MOMENT) for i, amount in enumerate((-50, -48, -47, 0, 2, 3, 498)))
    fill(duck, pg, World(person=(), visit=(stay(1, 1, diagnosis="x"),), act=acts), (1,))
    release, found = only_of(duck, pg, "whole numbers in coarse leaves", 9, 1)
    assert release.tree is not None
    assert release.statistics[0].granularity == 5
    weight = release.tree.weight
    assert found == {("x",): {0: 2 * weight, 1: weight, 10: 2 * weight, 11: weight, 110: weight}}


def test_leaves_of_values_below_zero_are_counted_from_the_lower_bound(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]
) -> None:
    acts = tuple((i, 1, "A00", amount, 0.0, _MOMENT) for i, amount in enumerate((-50, -49, 0, 500, 501)))
    fill(duck, pg, World(person=(), visit=(stay(1, 1),), act=acts), (1,))
    release, found = only_of(duck, pg, "whole numbers below zero", 9, 1)
    assert release.tree is not None
    assert found[("A00",)] == dict.fromkeys((0, 1, 50, 550), release.tree.weight)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_person_keeps_or_loses_all_leaves_of_a_group(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], groups: int
) -> None:
    """Thirty persons with three rows of three costs in each of three kinds."""
    places = list(product(range(30), ("er", "in", "out"), (1.0, 2.0, 3.0)))
    fill(duck, pg, World(person=(), visit=tuple(stay(i, *place) for i, place in enumerate(places)), act=()), (0,))
    release, found = only_of(duck, pg, "public key", 3, groups)
    assert release.tree is not None
    assert all(len(set(one.values())) == 1 and len(one) == 3 for one in found.values())
    assert sum(sum(one.values()) for one in found.values()) == 30 * groups * 3 * release.tree.weight
    assert len(found) == 3, "persons keep different groups"


@pytest.mark.parametrize("name", ["declared constant key", "person joined"])
def test_a_person_with_several_values_of_a_constant_key_stands_in_one_group(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], name: str
) -> None:
    persons = ((1, 0, "M", 1950, "east", True, 1.0), (1, 0, "F", 1951, "north", False, 2.0))
    visits = tuple(stay(i, 1, "in", float(i), blood="BAO"[i % 3]) for i in range(6))
    fill(duck, pg, World(person=persons, visit=visits, act=()), (1,))
    release, found = only_of(duck, pg, name, 6, 3)
    assert release.bounds.max_groups == 1
    assert release.tree is not None
    least = {"declared constant key": "A", "person joined": "F"}[name]
    assert found == {(least,): {2 * i: release.tree.weight for i in range(6)}}


def drawn(release: Release, duck: Any, tables: dict[str, str], selected: Any = None) -> ReleasedValues:
    return privatize(release, ExactCells(tuple(run_duckdb(duck, statement(release, "duckdb", tables)))), selected)


@pytest.mark.parametrize("name", [name for name, found in trees(2, 2).items() if found[0].cells])
def test_the_nodes_of_public_keys_do_not_depend_on_the_data(duck: duckdb.DuckDBPyConnection, name: str) -> None:
    fill_duckdb(duck, clean_world(5), (1,))
    for release in trees(2, 2)[name]:
        for tables in (whole(), without(), {**whole(), "visit": "SELECT * FROM visit WHERE FALSE"}):
            values = drawn(release, duck, tables)
            assert values.keys is None
            assert [len(row) for row in values.statistics] == [release.cells] * release.width


def test_trees_of_private_keys_speak_of_the_selected_groups_alone(duck: duckdb.DuckDBPyConnection) -> None:
    """Neither a group of one person nor the absence of one that was selected shows."""
    fill_duckdb(duck, crowd(), (BUSY,))
    (release,) = trees(3, 1)["private text key"]
    for selected in ((), (("x",),), (("nowhere",), ("x",))):
        values = drawn(release, duck, whole(), selected)
        assert values.keys == selected
        assert [len(row) for row in values.statistics] == [len(selected)] * release.width
