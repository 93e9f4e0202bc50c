"""A result of one row beside persons' rows ("and the total, to divide by") as a value of the SELECT above the release.

``SELECT kind, COUNT(*) / t.n FROM visit CROSS JOIN (SELECT COUNT(*) AS n FROM visit) t GROUP BY kind, t.n`` asks for
nothing below the aggregates that is not a person's own: the one row only stands beside each group. So it becomes
``(SELECT n FROM t)``, with t in WITH, made once. Where a condition, a key or an aggregate mixes it with persons' rows,
that would be a second stage over private data: the query stays as it is, and is refused.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import exp

from insitu_privacy.passes.inputs import sources_of
from insitu_privacy.passes.nodes import has

_CONSTANT_OF_ONE = (exp.Min, exp.Max, exp.Avg, exp.AnyValue)
"""Aggregates of a value that is the same on each row: the value."""
_MANY = ("group", "having", "distinct", "limit", "offset", "qualify")


def is_single_row(query: exp.Expr) -> bool:
    """Whether a query has exactly one row, by the way it is written: aggregates without groups."""
    if not isinstance(query, exp.Select) or any(query.args.get(name) for name in _MANY):
        return False
    bare = [_outside_aggregates(item) for item in query.expressions]
    aggregated = any(has(item, exp.AggFunc) for item in query.expressions)
    return aggregated and not any(
        isinstance(node, (exp.Column, exp.Window, exp.Star)) for part in bare for node in part
    )


def moved_above(select: exp.Select, singles: Collection[str]) -> bool:
    """Moves the sources ``singles`` out of a SELECT's rows, in place; False where that would change its meaning."""
    keys = select.args["group"].expressions if select.args.get("group") else []
    kept = [key for key in keys if not _of(key, singles)]
    places = [*select.expressions, *(part for name in ("having", "order") if (part := select.args.get(name)))]
    below = [*kept, *(part for part in (select.args.get("where"), *_conditions(select)) if part is not None)]
    if any(_reads(part, singles) for part in below) or not all(_is_above(part, singles) for part in places):
        return False
    if not any(item.find(exp.AggFunc) for item in places) and not kept:
        return False
    if not _is_beside(select, singles):
        return False
    taken = _taken(select, singles)
    for part in places:
        _replace(part, singles, taken)
    if keys:
        select.set("group", exp.Group(expressions=kept) if kept else None)
    return True


def _outside_aggregates(item: exp.Expr) -> list[exp.Expr]:
    """The nodes of an expression but for aggregates and queries in it."""
    found, stack = list[exp.Expr](), [item]
    while stack:
        node = stack.pop()
        if not isinstance(node, (exp.AggFunc, exp.Query, exp.Subquery)) or isinstance(node.parent, exp.Window):
            found.append(node)
            stack.extend(node.iter_expressions())
    return found


def _reads(node: exp.Expr, singles: Collection[str]) -> bool:
    return any(column.table in singles for column in node.find_all(exp.Column))


def _of(node: exp.Expr, singles: Collection[str]) -> bool:
    """Whether an expression is of columns of the single rows, and of nothing else."""
    columns = list(node.find_all(exp.Column))
    return bool(columns) and all(column.table in singles for column in columns) and not node.find(exp.Query)


def _is_above(node: exp.Expr, singles: Collection[str]) -> bool:
    """Whether single rows stand outside aggregates, or alone in those that give back what is the same on each row."""
    if isinstance(node, (exp.AggFunc, exp.Window, exp.Query, exp.Subquery, exp.Filter)):
        return not _reads(node, singles) or _is_constant(node, singles)
    return all(_is_above(part, singles) for part in node.iter_expressions())


def _is_constant(node: exp.Expr, singles: Collection[str]) -> bool:
    plain = isinstance(node, _CONSTANT_OF_ONE) and not node.expressions and not node.find(exp.Distinct)
    return plain and _of(node.this, singles) and node.this.find(exp.AggFunc) is None


# -- sources ---------------------------------------------------------------------------------------------------------


def _conditions(select: exp.Select) -> list[exp.Expr | None]:
    return [join.args.get("on") for join in select.args.get("joins") or ()]


def _is_beside(select: exp.Select, singles: Collection[str]) -> bool:
    """Whether each single row stands beside all others: no outer join leaves it out or needs it."""
    joins = select.args.get("joins") or []
    crossed = all(
        not (join.args.get("side") or join.args.get("using"))
        for join in joins
        if join.this.alias_or_name in singles or select.args["from_"].this.alias_or_name in singles
    )
    return crossed and any(item.alias_or_name not in singles for item in sources_of(select))


def _taken(select: exp.Select, singles: Collection[str]) -> dict[str, exp.Table]:
    """Takes the single rows out of FROM: each by the table or the WITH query that it is from now on."""
    taken: dict[str, exp.Table] = {}
    joins = list(select.args.get("joins") or [])
    first = select.args["from_"].this
    rest = [join for join in joins if join.this.alias_or_name not in singles]
    terms = [join.args["on"] for join in joins if join not in rest and join.args.get("on")]
    for item in [first, *(join.this for join in joins)]:
        if item.alias_or_name in singles:
            taken[item.alias_or_name] = _named(select, item)
    if first.alias_or_name in singles:
        promoted = rest.pop(0)
        select.set("from_", exp.From(this=promoted.this))
        terms += [promoted.args["on"]] if promoted.args.get("on") else []
    select.set("joins", rest)
    for term in terms:
        select.where(term, copy=False)
    return taken


def _named(select: exp.Select, item: exp.Expr) -> exp.Table:
    """A single row by name: a derived table becomes a WITH query of the SELECT, so that it is made once."""
    alias = item.alias_or_name
    if isinstance(item, exp.Table):
        return item.copy()
    name = _free_name(select, alias)
    made = exp.CTE(this=item.this.copy(), alias=exp.TableAlias(this=exp.to_identifier(name)))
    with_ = select.args.get("with_")
    select.set("with_", exp.With(expressions=[*(with_.expressions if with_ else []), made]))
    return exp.Table(this=exp.to_identifier(name), alias=exp.TableAlias(this=exp.to_identifier(alias)))


def _free_name(select: exp.Select, alias: str) -> str:
    root = select.root()
    taken = {node.name for node in root.find_all(exp.Identifier)}
    name = f"{alias}_row"
    while name in taken:
        name += "_"
    return name


def _replace(node: exp.Expr, singles: Collection[str], taken: dict[str, exp.Table]) -> None:
    if isinstance(node, exp.AggFunc) and _is_constant(node, singles):
        value = exp.paren(node.this.copy())
        node.replace(value)
        node = value
    if isinstance(node, exp.Column) and node.table in taken:
        query = exp.Select(expressions=[exp.alias_(node.copy(), node.name)])
        query.set("from_", exp.From(this=taken[node.table].copy()))
        made = exp.Subquery(this=query)
        made.meta.update(node.this.meta)
        node.replace(made)
        return
    for part in list(node.iter_expressions()):
        _replace(part, singles, taken)
