"""Node time beside the plain query and the hand-written pushdown, per engine and query, in one interleaved run.

Node time is what a node does with the data: it renders the plan, runs the statement through the very engine class that
``insitu-node`` uses (a session, a read-only transaction, its own limits) and draws the noise with the very mechanisms.
Planning is timed apart. Before anything is timed, node and hand-written statement must agree on the total of their
first count, so that no fast wrong answer is measured.

What is not here: admission, ledger and signature; the gateway part measures a whole federation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from insitu_node.engines.base import Engine, EngineLimits, cores
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_node.engines.postgres import PostgresEngine
from insitu_privacy import mechanisms
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import InsituError
from insitu_privacy.plan import PrivacyPlan, QueryParameters, Release, Scope
from insitu_privacy.planner import plan_query
from insitu_privacy.render import render

from bench import data, handwritten
from bench.queries import CAP_KEY, QUERIES, Dialect, Query
from bench.timing import Action, medians, seconds

CONTRACT = Path(__file__).parent / "dataset.toml"
Plain = Callable[[str], list[Any]]
_BUDGET_S = {"duckdb": 4.0, "postgres": 12.0}
"""Seconds for the rounds of one query."""
_QUICK_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Warm medians of one query on one engine, in seconds. ``refused`` is the code where the language has it not."""

    engine: Dialect
    query: Query
    plain: float
    node: float | None
    handwritten: float | None
    planning: float | None
    refused: str | None

    @property
    def ratio(self) -> float | None:
        """Node time in plain queries."""
        return None if self.node is None else self.node / self.plain

    @property
    def ratio_to_handwritten(self) -> float | None:
        """Node time in hand-written pushdowns."""
        return None if self.node is None or self.handwritten is None else self.node / self.handwritten


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """One engine twice: as the node opens it, and as anyone would."""

    dialect: Dialect
    dataset: Dataset
    engine: Engine
    plain: Plain
    budget_s: float


def measure(dialect: Dialect, size: data.Size, root: Path) -> Iterator[Speed]:
    """Every query of the benchmark on one engine, one by one as they are done."""
    dataset, bundle = contract()
    opened = _duckdb if dialect == "duckdb" else _postgres
    with opened(dataset, bundle, size, root) as bench:
        for query in QUERIES:
            yield _measure(bench, query)


def contract() -> tuple[Dataset, DatasetBundle]:
    """The benchmark's dataset contract."""
    bundle = DatasetBundle(toml=CONTRACT.read_bytes(), files={})
    return parse_dataset(bundle), bundle


def plan(query: Query, dataset: Dataset, *, remark: str = "") -> PrivacyPlan:
    """The plan at epsilon = 1. Raises SqlRefused where the language has not got the query yet.

    The planner keeps what it found about a text: another ``remark`` makes another text of the same query.
    """
    parameters = QueryParameters(
        epsilon=Fraction(1),
        delta=Fraction(query.delta),
        max_rows_per_group=query.max_rows_per_group,
        max_groups=query.max_groups,
    )
    scope = Scope(accounting="zcdp")
    sql = f"{query.sql} -- {remark}"
    return plan_query(sql, dialect="duckdb", dataset=dataset, parameters=parameters, scope=scope)


def _measure(bench: _Bench, query: Query) -> Speed:
    actions: dict[str, Action] = {"plain": partial(bench.plain, query.plain_sql(bench.dialect))}
    form = query.handwritten
    if form is not None:
        text = form.sql[bench.dialect]
        actions["handwritten"] = lambda: handwritten.answer(query, bench.plain(text))
    refused, planning = None, None
    try:
        found = plan(query, bench.dataset)
    except InsituError as error:
        refused = error.code
    else:
        actions["node"] = partial(_answer, bench, found)
        remarks = [f"{bench.dialect} {time}" for time in range(5)]
        planning = statistics.median(seconds(partial(plan, query, bench.dataset, remark=remark)) for remark in remarks)
        _agree(bench, query, found)
    times = medians(actions, budget_s=bench.budget_s)
    return Speed(
        engine=bench.dialect,
        query=query,
        plain=times["plain"],
        node=times.get("node"),
        handwritten=times.get("handwritten"),
        planning=planning,
        refused=refused,
    )


