"""SQL text to privacy plan: the passes in order. One planner serves the SDK, the gateway and every node.

Pure: the same text, dataset, parameters and scope give the same plan everywhere, byte for byte in its digest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.dataset import Dataset
from insitu_privacy.errors import ParameterRefused, SqlRefused
from insitu_privacy.expressions import Expression
from insitu_privacy.passes.bounds import bound, check_sensitivity, contribution_bounds
from insitu_privacy.passes.frontier import CELL, RELEASED, Frontier, frontier
from insitu_privacy.passes.keys import effective_bounds, keys
from insitu_privacy.passes.mechanisms import Demand, Noise, mechanisms
from insitu_privacy.passes.parse import SQL_DEPTH, parse
from insitu_privacy.passes.qualify import qualify
from insitu_privacy.passes.spans import balanced, forbidden
from insitu_privacy.passes.statistics import Measured, Wanted, read_back, statistics
from insitu_privacy.passes.track import track
from insitu_privacy.plan import PlannedColumn, PrivacyPlan, QueryParameters, Release, Scope, Statistic

# Nesting of SQL_DEPTH levels takes some 7,000 frames: whether a query is too deep may not depend on who plans it where.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))

EPSILON_RANGE = (Fraction(1, 10**9), Fraction(10**30))
DELTA_LEAST = Fraction(1, 10**30)
STATISTICS_LIMIT = 100
_SHOWN = 24


def plan_query(sql: str, *, dialect: str, dataset: Dataset, parameters: QueryParameters, scope: Scope) -> PrivacyPlan:
    """The plan of one query.

    Raises SqlRefused, ParameterRefused or AccessRefused, before anything is spent.
    """
    _check(parameters)
    try:
        return _plan(sql, dialect, dataset, parameters, scope)
    except RecursionError:
        raise SqlRefused("INSITU-SQL-TOO-DEEP", limit=SQL_DEPTH) from None
    except SqlRefused as refused:
        if refused.span is not None:
            refused.span = balanced(sql, refused.span)
        raise


def _check(parameters: QueryParameters) -> None:
    if not EPSILON_RANGE[0] <= parameters.epsilon <= EPSILON_RANGE[1]:
        raise ParameterRefused("INSITU-PARAM-EPSILON", value=_shown(parameters.epsilon))
    if parameters.delta != 0 and not DELTA_LEAST <= parameters.delta < 1:
        raise ParameterRefused("INSITU-PARAM-DELTA", value=_shown(parameters.delta))


def _shown(value: Fraction) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plan(sql: str, dialect: str, dataset: Dataset, parameters: QueryParameters, scope: Scope) -> PrivacyPlan:
    tree = qualify(parse(sql, dialect), dialect=dialect, dataset=dataset, scope=scope)
    tracked = track(tree, dataset=dataset)
    front = frontier(tree, tracked)
    columns = keys(front, tracked)
    selects_keys = any(column.domain is None for column in columns)
    measured = _with_units(statistics(front, tracked), front, selects_keys, dataset.min_units)
    if len(measured.wanted) > STATISTICS_LIMIT:
        raise forbidden(tree, f"more than {STATISTICS_LIMIT} statistics", "Ask several queries.")
    bounds = effective_bounds(contribution_bounds(tracked, parameters), columns)
    bounded = [bound(wanted, bounds.max_rows_per_group, tracked) for wanted in measured.wanted]
    check_sensitivity(bounded, bounds)
    values = _distinct(wanted.value for wanted in measured.wanted if wanted.value is not None)
    demand = Demand(
        measured=tuple(bounded),
        values=tuple(None if one.wanted.value is None else values.index(one.wanted.value) for one in bounded),
        bounds=bounds,
        selects_keys=selects_keys,
        parameters=parameters,
        accounting=scope.accounting,
    )
    noise = mechanisms(demand)
    release = Release(
        name=RELEASED,
        relation=tracked.relation,
        values=tuple(values),
        value_types=tuple(tracked.facts.facts(value).type for value in values),
        keys=columns,
        statistics=noise.statistics,
        bounds=bounds,
        mechanism=noise.mechanism,
        threshold=noise.threshold,
        suppress_below=dataset.min_units,
    )
    return _assemble(dataset, release, noise, front, measured)


def _distinct(values: Iterable[Expression]) -> list[Expression]:
    return list(dict.fromkeys(values))


def _with_units(measured: Measured, front: Frontier, selects_keys: bool, min_units: int) -> Measured:
    """Adds the number of units where key selection needs it, or suppression has no other count to go by."""
    counted = [wanted for wanted in measured.wanted if wanted.value is None and wanted.kind in ("rows", "units")]
    needed = selects_keys and not any(wanted.kind == "units" for wanted in counted)
    if not needed and (counted or not min_units):
        return measured
    node = front.keys[0].node if front.keys else front.aggregates[0].node
    return Measured(wanted=(*measured.wanted, Wanted("units", None, node)), readings=measured.readings)


def _assemble(dataset: Dataset, release: Release, noise: Noise, front: Frontier, measured: Measured) -> PrivacyPlan:
    outer = front.outer.transform(_reader(measured, release.statistics))
    names = [item.alias for item in outer.expressions]
    noisy = [
        any(column.name.startswith("a") for column in item.find_all(exp.Column)) for item in front.outer.expressions
    ]
    cells = exp.Select(expressions=[item.copy() for item, flag in zip(outer.expressions, noisy, strict=True) if flag])
    cells.set("from_", outer.args["from_"].copy())
    outer.set("expressions", [exp.column(CELL), *outer.expressions])
    return PrivacyPlan(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        releases=(release,),
        loss=noise.loss,
        nodes_per_unit=dataset.nodes_per_unit,
        postprocessing=outer.sql("duckdb"),
        cell_sql=cells.sql("duckdb") if any(noisy) else "",
        output=tuple(PlannedColumn(name=name, noisy=flag) for name, flag in zip(names, noisy, strict=True)),
    )


def _reader(measured: Measured, statistics: Sequence[Statistic]) -> Callable[[exp.Expr], exp.Expr]:
    def read(node: exp.Expr) -> exp.Expr:
        reading = measured.readings.get(node.name) if isinstance(node, exp.Column) else None
        if reading is None:
            return node
        first = statistics[reading.parts[0]]
        return read_back(reading, first.granularity, first.center)

    return read
