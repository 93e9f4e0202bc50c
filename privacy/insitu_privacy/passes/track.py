"""Pass 4: privacy-unit tracking. FROM and WHERE become a ``Relation`` that is a function of each unit's rows alone.

Protected sources must be joined on equality of the unit, or on an entity key: then equality of the unit is added, so
that dirty data cannot couple two persons. Public sources may be joined on any condition: how many rows of a unit that
makes is counted in the bounds. Where a condition stands, ON, USING or WHERE, makes no difference. What a protected
relation may be is DESIGN.md section 4; everything else is refused.

Here is one SELECT's FROM and WHERE. Derived tables and WITH are ``bodies``, IN and EXISTS are ``cohorts``: the three
call each other through ``Tracker``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

from sqlglot import exp

from insitu_privacy.dataset import Dataset
from insitu_privacy.domains import Inference
from insitu_privacy.expressions import Expression, Literal, conjuncts, scans_of
from insitu_privacy.passes import bodies, cohorts
from insitu_privacy.passes.allow import Allow
from insitu_privacy.passes.inputs import (
    Input,
    columns_used,
    equalities,
    linked,
    scanned,
    sources_of,
    unit_equality,
    unit_of,
)
from insitu_privacy.passes.made import Made
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.passes.tracked import Around, Environment, Tracked
from insitu_privacy.relations import Derived, Join, Relation, Single

LOOSE_LIMIT = 2
"""Public tables that are joined on no equality: a few more, and one person's row takes a node's whole time or none."""


def track(tree: exp.Select, *, dataset: Dataset) -> Tracked:
    """The relation of a qualified SELECT's FROM and WHERE.

    Raises SqlRefused for what is not a function of each unit's rows alone, or holds no protected table.
    """
    tracked = Tracker(dataset).select(tree, {}, None)
    if tracked.public:
        raise refusal("INSITU-SQL-NO-PROTECTED", tree.args["from_"])
    return tracked


class Tracker:
    """Walks one query. Aliases are numbered in order: the query's own names are no part of what it asks."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._numbers = count()
        self._bodies: dict[tuple[int, frozenset[str] | None], tuple[exp.Expr, Made]] = {}

    def alias(self) -> str:
        """The next alias."""
        return f"t{next(self._numbers)}"

    def select(self, tree: exp.Select, environment: Environment, around: Around | None) -> Tracked:
        """FROM and WHERE of one SELECT."""
        environment = _with(tree, environment)
        items = sources_of(tree)
        aliases = {item.alias_or_name: self.alias() for item in items}
        used = columns_used(tree)
        names = {
            name: self._input(item, aliases[name], used.get(name, set()), environment)
            for name, item in zip(aliases, items, strict=True)
        }
        names = names or {"": _single(self.alias())}
        joins = {aliases[join.this.alias_or_name]: join for join in tree.args.get("joins") or ()}
        inputs = {item.alias: item for item in names.values()}
        left = {alias for alias, join in joins.items() if _kind(join) == "left"}
        left -= _joined_to_public_alone(inputs, left)
        inputs = {alias: _left(item) if alias in left else item for alias, item in inputs.items()}
        names = {name: inputs[item.alias] for name, item in names.items()}
        reach = Around(names={**(around.names if around else {}), **names}, environment=environment)
        inference = Inference(reach.facts)
        lead = next((item for item in inputs.values() if item.unit and item.alias not in left), None)
        gathered: list[Derived] = []
        subqueries = cohorts.Cohorts(self, reach, lead, gathered)
        allow = Allow(Inference(reach.sure), lambda table, name: reach.names[table].column(name), subqueries=subqueries)

        lowered = {alias: _conditions(allow, join.args.get("on")) for alias, join in joins.items()}
        _check_order(list(inputs), {alias: lowered[alias] for alias in left}, joins)
        where = tuple(term for alias in joins if alias not in left for term in lowered[alias])
        where += _conditions(allow, tree.args["where"].this if tree.args.get("where") else None)
        allow.close()
        first, *rest = inputs.values()
        relation = Relation(
            first=first.source,
            joins=tuple(
                Join(source=item.source, kind="left", on=lowered[item.alias])
                if item.alias in left
                else Join(source=item.source, kind="inner", on=())
                for item in rest
            ),
            where=where,
            unit=unit_of(lead) if lead else (),
            cohorts=tuple(gathered),
        )
        if lead is None and any(item.unit for item in inputs.values()):
            node = next(joins[item.alias] for item in inputs.values() if item.unit)
            raise refusal("INSITU-SQL-JOIN-KIND", node, name="LEFT (from a public to a protected table)")
        relation = _joined_on_unit(relation, inputs, joins)
        _check_public_joins(relation, inputs, joins)
        tracked = Tracked(relation=relation, allow=allow, facts=inference.refine(relation.where), inputs=inputs)
        if tracked.loose > LOOSE_LIMIT:
            hint = "Join them on equality of a column: else every row meets every other."
            raise forbidden(tree.args["from_"], f"more than {LOOSE_LIMIT} public tables without an equality", hint)
        return tracked

    def _input(self, item: exp.Expr, alias: str, used: set[str], environment: Environment) -> Input:
        if isinstance(item, exp.Table) and item.name not in environment:
            return scanned(alias, self._dataset.tables[item.name], used, self._dataset)
        query, around = environment[item.name] if isinstance(item, exp.Table) else (item.this, environment)
        return self.body(query, around, used).as_input(alias, item.alias_or_name)

    def body(self, query: exp.Expr, environment: Environment, used: set[str] | None) -> Made:
        """A derived table's body; ``used`` are the columns that are read of it, None for all.

        WITH queries that read one another are written out where they are read: each is made once for all those places,
        for their number doubles with every level. Its inner aliases stand in several bodies then, each in its scope.
        What its names mean depends on where it stands alone, so ``environment`` is the same whenever it is asked for.
        """
        key = (id(query), None if used is None else frozenset(used))
        if key not in self._bodies:  # beside the query, so that its id stays its own
            self._bodies[key] = (query, bodies.make(self, query, environment, used))
        return self._bodies[key][1]


