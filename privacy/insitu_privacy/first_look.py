"""A first look: a query about the rows of each unit that another query reads, so that its bounds can be chosen by them.

Conditions make rows per unit other than those of a profile, and how is guessed badly: a tenth of the budget spent on
histograms of the query's own rows and groups per unit leaves several times less error (``bench.narrow``, ADR 10). Sums
are not looked at: the few units that make them large are too few to be seen, and profiles have them.
The first look is SQL of our own language over the FROM and WHERE of the query, of the form of a profile's measures:
each node plans, charges and answers it as any query, and nothing about it has to be argued anew (docs/privacy.md).

Here it is written and its answer is read, both pure. It is written for a SELECT of aggregates whose tables lead to the
unit; for anything else there is none, and bounds are chosen as they are without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from sqlglot import exp

from insitu_privacy.data_profile import Histogram, Measure
from insitu_privacy.dataset import Dataset, Table
from insitu_privacy.errors import Refused
from insitu_privacy.fitting.own import OwnRows
from insitu_privacy.merge import MergedRelease
from insitu_privacy.passes.parse import parse
from insitu_privacy.plan import PrivacyPlan, Release
from insitu_privacy.profile_measures import case_of
from insitu_privacy.tree import consistent

PlanAt = Callable[[str], PrivacyPlan]
"""Plans SQL text of DuckDB's dialect. Raises Refused."""
_MOST_ROWS = 2**17
_COUNTS = (Fraction(1), *(Fraction(edge) for power in range(1, 16) for edge in (2**power, 3 * 2 ** (power - 1))))
"""Two bins to each doubling: with no more than 32, each is counted by itself, not in a tree (``plan.tree_levels``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """What to ask first, and what each column of its answer is a histogram of."""

    sql: str
    measures: tuple[Measure, ...]


def first_look(sql: str, dialect: str, plan: PrivacyPlan, dataset: Dataset, plan_at: PlanAt) -> FirstLook | None:
    """The first look at what ``plan``, made of ``sql``, reads; None where none can be written, or none is needed."""
    releases = [one for one in plan.releases if not one.one_row_per_unit]
    if not releases or len({one.relation for one in plan.releases}) > 1:
        return None
    select = parse(sql, dialect)
    if not isinstance(select, exp.Select) or not select.args.get("from_"):
        return None
    for source, unit in _units(select, dataset):
        writer = _Writer(select, source, unit)
        for columns in (writer.columns(releases), [writer.rows()]):
            look = writer.look(columns)
            try:
                plan_at(look.sql)
            except Refused:  # not the unit, or not of a form that may stand below another SELECT
                continue
            return look
    return None


def own_rows(look: FirstLook, plan: PrivacyPlan, merged: Sequence[MergedRelease], *, nodes: int) -> OwnRows:
    """What the answer to a first look says. ``plan`` is that of the look.

    Where fewer than ``nodes`` answered, the others are taken to be like them.
    """
    by_name = {one.release.name: one for one in merged}
    found = {
        measure.kind: _histogram(measure, by_name[quantile.tree], nodes)
        for measure, quantile in zip(look.measures, plan.quantiles, strict=True)
    }
    return OwnRows(rows=found["rows"], groups=found.get("distinct"))


def _histogram(measure: Measure, one: MergedRelease, nodes: int) -> Histogram:
    release = one.release
    assert release.tree is not None
    (statistic,) = release.statistics
    tree = np.array(one.statistics, dtype=float).reshape(-1)
    counts = [0.0] * measure.bins
    first = int(statistic.center)  # bins that no value can be in have no leaves
    for place, count in enumerate(consistent(release.tree.leaves, tree) / release.tree.weight):
        counts[first + place] = float(count) * nodes / one.answered
    deviation = float(statistic.scale) / release.tree.weight * (2 / one.answered) ** 0.5 * nodes
    return Histogram(measure=measure, counts=tuple(counts), deviation=deviation)


# -- writing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column of a look: of each unit, an aggregate, and the bins that it is counted in."""

    aggregate: exp.Expr
    measure: Measure


