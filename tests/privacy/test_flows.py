"""What ``passes.reads`` leaves out makes no difference: the oracle is the database, not a list of operations.

Queries that hypothesis writes are run twice: on a clean world, and on one where each column that the pass says is not
used has been filled anew, at random, and each date that it says is used by its year, quarter or month moved within
that. What the planned statements give is the same. So a column that matters is never missed, whatever carries it.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from insitu_privacy.errors import Refused
from insitu_privacy.passes.reads import Asked, uses_of
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.render import render
from insitu_privacy.rules import FINENESS, Precision, Read

from tests.privacy.generated import Query, queries, roomy
from tests.testkit.care import Row, World, clean_world, columns, create, fill_duckdb, plan, run_duckdb, whole

SOME = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
IDS = {"visit_id", "person_id", "rang", "act_id", "previous"}
WORLD = clean_world(30, seed=5)


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection]]:
    with duckdb.connect(":memory:", config={"threads": 1}) as one, duckdb.connect(":memory:") as other:
        for connection in (one, other):
            for statement in create():
                connection.execute(statement)
        fill_duckdb(one, WORLD)
        yield one, other


def used(made: PrivacyPlan) -> frozenset[Read]:
    asked = [
        Asked(
            relation=one.relation,
            keys=tuple(key.expression for key in one.keys),
            statistics=tuple((s.kind, None if s.value is None else one.values[s.value]) for s in one.statistics),
        )
        for one in made.releases
    ]
    return uses_of(asked, frozenset()).reads


def finest(reads: frozenset[Read]) -> dict[tuple[str, str], Precision]:
    found: dict[tuple[str, str], Precision] = {}
    for read in sorted(reads, key=lambda read: FINENESS[read.precision]):
        found[read.name] = read.precision
    return found


def moved(draw: Random, value: Any, precision: Precision | None, pool: Sequence[Any]) -> Any:
    """Another value that is the same as far as it is used. Only whether it is there is used of what is no date."""
    if precision == "exact":
        return value
    if precision is None:
        return draw.choice(pool)
    there = [one for one in pool if one is not None]
    if value is None or not isinstance(value, date):
        return None if value is None else draw.choice(there)
    first = {"year": 1, "quarter": value.month - (value.month - 1) % 3, "month": value.month}[precision]
    months = {"year": 12, "quarter": 3, "month": 1}[precision]
    month = first + draw.randrange(months)
    day = draw.randint(1, calendar.monthrange(value.year, month)[1])
    if isinstance(value, datetime):
        return datetime(value.year, month, day) + timedelta(minutes=draw.randrange(1440))
    return date(value.year, month, day)


def scrambled(world: World, reads: dict[tuple[str, str], Precision], draw: Random) -> World:
    def rows(table: str, kept: tuple[Row, ...]) -> tuple[Row, ...]:
        names = columns(table)
        pools = list(zip(*kept, strict=True))
        return tuple(
            tuple(
                value if name in IDS else moved(draw, value, reads.get((table, name)), pools[place])
                for place, (name, value) in enumerate(zip(names, row, strict=True))
            )
            for row in kept
        )

    return replace(
        world,
        person=rows("person", world.person),
        visit=rows("visit", world.visit),
        act=rows("act", world.act),
        line=rows("line", world.line),
    )


def given_by(made: PrivacyPlan, connection: duckdb.DuckDBPyConnection) -> list[Counter[Row]]:
    return [
        Counter(run_duckdb(connection, render(one, dialect="duckdb", tables=whole(), cap_key="k")))
        for one in made.releases
    ]


def planned(query: Query) -> PrivacyPlan | None:
    try:
        return plan(query.sql, dataset=roomy())
    except Refused:
        return None


def test_what_is_not_used_makes_no_difference(sites: tuple[Any, Any]) -> None:
    one, other = sites
    tally = Counter[str]()

    @settings(SOME, max_examples=80)
    @given(query=queries(), seed=st.integers(0, 2**32))
    def holds(query: Query, seed: int) -> None:
        made = planned(query)
        if made is None:
            return
        reads = finest(used(made))
        fill_duckdb(other, scrambled(WORLD, reads, Random(seed)))
        assert given_by(made, one) == given_by(made, other), query.sql
        tally.update(["planned", *set(reads.values())])
        fill_duckdb(other, scrambled(WORLD, {}, Random(seed)))
        tally["told"] += given_by(made, one) != given_by(made, other)

    holds()
    assert tally["told"] > 0.5 * tally["planned"], "too few of the queries look at anything"
    assert tally["exact"]
    assert tally["year"]


VALUES = {
    "the year": ("YEAR(start)", "> 2018"),
    "the quarter": ("QUARTER(start) + YEAR(start)", "> 2020"),
    "the month": ("MONTH(start)", "> 4"),
    "truncated to the quarter": ("YEAR(DATE_TRUNC('quarter', start))", "> 2018"),
    "written by month": ("STRFTIME(start, '%Y-%m')", "> '2018-05'"),
    "last day": ("DAY(LAST_DAY(start))", "> 30"),
    "months between": ("date_diff('month', start, finish)", "= 0"),
    "years between": ("date_diff('year', start, finish)", "= 0"),
    "the year of either": ("YEAR(COALESCE(finish, start))", "< 2020"),
    "the month of the later": ("MONTH(GREATEST(finish, start))", "< 6"),
    "a case": ("YEAR(CASE WHEN ward = 1 THEN finish ELSE start END)", "< 2020"),
}
RANGES = {
    "from a year": "start >= DATE '2019-01-01'",
    "before a quarter": "start < DATE '2019-04-01'",
    "until a month": "start <= DATE '2020-02-29'",
    "after a year": "start > DATE '2018-12-31'",
    "the literal first": "DATE '2018-06-30' < start AND DATE '2020-07-31' >= start",
    "between": "start BETWEEN DATE '2018-01-01' AND DATE '2019-12-31'",
    "the later, from a year": "GREATEST(start, finish) >= DATE '2019-01-01'",
    "whether it is there": "finish IS NULL",
    "a day's midnight": "CAST(start AS TIMESTAMP) >= TIMESTAMP '2019-01-01 00:00:00'",
}
ASKED = [
    *(f"SELECT {x} AS k, COUNT(*) FROM visit WHERE ward > 0 GROUP BY 1" for x in RANGES.values()),
    *(f"SELECT {x} AS k, COUNT(*) FROM visit WHERE ward > 0 GROUP BY 1" for x, _ in VALUES.values()),
    *(f"SELECT COUNT_IF({x}), COUNT({x}) FROM visit" for x in RANGES.values()),
    *(f"SELECT COUNT_IF({x} {how}), COUNT({x}) FROM visit" for x, how in VALUES.values()),
    *(f"SELECT kind, COUNT(*) FROM visit WHERE {x} GROUP BY 1" for x in RANGES.values()),
    *(f"SELECT kind, COUNT(*) FROM visit WHERE {x} {how} GROUP BY 1" for x, how in VALUES.values()),
    *(
        f"SELECT k, COUNT(*) FROM (SELECT person_id, MAX({x}) AS k FROM visit GROUP BY 1) f GROUP BY 1"
        for x, _ in VALUES.values()
    ),
]


@pytest.mark.parametrize("sql", ASKED)
def test_a_date_that_is_used_by_a_period_may_move_within_it(sites: tuple[Any, Any], sql: str) -> None:
    made = plan(sql, dataset=roomy(), max_rows_per_group=20, max_groups=20)
    one, other = sites
    reads = finest(used(made))
    assert reads.get(("visit", "start")) != "exact"
    assert reads.get(("visit", "finish")) != "exact"
    for seed in range(3):
        fill_duckdb(other, scrambled(WORLD, reads, Random(seed)))
        assert given_by(made, one) == given_by(made, other)