def _single(alias: str) -> Input:
    """What a SELECT without FROM reads: one row."""
    return Input(source=Derived(alias=alias, body=Single(), public=True, unit=()), facts={}, sure={}, name="nothing")


def _with(tree: exp.Expr, environment: Environment) -> Environment:
    with_ = tree.args.get("with_")
    for one in with_.expressions if with_ is not None else ():
        environment = {**environment, one.alias: (one.this, environment)}
    return environment


def _kind(join: exp.Join) -> str:
    words = " ".join(str(join.args.get(part) or "") for part in ("method", "side", "kind")).upper().split()
    if any(word not in ("INNER", "LEFT", "OUTER", "CROSS") for word in words) or join.args.get("match_condition"):
        raise refusal("INSITU-SQL-JOIN-KIND", join, name=" ".join(words))
    return "left" if "LEFT" in words else "inner"


def _joined_to_public_alone(inputs: Mapping[str, Input], left: set[str]) -> set[str]:
    """A persons' table joined left to public ones alone: rows without a person are dropped, as by an inner join."""
    first = next((alias for alias, item in inputs.items() if item.unit), None)
    return {first} & left if first is not None else set()


def _left(item: Input) -> Input:
    """A source that is joined left: all of its columns may be NULL, and depend on the row they are joined to."""
    facts, sure = (
        {name: replace(known, nullable=True, constant=False) for name, known in columns.items()}
        for columns in (item.facts, item.sure)
    )
    return replace(item, facts=facts, sure=sure)


def _check_order(
    order: list[str], conditions: Mapping[str, tuple[Expression, ...]], joins: Mapping[str, exp.Join]
) -> None:
    for alias, terms in conditions.items():
        later = set(order[order.index(alias) + 1 :])
        if any(scans_of(term) & later for term in terms):
            raise forbidden(joins[alias], "a join condition on a later table", "Put the join after that table.")


