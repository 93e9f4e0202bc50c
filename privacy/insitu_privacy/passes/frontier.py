"""Pass 5: the release frontier. Splits a SELECT into what is released and the post-processing above it.

Group keys and aggregates become columns of a released relation; what is left, arithmetic over aggregates, HAVING,
ORDER BY and LIMIT, is post-processing: it runs on noisy values, where no raw data is, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from insitu_privacy.expressions import Expression
from insitu_privacy.passes import outer
from insitu_privacy.passes.allow_arguments import not_listed
from insitu_privacy.passes.moments import expanded
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.plan import NODE_ID

CELL = "__cell"
"""The column of a released relation that numbers its cells."""


LiftSubquery = Callable[[exp.Expr], exp.Query]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKey:
    """A group key of the release: its name in the released relation, its syntax and its meaning."""

    name: str
    node: exp.Expr
    expression: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """An aggregate call: its placeholder's name and its syntax."""

    name: str
    node: exp.Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """One release and the SELECT above it, whose columns name group keys and aggregate placeholders."""

    name: str
    """Of the released relation in the post-processing SQL."""
    keys: tuple[GroupKey, ...]
    aggregates: tuple[Aggregate, ...]
    outer: exp.Select
    by_node: bool
    """Whether nodes are kept apart."""


def frontier(tree: exp.Select, tracked: Tracked, name: str, lifted: LiftSubquery | None = None) -> Frontier:
    """The release of a qualified SELECT and its post-processing.

    ``lifted`` gives for a subquery among the aggregates the SQL above its own releases.
    Raises SqlRefused where rows of persons would be returned, or where the outer SQL holds something unlisted.
    """
    _check_clauses(tree)
    groups = list(tree.args["group"].expressions) if tree.args.get("group") else []
    by_node = any(is_node_id(node) for node in groups)
    keys = _group_keys([node for node in groups if not is_node_id(node)], tracked)
    split = _Split(keys, name, tracked, lifted, by_node=by_node)
    above = exp.Select(expressions=[_projection(split, item) for item in tree.expressions])
    if tree.args.get("having"):
        above.set("where", exp.Where(this=split.replace(tree.args["having"].this)))
    above.set("order", _order(tree, split, above, name))
    for clause in ("limit", "offset"):
        if tree.args.get(clause):
            above.set(clause, _literal_clause(tree.args[clause]))
    above.set("from_", exp.From(this=exp.to_table(name)))
    if not split.aggregates and not keys:
        raise refusal("INSITU-SQL-ROW-OUTPUT", tree.expressions[0])
    aggregates = tuple(split.aggregates.values())
    return Frontier(name=name, keys=keys, aggregates=aggregates, outer=above, by_node=by_node)


def is_node_id(node: exp.Expr) -> bool:
    """Whether a node of the syntax is the pseudo-column that ``qualify`` has marked."""
    return isinstance(node, exp.Placeholder) and node.name == NODE_ID


def _check_clauses(tree: exp.Select) -> None:
    known = {"kind", "with_", "expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset"}
    for name, value in tree.args.items():
        if value and name not in known:
            node = value[0] if isinstance(value, list) else value
            label = name.rstrip("_").upper()
            raise forbidden(node if isinstance(node, exp.Expr) else tree, label, "Leave it out.")
    group = tree.args.get("group")
    if group is not None and any(value for name, value in group.args.items() if name != "expressions"):
        raise forbidden(group, "GROUP BY with sets, CUBE, ROLLUP or ALL", "List the group keys.")


def _group_keys(groups: list[exp.Expr], tracked: Tracked) -> tuple[GroupKey, ...]:
    keys: list[GroupKey] = []
    for node in groups:
        if isinstance(node, (exp.Literal, exp.Null)):
            continue  # groups nothing
        expression = tracked.allow.expression(node)
        if tracked.is_identifying(expression):
            raise refusal("INSITU-SQL-GROUP-BY-UNIT", node, name=node.sql(), count=tracked.counting_units())
        if all(key.node != node for key in keys):
            keys.append(GroupKey(name=f"k{len(keys)}", node=node, expression=expression))
    return tuple(keys)


