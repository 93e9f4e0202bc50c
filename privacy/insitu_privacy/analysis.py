"""SQL text to what it asks, and how far one privacy unit can move it: passes 1 to 8, everything of a plan but noise.

An analysis depends on the text, the dataset's contract, what the grant shows of it and the contribution bounds that
were asked for; on neither epsilon nor delta. So it is kept for a while: a researcher asks one question at several
epsilons, and a node sees what its researchers ask again. Pure: what is kept is what would be found again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache

from sqlglot import exp

from insitu_privacy.dataset import ColumnType, ContributionBounds, Dataset
from insitu_privacy.errors import ParameterRefused, Refused
from insitu_privacy.expressions import Expression
from insitu_privacy.fits import ReleaseFit, StatisticFit
from insitu_privacy.passes import legal
from insitu_privacy.passes.bounds import Bounded, bound, check_sensitivity, contribution_bounds, fit_of, levels
from insitu_privacy.passes.copies import for_copies
from insitu_privacy.passes.correlated import without_correlated_values
from insitu_privacy.passes.finest import Finest, is_more_accurate
from insitu_privacy.passes.first_rows import without_qualify
from insitu_privacy.passes.frontier import CELL, Frontier
from insitu_privacy.passes.grouping_sets import grouped_in_sets, without_grouping_sets
from insitu_privacy.passes.keys import effective_bounds, keys, leaves_limit
from insitu_privacy.passes.lift import RELEASES_LIMIT, Lifted, Part, lift
from insitu_privacy.passes.outer import make_total
from insitu_privacy.passes.outer_joins import without_right_joins
from insitu_privacy.passes.parse import parse
from insitu_privacy.passes.percentile_idiom import read_percentiles
from insitu_privacy.passes.pinned import with_pinned
from insitu_privacy.passes.qualify import qualify
from insitu_privacy.passes.quantiles import read_quantile, within_groups
from insitu_privacy.passes.reads import Asked
from insitu_privacy.passes.spans import forbidden
from insitu_privacy.passes.spelled import with_plain_spelling
from insitu_privacy.passes.statistics import Measured as Wants
from insitu_privacy.passes.statistics import Reading, Scale, Wanted, read_back, statistics
from insitu_privacy.passes.today import with_today
from insitu_privacy.plan import KeyColumn, PlannedColumn, Quantile, QueryParameters, Scope, Tree, cell_count
from insitu_privacy.relations import Relation

STATISTICS_LIMIT = 100
VALUES_LIMIT = 500_000
"""Noisy integers of a query at each node."""
_KEPT = 64
_Tables = tuple[tuple[str, tuple[str, ...] | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One release without its noise."""

    name: str
    relation: Relation
    values: tuple[Expression, ...]
    value_types: tuple[ColumnType, ...]
    keys: tuple[KeyColumn, ...]
    measured: tuple[Bounded, ...]
    measured_values: tuple[int | None, ...]
    """For each statistic, the index of its value expression."""
    bounds: ContributionBounds
    selects_keys: bool
    weights: tuple[int, ...]
    """For each statistic, its part of the query's budget in proportion to all others."""
    tree: Tree | None = None
    one_row_per_unit: bool = False
    """Whether a unit has one row of the relation: bounds of contributions then cut nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The releases of a query, and the SQL that is run on what nodes release."""

    releases: tuple[Measured, ...]
    postprocessing: str
    rows_are_cells: bool
    copies_sql: str
    output: tuple[PlannedColumn, ...]
    quantiles: tuple[Quantile, ...]
    by_node: tuple[str, ...]
    public: tuple[str, ...]
    """Public tables that this SQL reads."""


