"""GROUP BY below another SELECT: one row per unit and group, with keys and aggregates as columns of a derived source.

Over persons the keys hold the unit or an entity key, so that a group is one person's. The unit is a key in any case:
where dirty data gives an entity two owners, each has a group of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sqlglot import exp

from insitu_privacy.domains import Inference
from insitu_privacy.expressions import ColumnRef, Expression, conjuncts
from insitu_privacy.passes import unit_aggregates
from insitu_privacy.passes.allow import Allow
from insitu_privacy.passes.made import Made, bounds_of, entities_of, unit_places
from insitu_privacy.passes.nodes import children
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.relations import Aggregate, Grouping, Relation

if TYPE_CHECKING:
    from insitu_privacy.passes.track import Tracker
    from insitu_privacy.passes.tracked import Tracked


def is_grouped(query: exp.Select) -> bool:
    """Whether a SELECT has one row per group."""
    return bool(
        query.args.get("group") or query.args.get("having") or any(aggregates_in(item) for item in query.expressions)
    )


def aggregates_in(item: exp.Expr) -> list[exp.Expr]:
    """The aggregate calls in an expression, FILTER included; a window's own function is not one, what it reads may."""
    found: list[exp.Expr] = []
    stack = [item]
    while stack:
        node = stack.pop()
        if isinstance(node, (exp.Subquery, exp.Select)):
            continue
        if isinstance(node, exp.Window):
            stack.extend(part for part in node.iter_expressions() if part is not node.this)
            stack.extend(node.this.iter_expressions())
        elif isinstance(node, (exp.AggFunc, exp.Filter)):
            found.append(node)
        else:
            stack.extend(children(node))
    return found


def grouped(tracker: Tracker, query: exp.Select, items: Sequence[exp.Expr], tracked: Tracked) -> Tracked:
    """The relation of the groups, on which ``items``, the projections that are read, can be translated."""
    nodes = _key_nodes(query)
    keys = tuple(tracked.allow.expression(node) for node in nodes)
    if not tracked.public and tracked.unit_among(keys) is None and not tracked.entity_among(keys):
        hint = "Group by the privacy unit in it, or ask it as a query of its own."
        raise forbidden(query, "an aggregate over persons below another SELECT", hint)
    having = query.args["having"].this if query.args.get("having") else None
    calls: dict[exp.Expr, str] = {}
    for item in [*items, *([having] if having is not None else [])]:
        for node in aggregates_in(item):
            calls.setdefault(node, f"a{len(calls)}")
    alias = tracker.alias()
    item_ = _made(tracked, keys, calls).as_input(alias, "the groups")
    known: dict[exp.Expr, Expression] = {node: ColumnRef(alias, name) for node, name in calls.items()}
    known |= {node: ColumnRef(alias, f"k{index}") for index, node in enumerate(nodes)}
    inference = Inference({ColumnRef(alias, name): one for name, one in item_.facts.items()})
    sure = Inference({ColumnRef(alias, name): one for name, one in item_.sure.items()})
    allow = Allow(sure, _ungrouped(query), known=known)
    where = () if having is None else tuple(sorted(set(conjuncts(allow.condition(having))), key=repr))
    unit = tuple(ColumnRef(alias, name) for name in item_.source.unit)
    return replace(
        tracked,
        relation=Relation(first=item_.source, joins=(), where=where, unit=unit),
        allow=allow,
        facts=inference.refine(where),
        inputs={alias: item_},
    )


def _key_nodes(query: exp.Select) -> list[exp.Expr]:
    group = query.args.get("group")
    if group is None:
        return []
    if any(group.args.get(name) for name in ("rollup", "cube", "grouping_sets")):
        raise forbidden(group, "GROUPING SETS below another SELECT", "Group by columns.")
    return list(group.expressions)


def _made(tracked: Tracked, keys: tuple[Expression, ...], calls: Mapping[exp.Expr, str]) -> Made:
    bounds = bounds_of(tracked)
    limit = Fraction(bounds.max_rows_per_group * bounds.max_groups) if bounds else None
    made = {name: unit_aggregates.lower(node, tracked, limit) for node, name in calls.items()}
    named = tuple((f"k{index}", key) for index, key in enumerate(keys))
    carried = [(name, aggregate.value) for name, (aggregate, _, _) in made.items() if _carries(aggregate)]
    places: dict[Expression, list[str]] = {}
    for name, key in named:
        places.setdefault(key, []).append(name)
    return Made(
        body=Grouping(
            relation=tracked.relation,
            keys=named,
            aggregates=tuple((name, aggregate) for name, (aggregate, _, _) in made.items()),
        ),
        columns={name: tracked.facts.facts(key) for name, key in named}
        | {name: known for name, (_, known, _) in made.items()},
        sure={name: tracked.allow.facts_of(key) for name, key in named}
        | {name: sure for name, (_, _, sure) in made.items()},
        names={},
        width=len(tracked.relation.unit),
        unit=unit_places(tracked, places),
        entities=entities_of(tracked, places),
        bounds=bounds,
        one_row_per_unit=not tracked.public and _one_group_per_unit(tracked, keys),
        loose=tracked.loose,
        tainted=frozenset(
            name for name, value in (*named, *carried) if value is not None and tracked.is_identifying(value)
        ),
    )


def _carries(aggregate: Aggregate) -> bool:
    """Whether its result is made of the values, and not of their number."""
    return aggregate.kind in ("sum", "average", "least", "greatest")


def _one_group_per_unit(tracked: Tracked, keys: tuple[Expression, ...]) -> bool:
    """Whether each key is the unit's or constant per unit, as far as that is declared."""
    unit = {ColumnRef(i.alias, name) for i in tracked.inputs.values() for names in i.unit for name in names}
    return tracked.unit_among(keys) is not None and all(
        key in unit or tracked.facts.facts(key).constant for key in keys
    )


def _ungrouped(query: exp.Select) -> Callable[[str, str], ColumnRef]:
    def resolve(table: str, name: str) -> ColumnRef:
        node = next((c for c in query.find_all(exp.Column) if c.table == table and c.name == name), query)
        raise refusal("INSITU-SQL-UNGROUPED", node, name=name)

    return resolve
