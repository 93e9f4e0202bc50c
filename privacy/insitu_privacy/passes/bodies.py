"""Derived tables, WITH queries and subqueries: a SELECT or a set operation becomes the body of a derived source.

Over persons a body keeps the unit, whether it was selected or not: rows may be filtered, computed, grouped by the unit
or by an entity key, made distinct with one of the two, and united. What would mix persons is refused: an aggregate over
several of them is a release, and cannot stand below another SELECT yet; DISTINCT, UNION, INTERSECT and EXCEPT without
the unit compare rows of one person with another's; LIMIT chooses among persons.

A body that reads public tables alone has no unit, and may do all of that but LIMIT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sqlglot import exp

from insitu_privacy.dataset import ContributionBounds
from insitu_privacy.domains import Inference, is_bounded
from insitu_privacy.expressions import ColumnRef, Expression, conjuncts
from insitu_privacy.facts import Facts
from insitu_privacy.passes import unit_aggregates
from insitu_privacy.passes.allow import Allow
from insitu_privacy.passes.inputs import EntityKey, Input
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.relations import Aggregate, Body, Combination, Derived, Grouping, Projection, Relation

if TYPE_CHECKING:
    from insitu_privacy.passes.track import Tracker
    from insitu_privacy.passes.tracked import Environment, Tracked

_CLAUSES = {"kind", "expressions", "from_", "joins", "where", "group", "having", "distinct", "with_", "order"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A body, and what is known of its columns."""

    body: Body
    columns: Mapping[str, Facts]
    """By name in the plan, in order."""
    names: Mapping[str, str]
    """Names in the plan by names in the query."""
    width: int
    """How many columns the unit has; 0 for public ones."""
    unit: tuple[frozenset[str], ...]
    entities: Mapping[EntityKey, tuple[tuple[str, ...], ...]]
    bounds: ContributionBounds | None
    one_row_per_unit: bool
    tainted: frozenset[str]
    """Columns that were computed from identifying ones."""

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Under which the body gives the unit."""
        return tuple(f"_unit_{index}" for index in range(self.width))

    def as_input(self, alias: str, name: str) -> Input:
        """The body as a source."""
        derived = Derived(
            alias=alias,
            body=self.body,
            public=not self.width,
            unit=self.unit_names,
            one_row_per_unit=self.one_row_per_unit,
        )
        constant = self.one_row_per_unit
        facts = {name: replace(known, constant=known.constant or constant) for name, known in self.columns.items()}
        facts |= dict.fromkeys(self.unit_names, Facts(type="text", nullable=False, constant=True))
        unit = tuple(names | {own} for names, own in zip(self.unit, self.unit_names, strict=True))
        return Input(
            source=derived,
            facts=facts,
            unit=unit,
            entities=self.entities,
            bounds=ContributionBounds(max_rows_per_group=1, max_groups=1) if constant else self.bounds,
            names=self.names,
            name=name,
            tainted=self.tainted,
        )


def make(tracker: Tracker, query: exp.Expr, environment: Environment, used: set[str] | None) -> Made:
    """The body of a query. Raises SqlRefused for what is not a function of each unit's rows alone."""
    while isinstance(query, exp.Subquery):
        query = query.this
    if isinstance(query, exp.SetOperation):
        return _combined(tracker, query, environment)
    if not isinstance(query, exp.Select):
        raise forbidden(query, query.key.upper(), "Write a SELECT.")
    return _selected(tracker, query, environment, used)


# -- one SELECT ------------------------------------------------------------------------------------------------------


def _selected(tracker: Tracker, query: exp.Select, environment: Environment, used: set[str] | None) -> Made:
    _check_clauses(query)
    tracked = tracker.select(query, environment, None)
    distinct = query.args.get("distinct") is not None
    items = [item for item in query.expressions if used is None or distinct or item.alias_or_name in used]
    if query.args.get("group") or query.args.get("having") or any(_aggregates(item) for item in query.expressions):
        tracked = _grouped(tracker, query, items, tracked)
    expressions = [tracked.allow.expression(item.unalias()) for item in items]
    if distinct and not tracked.public:
        _check_keeps_unit(tracked, tuple(expressions), query, "DISTINCT")
    return _projected(tracked, [item.alias_or_name for item in items], expressions, distinct)


