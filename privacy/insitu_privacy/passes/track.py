"""Pass 4: privacy-unit tracking. FROM and WHERE become a ``Relation`` that is a function of each unit's rows alone.

Protected tables must be joined on equality of the unit, or on an entity key: then equality of the unit is added, so
that dirty data cannot couple two persons. Public tables must be joined on their unique key. Where a condition stands,
ON, USING or WHERE, makes no difference. Everything else is refused (DESIGN.md section 4, What a protected relation
may be). What is not here: derived tables, cohorts and set operations, which are more cases of the same walk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlglot import exp

from insitu_privacy.dataset import Column, Dataset, Table
from insitu_privacy.domains import Facts, Inference, column_facts
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op, call, columns_of, conjuncts, scans_of
from insitu_privacy.passes.allow import Allow
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.relations import Join, PathStep, Relation, Scan

_EntityKey = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A protected relation, and what is known of expressions over its rows."""

    relation: Relation
    allow: Allow
    facts: Inference
    """Facts that hold on rows which satisfy the relation's conditions."""
    tables: Mapping[str, Table]
    """By scan alias."""

    def is_identifying(self, expression: Expression) -> bool:
        """Whether it reads a column of the privacy unit or of an entity key."""
        return any(column.column in _identifying(self.tables[column.scan]) for column in columns_of(expression))

    def is_unit(self, expressions: tuple[Expression, ...]) -> bool:
        """Whether the expressions are the whole unit of one of the protected scans."""
        found = set(expressions)
        return any(
            scan.unit and found == {ColumnRef(scan.alias, name) for name in scan.unit} for scan in self.relation.scans
        )


def track(tree: exp.Select, *, dataset: Dataset) -> Tracked:
    """The relation of a qualified SELECT's FROM and WHERE.

    Raises SqlRefused for joins that are not a function of each unit's rows alone.
    """
    sources = [tree.args["from_"].this, *(join.this for join in tree.args.get("joins") or ())]
    # names of the query's own are not part of what it asks: the same question has the same plan
    names = {source.alias_or_name: f"t{index}" for index, source in enumerate(sources)}
    tables = {names[source.alias_or_name]: dataset.tables[source.name] for source in sources}
    joins = {names[join.this.alias_or_name]: join for join in tree.args.get("joins") or ()}
    left = {alias for alias, join in joins.items() if _kind(join, tables[alias]) == "left"}
    scans = {alias: _scan(name, alias, tables[alias], tree, dataset) for name, alias in names.items()}
    inference = Inference(_column_facts(scans, left))
    allow = Allow(inference, names)

    lowered = {alias: _conditions(allow, join.args.get("on")) for alias, join in joins.items()}
    _check_order(list(scans), {alias: lowered[alias] for alias in left}, joins)
    where = tuple(term for alias in joins if alias not in left for term in lowered[alias])
    where += _conditions(allow, tree.args["where"].this if tree.args.get("where") else None)
    first, *rest = scans.values()
    planned = tuple(
        Join(scan=scan, kind="left", on=lowered[scan.alias])
        if scan.alias in left
        else Join(scan=scan, kind="inner", on=())
        for scan in rest
    )
    relation = Relation(first=first, joins=planned, where=where, unit=_unit(tree, scans))
    relation = _joined_on_unit(relation, tables, joins)
    _check_public_joins(relation, tables, joins)
    return Tracked(relation=relation, allow=allow, facts=inference.refine(where), tables=tables)


def _kind(join: exp.Join, table: Table) -> str:
    words = " ".join(str(join.args.get(part) or "") for part in ("method", "side", "kind")).upper().split()
    if any(word not in ("INNER", "LEFT", "OUTER", "CROSS") for word in words) or join.args.get("match_condition"):
        raise refusal("INSITU-SQL-JOIN-KIND", join, name=" ".join(words))
    if "LEFT" not in words:
        return "inner"
    if not table.public:
        raise refusal("INSITU-SQL-JOIN-KIND", join.this, name="LEFT (to a protected table)")
    return "left"


def _check_order(
    order: list[str], conditions: Mapping[str, tuple[Expression, ...]], joins: Mapping[str, exp.Join]
) -> None:
    for alias, terms in conditions.items():
        known = set(order[: order.index(alias) + 1])
        if any(scans_of(term) - known for term in terms):
            raise forbidden(joins[alias], "a join condition on a later table", "Put the join after that table.")


def _conditions(allow: Allow, node: exp.Expr | None) -> tuple[Expression, ...]:
    return () if node is None else conjuncts(allow.condition(node))


def _unit(tree: exp.Select, scans: Mapping[str, Scan]) -> tuple[ColumnRef, ...]:
    for scan in scans.values():
        if not scan.public:
            return tuple(ColumnRef(scan.alias, name) for name in scan.unit)
    raise refusal("INSITU-SQL-NO-PROTECTED", tree.args["from_"])


# -- scans -----------------------------------------------------------------------------------------------------------


def _scan(name: str, alias: str, table: Table, tree: exp.Select, dataset: Dataset) -> Scan:
    used = {node.name for node in tree.find_all(exp.Column) if node.table == name}
    path, unit = _unit_path(table, dataset)
    named = sorted(used | set(table.unit) | set(table.unit_path.on if table.unit_path else ()))
    return Scan(
        alias=alias,
        table=table.name,
        public=table.public,
        columns=tuple(table.columns[name] for name in named) + tuple(unit),
        unit=table.unit or tuple(column.name for column in unit),
        unit_path=path,
        one_row_per_unit=table.one_row_per_unit,
    )