def _answer(bench: _Bench, found: PrivacyPlan) -> list[Any]:
    return [mechanisms.privatize(release, _exact(bench, release)) for release in found.releases]


def _exact(bench: _Bench, release: Release) -> mechanisms.ExactCells:
    sql = render(release, dialect=bench.dialect, tables=bench.engine.tables, cap_key=CAP_KEY)
    with bench.engine.session() as session:
        return mechanisms.ExactCells(tuple(session.execute(sql)))


def _agree(bench: _Bench, query: Query, found: PrivacyPlan) -> None:
    """Both statements bound the same rows the same way: the total of their first count is equal."""
    form, release = query.handwritten, found.releases[0]
    if form is None:
        return
    at = next(index for index, statistic in enumerate(release.statistics) if statistic.kind != "sum")
    ours = sum(int(row[len(release.keys) + at]) for row in _exact(bench, release).rows)
    by_hand = next(index for index, linf in enumerate(form.linf) if linf <= query.max_rows_per_group)
    theirs = sum(int(row[by_hand - len(form.linf)]) for row in bench.plain(form.sql[bench.dialect]))
    if ours != theirs:
        raise AssertionError(f"{query.name} on {bench.dialect}: the node counts {ours}, the hand-written form {theirs}")


def _limits() -> EngineLimits:
    """The node's defaults, but for the time limit."""
    return EngineLimits(statement_timeout_s=300.0, memory_limit_mb=None, workers=2, threads=cores(), temporary=None)


def _budget_s(dialect: Dialect, size: data.Size) -> float:
    return _BUDGET_S[dialect] * (1.0 if size is data.FULL else _QUICK_SHARE)


def _tables(dataset: Dataset) -> dict[str, str]:
    return {name: name for name in dataset.tables}


def duckdb_site(dataset: Dataset, bundle: DatasetBundle, file: Path) -> DuckDBEngine:
    """A DuckDB file as a node opens it."""
    return DuckDBEngine(
        dataset=dataset,
        bundle=bundle,
        database=file,
        schema=None,
        mapping=_tables(dataset),
        base=file.parent,
        limits=_limits(),
    )


@contextmanager
def _duckdb(dataset: Dataset, bundle: DatasetBundle, size: data.Size, root: Path) -> Iterator[_Bench]:
    file = data.folder(size, root) / "claims.duckdb"
    engine = duckdb_site(dataset, bundle, file)
    with duckdb.connect(":memory:", config={"threads": cores()}) as connection:
        connection.execute(f"ATTACH '{file}' AS site (READ_ONLY)")
        connection.execute("USE site")

        def plain(sql: str) -> list[Any]:
            return connection.execute(sql).fetchall()

        try:
            yield _Bench(
                dialect="duckdb", dataset=dataset, engine=engine, plain=plain, budget_s=_budget_s("duckdb", size)
            )
        finally:
            engine.close()


@contextmanager
def _postgres(dataset: Dataset, bundle: DatasetBundle, size: data.Size, root: Path) -> Iterator[_Bench]:
    with data.postgres(size, root) as url, psycopg.connect(url, autocommit=True) as connection:

        def plain(sql: str) -> list[Any]:
            return connection.execute(sql.encode()).fetchall()

        engine = PostgresEngine(
            dataset=dataset,
            bundle=bundle,
            database=url,
            schema=None,
            mapping=_tables(dataset),
            limits=_limits(),
        )
        try:
            yield _Bench(
                dialect="postgres", dataset=dataset, engine=engine, plain=plain, budget_s=_budget_s("postgres", size)
            )
        finally:
            engine.close()
