"""Neighbouring databases through a whole node: signed request in, exact statistics seen just before the noise.

The node is the production cycle: admission, planning, reservation, rendering, the engine. The one part that is
replaced is the last, ``Noise``, so that the test sees what the mechanisms would see. DESIGN.md section 4: when one
person leaves all tables, no more than ``max_groups`` groups change, and none by more than the declared ``linf``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from insitu_access.release import NodeRelease
from insitu_node.engines.base import Row
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_privacy.plan import Release, ReleasedValues

from tests.testkit.databases import new_duckdb
from tests.testkit.node_world import BUNDLE, LIMITS, NodeWorld, care

QUERIES = (
    "SELECT COUNT(*) AS n FROM visit",
    "SELECT COUNT(DISTINCT person_id) AS n FROM visit WHERE amount > 10",
    "SELECT sex, AVG(birth_year) AS born, COUNT(*) AS n FROM person GROUP BY sex",
    "SELECT p.sex, EXTRACT(YEAR FROM v.day) AS y, SUM(v.amount) AS s, COUNT(*) AS n FROM visit v "
    "JOIN person p ON p.person_id = v.person_id GROUP BY 1, 2",
    "SELECT AVG(CASE WHEN v.amount > 100 THEN v.amount / 2 ELSE 0 END) AS a FROM visit v",
    "SELECT birth_year, COUNT_IF(sex = 'F') AS f FROM person GROUP BY birth_year",
)


@dataclass
class SeenNoise:
    """Keeps the exact rows that the mechanisms would be handed."""

    seen: dict[tuple[object, ...], tuple[int, ...]] = field(default_factory=dict)
    release: Release | None = None

    def check(self, release: Release) -> None:
        self.release = release

    def draw(self, release: Release, rows: list[Row], before: Mapping[str, ReleasedValues]) -> ReleasedValues:
        width = len(release.keys)
        self.seen = {tuple(row[:width]): tuple(int(value) for value in row[width:]) for row in rows}  # type: ignore[arg-type]
        cells = release.cells or 0
        return ReleasedValues(keys=None, statistics=tuple((0,) * cells for _ in release.statistics))


PERSON = st.tuples(st.integers(1, 6), st.sampled_from(["F", "M", "X"]), st.integers(1890, 2030))
VISIT = st.tuples(
    st.one_of(st.none(), st.integers(1, 7)),
    st.integers(1, 20),
    st.dates(date(2014, 12, 1), date(2018, 2, 1)),
    st.one_of(st.floats(-10, 60_000), st.sampled_from([float("nan"), float("inf")])),
)


def _site(folder: Path, persons: list[tuple[int, str, int]], visits: list[tuple[object, ...]]) -> DuckDBEngine:
    path = new_duckdb(
        folder / "site.duckdb",
        "CREATE TABLE person (person_id BIGINT, sex VARCHAR, birth_year INTEGER)",
        "CREATE TABLE visit (person_id BIGINT, visit_id BIGINT, day DATE, amount DOUBLE)",
        *(f"INSERT INTO person VALUES ({p}, '{s}', {y})" for p, s, y in persons),
        *(
            f"INSERT INTO visit VALUES ({'NULL' if p is None else p}, {v}, DATE '{d}', '{a}'::DOUBLE)"
            for p, v, d, a in visits
        ),
    )
    mapping = {"person": "person", "visit": "visit"}
    return DuckDBEngine(
        dataset=care(), bundle=BUNDLE, database=path, schema=None, mapping=mapping, base=folder, limits=LIMITS
    )


def _exact(engine: DuckDBEngine, folder: Path, sql: str) -> SeenNoise:
    world = NodeWorld(folder=folder, noise=SeenNoise(), engine=engine)
    cycle = world.cycle()
    assert isinstance(world.ask(cycle, world.query(sql)), NodeRelease)
    assert isinstance(world.noise, SeenNoise)
    return world.noise


@pytest.mark.attacks("P2")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    persons=st.lists(PERSON, max_size=10),
    visits=st.lists(VISIT, max_size=30),
    heavy=st.integers(0, 60),
    leaving=st.integers(1, 6),
)
def test_one_person_moves_every_statistic_by_no_more_than_declared(
    persons: list[tuple[int, str, int]], visits: list[tuple[object, ...]], heavy: int, leaving: int
) -> None:
    visits = visits + [(leaving, i, date(2015, 1, 1) + timedelta(days=40 * i), 100.0 * i) for i in range(heavy)]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = _site(Path(one), persons, visits)
        less = _site(Path(other), [p for p in persons if p[0] != leaving], [v for v in visits if v[0] != leaving])
        try:
            for sql in QUERIES:
                _compare(_exact(whole, Path(one), sql), _exact(less, Path(other), sql))
        finally:
            whole.close()
            less.close()


def _compare(whole: SeenNoise, less: SeenNoise) -> None:
    release = whole.release
    assert release is not None
    domains = [set(key.domain or ()) for key in release.keys]
    moved = 0
    for key in whole.seen.keys() | less.seen.keys():
        if any(value not in domain for value, domain in zip(key, domains, strict=True)):
            continue  # outside the public domain: never released
        empty = (0,) * len(release.statistics)
        before, after = whole.seen.get(key, empty), less.seen.get(key, empty)
        moved += before != after
        for a, b, statistic in zip(before, after, release.statistics, strict=True):
            assert abs(a - b) <= statistic.linf
    assert moved <= release.bounds.max_groups