def _check_clauses(query: exp.Select) -> None:
    for name, value in query.args.items():
        if value and name not in _CLAUSES:
            node = value[0] if isinstance(value, list) else value
            label = name.rstrip("_").upper()
            hint = "It would choose among persons' rows: put it on the outermost SELECT, or leave it out."
            raise forbidden(node if isinstance(node, exp.Expr) else query, f"{label} below another SELECT", hint)
    distinct = query.args.get("distinct")
    if distinct is not None and distinct.args.get("on"):
        raise forbidden(distinct, "DISTINCT ON", "Group by the privacy unit and take MIN or MAX.")


def _check_keeps_unit(tracked: Tracked, expressions: tuple[Expression, ...], node: exp.Expr, name: str) -> None:
    if tracked.unit_among(expressions) is None and not tracked.entity_among(expressions):
        hint = "Select the privacy unit or an entity key with it."
        raise forbidden(node, f"{name} without the privacy unit", hint)


def _projected(tracked: Tracked, names: Sequence[str], expressions: list[Expression], distinct: bool) -> Made:
    relation = tracked.relation
    columns = tuple((f"c{index}", expression) for index, expression in enumerate(expressions))
    places: dict[Expression, list[str]] = {}
    for own, expression in columns:
        places.setdefault(expression, []).append(own)
    leads = [item for item in tracked.inputs.values() if item.unit and item.alias not in relation.outer]
    unit = tuple(
        frozenset(
            own for item in leads for name in item.unit[index] for own in places.get(ColumnRef(item.alias, name), ())
        )
        for index in range(len(relation.unit))
    )
    single = bool(leads) and tracked.one_row_per_unit
    return Made(
        body=Projection(relation=relation, columns=columns, distinct=distinct),
        columns={own: tracked.facts.facts(expression) for own, expression in columns},
        names=dict(zip(names, (own for own, _ in columns), strict=True)),
        width=len(relation.unit),
        unit=unit,
        entities=_entities(tracked, places),
        bounds=bounds_of(tracked),
        one_row_per_unit=single,
        tainted=frozenset(own for own, expression in columns if tracked.is_identifying(expression)),
    )


def _entities(tracked: Tracked, places: Mapping[Expression, list[str]]) -> dict[EntityKey, tuple[tuple[str, ...], ...]]:
    found: dict[EntityKey, list[tuple[str, ...]]] = {}
    for item in tracked.inputs.values():
        for key, ways in item.entities.items():
            for way in ways:
                names = [places.get(ColumnRef(item.alias, name)) for name in way]
                if all(names):
                    found.setdefault(key, []).append(tuple(name[0] for name in names if name))
    return {key: tuple(ways) for key, ways in found.items()}


def bounds_of(tracked: Tracked) -> ContributionBounds | None:
    """The largest default bounds of the protected sources; None where one declares none."""
    every = [item.bounds for item in tracked.inputs.values() if item.unit]
    declared = [bounds for bounds in every if bounds is not None]
    if not declared or len(declared) < len(every):
        return None
    return ContributionBounds(
        max_rows_per_group=max(bounds.max_rows_per_group for bounds in declared),
        max_groups=max(bounds.max_groups for bounds in declared),
    )


# -- GROUP BY --------------------------------------------------------------------------------------------------------


def _aggregates(item: exp.Expr) -> list[exp.Expr]:
    """The aggregate calls in an expression, FILTER included; those of windows are not among them."""
    found: list[exp.Expr] = []
    stack = [item]
    while stack:
        node = stack.pop()
        if isinstance(node, (exp.Window, exp.Subquery, exp.Select)):
            continue
        if isinstance(node, (exp.AggFunc, exp.Filter)):
            found.append(node)
        else:
            stack.extend(node.iter_expressions())
    return found


