"""Total error against the unclipped truth, and its parts, at bounds that were chosen from a profile.

For each of Q1 to Q8, several epsilons, one node and three (the persons split between them): the profile is made by
the node's own plans at epsilon 1, the bounds are chosen by the SDK's own code, by a first look where it asks for one,
the statement runs on DuckDB once for each choice, and OpenDP draws the noise many times. For each cell and noisy column
of the answer: the bias is what the answer without noise is off the plain query's, the noise what the answers are off
that, the total error both together, as roots of mean squares and in shares of the truth. A query's figures are medians
over the cells of its worst column.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
from insitu.looking import SHARE, parameters_of_look
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_privacy import mechanisms
from insitu_privacy.data_profile import DataProfile, added
from insitu_privacy.dataset import Dataset
from insitu_privacy.first_look import FirstLook, first_look, own_rows
from insitu_privacy.fits import ReleaseFit
from insitu_privacy.fitting import OwnRows, fitted, is_worth_a_look
from insitu_privacy.merge import merge
from insitu_privacy.plan import Accounting, PrivacyPlan, QueryParameters, Release, ReleasedValues, Scope
from insitu_privacy.planner import plan_query
from insitu_privacy.postprocess import Postprocessor
from insitu_privacy.profile_measures import histogram, profile_of, profile_plans
from insitu_privacy.render import render

from bench import data, speed
from bench.queries import CAP_KEY, QUERIES, Query

EPSILONS = (Fraction(1, 10), Fraction(1), Fraction(10))
NODES = (1, 3)
DELTA = Fraction(1, 10**6)
PROFILE_EPSILON = Fraction(1)
_SILENT = Fraction(10**13)
_DRAWS = 60
Cells = Mapping[tuple[Any, ...], tuple[float | None, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One query at one epsilon. Shares of the truth, medians over the cells of its worst column."""

    query: Query
    epsilon: Fraction
    nodes: int
    column: str
    total_error: float
    noise: float
    bias: float
    cells: int
    released: float
    """Share of the true groups that were released, on average."""
    bounds: str


def measure(size: data.Size, root: Path, epsilons: Sequence[Fraction] = EPSILONS) -> Iterator[Accuracy]:
    """Every query, one by one as they are done."""
    dataset, bundle = speed.contract()
    (whole,) = data.split(size, root, 1)
    with Postprocessor() as processor, duckdb.connect(str(whole), read_only=True) as plain:
        truths = {query.name: _truth(query, plain) for query in QUERIES}
        for nodes in NODES:
            with ExitStack() as stack:
                files = data.split(size, root, nodes)
                sites = [stack.enter_context(closing(speed.duckdb_site(dataset, bundle, file))) for file in files]
                profile = added([profile_of_site(site, dataset) for site in sites])
                assert profile is not None, "each site has one"
                for query, epsilon in product(QUERIES, epsilons):
                    asked = _Asked(query, epsilon, dataset, profile, sites)
                    yield _measured(asked, truths[query.name], processor)


def profile_of_site(site: DuckDBEngine, dataset: Dataset) -> DataProfile:
    made = []
    for one, plan in profile_plans(dataset, PROFILE_EPSILON):
        (release,) = plan.releases
        made.append(histogram(one, plan, mechanisms.privatize(release, exact(site, release))))
    return profile_of(dataset, tuple(made))


def exact(site: DuckDBEngine, release: Release) -> mechanisms.ExactCells:
    """A release's cells at a site, before noise."""
    sql = render(release, dialect=site.dialect, tables=site.tables, cap_key=CAP_KEY)
    with site.session() as session:
        return mechanisms.ExactCells(tuple(session.execute(sql)))


def _truth(query: Query, plain: duckdb.DuckDBPyConnection) -> Cells:
    """The plain query's answer, by its keys."""
    return _by_key(query, plain.execute(query.plain_sql("duckdb")).fetchall())


def _by_key(query: Query, rows: Sequence[Sequence[Any]]) -> Cells:
    """Rows by their group keys, which come first."""
    keys = query.sql.partition("GROUP BY")[2].count(",") + 1 if "GROUP BY" in query.sql else 0
    return {tuple(map(str, row[:keys])): tuple(map(_number, row[keys:])) for row in rows}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounded:
    """A query's plan at chosen bounds, each site's exact cells, and the answer at an epsilon without noise."""

    plan: PrivacyPlan
    cells: Sequence[Sequence[mechanisms.ExactCells]]
    silent: Cells