class _Split:
    """Replaces group keys and aggregates by columns of the released relation, from the top down."""

    def __init__(
        self,
        keys: tuple[GroupKey, ...],
        name: str,
        tracked: Tracked,
        lifted: LiftSubquery | None,
        *,
        by_node: bool,
    ) -> None:
        self._by_node = by_node
        self._keys = keys
        self._tracked = tracked
        self._name = name
        self._lifted = lifted
        self.aggregates: dict[exp.Expr, Aggregate] = {}

    def replace(self, node: exp.Expr) -> exp.Expr:
        for key in self._keys:
            if node == key.node:
                return exp.column(key.name, table=self._name)
        if self._by_node and is_node_id(node):
            return exp.column(NODE_ID, table=self._name)
        if isinstance(node, exp.Window):
            return self._window(node)
        if isinstance(node, exp.Subquery) and self._lifted is not None:
            return exp.Subquery(this=self._lifted(node))
        if isinstance(node, (exp.AggFunc, exp.Filter)):
            arithmetic = expanded(node, self._tracked)
            if arithmetic is not None:
                return exp.paren(self._standing(*arithmetic))
            aggregate = self.aggregates.setdefault(node, Aggregate(name=f"a{len(self.aggregates)}", node=node))
            return exp.column(aggregate.name, table=self._name)
        if isinstance(node, exp.Column):
            raise refusal("INSITU-SQL-UNGROUPED", node, name=node.name)
        if type(node) not in outer.SCALARS:
            raise not_listed(node)
        return self._rebuilt(node)

    def _standing(self, arithmetic: exp.Expr, aggregates: dict[str, exp.Expr]) -> exp.Expr:
        """Arithmetic over aggregates, with their columns for its placeholders."""
        columns = {name: self.replace(node) for name, node in aggregates.items()}

        def change(part: exp.Expr) -> exp.Expr:
            return columns[part.name].copy() if isinstance(part, exp.Placeholder) else part

        return arithmetic.transform(change, copy=False)

    def _window(self, node: exp.Window) -> exp.Expr:
        """A window over released cells: its function is applied to them, so what it holds is replaced, not it."""
        outer.check_window(node)
        copy = self._rebuilt_parts(node, keep=("this",))
        copy.set("this", self._rebuilt_parts(node.this, keep=()))
        return copy

    def _rebuilt(self, node: exp.Expr) -> exp.Expr:
        copy = self._rebuilt_parts(node, keep=())
        if isinstance(copy, exp.Cast) and not isinstance(copy, exp.TryCast):
            return exp.TryCast(this=copy.this, to=copy.args["to"])
        return copy

    def _rebuilt_parts(self, node: exp.Expr, keep: tuple[str, ...]) -> exp.Expr:
        copy = node.copy()
        for name, value in node.args.items():
            if name in keep:
                continue
            if isinstance(value, list):
                copy.set(name, [self.replace(item) if isinstance(item, exp.Expr) else item for item in value])
            elif isinstance(value, exp.Expr) and not isinstance(value, (exp.DataType, exp.Identifier)):
                copy.set(name, self.replace(value))
        return copy


def _projection(split: _Split, item: exp.Expr) -> exp.Expr:
    name = item.alias_or_name or item.sql()
    if isinstance(item, exp.Star):
        raise refusal("INSITU-SQL-ROW-OUTPUT", item)
    body = item.this if isinstance(item, exp.Alias) else item
    return exp.alias_(split.replace(body), name, quoted=True)


def _order(tree: exp.Select, split: _Split, above: exp.Select, name: str) -> exp.Order:
    """ORDER BY over the released relation; without one, rows come sorted by their keys."""
    outputs = {item.alias: item.this for item in above.expressions}
    asked = tree.args["order"].expressions if tree.args.get("order") else []
    items = [_ordered(ordered, split, outputs) for ordered in asked]
    cell = exp.Ordered(this=exp.column(CELL, table=name), nulls_first=True)
    return exp.Order(expressions=[*items, cell])


def _ordered(node: exp.Expr, split: _Split, outputs: dict[str, exp.Expr]) -> exp.Expr:
    target = node.this
    if isinstance(target, exp.Column) and not target.table and target.name in outputs:
        replaced = outputs[target.name].copy()
    elif isinstance(target, exp.Literal) and target.name.isdigit() and 0 < int(target.name) <= len(outputs):
        replaced = list(outputs.values())[int(target.name) - 1].copy()
    else:
        replaced = split.replace(target)
    copy = node.copy()
    copy.set("this", replaced)
    return copy


def _literal_clause(node: exp.Expr) -> exp.Expr:
    value = node.expression
    if not isinstance(value, exp.Literal) or not value.name.isdigit():
        raise forbidden(node, "this LIMIT", "Write a literal number.")
    return node.copy()