def _grouped(tracker: Tracker, query: exp.Select, items: Sequence[exp.Expr], tracked: Tracked) -> Tracked:
    """The relation of the groups: one row each, with keys and aggregates as columns of a derived source."""
    nodes = list(query.args["group"].expressions) if query.args.get("group") else []
    group = query.args.get("group")
    if group is not None and any(group.args.get(name) for name in ("rollup", "cube", "grouping_sets")):
        raise forbidden(group, "GROUPING SETS below another SELECT", "Group by columns.")
    keys = [tracked.allow.expression(node) for node in nodes]
    if not tracked.public and tracked.unit_among(tuple(keys)) is None and not tracked.entity_among(tuple(keys)):
        hint = "Group by the privacy unit in it, or ask it as a query of its own."
        raise forbidden(query, "an aggregate over persons below another SELECT", hint)
    calls: dict[exp.Expr, str] = {}
    having = query.args["having"].this if query.args.get("having") else None
    for item in [*items, *([having] if having is not None else [])]:
        for node in _aggregates(item):
            calls.setdefault(node, f"a{len(calls)}")
    rows = bounds_of(tracked)
    limit = Fraction(rows.max_rows_per_group * rows.max_groups) if rows else None
    made = {name: unit_aggregates.lower(node, tracked, limit) for node, name in calls.items()}
    alias = tracker.alias()
    relation = tracked.relation
    units = tuple(f"_unit_{index}" for index in range(len(relation.unit)))
    named = tuple((f"k{index}", key) for index, key in enumerate(keys))
    single = bool(units) and all(tracked.is_identifying(key) or tracked.facts.facts(key).constant for key in keys)
    single = single and tracked.unit_among(tuple(keys)) is not None and not _has_entity(tracked, keys)
    facts = {name: tracked.facts.facts(key) for name, key in named}
    facts |= {name: known for name, (_, known) in made.items()}
    places: dict[Expression, list[str]] = {}
    for name, key in named:
        places.setdefault(key, []).append(name)
    item = Made(
        body=Grouping(
            relation=relation, keys=named, aggregates=tuple((name, aggregate) for name, (aggregate, _) in made.items())
        ),
        columns=facts,
        names={},
        width=len(units),
        unit=_unit_places(tracked, places),
        entities=_entities(tracked, places),
        bounds=bounds_of(tracked),
        one_row_per_unit=single,
        tainted=frozenset(
            name
            for name, value in [
                *named,
                *((name, aggregate.value) for name, (aggregate, _) in made.items() if _carries(aggregate)),
            ]
            if value is not None and tracked.is_identifying(value)
        ),
    ).as_input(alias, "the groups")
    known: dict[exp.Expr, Expression] = {node: ColumnRef(alias, name) for node, name in calls.items()}
    known |= {node: ColumnRef(alias, name) for node, (name, _) in zip(nodes, named, strict=True)}
    inference = Inference({ColumnRef(alias, name): one for name, one in item.facts.items()})
    allow = Allow(inference, _ungrouped(query), known=known)
    where = () if having is None else tuple(sorted(set(conjuncts(allow.condition(having))), key=repr))
    return replace(
        tracked,
        relation=Relation(
            first=item.source, joins=(), where=where, unit=tuple(ColumnRef(alias, name) for name in units)
        ),
        allow=allow,
        facts=inference.refine(where),
        inputs={alias: item},
    )


def _carries(aggregate: Aggregate) -> bool:
    """Whether its result is made of the values, and not of their number."""
    return aggregate.kind in ("sum", "average", "least", "greatest")


def _has_entity(tracked: Tracked, keys: Sequence[Expression]) -> bool:
    """Whether some key is of an entity rather than of the unit."""
    unit = {ColumnRef(i.alias, name) for i in tracked.inputs.values() for names in i.unit for name in names}
    return any(tracked.is_identifying(key) and key not in unit for key in keys)


