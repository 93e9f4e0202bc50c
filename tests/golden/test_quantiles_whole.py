"""Quantiles, MIN and MAX from the query's text to its answer: within a leaf of DuckDB's own over all sites together.

Each site has a third or a half of the persons, on either engine; with an enormous epsilon nothing but the leaves is
between the merged answer and the plain one. Then what noise does to it: intervals, and values that are not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import duckdb
import psycopg
import pytest
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.render import render
from scipy import stats

from tests.testkit.care import Row, clean_world, create, fill_duckdb, plan, run_duckdb, run_postgres, whole

QUERIES = {
    "median": "SELECT MEDIAN(cost) AS q FROM visit",
    "quartiles of groups": """SELECT kind, QUANTILE_CONT(cost, 0.25) AS a, MEDIAN(cost) AS b, QUANTILE_CONT(cost, 0.75) AS c
        FROM visit GROUP BY kind ORDER BY kind""",
    "within groups": """SELECT kind, PERCENTILE_CONT(0.1) WITHIN GROUP (ORDER BY cost) AS low,
        PERCENTILE_CONT(0.1) WITHIN GROUP (ORDER BY cost DESC) AS high FROM visit GROUP BY kind ORDER BY kind""",
    "discrete": """SELECT kind, QUANTILE_DISC(stage, 0.5) AS m, PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY stage) AS n
        FROM visit GROUP BY kind ORDER BY kind""",
    "discrete from above": "SELECT PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY birth_year DESC) AS q FROM person",
    "discrete of fine values": "SELECT sex, QUANTILE(score, 0.3) AS q FROM person GROUP BY sex ORDER BY sex",
    "least and greatest": "SELECT kind, MIN(cost) AS a, MAX(cost) AS b, MIN(stage) AS c FROM visit GROUP BY kind ORDER BY 1",
    "dates": "SELECT kind, MIN(start) AS a, MAX(finish) AS b, MEDIAN(start) AS c FROM visit GROUP BY kind ORDER BY kind",
    "timestamps": 'SELECT MIN("at") AS a, MAX("at") AS b, MEDIAN("at") AS c FROM act',
    "filter": """SELECT kind, MEDIAN(cost) FILTER (WHERE stage > 1) AS m, MAX(start) FILTER (WHERE cost > 500) AS d
        FROM visit GROUP BY kind ORDER BY kind""",
    "values below zero": "SELECT MEDIAN(amount) AS a, MIN(amount) AS b, QUANTILE_CONT(points, 0.2) AS c FROM act",
    "persons": "SELECT sex, MEDIAN(birth_year) AS m, MIN(score) AS s FROM person GROUP BY sex ORDER BY sex",
    "persons joined": """SELECT p.sex, MEDIAN(v.cost) AS m FROM visit v JOIN person p ON p.person_id = v.person_id
        GROUP BY p.sex ORDER BY p.sex""",
    "private key": "SELECT diagnosis, MEDIAN(cost) AS m, MAX(stage) AS s, COUNT(*) AS n FROM visit GROUP BY diagnosis ORDER BY 4",
    "private key of dates": "SELECT ward, MEDIAN(start) AS m FROM visit GROUP BY ward ORDER BY ward NULLS FIRST",
    "stays per person": """SELECT MEDIAN(k) AS m, MAX(k) AS n FROM (SELECT person_id, COUNT(*) AS k FROM visit
        GROUP BY person_id) f""",
    "arithmetic above": """SELECT kind, MAX(cost) - MIN(cost) AS reach, 100.0 * MEDIAN(cost) / COUNT(*) AS share,
        ROUND(MEDIAN(cost), 1) AS m FROM visit GROUP BY kind ORDER BY kind""",
    "having": "SELECT blood, MEDIAN(cost) AS m FROM visit GROUP BY blood HAVING MAX(stage) > 3 AND MEDIAN(cost) > 10 ORDER BY 1",
    "having that nothing meets": "SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind HAVING MAX(stage) < 3 ORDER BY kind",
    "order": "SELECT kind FROM visit GROUP BY kind ORDER BY MEDIAN(cost) DESC, kind",
    "limit": "SELECT kind, MEDIAN(cost) AS m FROM visit GROUP BY kind ORDER BY m LIMIT 1",
    "beside the whole": """SELECT kind, MEDIAN(cost) AS m, (SELECT MEDIAN(cost) FROM visit) AS all_of_them,
        (SELECT MAX(birth_year) FROM person) AS y FROM visit GROUP BY kind ORDER BY kind""",
    "releases joined": """SELECT a.sex, a.m, b.top, b.top - a.m AS reach FROM (SELECT sex, MEDIAN(birth_year) AS m
        FROM person GROUP BY sex) a JOIN (SELECT p.sex, MAX(v.stage) AS top FROM visit v JOIN person p USING (person_id)
        GROUP BY p.sex) b ON a.sex = b.sex ORDER BY a.sex""",
    "by hand": """SELECT MIN(CASE WHEN place < .25 * size THEN 9999 ELSE stage END) AS a, COUNT(*) AS n,
        MIN(CASE WHEN place < size * 0.5 THEN 9999 ELSE stage END) AS b, MIN(stage) AS low FROM (SELECT stage,
        ROW_NUMBER() OVER (ORDER BY stage) AS place, COUNT(*) OVER () AS size FROM visit WHERE stage IS NOT NULL) AS o""",
    "by hand, counted beside": """SELECT MIN(CASE WHEN place < .75 * size THEN 9999 ELSE stage END) AS a FROM (SELECT stage,
        ROW_NUMBER() OVER (ORDER BY stage) AS place, (SELECT COUNT(*) FROM visit WHERE stage > 1) AS size FROM visit
        WHERE stage > 1) o""",
    "by hand in groups": """WITH t AS (SELECT v.person_id, v.kind, v.stage FROM visit v WHERE v.stage >= 0), o AS (SELECT
        t.kind, t.stage, ROW_NUMBER() OVER (PARTITION BY t.kind ORDER BY t.stage) AS place FROM t JOIN person p
        ON p.person_id = t.person_id) SELECT o.kind, MIN(CASE WHEN place < .5 * size THEN 99 ELSE stage END) AS m
        FROM o JOIN (SELECT kind, COUNT(*) AS size FROM t GROUP BY kind) AS s ON s.kind = o.kind GROUP BY o.kind
        ORDER BY o.kind""",
    "by hand for each person": """SELECT MIN(CASE WHEN place < .5 * size THEN 99 ELSE k END) AS m FROM (SELECT COUNT(*) AS k,
        ROW_NUMBER() OVER (ORDER BY COUNT(*)) AS place, (SELECT COUNT(DISTINCT person_id) FROM visit) AS size FROM visit
        GROUP BY person_id) o""",
    "by hand, as shares": """SELECT MAX(CASE WHEN p1 <= 0.5 THEN stage ELSE -9 END) AS m FROM (SELECT stage, 1.0 *
        (ROW_NUMBER() OVER (ORDER BY stage)) / (COUNT(*) OVER () + 1) AS p1 FROM visit WHERE stage IS NOT NULL) t""",
    "above the median": """SELECT kind, n FROM (SELECT kind, MEDIAN(cost) AS n FROM visit GROUP BY kind) x
        WHERE n >= (SELECT MEDIAN(cost) FROM visit) ORDER BY kind""",
    "the least median": "SELECT MIN(m) AS low, MAX(m) AS high FROM (SELECT kind, MEDIAN(cost) AS m FROM visit GROUP BY kind) k",
    "ranked": "SELECT kind, RANK() OVER (ORDER BY MEDIAN(cost)) AS r FROM visit GROUP BY kind ORDER BY kind",
}
_LEAF: dict[str, dict[str, float]] = {
    "arithmetic above": {"reach": 1.0, "share": 0.6},
    "private key": {"m": 5.0},
    "private key of dates": {"m": 20.0},
    "releases joined": {"reach": 2.0},
    "persons": {"s": 0.005},
    "discrete of fine values": {"q": 0.005},
    "values below zero": {"c": 0.001},
}
"""How far an answer may be off, by column: a leaf of half a unit of cost, a whole number or a day where not given."""


def exact_plan(sql: str) -> PrivacyPlan:
    return plan(sql, max_rows_per_group=1000, max_groups=1000, epsilon="1e25")


def site(number: int, sites: int) -> dict[str, str]:
    """The tables of one site: the persons whose number leaves this remainder, and all that is theirs."""
    mine = f"person_id % {sites} = {number}"
    visits = f"SELECT visit_id FROM visit WHERE {mine}"
    return {
        **whole(),
        "person": f"SELECT * FROM person WHERE {mine}",
        "visit": f"SELECT * FROM visit WHERE {mine}",
        "act": f"SELECT * FROM act WHERE visit_id IN ({visits})",
    }


def released(made: PrivacyPlan, dialect: str, run: Any, tables: dict[str, str]) -> tuple[ReleasedValues, ...]:
    """What one node releases: in plan order, a tree after the release whose keys it follows."""
    values: dict[str, ReleasedValues] = {}
    for one in made.releases:
        followed = values[one.tree.keys_of].keys if one.tree is not None and one.tree.keys_of else None
        rows = tuple(run(render(one, dialect=dialect, tables=tables, cap_key="k")))
        values[one.name] = privatize(one, ExactCells(rows), followed)
    return tuple(values.values())


def read(made: PrivacyPlan, nodes: list[tuple[ReleasedValues, ...]]) -> ResultTable:
    with Postprocessor() as post:
        return post.run(made, merge(made, nodes))


def number(value: Any) -> Any:
    """Dates and timestamps in days, so that they can be compared."""
    if isinstance(value, str) and value[:2] in ("19", "20"):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return (value - datetime(2015, 1, 1)).total_seconds() / 86_400 if isinstance(value, datetime) else value


def near(one: Any, other: Any, leaf: float) -> bool:
    one, other = number(one), number(other)
    if one is None or other is None or isinstance(other, str):
        return bool(one == other)
    return abs(float(one) - float(other)) <= leaf + 1e-6


def leaf_of(name: str, column: str, value: Any) -> float:
    given = _LEAF.get(name, {}).get(column)
    return (
        given if given is not None else 0.5 if isinstance(value, float) else 1.0 if not isinstance(value, int) else 0.0
    )


@pytest.mark.parametrize("sites", [2, 3])
@pytest.mark.parametrize("name", QUERIES)
def test_the_answer_of_all_sites_is_within_a_leaf_of_the_plain_one(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], name: str, sites: int
) -> None:
    made = exact_plan(QUERIES[name])
    plain: list[Row] = run_duckdb(duck, QUERIES[name])
    for dialect, run in (
        ("duckdb", lambda text: run_duckdb(duck, text)),
        ("postgres", lambda text: run_postgres(pg, text)),
    ):
        found = read(made, [released(made, dialect, run, site(place, sites)) for place in range(sites)])
        assert len(found.rows) == len(plain)
        for row, exact in zip(found.rows, plain, strict=True):
            for column, a, b in zip(found.columns, row, exact, strict=True):
                assert near(a, b, leaf_of(name, column.name, b)), (dialect, column.name, row, exact)


def test_a_site_of_each_engine_can_be_added_up(duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any]) -> None:
    made = exact_plan(QUERIES["private key"])
    one = released(made, "duckdb", lambda text: run_duckdb(duck, text), site(0, 2))
    other = released(made, "postgres", lambda text: run_postgres(pg, text), site(1, 2))
    plain = run_duckdb(duck, QUERIES["private key"])
    for row, exact in zip(read(made, [one, other]).rows, plain, strict=True):
        assert row[0] == exact[0]
        assert row[2:] == exact[2:]
        assert near(row[1], exact[1], 5.0)


def test_several_quantiles_of_one_tree_are_in_order(duck: duckdb.DuckDBPyConnection) -> None:
    """At an epsilon that moves each of them: they are read from the same noisy tree."""
    texts = [f"QUANTILE_CONT(cost, {tenth / 10})" for tenth in range(11)]
    made = plan(f"SELECT {', '.join(texts)} FROM visit", epsilon="3", max_rows_per_group=6)
    assert len(made.releases) == 1
    for _ in range(5):
        (row,) = read(made, [released(made, "duckdb", lambda text: run_duckdb(duck, text), whole())]).rows
        values = [value for value in row if isinstance(value, float)]
        assert len(values) == 11
        assert values == sorted(values)


# -- warnings ----------------------------------------------------------------------------------------------------------

WARNING = "MIN and MAX are the outermost values that stand clear of the noise: the true ones may lie further out"


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("MIN(cost)", True),
        ("1 + MAX(stage)", True),
        ("MEDIAN(cost)", False),
        ("QUANTILE(cost, 0.0)", False),
        ("SUM(cost)", False),
    ],
)
def test_whoever_asks_for_a_minimum_or_maximum_is_told_what_it_is(
    duck: duckdb.DuckDBPyConnection, text: str, warned: bool
) -> None:
    made = exact_plan(f"SELECT {text} AS q FROM visit")
    found = read(made, [released(made, "duckdb", lambda sql: run_duckdb(duck, sql), whole())])
    assert found.warnings == ((WARNING,) if warned else ())


# -- intervals ---------------------------------------------------------------------------------------------------------

RUNS = 150


@pytest.fixture(scope="module")
def many() -> Iterator[duckdb.DuckDBPyConnection]:
    """Six hundred persons: at epsilon 1 their medians stand clear of the noise."""
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        for statement in create():
            connection.execute(statement)
        fill_duckdb(connection, clean_world(600, visits=5, acts=0))
        yield connection


@pytest.mark.parametrize(
    ("sql", "sites"),
    [
        ("SELECT MEDIAN(birth_year) FROM person", 1),
        ("SELECT MEDIAN(birth_year) FROM person", 2),
        ("SELECT QUANTILE_CONT(birth_year, 0.3) FROM person", 1),
        ("SELECT MEDIAN(cost) * 2 + 10 FROM visit", 1),
    ],
)
def test_intervals_hold_the_exact_value_as_often_as_they_say(
    many: duckdb.DuckDBPyConnection, sql: str, sites: int
) -> None:
    """95 percent are claimed, and 88 asked for: but one time in ten thousand. One exact answer, and runs of noise."""
    made = plan(sql, epsilon="1", max_rows_per_group=5)
    (release,) = made.releases
    ((plain,),) = run_duckdb(many, sql)
    exact = [ExactCells(tuple(run_duckdb(many, text))) for text in statements(release, sites)]
    held = 0
    with Postprocessor() as post:
        for _ in range(RUNS):
            ((interval,),) = post.run(made, merge(made, [(privatize(release, cells),) for cells in exact])).intervals
            held += interval is not None and interval[0] - 0.5 <= plain <= interval[1] + 0.5
    assert stats.binomtest(held, RUNS, 0.88, alternative="less").pvalue > 1e-4


def statements(release: Release, sites: int) -> list[str]:
    return [render(release, dialect="duckdb", tables=site(place, sites), cap_key="k") for place in range(sites)]


def test_intervals_are_wider_where_there_is_more_noise(duck: duckdb.DuckDBPyConnection) -> None:
    def width(epsilon: str) -> float:
        made = plan("SELECT MEDIAN(birth_year) FROM person", epsilon=epsilon)
        ((interval,),) = read(made, [released(made, "duckdb", lambda sql: run_duckdb(duck, sql), whole())]).intervals
        assert interval is not None
        return interval[1] - interval[0]

    assert width("1e6") <= 1 < width("3")


def test_intervals_go_through_the_sql_above_several_trees(duck: duckdb.DuckDBPyConnection) -> None:
    made = plan(QUERIES["releases joined"], epsilon="40", max_rows_per_group=6)
    found = read(made, [released(made, "duckdb", lambda sql: run_duckdb(duck, sql), whole())])
    assert [column.noisy for column in found.columns] == [False, True, True, True]
    assert len(found.rows) == 2
    for row, intervals in zip(found.rows, found.intervals, strict=True):
        assert intervals[0] is None
        assert intervals[1] is not None
        assert intervals[1][0] <= row[1] <= intervals[1][1]  # type: ignore[operator]


def test_an_empty_group_has_no_minimum(duck: duckdb.DuckDBPyConnection) -> None:
    """At epsilon 1, of 200 runs: one is shown where noise alone stood clear of itself."""
    made = plan("SELECT MIN(stage), MAX(stage) FROM visit WHERE cost > 600 AND cost < 400", epsilon="1")
    shown = 0
    for _ in range(200):
        ((least, greatest),) = read(made, [released(made, "duckdb", lambda sql: run_duckdb(duck, sql), whole())]).rows
        assert (least is None) == (greatest is None)
        shown += least is not None
    assert stats.binomtest(shown, 200, 0.01, alternative="greater").pvalue > 1e-6
