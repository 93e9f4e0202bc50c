"""Which histograms a profile has, and the plan by which a node makes each: ordinary SQL of our own language.

A measure is planned as the tree of counts of ``MEDIAN(bin)`` with one row and one group for each unit, where ``bin``
numbers public bins in a CASE: so the planner's rules, the node's statements and OpenDP's check of the claim hold for it
as for any query, and nothing about profiles has to be argued anew (docs/privacy.md, Profiles). The bins are fixed by
the contract, for every node alike:

* counts of a unit: every whole number to 8, then four bins to each doubling, to 2^17;
* values of few whole numbers: each its own; those that a declared interval bounds narrowly (its ends on one side of
  zero and within a factor of 64, or dates): 64 equal bins;
* other values, and sums: two bins to each doubling, on both sides of zero where the interval has both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Context
from fractions import Fraction

from insitu_privacy.data_profile import DataProfile, Histogram, Measure, MeasureKind, day_number
from insitu_privacy.dataset import Column, ContributionBounds, Dataset, Table
from insitu_privacy.errors import Refused
from insitu_privacy.plan import PrivacyPlan, QueryParameters, ReleasedValues, Scope
from insitu_privacy.planner import plan_query
from insitu_privacy.tree import consistent

_ROWS_LIMIT = 2**17
"""A unit with more rows counts as one with so many."""
_EQUAL_BINS = 64
_NARROW = 64
_FINEST = 2**16
_SUMMED = 2**12
"""Bins of sums go to so many times the bounds of one value."""
_EXACT = Context(prec=400)
_EPOCH = date(1970, 1, 1)
_COUNTED = 32
"""A column of at most so many whole numbers has a bin for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A measure and the SQL that asks for it."""

    measure: Measure
    sql: str


def questions(dataset: Dataset) -> tuple[Question, ...]:
    """Every measure that the contract of a dataset allows, in the order of its tables and columns."""
    protected = [table for table in dataset.tables.values() if not table.public]
    return tuple(question for table in protected for question in _of_table(table, dataset))


def profile_plans(
    dataset: Dataset, epsilon: Fraction, tables: Collection[str] | None = None
) -> tuple[tuple[Measure, PrivacyPlan], ...]:
    """The measures of a profile, each with its plan: the budget is divided equally, all of it by Laplace.

    ``tables`` are those that may be read; None for all. Measures that the dataset's legal rules refuse are left out.
    Raises ParameterRefused where epsilon is out of range.
    """
    open_ended = _without_bounds(dataset)
    asked = [one for one in questions(dataset) if tables is None or _reads(one, dataset) <= set(tables)]
    while asked:  # planned once where no rule refuses a measure, and once more for the shares where one does
        plans = [(one, _plan(one, open_ended, epsilon / len(asked))) for one in asked]
        allowed = [one for one, plan in plans if plan is not None]
        if len(allowed) == len(asked):
            return tuple((one.measure, plan) for one, plan in plans if plan is not None)
        asked = allowed
    return ()


def _reads(question: Question, dataset: Dataset) -> set[str]:
    """The table of a measure, and those on its way to the unit."""
    here, found = dataset.tables[question.measure.table], {question.measure.table}
    while here.unit_path is not None:
        here = dataset.tables[here.unit_path.through]
        found.add(here.name)
    return found


def histogram(measure: Measure, plan: PrivacyPlan, values: ReleasedValues) -> Histogram:
    """The histogram that a node released by the plan of a measure."""
    import numpy as np

    (release,) = plan.releases
    assert release.tree is not None
    (statistic,) = release.statistics
    tree = np.array(values.statistics, dtype=float).reshape(-1)
    counts = consistent(release.tree.leaves, tree) / release.tree.weight
    # integer Laplace of scale b has a standard deviation of at most b * sqrt(2); consistency lowers it
    return Histogram(
        measure=measure,
        counts=tuple(round(float(count), 3) for count in counts),
        deviation=round(float(statistic.scale) / release.tree.weight * 2**0.5, 3),
    )


def profile_of(dataset: Dataset, histograms: tuple[Histogram, ...]) -> DataProfile:
    """A profile of the dataset."""
    return DataProfile(dataset=dataset.name, dataset_digest=dataset.digest, histograms=histograms)


# -- plans -------------------------------------------------------------------------------------------------------------


def _plan(question: Question, dataset: Dataset, epsilon: Fraction) -> PrivacyPlan | None:
    one = QueryParameters(epsilon=epsilon, delta=Fraction(0), mechanism="laplace", max_rows_per_group=1, max_groups=1)
    try:
        return plan_query(
            question.sql, dialect="duckdb", dataset=dataset, parameters=one, scope=Scope(accounting="pure")
        )
    except Refused as refused:
        if refused.code.startswith("INSITU-PARAM"):
            raise
        return None


def _without_bounds(dataset: Dataset) -> Dataset:
    """Here no count per unit is cut at the declared defaults: how far they cut is what the profile is to show.

    Nor are cells suppressed by ``min_units``: a bin is no cell of an answer, and a second release would tell its units.
    """
    wide = ContributionBounds(max_rows_per_group=_ROWS_LIMIT, max_groups=1)
    tables = {
        name: table if table.public or table.one_row_per_unit else replace(table, bounds=wide)
        for name, table in dataset.tables.items()
    }
    return replace(dataset, tables=tables, min_units=0)


# -- measures ----------------------------------------------------------------------------------------------------------


def _of_table(table: Table, dataset: Dataset) -> Iterator[Question]:
    source, unit, alias = _with_unit(table, dataset)
    if not table.one_row_per_unit:
        yield _per_unit(Measure(table=table.name, kind="rows", column=None, edges=COUNTS), "COUNT(*)", source, unit)
    for column in table.columns.values():
        # D2: bins are conditions with constants, which a query may put on a column that is never released; together
        # they are its distribution all the same
        if _is_identifying(table, column) or (table.name, column.name) in dataset.rules.never_released:
            continue
        name = f'{alias}."{column.name}"'
        if not table.one_row_per_unit and _is_key(column):
            measure = Measure(table=table.name, kind="distinct", column=column.name, edges=COUNTS)
            yield _per_unit(measure, f"COUNT(DISTINCT {name})", source, unit)
        edges = _edges(column)
        if edges:
            yield _values(
                Measure(table=table.name, kind="values", column=column.name, edges=edges), name, source, column
            )
        if edges and not table.one_row_per_unit and column.type in ("integer", "decimal"):
            wide = Measure(table=table.name, kind="sums", column=column.name, edges=_sum_edges(column))
            yield _per_unit(wide, f"SUM({name})", source, unit)


def _with_unit(table: Table, dataset: Dataset) -> tuple[str, list[str], str]:
    """FROM that reaches the unit, the unit's columns there, and the alias of the table itself."""
    source, here, at = f'"{table.name}" AS t0', table, 0
    while here.unit_path is not None:
        above = dataset.tables[here.unit_path.through]
        on = " AND ".join(f't{at}."{name}" = t{at + 1}."{name}"' for name in here.unit_path.on)
        source += f' JOIN "{above.name}" AS t{at + 1} ON {on}'
        here, at = above, at + 1
    return source, [f't{at}."{name}"' for name in here.unit], "t0"