def _conditions(allow: Allow, node: exp.Expr | None) -> tuple[Expression, ...]:
    if node is None:
        return ()
    terms = [cohorts.as_condition(term) for term in conjuncts(allow.condition(node))]
    return tuple(term for group in terms for term in group)


# -- joins of protected sources --------------------------------------------------------------------------------------


def _joined_on_unit(relation: Relation, inputs: Mapping[str, Input], joins: Mapping[str, exp.Join]) -> Relation:
    """The relation with equality of the unit between all protected sources; refused where they are not joined so."""
    equal = equalities(relation.where)
    protected = [item for item in inputs.values() if item.unit]
    inner = [item for item in protected if item.alias not in relation.outer]
    reached, waiting, added = inner[:1], inner[1:], list[Expression]()
    while waiting:
        found = next(((item, near) for item in waiting for near in reached if linked(item, near, equal)), None)
        if found is None:
            raise _not_joined(waiting[0], reached[0], joins)
        item, near = found
        added += [term for term in unit_equality(item, near) if frozenset(term.args) not in equal]
        waiting.remove(item)
        reached.append(item)
    return replace(
        relation,
        joins=_left_joined_on_unit(relation, inputs, reached, joins),
        # in one order, whatever order they were written in
        where=tuple(sorted({*relation.where, *added}, key=repr)),
    )


def _left_joined_on_unit(
    relation: Relation, inputs: Mapping[str, Input], reached: list[Input], joins: Mapping[str, exp.Join]
) -> tuple[Join, ...]:
    """The joins, with equality of the unit in the conditions of those that are left to a protected source."""
    made, near = list[Join](), list[Input]()
    if inputs[relation.first.alias].unit:
        near.append(inputs[relation.first.alias])
    for join in relation.joins:
        item = inputs[join.source.alias]
        if join.kind == "inner" or not item.unit:
            made.append(join)
            near += [item] if item.unit else []
            continue
        lead = next((one for one in near if one in reached), None)
        if lead is None:  # its condition could only name a later table
            raise refusal("INSITU-SQL-JOIN-KIND", joins[item.alias], name="LEFT (from a public to a protected table)")
        equal = equalities((*relation.where, *join.on))
        found = next((one for one in near if linked(item, one, equal)), None)
        if found is None:
            raise _not_joined(item, lead, joins)
        # one that is joined left itself has the same unit, or none and then no row to join
        base = found if found.alias not in relation.outer else lead
        known = equalities(join.on)
        extra = [term for term in unit_equality(item, base) if frozenset(term.args) not in known]
        made.append(replace(join, on=tuple(sorted({*join.on, *extra}, key=repr))))
        near.append(item)
    return tuple(made)


def _not_joined(lost: Input, near: Input, joins: Mapping[str, exp.Join]) -> Exception:
    plain = not any(name.startswith("_unit_") for name in near.source.unit)
    hint = f"equality of {', '.join(near.source.unit)}" if plain else "equality of the privacy unit, or an entity key"
    return refusal("INSITU-SQL-JOIN", joins.get(lost.alias), hint=hint)


# -- joins to public sources -----------------------------------------------------------------------------------------


def _check_public_joins(relation: Relation, inputs: Mapping[str, Input], joins: Mapping[str, exp.Join]) -> None:
    """A public source is joined on some condition: a product of all rows is never what was meant."""
    conditions = {join.source.alias: join.on for join in relation.joins if join.kind == "left"}
    if len(inputs) == 1 or not any(item.unit for item in inputs.values()):
        return
    for item in inputs.values():
        if item.unit:
            continue
        terms = conditions.get(item.alias, relation.where)
        tied = any(item.alias in scans_of(term) and not _is_trivial(term) for term in terms)
        if not tied:
            hint = ", ".join(item.unique) if item.unique else "a column"
            raise refusal("INSITU-SQL-JOIN-PUBLIC", joins.get(item.alias), name=item.name, hint=hint)


def _is_trivial(term: Expression) -> bool:
    return isinstance(term, Literal)
