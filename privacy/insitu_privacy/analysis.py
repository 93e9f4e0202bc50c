"""SQL text to what it asks, and how far one privacy unit can move it: passes 1 to 8, everything of a plan but noise.

An analysis depends on the text, the dataset's contract, what the grant shows of it and the contribution bounds that
were asked for; on neither epsilon nor delta. So it is kept for a while: a researcher asks one question at several
epsilons, and a node sees what its researchers ask again. Pure: what is kept is what would be found again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sqlglot import exp

from insitu_privacy.dataset import ColumnType, ContributionBounds, Dataset
from insitu_privacy.expressions import Expression
from insitu_privacy.passes.bounds import Bounded, bound, check_sensitivity, contribution_bounds
from insitu_privacy.passes.frontier import CELL, Frontier, frontier
from insitu_privacy.passes.keys import effective_bounds, keys
from insitu_privacy.passes.parse import parse
from insitu_privacy.passes.qualify import qualify
from insitu_privacy.passes.spans import forbidden
from insitu_privacy.passes.statistics import Measured, Wanted, read_back, statistics
from insitu_privacy.passes.track import track
from insitu_privacy.plan import KeyColumn, PlannedColumn, QueryParameters, Scope
from insitu_privacy.relations import Relation

STATISTICS_LIMIT = 100
_KEPT = 64
_Tables = tuple[tuple[str, tuple[str, ...] | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """One release without its noise, and the SQL that is run on what nodes release."""

    relation: Relation
    values: tuple[Expression, ...]
    value_types: tuple[ColumnType, ...]
    keys: tuple[KeyColumn, ...]
    measured: tuple[Bounded, ...]
    measured_values: tuple[int | None, ...]
    """For each statistic, the index of its value expression."""
    bounds: ContributionBounds
    selects_keys: bool
    postprocessing: str
    cell_sql: str
    output: tuple[PlannedColumn, ...]


def analyse(sql: str, *, dialect: str, dataset: Dataset, parameters: QueryParameters, scope: Scope) -> Analysis:
    """The analysis of one query. Raises SqlRefused, ParameterRefused or AccessRefused."""
    question = _Question(
        sql=sql,
        dialect=dialect,
        dataset_digest=dataset.digest,
        tables=_tables(scope),
        max_rows_per_group=parameters.max_rows_per_group,
        max_groups=parameters.max_groups,
        dataset=dataset,
        parameters=parameters,
        scope=scope,
    )
    return _analyse(question)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """All that an analysis depends on. Two are equal when they name the same things; the things come along."""

    sql: str
    dialect: str
    dataset_digest: str
    tables: _Tables | None
    max_rows_per_group: int | None
    max_groups: int | None
    dataset: Dataset = field(compare=False)
    parameters: QueryParameters = field(compare=False)
    scope: Scope = field(compare=False)


def _tables(scope: Scope) -> _Tables | None:
    if scope.tables is None:
        return None
    return tuple(
        (name, None if columns is None else tuple(sorted(columns))) for name, columns in sorted(scope.tables.items())
    )


@lru_cache(maxsize=_KEPT)
def _analyse(question: _Question) -> Analysis:
    dataset = question.dataset
    tree = qualify(
        parse(question.sql, question.dialect), dialect=question.dialect, dataset=dataset, scope=question.scope
    )
    tracked = track(tree, dataset=dataset)
    front = frontier(tree, tracked)
    columns = keys(front, tracked)
    selects_keys = any(column.domain is None for column in columns)
    measured = _with_units(statistics(front, tracked), front, selects_keys, dataset.min_units)
    if len(measured.wanted) > STATISTICS_LIMIT:
        raise forbidden(tree, f"more than {STATISTICS_LIMIT} statistics", "Ask several queries.")
    bounds = effective_bounds(contribution_bounds(tracked, question.parameters), columns)
    bounded = tuple(bound(wanted, bounds.max_rows_per_group, tracked) for wanted in measured.wanted)
    check_sensitivity(bounded, bounds)
    values = _distinct(wanted.value for wanted in measured.wanted if wanted.value is not None)
    postprocessing, cell_sql, output = _outer_sql(front, measured, bounded)
    return Analysis(
        relation=tracked.relation,
        values=tuple(values),
        value_types=tuple(tracked.facts.facts(value).type for value in values),
        keys=columns,
        measured=bounded,
        measured_values=tuple(None if one.value is None else values.index(one.value) for one in measured.wanted),
        bounds=bounds,
        selects_keys=selects_keys,
        postprocessing=postprocessing,
        cell_sql=cell_sql,
        output=output,
    )


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


def _outer_sql(
    front: Frontier, measured: Measured, bounded: Sequence[Bounded]
) -> tuple[str, str, tuple[PlannedColumn, ...]]:
    """The post-processing, its noisy columns for every cell, and the columns of the answer."""
    outer = front.outer.transform(_reader(measured, bounded))
    names = [item.alias for item in outer.expressions]
    noisy = [
        any(column.name.startswith("a") for column in item.find_all(exp.Column)) for item in front.outer.expressions
    ]
    cells = exp.Select(expressions=[item.copy() for item, flag in zip(outer.expressions, noisy, strict=True) if flag])
    cells.set("from_", outer.args["from_"].copy())
    outer.set("expressions", [exp.column(CELL), *outer.expressions])
    return (
        outer.sql("duckdb"),
        cells.sql("duckdb") if any(noisy) else "",
        tuple(PlannedColumn(name=name, noisy=flag) for name, flag in zip(names, noisy, strict=True)),
    )


def _reader(measured: Measured, bounded: Sequence[Bounded]) -> Callable[[exp.Expr], exp.Expr]:
    def read(node: exp.Expr) -> exp.Expr:
        reading = measured.readings.get(node.name) if isinstance(node, exp.Column) else None
        if reading is None:
            return node
        first = bounded[reading.parts[0]]
        return read_back(reading, first.granularity, first.center)

    return read
