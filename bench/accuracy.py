"""Total error against the unclipped truth, and its parts, at bounds that were chosen from a profile.

For each of Q1 to Q8, several epsilons, one node and three (the persons split between them): the profile is made by
the node's own plans at epsilon 1, the bounds are chosen by the SDK's own code, the statement runs on DuckDB once, and
OpenDP draws the noise many times. For each cell and noisy column of the answer: the bias is what the answer without
noise is off the plain query's, the noise the standard deviation of the answers, the total error the root of their mean
square from the truth, each in shares of the truth. A query's figures are medians over the cells of its worst column.
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
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_privacy import mechanisms
from insitu_privacy.data_profile import DataProfile, added
from insitu_privacy.dataset import Dataset
from insitu_privacy.fitting import fitted
from insitu_privacy.merge import merge
from insitu_privacy.plan import Accounting, PrivacyPlan, QueryParameters, Release, Scope
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
                for query, epsilon in product(QUERIES, epsilons):
                    asked = _Asked(query, epsilon, dataset, profile, sites)
                    yield _measured(asked, truths[query.name], processor)


def profile_of_site(site: DuckDBEngine, dataset: Dataset) -> DataProfile:
    made = []
    for one, plan in profile_plans(dataset, PROFILE_EPSILON):
        (release,) = plan.releases
        made.append(histogram(one, plan, mechanisms.privatize(release, _exact(site, release))))
    return profile_of(dataset, tuple(made))


def _exact(site: DuckDBEngine, release: Release) -> mechanisms.ExactCells:
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


class _Asked:
    """One query at one epsilon: its plan at chosen bounds, and each site's exact cells."""

    def __init__(
        self,
        query: Query,
        epsilon: Fraction,
        dataset: Dataset,
        profile: DataProfile | None,
        sites: Sequence[DuckDBEngine],
    ) -> None:
        self.query, self.epsilon, self.nodes = query, epsilon, len(sites)
        parameters = QueryParameters(epsilon=epsilon, delta=DELTA)

        def planned(asked: QueryParameters, accounting: Accounting = "zcdp") -> PrivacyPlan:
            scope = Scope(accounting=accounting)
            return plan_query(query.sql, dialect="duckdb", dataset=dataset, parameters=asked, scope=scope)

        plain = planned(parameters)
        fits = fitted(plain, dataset, profile, parameters=parameters, accounting="zcdp", nodes=len(sites)).fits
        self.plan = planned(replace(parameters, fits=fits))
        self._silent = planned(replace(parameters, fits=fits, epsilon=_SILENT), "pure")
        self._exact = [[_exact(site, release) for release in self.plan.releases] for site in sites]

    def answer(self, processor: Postprocessor, *, noisy: bool = True) -> Cells:
        """An answer by its keys, with new noise; or at an epsilon at which there is none."""
        plan = self.plan if noisy else self._silent
        drawn = [
            [mechanisms.privatize(release, cells) for release, cells in zip(plan.releases, site, strict=True)]
            for site in self._exact
        ]
        columns = tuple(replace(one, noisy=False) for one in plan.output)  # no intervals: they take the most time
        bare = replace(plan, copies_sql="", output=columns)
        return _by_key(self.query, processor.run(bare, merge(bare, drawn)).rows)

    @property
    def bounds(self) -> str:
        """The bounds of the first release, for people."""
        release = self.plan.releases[0]
        caps = [one.linf * float(one.granularity) for one in release.statistics if one.kind == "sum"]
        cap = "".join(f", sum {one:,.0f}" for one in caps[:1])
        return f"{release.mechanism}, {release.bounds.max_rows_per_group:,} rows x {release.bounds.max_groups}{cap}"


def _measured(asked: _Asked, truth: Cells, processor: Postprocessor) -> Accuracy:
    silent = asked.answer(processor, noisy=False)
    answers = [asked.answer(processor) for _ in range(_DRAWS)]
    released = statistics.mean(len(one.keys() & truth.keys()) for one in answers) / max(1, len(truth))
    columns = [
        _column(place, column.name, truth, silent, answers)
        for place, column in enumerate(one for one in asked.plan.output if one.noisy)
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
        bounds=asked.bounds,
    )


def _column(
    place: int, name: str, truth: Cells, silent: Cells, answers: Sequence[Cells]
) -> tuple[str, float, float, float]:
    """Total error, noise and bias of one column: medians over the cells that were released at least twice."""
    found = []
    for key, values in truth.items():
        true, still = values[place], silent.get(key, (None,) * (place + 1))[place]
        drawn = [value for one in answers if key in one and (value := one[key][place]) is not None]
        if not true or still is None or len(drawn) < 2:
            continue
        noise = statistics.pstdev(drawn, still) / abs(true)
        bias = abs(still / true - 1)
        found.append((math.hypot(noise, bias), noise, bias))
    if not found:
        return name, math.inf, math.inf, math.inf
    total, noise, bias = (statistics.median(each) for each in zip(*found, strict=True))
    return name, total, noise, bias
