"""What a query uses of its tables, found on its plan: at any depth, whatever its names and however it is wrapped.

A column is used where something depends on it: a group key, an aggregate, a condition, an order, a DISTINCT or a set
operation that compares rows. One that a derived table carries and nobody reads is not. The law speaks of processing
variables together, so every use counts, also where noise protects the answer (``docs/threat-model.md`` D1).

A condition can tie another column to one that is watched: of ``a.secret = b.code`` every b.code that is left *is* the
secret. So what stands in one condition with a watched column counts as made of it, and the other columns of a public
source with it, for public rows can be written so that one column says what another is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from insitu_privacy.expressions import ColumnRef, Expression, walk
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
        in_values=frozenset(read.name for read in merged(values).held),
    )


class _Walk:
    """Goes through relations from the scans up. Aliases are unique in a plan, so that one table of columns serves."""

    def __init__(self, watched: frozenset[ColumnName]) -> None:
        self._watched = watched
        self._columns: dict[ColumnRef, Flow] = {}
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
        if isinstance(source, Scan):
            for column in source.columns:
                whole = frozenset({(source.table, column.name)})
                self._columns[ColumnRef(source.alias, column.name)] = Flow(whole=whole)
            return
        unit, columns = self._body(source.body)
        named = [*zip(source.unit, unit, strict=True), *columns]
        self._columns |= {ColumnRef(source.alias, name): found for name, found in named}

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
        together = [self._tied(relation, term) for term in terms] if self._watched else []
        added = True
        while added:
            added = False
            for columns in together:
                held = frozenset(
                    read for one in columns for read in self._columns[one].reads if read.name in self._watched
                )
                for one in columns:
                    if not held <= self._columns[one].made:
                        self._columns[one] = replace(self._columns[one], made=self._columns[one].made | held)
                        added = True

    def _tied(self, relation: Relation, term: Expression) -> frozenset[ColumnRef]:
        """The columns that one condition reads, and all of the public sources among theirs."""
        named = frozenset(node for node in walk(term) if isinstance(node, ColumnRef))
        public = {source.alias for source in (*relation.sources, *relation.cohorts) if source.public}
        public &= {one.scan for one in named}
        return named | {one for one in self._columns if one.scan in public}