def _per_unit(measure: Measure, aggregate: str, source: str, unit: list[str]) -> Question:
    bins = case_of(aggregate, measure.edges)
    keys = ", ".join(f"{name} AS u{at}" for at, name in enumerate(unit))
    below = f"SELECT {keys}, {bins} AS bin FROM {source} GROUP BY {', '.join(unit)}"
    return Question(measure=measure, sql=f"SELECT MEDIAN(bin) AS bin FROM ({below}) AS units")


def _values(measure: Measure, name: str, source: str, column: Column) -> Question:
    edges = [_literal(edge, column) for edge in measure.edges]
    return Question(measure=measure, sql=f"SELECT MEDIAN({_case(name, edges)}) AS bin FROM {source}")


def case_of(value: str, edges: Sequence[Fraction]) -> str:
    """SQL of the bin that a number lies in; NULL where there is none."""
    return _case(value, [_number(edge) for edge in edges])


def _case(value: str, edges: list[str]) -> str:
    steps = " ".join(f"WHEN {value} < {edge} THEN {place}" for place, edge in enumerate(edges))
    return f"CASE WHEN {value} IS NULL THEN NULL {steps} ELSE {len(edges)} END"


def _number(edge: Fraction) -> str:
    """Exactly: bounds are decimals and bins halves of them, so that an edge has finitely many digits."""
    text = format(_EXACT.divide(edge.numerator, edge.denominator), "f")
    return f"({text})" if edge < 0 else text


