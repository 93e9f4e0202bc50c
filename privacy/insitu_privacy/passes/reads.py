"""What a query uses of its tables, found on its plan: at any depth, whatever its names and however it is wrapped.

A column is used where something depends on it: a group key, an aggregate, a condition, an order, a DISTINCT or a set
operation that compares rows. One that a derived table carries and nobody reads is not. The law speaks of processing
variables together, so every use counts, also where noise protects the answer (``docs/threat-model.md`` D1).

A condition can tie another column to one that is watched: of ``a.secret = b.code`` every b.code that is left *is* the
secret. So what a condition reads beside a watched column counts as made of it. Public rows can be written so that one
column says what another is, and so the columns of a public source stand and fall together: each bears the mark of its
source, which conditions carry on as if it were a column. The privacy unit is left out: all that is a person's is tied
to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from insitu_privacy.expressions import ColumnRef, Expression
from insitu_privacy.passes.flows import NOTHING, Flow, flow, merged
from insitu_privacy.plan import StatisticKind
from insitu_privacy.relations import (
    Aggregate,
    Body,
    Combination,
    Grouping,
    Projection,
    Relation,
    Scan,
    Single,
    Source,
    Window,
    Windowing,
)
from insitu_privacy.rules import ColumnName, Read


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a release asks of its relation."""

    relation: Relation
    keys: tuple[Expression, ...]
    statistics: tuple[tuple[StatisticKind, Expression | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """What a query uses, and what of it could stand in the answer."""

    reads: frozenset[Read]
    in_keys: frozenset[ColumnName]
    """Columns that a group key depends on, in any way: each key stands in the answer."""
    in_values: frozenset[ColumnName]
    """Columns that what is summed, or put in order for a quantile, holds; a condition in it holds nothing."""


def uses_of(releases: Iterable[Asked], watched: frozenset[ColumnName]) -> Uses:
    """What the releases of a query use. ``watched`` are the columns that conditions may tie others to."""
    walk_ = _Walk(watched)
    keys, values = list[Flow](), list[Flow]()
    for asked in releases:
        walk_.relation(asked.relation)
        keys += [walk_.used(key) for key in asked.keys]
        values += [walk_.statistic(kind, value) for kind, value in asked.statistics]
    return Uses(
        reads=frozenset(walk_.reads),
        in_keys=frozenset(read.name for read in merged(keys).reads),
        in_values=frozenset[ColumnName]().union(*map(_shown, values)),
    )


def _shown(value: Flow) -> frozenset[ColumnName]:
    """The columns that a value holds, and those that a condition in it ties to them."""
    held = frozenset(read.name for read in value.held)
    return held.union(*(tie for tie in value.ties if tie & held))


class _Walk:
    """Goes through relations from the scans up. Aliases are unique in a plan, so that one table of columns serves."""

    def __init__(self, watched: frozenset[ColumnName]) -> None:
        self._watched = watched
        self._columns: dict[ColumnRef, Flow] = {}
        self._units: set[ColumnName] = set()
        self.reads: set[Read] = set()

    def used(self, expression: Expression) -> Flow:
        """An expression that something depends on."""
        return self._use(flow(expression, self._columns))

    def statistic(self, kind: StatisticKind, value: Expression | None) -> Flow:
        """What a statistic takes of its value. Rows and persons are counted where there is one, whatever it is."""
        if value is None:
            return NOTHING
        found = flow(value, self._columns)
        if kind in ("sum", "leaves"):
            return self._use(found)
        return self._use(found.only_chosen() if kind == "entities" else found.whether())

    def relation(self, relation: Relation) -> None:
        """The columns of its sources, and what its conditions use."""
        for source in (*relation.sources, *relation.cohorts):
            self._source(source)
        terms = [*relation.where, *(term for join in relation.joins for term in join.on)]
        for term in terms:
            self.used(term)
        self._tie(relation, terms)

    def _use(self, found: Flow) -> Flow:
        self.reads |= found.reads
        return found

    def _source(self, source: Source) -> None:
        mark = frozenset({Read("", source.alias, "exact")}) if source.public else frozenset()
        self._columns |= {
            ColumnRef(source.alias, name): replace(found, made=found.made | mark) for name, found in self._given(source)
        }

    def _given(self, source: Source) -> list[tuple[str, Flow]]:
        """The columns of a source."""
        if isinstance(source, Scan):
            self._units |= {(source.table, name) for name in source.unit}
            names = [column.name for column in source.columns]
            return [(name, Flow(whole=frozenset({(source.table, name)}))) for name in names]
        unit, columns = self._body(source.body)
        return [*zip(source.unit, unit, strict=True), *columns]

    # -- bodies ------------------------------------------------------------------------------------------------------

    def _body(self, body: Body) -> tuple[list[Flow], list[tuple[str, Flow]]]:
        """The unit and the columns that a body gives."""
        if isinstance(body, Single):
            return [], []
        if isinstance(body, Combination):
            return self._combination(body)
        self.relation(body.relation)
        unit = [flow(column, self._columns) for column in body.relation.unit]
        if isinstance(body, Projection):
            return unit, self._projection(body)
        return unit, self._grouping(body) if isinstance(body, Grouping) else self._windowing(body)

    def _projection(self, body: Projection) -> list[tuple[str, Flow]]:
        found = [(name, flow(expression, self._columns)) for name, expression in body.columns]
        if body.distinct:
            self._use(merged(one for _, one in found))
        return found

    def _grouping(self, body: Grouping) -> list[tuple[str, Flow]]:
        keys = [(name, self.used(key)) for name, key in body.keys]
        return [*keys, *((name, self._aggregate(one)) for name, one in body.aggregates)]

    def _aggregate(self, aggregate: Aggregate) -> Flow:
        if aggregate.value is None:
            return NOTHING
        found = flow(aggregate.value, self._columns)
        if aggregate.kind in ("least", "greatest"):
            return found
        if aggregate.kind in ("sum", "average"):
            return found.computed()
        return found.whether() if aggregate.kind == "count" else found.only_chosen()

    def _windowing(self, body: Windowing) -> list[tuple[str, Flow]]:
        carried = [(name, flow(expression, self._columns)) for name, expression in body.columns]
        return [*carried, *((name, self._window(window)) for name, window in body.windows)]

    def _window(self, window: Window) -> Flow:
        """Its order counts with all that breaks ties: which row comes first depends on that."""
        order = [*window.partition, *(expression for expression, _, _ in window.order)]
        by = merged(flow(expression, self._columns) for expression in order).only_chosen()
        if window.value is None:
            return by
        value = flow(window.value, self._columns)
        if window.function == "sum":
            value = value.computed()
        return merged([value.whether() if window.function == "count" else value, by])

    def _combination(self, body: Combination) -> tuple[list[Flow], list[tuple[str, Flow]]]:
        left_unit, left = self._body(body.left)
        right_unit, right = self._body(body.right)
        unit = [merged(pair) for pair in zip(left_unit, right_unit, strict=True)]
        found = [(name, merged([one, other])) for (name, one), (_, other) in zip(left, right, strict=True)]
        if body.kind != "union all":
            self._use(merged(one for _, one in found))
        return unit, found

    # -- ties --------------------------------------------------------------------------------------------------------

    def _tie(self, relation: Relation, terms: list[Expression]) -> None:
        """What conditions tie to watched columns, until nothing is added."""
        aliases = {source.alias for source in (*relation.sources, *relation.cohorts)}
        added = bool(self._watched)
        while added:
            added = any(self._tied(flow(term, self._columns).reads, aliases) for term in terms)

    def _tied(self, reads: frozenset[Read], aliases: set[str]) -> bool:
        """Adds to the columns that one condition reads, or that share what they are made of, the watched ones in it."""
        held = frozenset(read for read in reads if read.name in self._watched)
        names = {read.name for read in reads} - self._units if held else set()
        found = {
            one: replace(its, made=its.made | held)
            for one, its in self._columns.items()
            if one.scan in aliases and not held <= its.made and any(read.name in names for read in its.reads)
        }
        self._columns |= found
        return bool(found)