def _unit_places(tracked: Tracked, places: Mapping[Expression, list[str]]) -> tuple[frozenset[str], ...]:
    items = [i for i in tracked.inputs.values() if i.unit and i.alias not in tracked.relation.outer]
    return tuple(
        frozenset(own for i in items for name in i.unit[index] for own in places.get(ColumnRef(i.alias, name), ()))
        for index in range(len(tracked.relation.unit))
    )


def _ungrouped(query: exp.Select) -> Callable[[str, str], ColumnRef]:
    def resolve(table: str, name: str) -> ColumnRef:
        node = next((c for c in query.find_all(exp.Column) if c.table == table and c.name == name), query)
        raise refusal("INSITU-SQL-UNGROUPED", node, name=name)

    return resolve


# -- set operations --------------------------------------------------------------------------------------------------


def _combined(tracker: Tracker, query: exp.SetOperation, environment: Environment) -> Made:
    kinds = {exp.Union: "union", exp.Intersect: "intersect", exp.Except: "except"}
    kind = kinds[type(query)]
    every = not query.args.get("distinct")
    if every and kind != "union":
        raise forbidden(query, f"{kind.upper()} ALL", "Leave ALL out.")
    if any(query.args.get(name) for name in ("limit", "offset", "by_name", "with_")):
        raise forbidden(query, "this clause of a set operation", "Leave it out, or write WITH at the start.")
    left = make(tracker, query.left, environment, None)
    right = make(tracker, query.right, environment, None)
    if left.width != right.width or len(left.columns) != len(right.columns):
        raise forbidden(query, "a set operation of different columns", "Select the same columns on both sides.")
    for one, other in zip(left.columns.values(), right.columns.values(), strict=True):
        if one.type != other.type and not {one.type, other.type} <= {"integer", "decimal"}:
            hint = "Select columns of the same types on both sides."
            raise refusal("INSITU-SQL-TYPE", query, name="this", type=f"{one.type} and {other.type}", hint=hint)
    unit = tuple(a & b for a, b in zip(left.unit, right.unit, strict=True))
    entities = {
        key: tuple(way for way in ways if way in right.entities.get(key, ())) for key, ways in left.entities.items()
    }
    entities = {key: ways for key, ways in entities.items() if ways}
    if left.width and not every and not all(unit) and not entities:
        hint = "Select the privacy unit on both sides, in the same place."
        raise forbidden(query, f"{kind.upper()} without the privacy unit", hint)
    both = [one for one in (left.bounds, right.bounds) if one is not None]
    return Made(
        body=Combination(kind="union all" if every else kind, left=left.body, right=right.body),  # type: ignore[arg-type]
        columns={
            name: _either(one, other, kind)
            for (name, one), other in zip(left.columns.items(), right.columns.values(), strict=True)
        },
        names=left.names,
        width=left.width,
        unit=unit,
        entities=entities,
        bounds=ContributionBounds(
            max_rows_per_group=max(one.max_rows_per_group for one in both),
            max_groups=max(one.max_groups for one in both),
        )
        if len(both) == 2
        else None,
        one_row_per_unit=False,
        tainted=left.tainted | right.tainted,
    )


def _either(one: Facts, other: Facts, kind: str) -> Facts:
    """Facts of a column of both sides; of EXCEPT, of the left side."""
    if kind == "except":
        return replace(one, constant=False)
    numbers = {"integer", "decimal"}
    kind_of = one.type if one.type == other.type else "decimal" if {one.type, other.type} <= numbers else one.type
    interval = None
    if is_bounded(one.interval) and is_bounded(other.interval) and one.interval and other.interval:
        interval = (min(one.interval[0], other.interval[0]), max(one.interval[1], other.interval[1]))
    values = None
    if one.values is not None and other.values is not None and one.type == other.type:
        values = tuple(sorted({*one.values, *other.values}))  # type: ignore[type-var]
    return Facts(type=kind_of, nullable=one.nullable or other.nullable, interval=interval, values=values)
