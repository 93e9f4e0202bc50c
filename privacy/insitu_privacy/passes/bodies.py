"""Derived tables, WITH queries and subqueries: a SELECT or a set operation becomes the body of a derived source.

Over persons a body keeps the unit, whether it was selected or not: rows may be filtered, computed, grouped by the unit
or by an entity key, made distinct with one of the two, and united. What would mix persons is refused: an aggregate over
several of them is a release, and cannot stand below another SELECT yet; DISTINCT, UNION, INTERSECT and EXCEPT without
the unit compare rows of one person with another's; LIMIT chooses among persons.

A body that reads public tables alone has no unit, and may do all of that but LIMIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from insitu_privacy.dataset import ContributionBounds
from insitu_privacy.domains import is_bounded
from insitu_privacy.expressions import Expression
from insitu_privacy.facts import Facts
from insitu_privacy.passes.bounds import BOUND_LIMIT
from insitu_privacy.passes.grouping import grouped, is_grouped
from insitu_privacy.passes.made import Made, bounds_of, entities_of, one_row_each, unit_places
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.passes.windows import windowed
from insitu_privacy.relations import Combination, Projection

if TYPE_CHECKING:
    from insitu_privacy.passes.track import Tracker
    from insitu_privacy.passes.tracked import Environment, Tracked

_CLAUSES = {"kind", "expressions", "from_", "joins", "where", "group", "having", "distinct", "with_", "order"}


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
    if is_grouped(query):
        tracked = grouped(tracker, query, items, tracked)
    tracked = windowed(tracker, items, tracked)
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
    known = {own: tracked.facts.facts(expression) for own, expression in columns}
    unit = unit_places(tracked, places)
    return Made(
        body=Projection(relation=relation, columns=columns, distinct=distinct),
        columns=known,
        sure={own: _written_out(tracked, expression, distinct) for own, expression in columns},
        names=dict(zip(names, (own for own, _ in columns), strict=True)),
        width=len(relation.unit),
        unit=unit,
        entities=entities_of(tracked, places),
        bounds=bounds_of(tracked),
        one_row_per_unit=(bool(unit) and tracked.one_row_per_unit) or (distinct and one_row_each(unit, known)),
        tainted=frozenset(own for own, expression in columns if tracked.is_identifying(expression)),
        loose=tracked.loose,
    )


def _written_out(tracked: Tracked, expression: Expression, distinct: bool) -> Facts:
    """Sure facts; a database that flattens derived tables writes their expressions into one another."""
    weight = 1 if distinct else tracked.allow.weight(expression)
    return replace(tracked.allow.facts_of(expression), weight=weight)


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
    columns = {
        name: _either(one, other, kind)
        for (name, one), other in zip(left.columns.items(), right.columns.values(), strict=True)
    }
    return Made(
        body=Combination(kind="union all" if every else kind, left=left.body, right=right.body),  # type: ignore[arg-type]
        columns=columns,
        sure={
            name: _either(one, other, kind)
            for (name, one), other in zip(left.sure.items(), right.sure.values(), strict=True)
        },
        names=left.names,
        width=left.width,
        unit=unit,
        entities=entities,
        bounds=_bounds(left.bounds, right.bounds, kind),
        one_row_per_unit=left.one_row_per_unit if kind != "union" else not every and one_row_each(unit, columns),
        tainted=left.tainted | right.tainted,
        loose=max(left.loose, right.loose),
    )


def _bounds(left: ContributionBounds | None, right: ContributionBounds | None, kind: str) -> ContributionBounds | None:
    """Default bounds: of a union, the rows of both sides in a group; elsewhere those of the left one."""
    if kind != "union":
        return left
    if left is None or right is None:
        return None
    return ContributionBounds(
        max_rows_per_group=min(left.max_rows_per_group + right.max_rows_per_group, BOUND_LIMIT),
        max_groups=max(left.max_groups, right.max_groups),
    )


def _either(one: Facts, other: Facts, kind: str) -> Facts:
    """Facts of a column of both sides; of EXCEPT, of the left side."""
    numbers = {"integer", "decimal"}
    kind_of = one.type if one.type == other.type else "decimal" if {one.type, other.type} <= numbers else one.type
    weight = one.weight + other.weight
    if kind == "except":
        return replace(
            one, type=kind_of, constant=False, values=one.values if kind_of == one.type else None, weight=weight
        )
    for null, known in ((one, other), (other, one)):
        if null.values == ():  # NULL alone
            return replace(known, type=kind_of, nullable=True, constant=False, weight=weight)
    interval = None
    if is_bounded(one.interval) and is_bounded(other.interval) and one.interval and other.interval:
        interval = (min(one.interval[0], other.interval[0]), max(one.interval[1], other.interval[1]))
    values = None
    if one.values is not None and other.values is not None and one.type == other.type:
        values = tuple(sorted({*one.values, *other.values}))  # type: ignore[type-var]
    nullable = one.nullable or other.nullable
    return Facts(type=kind_of, nullable=nullable, interval=interval, values=values, weight=weight)