def analyse(
    sql: str, *, dialect: str, dataset: Dataset, parameters: QueryParameters, scope: Scope, today: date | None
) -> Analysis:
    """The analysis of one query. Raises SqlRefused, LegalRefused, ParameterRefused or AccessRefused."""
    question = _Question(
        sql=sql,
        dialect=dialect,
        dataset_digest=dataset.digest,
        tables=_tables(scope),
        max_rows_per_group=parameters.max_rows_per_group,
        max_groups=parameters.max_groups,
        fits=parameters.fits,
        min_units=max(dataset.min_units, scope.min_units),
        today=today,
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
    fits: tuple[ReleaseFit, ...]
    min_units: int
    today: date | None
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
    parsed = _parsed(question)
    if not grouped_in_sets(parsed):
        return _analysed(parsed, question)[0]
    plain = replace(question, fits=(), parameters=replace(question.parameters, fits=()))
    return _analysed(without_grouping_sets(parsed, _summed(plain))[0], question)[0]


def _parsed(question: _Question) -> exp.Query:
    parsed = parse(question.sql, question.dialect)
    parsed = with_today(with_plain_spelling(parsed, question.dialect), question.today)
    parsed = with_pinned(parsed)
    within_groups(parsed)
    return without_qualify(parsed)


@lru_cache(maxsize=_KEPT)
def _summed(question: _Question) -> tuple[int, ...]:
    """The places of the SELECTs over grouping sets that are read as sums of the finest set (``passes.finest``).

    They are the same whatever bounds a request names for its releases: what it names depends on how many these are.
    """
    if question.min_units:  # of a sum, what is suppressed could be read from the difference
        return ()
    parsed = _parsed(question)
    separate, _ = _analysed(without_grouping_sets(parsed.copy())[0], question)
    try:
        return _right_and_more_accurate(parsed, question, separate)
    except Refused:  # in terms of what nobody wrote
        return ()


def _right_and_more_accurate(parsed: exp.Query, question: _Question, separate: Analysis) -> tuple[int, ...]:
    tree, tables = without_grouping_sets(parsed.copy(), range(len(grouped_in_sets(parsed))))
    analysis, keys_of = _analysed(tree, question)
    if max(len(one.measured) for one in analysis.releases) > max(len(one.measured) for one in separate.releases):
        return ()
    kinds = {one.wanted.kind for release in analysis.releases for one in release.measured}
    persons = bool(kinds & {"units", "entities"})
    sizes = {table: found for table in tables if (found := _sizes(table, keys_of, constant=persons)) is not None}
    chosen, left = list(sizes), -1
    while len(chosen) != left:  # each is judged by the budget that the others leave
        left = len(chosen)
        releases = len(separate.releases)
        summed = releases - sum(len(table.sets) - 1 for table in chosen)
        chosen = [
            table for table in chosen if is_more_accurate(sizes[table], table.sets, summed=summed, separate=releases)
        ]
    return tuple(table.place for table in chosen)


def _sizes(table: Finest, keys_of: Mapping[str, KeyColumn], *, constant: bool) -> list[int] | None:
    """How many values each key of a finest table has; None where it cannot be summed."""
    columns = [keys_of.get(table.key(place)) for place in range(max(map(len, table.sets)))]
    if any(one is None or one.domain is None or (constant and not one.constant) for one in columns):
        return None
    return [max(1, len(one.domain)) for one in columns if one is not None and one.domain is not None]


def _analysed(parsed: exp.Query, question: _Question) -> tuple[Analysis, dict[str, KeyColumn]]:
    """The analysis of a query without grouping sets, and its group keys by the names that are selected of them."""
    dataset = question.dataset
    tree = qualify(parsed, dialect=question.dialect, dataset=dataset, scope=question.scope)
    without_right_joins(tree)
    without_correlated_values(tree)
    read_percentiles(tree, dataset)
    lifted = lift(tree, dataset=dataset)
    read: dict[tuple[str, str], exp.Expr] = {}
    releases: list[Measured] = []
    quantiles: list[Quantile] = []
    by_node: list[str] = []
    keys_of: dict[str, KeyColumn] = {}
    for part in lifted.parts:
        made = _measured(part, question, tree, len(releases))
        by_node += [release.name for release in made.releases if part.front.by_node]
        releases += made.releases
        named = {key.name: key for key in made.releases[0].keys}
        keys_of |= {
            item.alias: named[item.this.name]
            for item in part.front.outer.selects
            if isinstance(item, exp.Alias) and isinstance(item.this, exp.Column) and item.this.name in named
        }
        _check_size(releases, part)
        quantiles += made.quantiles
        read |= made.readings
    if question.fits and len(question.fits) != len(releases):
        raise ParameterRefused("INSITU-PARAM-FITS")
    legal.check(dataset.rules, [_asked(one) for one in releases], tree)
    names = [item.alias_or_name for item in lifted.outer.selects]
    postprocessing, copies_sql = _outer_sql(lifted, read)
    analysis = Analysis(
        releases=tuple(releases),
        postprocessing=postprocessing,
        rows_are_cells=lifted.by_cell,
        copies_sql=copies_sql,
        output=tuple(PlannedColumn(name=name, noisy=flag) for name, flag in zip(names, lifted.noisy, strict=True)),
        quantiles=tuple(quantiles),
        by_node=tuple(by_node),
        public=lifted.public,
    )
    return analysis, keys_of


def _asked(release: Measured) -> Asked:
    values = (None if place is None else release.values[place] for place in release.measured_values)
    kinds = (one.wanted.kind for one in release.measured)
    keys = tuple(key.expression for key in release.keys)
    return Asked(relation=release.relation, keys=keys, statistics=tuple(zip(kinds, values, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """The releases of one aggregation: its statistics, and a tree of counts for each expression of its quantiles."""

    releases: list[Measured]
    readings: dict[tuple[str, str], exp.Expr]
    """For each aggregate, by released relation and placeholder, what it is read back by."""
    quantiles: list[Quantile]


def _measured(part: Part, question: _Question, tree: exp.Expr, first: int) -> _Made:
    tracked, front = part.tracked, part.front
    columns = keys(front, tracked)
    selects_keys = any(column.domain is None for column in columns)
    found = _with_units(statistics(front, tracked), front, selects_keys, question.min_units)
    if len(found.wanted) > STATISTICS_LIMIT:
        raise forbidden(tree, f"more than {STATISTICS_LIMIT} statistics", "Ask several queries.")

    def measured(place: int, name: str, wanted: tuple[Wanted, ...], leaves: int) -> Measured:
        fit = fit_of(question.parameters, first + place, len(wanted))
        bounds = effective_bounds(contribution_bounds(tracked, question.parameters, fit), columns)
        fits = (StatisticFit(),) * len(wanted) if fit is None else fit.statistics
        pairs = zip(wanted, fits, strict=True)
        bounded = tuple(bound(one, bounds.max_rows_per_group, tracked, leaves, each) for one, each in pairs)
        check_sensitivity(bounded, bounds)
        values = list(dict.fromkeys(one.value for one in wanted if one.value is not None))
        base = front.name if selects_keys else None
        return Measured(
            name=name,
            relation=tracked.relation,
            values=tuple(values),
            value_types=tuple(tracked.facts.facts(value).type for value in values),
            keys=columns,
            measured=bounded,
            measured_values=tuple(None if one.value is None else values.index(one.value) for one in wanted),
            bounds=bounds,
            selects_keys=selects_keys and not leaves,
            weights=tuple(levels(one) if fit is None else each.weight for one, each in zip(bounded, fits, strict=True)),
            tree=_tree(bounded[0], base) if leaves else None,
            one_row_per_unit=tracked.one_row_per_unit,
        )

    releases = [measured(0, front.name, found.wanted, 0)] if found.wanted else []
    limit = leaves_limit(columns, front) if found.trees else 0
    names = [
        front.name if not releases and not place else f"{front.name}_t{place}" for place in range(len(found.trees))
    ]
    start = len(releases)
    releases += [
        measured(start + place, name, (one,), limit)
        for place, (name, one) in enumerate(zip(names, found.trees, strict=True))
    ]
    readings = {
        (front.name, name): _read(reading, releases[0].measured, front.name) for name, reading in found.readings.items()
    }
    quantiles = []
    for place, (name, (at, asked)) in enumerate(found.quantiles.items()):
        quantile = Quantile(relation=front.name, column=f"q{place}", tree=names[at], kind=asked.kind, level=asked.level)
        quantiles.append(quantile)
        readings[front.name, name] = read_quantile(asked, quantile)
    return _Made(releases=releases, readings=readings, quantiles=quantiles)


def _tree(one: Bounded, keys_of: str | None) -> Tree:
    return Tree(leaves=one.leaves, weight=one.weight, beyond=one.beyond, keys_of=keys_of)


def _read(reading: Reading, bounded: tuple[Bounded, ...], released: str) -> exp.Expr:
    scales = [Scale(granularity=bounded[part].granularity, center=bounded[part].center) for part in reading.parts]
    return read_back(reading, scales, released)


def _with_units(found: Wants, front: Frontier, selects_keys: bool, min_units: int) -> Wants:
    """Adds the number of units where key selection needs it, or suppression has no other count to go by."""
    counted = [wanted for wanted in found.wanted if wanted.value is None and wanted.kind in ("rows", "units")]
    needed = selects_keys and not any(wanted.kind == "units" for wanted in counted)
    if not needed and (counted or not min_units):
        return found
    node = front.keys[0].node if front.keys else front.aggregates[0].node
    return replace(found, wanted=(*found.wanted, Wanted("units", None, node)))


def _check_size(releases: list[Measured], part: Part) -> None:
    """A query may not make a node run and release without end: trees are releases too."""
    node = part.front.keys[0].node if part.front.keys else part.front.aggregates[0].node
    if len(releases) > RELEASES_LIMIT:
        raise forbidden(node, f"more than {RELEASES_LIMIT} releases, quantiles among them", "Ask several queries.")
    values = sum((cell_count(one.keys) or 0) * len(one.measured) for one in releases)
    if values > VALUES_LIMIT:
        raise forbidden(node, f"more than {VALUES_LIMIT} released values", "Ask for fewer groups, or fewer aggregates.")


def _outer_sql(lifted: Lifted, read: dict[tuple[str, str], exp.Expr]) -> tuple[str, str]:
    """The post-processing, which is taken apart; and what copies are run through: where its rows are cells, its noisy
    columns alone."""

    def reader(node: exp.Expr) -> exp.Expr:
        found = read.get((node.table, node.name)) if isinstance(node, exp.Column) else None
        return node if found is None else found.copy()

    above = lifted.outer.transform(reader, copy=False)
    assert isinstance(above, exp.Query)
    make_total(above)
    copied = for_copies(above, lifted.noisy, by_cell=lifted.by_cell)
    if lifted.by_cell:
        above.set("expressions", [exp.column(CELL), *above.selects])
    return _written(above), "" if copied is None else _written(copied)


def _written(tree: exp.Query) -> str:
    """The text of a tree that nobody reads any more: writing it may change it."""
    return tree.sql("duckdb", copy=False)
