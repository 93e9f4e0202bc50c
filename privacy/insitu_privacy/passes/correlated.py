"""A value looked up for each row, ``(SELECT MAX(b.day) FROM visit b WHERE b.person_id = a.person_id)``, as a LEFT JOIN.

The subquery becomes a derived table that is grouped by what its conditions hold equal to the row outside. Whether that
may be joined is decided as for any join: grouped by the unit or an entity key it is of each person's rows alone.
Works on qualified trees. What is looked up beside an aggregate, outside of it, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from sqlglot import exp

from insitu_privacy.passes.inputs import sources_of
from insitu_privacy.passes.nodes import every

_PLAIN = {"kind", "expressions", "from_", "joins", "where"}


def without_correlated_values(tree: exp.Select) -> None:
    """Rewrites the subqueries in place, innermost ones first."""
    names = _free_names(tree)
    for select in reversed(every(tree, exp.Select)):
        for node in _values_in(select):
            _as_join(select, node, names)


def _free_names(tree: exp.Expr) -> Iterator[str]:
    """Found out when the first one is asked for."""
    taken = {node.name for node in every(tree, exp.Identifier)}
    yield from (name for number in count() if (name := f"looked_up{number}") not in taken)


def _values_in(select: exp.Select) -> list[exp.Subquery]:
    """The subqueries of a SELECT whose value a row needs before rows are aggregated."""
    aggregated = select.args.get("group") is not None or any(_aggregates(item) for item in select.expressions)
    found: list[exp.Subquery] = []
    parts = [*select.expressions, *([select.args["where"]] if select.args.get("where") else [])]
    stack = [(part, not aggregated or isinstance(part, exp.Where)) for part in parts]
    while stack:
        node, below = stack.pop()
        if isinstance(node, exp.Subquery):
            found += [node] if below else []
        elif not isinstance(node, exp.Query):
            inside = below or isinstance(node, exp.AggFunc)
            stack += [(part, inside) for part in node.iter_expressions()]
    return found


def _aggregates(item: exp.Expr) -> bool:
    stack = [item]
    while stack:
        node = stack.pop()
        if isinstance(node, exp.AggFunc):
            return True
        if not isinstance(node, (exp.Subquery, exp.Query, exp.Window)):
            stack.extend(node.iter_expressions())
    return False


def _as_join(select: exp.Select, node: exp.Subquery, names: Iterator[str]) -> None:
    query = node.this
    if not _is_value(query) or isinstance(node.parent, (exp.In, exp.Exists)):
        return
    own = {item.alias_or_name for item in sources_of(query)}
    terms = list(
        query.args["where"].this.flatten()
        if isinstance(query.args["where"].this, exp.And)
        else [query.args["where"].this]
    )
    around = {item.alias_or_name for item in sources_of(select)}
    ties = [tie for term in terms if (tie := _tie(term, own)) is not None]
    rest = [term for term in terms if _tie(term, own) is None]
    elsewhere = [*rest, *query.expressions, *(join.args.get("on") for join in query.args.get("joins") or ())]
    if not ties or any(column.table not in around for _, outer in ties for column in outer.find_all(exp.Column)):
        return
    if any(_looks_out(part, own) for part in elsewhere if part is not None):
        return
    name = next(names)
    on = exp.and_(
        *(exp.EQ(this=exp.column(f"k{i}", table=name), expression=outer) for i, (_, outer) in enumerate(ties))
    )
    value: exp.Expr = exp.column("v", table=name)
    if isinstance(query.expressions[0].unalias(), exp.Count):
        value = exp.Coalesce(this=value, expressions=[exp.Literal.number(0)])
    derived = exp.Subquery(
        this=_grouped(query, [inner for inner, _ in ties], rest), alias=exp.TableAlias(this=exp.to_identifier(name))
    )
    node.replace(value)
    select.append("joins", exp.Join(this=derived, side="LEFT", on=on))


def _is_value(query: exp.Expr) -> bool:
    """Whether a query has one row with one aggregate; a count within arithmetic would have to be zero without rows."""
    if not isinstance(query, exp.Select) or any(value and name not in _PLAIN for name, value in query.args.items()):
        return False
    if len(query.expressions) != 1 or query.args.get("where") is None or query.find(exp.Window):
        return False
    item = query.expressions[0].unalias()
    return _aggregates(item) and (isinstance(item, exp.Count) or item.find(exp.Count, exp.CountIf) is None)


def _tie(term: exp.Expr, own: set[str]) -> tuple[exp.Expr, exp.Expr] | None:
    """The side of an equality that is of the subquery's sources, and the side that is of none of them."""
    if not isinstance(term, exp.EQ):
        return None
    for inner, outer in ((term.this, term.expression), (term.expression, term.this)):
        tables = [{column.table for column in side.find_all(exp.Column)} for side in (inner, outer)]
        queries = inner.find(exp.Query) or outer.find(exp.Query)
        if all(tables) and tables[0] <= own and not tables[1] & own and not queries:
            return inner.copy(), outer.copy()
    return None


def _looks_out(node: exp.Expr, own: set[str]) -> bool:
    """Whether a column of the query around stands in it, or may: subqueries in it are not looked into."""
    if node.find(exp.Query):
        return True
    return any(column.table not in own for column in node.find_all(exp.Column))


def _grouped(query: exp.Select, keys: list[exp.Expr], rest: list[exp.Expr]) -> exp.Select:
    copy = query.copy()
    value = exp.alias_(copy.expressions[0].unalias(), "v")
    copy.set("expressions", [*(exp.alias_(key.copy(), f"k{i}") for i, key in enumerate(keys)), value])
    copy.set("where", exp.Where(this=exp.and_(*(term.copy() for term in rest))) if rest else None)
    copy.set("group", exp.Group(expressions=[key.copy() for key in keys]))
    return copy
