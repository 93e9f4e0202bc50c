"""Queries that hypothesis writes: their answers are the plain ones, and each person stays within the sensitivity.

Two oracles that need no list of features. Without noise, and with bounds that do not bind, what the sites' planned SQL
adds up to is what DuckDB says of the plain query on the union of the sites. And on databases as dirty as they come, one
person less moves no statistic further than the plan declares, nor makes a statement fail.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from typing import Any

import duckdb
import insitu_privacy.postprocess
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from insitu_privacy.errors import Refused
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, ReleasedValues
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.render import render

from tests.privacy.generated import FEATURES, Query, queries, roomy
from tests.privacy.test_neighbours import assert_within_sensitivity, one_of
from tests.privacy.test_trees import assert_within_sensitivity as assert_leaves_within
from tests.privacy.test_trees import forest, moved
from tests.privacy.worlds import worlds
from tests.testkit.care import (
    Row,
    Unit,
    World,
    clean_world,
    create,
    fill_duckdb,
    fill_postgres,
    plan,
    run_duckdb,
    run_postgres,
    whole,
    without,
)
from tests.testkit.databases import new_database

SOME = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking a query takes minutes
)
Run = Callable[[str], list[Row]]


@dataclass
class Tally:
    """How many queries were planned, so that no test passes because everything was refused or nothing was there."""

    asked: int = 0
    planned: int = 0
    told: int = 0
    """Planned queries whose answer has something in it, or differs with one person less."""
    features: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def plan(self, query: Query, **asked: Any) -> PrivacyPlan | None:
        self.asked += 1
        try:
            made = plan(query.sql, **asked)
        except Refused as refused:
            self.refused[refused.line()] += 1
            return None
        self.planned += 1
        self.features.update(query.features)
        return made

    def assert_enough(self, told: float) -> None:
        assert self.planned >= 0.85 * self.asked, self.refused.most_common(5)
        assert self.told >= told * self.planned, "too many queries look at nothing"


def test_most_generated_queries_are_planned_and_all_features_are_among_them() -> None:
    tally = Tally()

    @settings(SOME, max_examples=400)
    @given(query=queries())
    def holds(query: Query) -> None:
        tally.plan(query, dataset=roomy(), max_rows_per_group=1000, max_groups=1000)

    holds()
    tally.assert_enough(0)
    assert not FEATURES - tally.features.keys()


# -- the plain query is answered ---------------------------------------------------------------------------------------

SEEDS = (11, 12, 13, 14)


@dataclass
class Site:
    """The databases of one clean world: all of it on either engine; a mapping makes a site of some of its persons."""

    duck: duckdb.DuckDBPyConnection
    pg: psycopg.Connection[Any]

    def run(self, dialect: str) -> Run:
        return (
            (lambda text: run_duckdb(self.duck, text))
            if dialect == "duckdb"
            else lambda text: run_postgres(self.pg, text)
        )


@pytest.fixture(scope="module")
def sites(postgres_url: str) -> Iterator[dict[int, Site]]:
    with ExitStack() as stack:
        made = {}
        for seed in SEEDS:
            world = clean_world(24 + seed, seed=seed)
            duck = stack.enter_context(duckdb.connect(":memory:", config={"threads": 1}))
            pg = stack.enter_context(psycopg.connect(new_database(postgres_url, *create()), autocommit=True))
            for statement in create():
                duck.execute(statement)
            fill_duckdb(duck, world)
            fill_postgres(pg, world)
            pg.execute("SET jit = off")
            made[seed] = Site(duck, pg)
        yield made


def of_site(number: int, count: int) -> dict[str, str]:
    """The tables of one site: the persons whose number leaves this remainder, and all that is theirs."""
    visits = f"SELECT visit_id FROM visit WHERE person_id % {count} = {number}"
    acts = f"SELECT act_id FROM act WHERE visit_id IN ({visits})"
    return {
        **whole(),
        "person": f"SELECT * FROM person WHERE person_id % {count} = {number}",
        "visit": f"SELECT * FROM visit WHERE person_id % {count} = {number}",
        "act": f"SELECT * FROM act WHERE visit_id IN ({visits})",
        "line": f"SELECT * FROM line WHERE act_id IN ({acts})",
    }


def released(made: PrivacyPlan, dialect: Any, run: Run, tables: dict[str, str]) -> tuple[ReleasedValues, ...]:
    """What one node releases."""
    values: dict[str, ReleasedValues] = {}
    for one in made.releases:
        followed = values[one.tree.keys_of].keys if one.tree is not None and one.tree.keys_of else None
        rows = tuple(run(render(one, dialect=dialect, tables=tables, cap_key="k")))
        values[one.name] = privatize(one, ExactCells(rows), followed)
    return tuple(values.values())


def answer(made: PrivacyPlan, world: Site, dialects: Sequence[str], post: Postprocessor) -> ResultTable:
    nodes = [
        released(made, dialect, world.run(dialect), of_site(place, len(dialects)))
        for place, dialect in enumerate(dialects)
    ]
    return post.run(made, merge(made, nodes))


def comparable(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def room(made: PrivacyPlan) -> float:
    """How far fixed point may move a number: a hundred rows' roundings, or a leaf of a tree."""
    steps = [one.granularity for release in made.releases if release.tree is None for one in release.statistics]
    leaves = [release.statistics[0].granularity for release in made.releases if release.tree is not None]
    return float(max([100 * step for step in steps if step < 1] + leaves, default=0))