def _literal(edge: Fraction, column: Column) -> str:
    day = _EPOCH + timedelta(days=int(edge)) if column.type in ("date", "timestamp") else None
    if day is None:
        return _number(edge)
    return f"DATE '{day}'" if column.type == "date" else f"TIMESTAMP '{day} 00:00:00'"


def _is_identifying(table: Table, column: Column) -> bool:
    named = {*table.unit, *(name for key in table.entity_keys for name in key)}
    named |= set(table.unit_path.on) if table.unit_path else set()
    return column.name in named or bool(column.references)


def _is_key(column: Column) -> bool:
    """Whether a column is one to group by whose values a unit may have several of."""
    return not column.constant_per_unit and (column.type == "text" or column.values is not None)


# -- bins --------------------------------------------------------------------------------------------------------------


def _doublings(first: Fraction, last: Fraction, parts: int) -> Iterator[Fraction]:
    """``parts`` edges to each doubling, from ``first`` to ``last``."""
    edge = first
    while edge < last:
        yield from (edge + edge * part / parts for part in range(parts))
        edge *= 2
    yield last


COUNTS = tuple(
    Fraction(edge) for edge in sorted({*range(1, 9), *map(int, _doublings(Fraction(8), Fraction(_ROWS_LIMIT), 4))})
)


def _edges(column: Column) -> tuple[Fraction, ...]:
    """The bins of a column's values; none where it has no bounds, or one value alone."""
    low, high = column.minimum, column.maximum
    if isinstance(low, (date, datetime)) and isinstance(high, (date, datetime)):
        return _whole(_equal(day_number(low), day_number(high)))
    if column.type not in ("integer", "decimal") or not isinstance(low, Fraction) or not isinstance(high, Fraction):
        return ()
    if column.type == "integer" and high - low <= _COUNTED:
        return tuple(map(Fraction, range(int(low) + 1, int(high) + 1)))
    if low * high > 0 and max(abs(low), abs(high)) <= _NARROW * min(abs(low), abs(high)):
        edges = _equal(low, high)
        return _whole(edges) if column.type == "integer" else edges
    return _on_both_sides(low, high, finest=_FINEST, whole=column.type == "integer")


def _sum_edges(column: Column) -> tuple[Fraction, ...]:
    """Bins of what a unit's values add up to: from one value to ``_SUMMED`` of them."""
    low, high = column.minimum, column.maximum
    assert isinstance(low, Fraction)
    assert isinstance(high, Fraction)
    least, most = min(low, low * _SUMMED), max(high, high * _SUMMED)
    return _on_both_sides(least, most, finest=_FINEST * _SUMMED, whole=column.type == "integer")


def _equal(low: Fraction, high: Fraction) -> tuple[Fraction, ...]:
    return tuple(low + (high - low) * place / _EQUAL_BINS for place in range(1, _EQUAL_BINS)) if low < high else ()


def _whole(edges: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    return tuple(dict.fromkeys(Fraction(round(edge)) for edge in edges))


def _on_both_sides(low: Fraction, high: Fraction, *, finest: int, whole: bool) -> tuple[Fraction, ...]:
    """Two bins to each doubling up to the ends, from a small part of the farther end; zero is in a bin of its own."""
    farther = max(abs(low), abs(high))
    if not farther:
        return ()
    least = _power_at_most(farther / finest)
    least = max(least, Fraction(1)) if whole else least
    sizes = [edge for edge in _doublings(least, 2 * _power_at_most(farther), 2) if edge.denominator == 1 or not whole]
    edges = {*sizes, *(-size for size in sizes), *({Fraction(0)} if whole else ())}
    return tuple(sorted(edge for edge in edges if low < edge <= high))


def _power_at_most(value: Fraction) -> Fraction:
    """The greatest power of two that is not above a value."""
    power = Fraction(2) ** (value.numerator.bit_length() - value.denominator.bit_length())
    return power if power <= value else power / 2


__all__ = ["MeasureKind", "Question", "histogram", "profile_of", "profile_plans", "questions"]