class _Writer:
    """Writes looks at the rows of one SELECT, grouped by a unit that can be read there."""

    def __init__(self, select: exp.Select, source: exp.Select, unit: Sequence[exp.Expr]) -> None:
        self._select, self._source, self._unit = select, source, unit

    def rows(self) -> _Column:
        """Rows of a unit. A COUNT would be cut at the bounds that the contract declares (DESIGN.md section 4), which
        bind nobody who names others: so a sum of ones, each of which could be ``_MOST_ROWS`` for all the planner knows.
        """
        nobody = exp.Is(this=self._unit[0].copy(), expression=exp.Null())
        one = exp.Case(ifs=[exp.If(this=nobody, true=exp.Literal.number(_MOST_ROWS))], default=exp.Literal.number(1))
        measure = Measure(table="", kind="rows", column=None, edges=_COUNTS)
        return _Column(aggregate=exp.Sum(this=one), measure=measure)

    def columns(self, releases: Sequence[Release]) -> list[_Column]:
        """Rows, and groups where there is one key that a unit may have several of."""
        found, key = [self.rows()], self._varying(releases)
        if key is not None:
            measure = Measure(table="", kind="distinct", column="", edges=_COUNTS)
            found.append(_Column(aggregate=exp.Count(this=exp.Distinct(expressions=[key])), measure=measure))
        return found

    def look(self, columns: Sequence[_Column]) -> FirstLook:
        """DuckDB SQL with a column for each."""
        names = [f"insitu_n{place}" for place in range(len(columns))]
        below = self._source.copy()
        units = [exp.alias_(one.copy(), f"insitu_u{place}") for place, one in enumerate(self._unit)]
        made = [exp.alias_(one.aggregate.copy(), name) for one, name in zip(columns, names, strict=True)]
        below.set("expressions", [*units, *made])
        below.set("group", exp.Group(expressions=[one.copy() for one in self._unit]))
        bins = [
            f"MEDIAN({case_of(name, one.measure.edges)}) AS {name}" for name, one in zip(names, columns, strict=True)
        ]
        return FirstLook(
            sql=f"{self._with()}SELECT {', '.join(bins)} FROM ({below.sql('duckdb')}) AS insitu_units",
            measures=tuple(one.measure for one in columns),
        )

    def _with(self) -> str:
        """The query's own WITH, which its FROM may read."""
        found = self._select.args.get("with_")
        return f"{found.sql('duckdb')} " if found is not None else ""

    def _varying(self, releases: Sequence[Release]) -> exp.Expr | None:
        """The one group key that a unit may have several of, as the query writes it."""
        group = self._select.args.get("group")
        keys = releases[0].keys
        varying = [place for place, key in enumerate(keys) if not key.constant]
        written = list(group.expressions) if group is not None else []
        if len(varying) != 1 or len(written) != len(keys):
            return None
        return self._resolved(written[varying[0]])

    def _resolved(self, key: exp.Expr) -> exp.Expr | None:
        """A key that is given by its place or its alias among what is selected."""
        items = self._select.expressions
        if isinstance(key, exp.Literal) and not key.is_string:
            place = int(key.name) if key.name.isdigit() else 0
            return items[place - 1].unalias().copy() if 1 <= place <= len(items) else None
        if isinstance(key, exp.Column) and not key.table:
            named = [one.this for one in items if isinstance(one, exp.Alias) and one.alias.lower() == key.name.lower()]
            return named[0].copy() if named else key.copy()
        return key.copy()


# -- the unit ----------------------------------------------------------------------------------------------------------


def _units(select: exp.Select, dataset: Dataset) -> Iterator[tuple[exp.Select, list[exp.Expr]]]:
    """The rows of a SELECT, and columns there that may be the unit's: whether they are is for the planner to say."""
    bare = exp.Select()
    for clause in ("from_", "joins", "where", "laterals"):
        if select.args.get(clause):
            bare.set(clause, _copied(select.args[clause]))
    names = list(dict.fromkeys(table.unit for table in dataset.tables.values() if table.unit))
    for source in _sources(select, dataset):
        alias, led, table = source.alias_or_name, _path_of(source, dataset), dataset.tables.get(source.name.lower())
        if led is not None:
            yield _led_to_unit(bare, alias, led.name, dataset)
        elif table is None or table.unit:
            for unit in names if table is None else [table.unit]:
                yield bare, [exp.column(name, table=alias or None) for name in unit]


def _sources(select: exp.Select, dataset: Dataset) -> list[exp.Expr]:
    """Those first that have the unit in a column."""
    joins = [join.this for join in select.args.get("joins") or []]
    return sorted([select.args["from_"].this, *joins], key=lambda one: _path_of(one, dataset) is not None)


def _path_of(source: exp.Expr, dataset: Dataset) -> Table | None:
    """A table that reaches its unit through others."""
    table = dataset.tables.get(source.name.lower()) if isinstance(source, exp.Table) else None
    return table if table is not None and table.unit_path is not None else None


def _copied(value: exp.Expr | list[exp.Expr]) -> exp.Expr | list[exp.Expr]:
    return [one.copy() for one in value] if isinstance(value, list) else value.copy()


def _led_to_unit(bare: exp.Select, alias: str, name: str, dataset: Dataset) -> tuple[exp.Select, list[exp.Expr]]:
    """With the tables joined through which a table reaches its unit."""
    found, here, table = bare.copy(), alias, dataset.tables[name]
    while table.unit_path is not None:
        above, there = dataset.tables[table.unit_path.through], f"insitu_{table.unit_path.through}"
        on = [
            exp.EQ(this=exp.column(one, table=here), expression=exp.column(one, table=there))
            for one in table.unit_path.on
        ]
        found = found.join(exp.alias_(exp.to_table(above.name), there, table=True), on=exp.and_(*on), copy=False)
        here, table = there, above
    return found, [exp.column(one, table=here) for one in table.unit]


__all__ = ["FirstLook", "first_look", "own_rows"]