def close(found: Any, exact: Any, near: float) -> bool:
    """Equal but for fixed point; what is read from a tree, within a leaf of it.

    A sum of no values is 0, for whether there are any is noisy; a variance that is rounded below zero is NULL.
    """
    if (exact is None and found == 0) or (found is None and isinstance(exact, float) and abs(exact) <= 1e-4 + near):
        return True
    if found is None or exact is None or isinstance(exact, (str, bool)):
        return bool(found == exact)
    return math.isclose(float(found), float(exact), rel_tol=1e-6, abs_tol=1e-4 + near)


def assert_same(query: Query, made: PrivacyPlan, found: Sequence[Row], plain: Sequence[Row]) -> None:
    """Group by group; groups that the plain query does not have are released too, and hold nothing."""
    near = room(made)
    exact = {row[: query.keys]: row[query.keys :] for row in plain}
    groups = {row[: query.keys]: row[query.keys :] for row in found}
    assert len(groups) == len(found), "a group is released twice"
    assert len(exact) == len(plain)
    assert exact.keys() <= groups.keys(), f"groups are missing: {exact.keys() - groups.keys()}"
    for key, values in groups.items():
        if key in exact:
            assert all(close(a, b, near) for a, b in zip(values, exact[key], strict=True)), (key, values, exact[key])
        else:
            assert not query.strict, f"HAVING leaves {key} out"
            assert not query.zero or not any(values), f"a group that is not there has {values}"
    if query.ordered:
        assert [row[: query.keys] for row in found if row[: query.keys] in exact] == [
            row[: query.keys] for row in plain
        ]


_PLACES = st.sampled_from(
    [("duckdb", "duckdb"), ("duckdb", "duckdb", "duckdb"), ("duckdb", "postgres"), ("postgres", "duckdb", "duckdb")]
)


def test_the_sites_answer_what_the_plain_query_says_of_their_union(
    sites: dict[int, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insitu_privacy.postprocess, "WHOLE_COPIES", 1)  # intervals are not what is looked at
    monkeypatch.setattr(insitu_privacy.postprocess, "number_of_copies", lambda _: 2)
    tally, post = Tally(), Postprocessor()

    @settings(SOME, max_examples=200)
    @given(query=queries(), seed=st.sampled_from(SEEDS), places=_PLACES)
    def holds(query: Query, seed: int, places: tuple[str, ...]) -> None:
        made = tally.plan(
            query, dataset=roomy(), mechanism="laplace", epsilon="1e30", max_rows_per_group=1000, max_groups=1000
        )
        if made is None:
            return
        assert all(one.threshold is None for one in made.releases), "every key has a public domain"
        plain = [tuple(map(comparable, row)) for row in run_duckdb(sites[seed].duck, query.sql)]
        tally.told += any(any(row[query.keys :]) for row in plain)
        assert_same(query, made, answer(made, sites[seed], places, post).rows, plain)

    with post:
        holds()
    tally.assert_enough(0.4)


# -- one person less ---------------------------------------------------------------------------------------------------


def assert_one_person_less_moves_little(query: Query, made: PrivacyPlan, dialect: Any, engine: Run) -> bool:
    """Each statement runs on both databases, whatever their rows hold, and tells no more of her than is declared.

    Returns whether any tells of her at all.
    """
    seen: dict[str, str] = {}

    def run(text: str) -> list[Row]:
        rows = engine(text)
        seen[text] = repr(sorted(map(repr, rows)))
        return rows

    differs = False
    for release in made.releases:
        if release.tree is None:
            assert_within_sensitivity(query.sql, replace(made, releases=(release,)), dialect, run)
        else:
            full, less = (
                forest(release, run(render(release, dialect=dialect, tables=tables, cap_key="k")))
                for tables in (whole(), without())
            )
            assert_leaves_within(query.sql, release, moved(full, less))
        differs |= len(set(seen.values())) > 1
        seen.clear()
    return differs


def among_others(dirty: World, seed: int) -> World:
    """A dirty world in which something is to be found: clean persons stand in it, whose keys it shares."""
    clean = clean_world(6, seed=seed, visits=5, acts=3)
    return World(
        person=(*clean.person, *dirty.person),
        visit=(*clean.visit, *dirty.visit),
        act=(*clean.act, *dirty.act),
        line=(*clean.line, *dirty.line),
    )


def neighbours_hold(fill: Callable[[World, Unit], None], dialect: str, run: Run, worlds_drawn: int) -> Tally:
    tally = Tally()
    several = st.lists(queries(neighbours=True), min_size=8, max_size=8)
    bounds = st.tuples(st.sampled_from((1, 2, 3)), st.sampled_from((1, 2, 3)))

    @settings(SOME, max_examples=worlds_drawn)
    @given(dirty=worlds(), seed=st.integers(0, 999), asked=several, bounds=bounds, data=st.data())
    def holds(dirty: World, seed: int, asked: list[Query], bounds: tuple[int, int], data: st.DataObject) -> None:
        world = among_others(dirty, seed)
        fill(world, data.draw(st.one_of(st.integers(1, 6).map(lambda person: (person,)), one_of(world, 1))))
        for query in asked:
            made = tally.plan(query, max_rows_per_group=bounds[0], max_groups=bounds[1])
            if made is not None:
                tally.told += assert_one_person_less_moves_little(query, made, dialect, run)

    holds()
    return tally


def test_one_person_less_moves_no_generated_query_further_than_declared_on_duckdb(
    duck: duckdb.DuckDBPyConnection,
) -> None:
    fill = partial(fill_duckdb, duck)
    neighbours_hold(fill, "duckdb", partial(run_duckdb, duck), 50).assert_enough(0.1)


def test_one_person_less_moves_no_generated_query_further_than_declared_on_postgres(
    pg: psycopg.Connection[Any],
) -> None:
    fill = partial(fill_postgres, pg)
    neighbours_hold(fill, "postgres", partial(run_postgres, pg), 60).assert_enough(0.1)