class _Asked:
    """One query at one epsilon, as the SDK asks it: first a look at its own rows, where that is worth it."""

    def __init__(
        self,
        query: Query,
        epsilon: Fraction,
        dataset: Dataset,
        profile: DataProfile,
        sites: Sequence[DuckDBEngine],
    ) -> None:
        self.query, self.epsilon, self.nodes = query, epsilon, len(sites)
        self._dataset, self._profile, self._sites = dataset, profile, sites
        self._made: dict[tuple[ReleaseFit, ...], _Bounded] = {}
        whole = QueryParameters(epsilon=epsilon, delta=DELTA)
        plain = self._planned(whole)
        self._look = self._look_at(plain, whole)
        self._rest = whole if self._look is None else replace(whole, epsilon=epsilon * (1 - SHARE))
        self._plain = plain if self._look is None else self._planned(self._rest)

    def _planned(self, asked: QueryParameters, accounting: Accounting = "zcdp", sql: str | None = None) -> PrivacyPlan:
        scope = Scope(accounting=accounting)
        text = self.query.sql if sql is None else sql
        return plan_query(text, dialect="duckdb", dataset=self._dataset, parameters=asked, scope=scope)

    def _look_at(self, plain: PrivacyPlan, whole: QueryParameters) -> _Look | None:
        worth = is_worth_a_look(
            plain, self._dataset, self._profile, parameters=whole, accounting="zcdp", nodes=self.nodes
        )
        if not worth:
            return None
        part = parameters_of_look(whole.epsilon * SHARE)
        found = first_look(self.query.sql, "duckdb", plain, self._dataset, lambda sql: self._planned(part, "zcdp", sql))
        if found is None:
            return None
        plan = self._planned(part, "zcdp", found.sql)
        return _Look(first=found, plan=plan, cells=self._cells(plan))

    def _cells(self, plan: PrivacyPlan) -> list[list[mechanisms.ExactCells]]:
        return [[exact(site, release) for release in plan.releases] for site in self._sites]

    def bounded(self, processor: Postprocessor) -> _Bounded:
        """The query at the bounds that are chosen for it, by a look with new noise where there is one."""
        own = None if self._look is None else self._look.own_rows()
        fits = fitted(
            self._plain,
            self._dataset,
            self._profile,
            parameters=self._rest,
            accounting="zcdp",
            nodes=self.nodes,
            own=own,
        ).fits
        if fits not in self._made:
            plan = self._planned(replace(self._rest, fits=fits))
            cells = self._cells(plan)
            silent = self._planned(replace(self._rest, fits=fits, epsilon=_SILENT), "pure")
            self._made[fits] = _Bounded(
                plan=plan, cells=cells, silent=_by_key(self.query, _answer(silent, cells, processor))
            )
        return self._made[fits]

    def answer(self, one: _Bounded, processor: Postprocessor) -> Cells:
        """An answer by its keys, with new noise."""
        return _by_key(self.query, _answer(one.plan, one.cells, processor))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A first look, and what each site has for it before noise."""

    first: FirstLook
    plan: PrivacyPlan
    cells: Sequence[Sequence[mechanisms.ExactCells]]

    def own_rows(self) -> OwnRows:
        return own_rows(self.first, self.plan, merge(self.plan, _drawn(self.plan, self.cells)), nodes=len(self.cells))


def _drawn(plan: PrivacyPlan, cells: Sequence[Sequence[mechanisms.ExactCells]]) -> list[list[ReleasedValues]]:
    return [[mechanisms.privatize(*each) for each in zip(plan.releases, site, strict=True)] for site in cells]


def _answer(
    plan: PrivacyPlan, cells: Sequence[Sequence[mechanisms.ExactCells]], processor: Postprocessor
) -> Sequence[Sequence[Any]]:
    columns = tuple(replace(one, noisy=False) for one in plan.output)  # no intervals: they take the most time
    bare = replace(plan, copies_sql="", output=columns)
    return processor.run(bare, merge(bare, _drawn(plan, cells))).rows


def _said(plan: PrivacyPlan) -> str:
    """The bounds of the first release, for people."""
    release = plan.releases[0]
    caps = [one.linf * float(one.granularity) for one in release.statistics if one.kind == "sum"]
    cap = "".join(f", sum {one:,.0f}" for one in caps[:1])
    return f"{release.mechanism}, {release.bounds.max_rows_per_group:,} rows x {release.bounds.max_groups}{cap}"


def _measured(asked: _Asked, truth: Cells, processor: Postprocessor) -> Accuracy:
    chosen = [asked.bounded(processor) for _ in range(_DRAWS)]
    answers = [(asked.answer(one, processor), one.silent) for one in chosen]
    released = statistics.mean(len(one.keys() & truth.keys()) for one, _ in answers) / max(1, len(truth))
    columns = [
        _column(place, column.name, truth, answers)
        for place, column in enumerate(one for one in chosen[0].plan.output if one.noisy)
    ]
    worst = max(columns, key=lambda one: one[1])
    return Accuracy(
        query=asked.query,
        epsilon=asked.epsilon,
        nodes=asked.nodes,
        column=worst[0],
        total_error=worst[1],
        noise=worst[2],
        bias=worst[3],
        cells=len(truth),
        released=released,
        bounds=_said(chosen[0].plan),
    )


def _column(
    place: int, name: str, truth: Cells, answers: Sequence[tuple[Cells, Cells]]
) -> tuple[str, float, float, float]:
    """Total error, noise and bias of one column: medians over the cells that were released at least twice.

    ``answers`` are with noise and, at the same bounds, without.
    """
    found = []
    for key, values in truth.items():
        true = values[place]
        drawn = [
            (value / true, still / true)
            for one, silent in answers
            if true and (value := _at(one, key, place)) is not None and (still := _at(silent, key, place)) is not None
        ]
        if len(drawn) < 2:
            continue
        noise = _root_mean_square([value - still for value, still in drawn])
        bias = _root_mean_square([still - 1 for _, still in drawn])
        found.append((math.hypot(noise, bias), noise, bias))
    if not found:
        return name, math.inf, math.inf, math.inf
    total, noise, bias = (statistics.median(each) for each in zip(*found, strict=True))
    return name, total, noise, bias


def _at(cells: Cells, key: tuple[Any, ...], place: int) -> float | None:
    return cells[key][place] if key in cells else None


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(one**2 for one in values))