def _unit_path(table: Table, dataset: Dataset) -> tuple[tuple[PathStep, ...], list[Column]]:
    """The steps to the table that has the unit, and the unit's columns under names no dataset can have."""
    steps: list[PathStep] = []
    at = table
    while at.unit_path is not None:
        reached = dataset.tables[at.unit_path.through]
        steps.append(PathStep(path=at.unit_path, unit=reached.unit))
        at = reached
    if not steps:
        return (), []
    columns = [replace(at.columns[name], name=f"_unit_{index}") for index, name in enumerate(at.unit)]
    return tuple(steps), columns


def _column_facts(scans: Mapping[str, Scan], left: set[str]) -> dict[ColumnRef, Facts]:
    facts = {}
    for alias, scan in scans.items():
        for column in scan.columns:
            known = column_facts(column)
            if scan.public:
                known = replace(known, constant=False, nullable=known.nullable or alias in left)
            facts[ColumnRef(alias, column.name)] = known
    return facts


# -- joins of protected tables ---------------------------------------------------------------------------------------


def _equalities(relation: Relation) -> set[frozenset[Expression]]:
    return {frozenset(term.args) for term in relation.where if isinstance(term, Call) and term.op is Op.EQ}


def _joined_on_unit(relation: Relation, tables: Mapping[str, Table], joins: Mapping[str, exp.Join]) -> Relation:
    """The relation with equality of the unit between all protected scans; refused where they are not joined so."""
    equal = _equalities(relation)
    protected = [scan for scan in relation.scans if not scan.public]
    reached, waiting, added = protected[:1], protected[1:], list[Expression]()
    while waiting:
        found = next(((scan, near) for scan in waiting for near in reached if _linked(scan, near, tables, equal)), None)
        if found is None:
            lost = waiting[0]
            hint = f"equality of {', '.join(reached[0].unit)}" if not reached[0].unit_path else "an entity key"
            raise refusal("INSITU-SQL-JOIN", joins.get(lost.alias), hint=hint)
        scan, near = found
        added += [term for term in _unit_equality(scan, near) if frozenset(term.args) not in equal]
        waiting.remove(scan)
        reached.append(scan)
    # in one order, whatever order they were written in
    return replace(relation, where=tuple(sorted({*relation.where, *added}, key=repr)))


def _unit_equality(a: Scan, b: Scan) -> list[Call]:
    return [call(Op.EQ, ColumnRef(a.alias, x), ColumnRef(b.alias, y)) for x, y in zip(a.unit, b.unit, strict=True)]


def _linked(a: Scan, b: Scan, tables: Mapping[str, Table], equal: set[frozenset[Expression]]) -> bool:
    if len(a.unit) != len(b.unit):
        return False
    if all(frozenset(term.args) in equal for term in _unit_equality(a, b)):
        return True
    keys_a, keys_b = _entity_columns(tables[a.alias]), _entity_columns(tables[b.alias])
    return any(
        all(
            frozenset((ColumnRef(a.alias, x), ColumnRef(b.alias, y))) in equal
            for x, y in zip(mine, theirs, strict=True)
        )
        for key in keys_a.keys() & keys_b.keys()
        for mine in keys_a[key]
        for theirs in keys_b[key]
    )


def _entity_columns(table: Table) -> dict[_EntityKey, list[tuple[str, ...]]]:
    """The entity keys a table holds, its own and those of others, and under which columns."""
    found: dict[_EntityKey, list[tuple[str, ...]]] = {}
    for key in table.entity_keys:
        found.setdefault((table.name, key), []).append(key)
    for column in table.columns.values():
        if column.references is not None:
            owner, name = column.references
            found.setdefault((owner, (name,)), []).append((column.name,))
    if table.unit_path is not None:
        found.setdefault((table.unit_path.through, table.unit_path.on), []).append(table.unit_path.on)
    return found


def _identifying(table: Table) -> set[str]:
    if table.public:
        return set()
    entity = {name for ways in _entity_columns(table).values() for columns in ways for name in columns}
    return entity | set(table.unit)


# -- joins to public tables ------------------------------------------------------------------------------------------


def _check_public_joins(relation: Relation, tables: Mapping[str, Table], joins: Mapping[str, exp.Join]) -> None:
    conditions = {join.scan.alias: join.on for join in relation.joins if join.kind == "left"}
    for scan in relation.scans:
        if not scan.public:
            continue
        table = tables[scan.alias]
        terms = conditions.get(scan.alias, relation.where)
        fixed = {name for name in table.key if _is_fixed(ColumnRef(scan.alias, name), terms)}
        if not table.key or fixed != set(table.key):
            node = joins.get(scan.alias)
            hint = ", ".join(table.key) if table.key else "a unique key, which this table does not declare"
            raise refusal("INSITU-SQL-JOIN-PUBLIC", node, name=table.name, hint=hint)


def _is_fixed(column: ColumnRef, terms: tuple[Expression, ...]) -> bool:
    """Whether some equality ties the column to a literal or to a value of other scans."""
    for term in terms:
        if not isinstance(term, Call) or column not in term.args:
            continue
        if term.op is Op.EQ:
            other = term.args[1] if term.args[0] == column else term.args[0]
            if column.scan not in scans_of(other):
                return True
        if term.op is Op.IN and term.args[0] == column and len(term.args) == 2 and isinstance(term.args[1], Literal):
            return True
    return False
