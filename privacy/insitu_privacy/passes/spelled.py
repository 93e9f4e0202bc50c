"""Other spellings of what the passes know: lists of values, column lists, FETCH FIRST, ANY of a list.

``VALUES`` and ``generate_series`` of literals become SELECTs of constants, ``x = ANY (ARRAY[...])`` becomes IN. A
column list is written out as the aliases of the SELECT it names, so that whoever looks for a column finds it there.
Works on parsed trees, before names are bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlglot import exp

from insitu_privacy.passes.listed import ROWS_LIMIT, union_of
from insitu_privacy.passes.nodes import every, has

Node = TypeVar("Node")
_SERIES = (exp.GenerateSeries, exp.ExplodingGenerateSeries)
_LISTS: tuple[type[exp.Expr], ...] = (exp.Values, *_SERIES, exp.Any, exp.Tuple)
"""Without one of them there is no list to write out."""
_BY_ALIAS = ("group", "having", "qualify", "order")
"""Clauses in which an alias of the same SELECT may be named."""


def with_plain_spelling(tree: exp.Query, dialect: str) -> exp.Query:
    """The query in the passes' spelling. Most queries have it: what they hold nothing of is not looked for."""
    if has(tree, *_LISTS):
        _write_out_lists(tree, dialect)
    for call in every(tree, exp.Anonymous):
        if call.name.upper() == "STD" and len(call.expressions) == 1:
            call.replace(exp.StddevPop(this=call.expressions[0].copy()))
    for derived in every(tree, exp.CTE, exp.Subquery):
        _write_out(derived)
    for fetch in every(tree, exp.Fetch):
        _as_limit(fetch)
    return tree


def _write_out_lists(tree: exp.Query, dialect: str) -> None:
    for values in every(tree, exp.Values):
        _as_selects(values, dialect)
    for table in every(tree, exp.Table):
        if isinstance(table.this, _SERIES):
            _as_numbers(table)
    for like in every(tree, exp.Like, exp.ILike, exp.EQ):
        _as_list(like)
    for among in every(tree, exp.In):
        _as_conditions(among)


def _write_out(node: exp.Expr) -> None:
    names = node.args["alias"].args.get("columns") if isinstance(node.args.get("alias"), exp.TableAlias) else None
    first = _first_select(node.this)
    if not names or first is None or len(names) != len(first.expressions) or not _is_free(first):
        return
    items = [
        exp.alias_(item.unalias(), name.copy(), copy=False) for item, name in zip(first.expressions, names, strict=True)
    ]
    first.set("expressions", items)
    node.args["alias"].set("columns", None)


def _first_select(query: exp.Expr) -> exp.Select | None:
    """The SELECT that a query's columns are named by."""
    while isinstance(query, (exp.SetOperation, exp.Subquery)):
        query = query.this
    return query if isinstance(query, exp.Select) else None


def _is_free(select: exp.Select) -> bool:
    """Whether nothing depends on the names that its columns have."""
    if any(item.is_star for item in select.expressions):
        return False
    aliases = {item.alias.lower() for item in select.expressions if item.alias}
    clauses = [clause for name in _BY_ALIAS if (clause := select.args.get(name)) is not None]
    return not any(
        not column.table and column.name.lower() in aliases
        for clause in clauses
        for column in clause.find_all(exp.Column)
    )


def _as_limit(node: exp.Fetch) -> None:
    """FETCH FIRST n ROWS ONLY; a percentage and ties stay, and are refused."""
    options = node.args.get("limit_options")
    special = options is not None and (options.args.get("percent") or options.args.get("with_ties"))
    count = node.args.get("count")
    if count is not None and not special and not node.args.get("percent") and not node.args.get("with_ties"):
        limit = exp.Limit(expression=count.copy())
        limit.meta.update(node.meta)
        node.replace(limit)


# -- rows of constants -----------------------------------------------------------------------------------------------


def _as_selects(values: exp.Values, dialect: str) -> None:
    rows = [row.expressions if isinstance(row, exp.Tuple) else [row] for row in values.expressions]
    if not rows or len(rows) > ROWS_LIMIT or any(len(row) != len(rows[0]) for row in rows):
        return
    names = [f"col{place}" if dialect.lower() == "duckdb" else f"column{place + 1}" for place in range(len(rows[0]))]
    united = union_of([[item.copy() for item in row] for row in rows], names)
    around = values.parent.parent if isinstance(values.parent, exp.From) else None
    if isinstance(around, exp.Select) and _is_all_of(around, values):
        around.replace(united)
    else:
        alias = values.args.get("alias")
        values.replace(exp.Subquery(this=united, alias=alias.copy() if alias else None))


def _is_all_of(select: exp.Select, values: exp.Values) -> bool:
    """Whether a SELECT is what a reader makes of bare VALUES."""
    plain = all(name in ("kind", "expressions", "from_") for name, value in select.args.items() if value)
    return (
        plain
        and select.parent is not None
        and values.alias == "_values"
        and [one.is_star for one in select.expressions] == [True]
    )


def _as_numbers(table: exp.Table) -> None:
    """``generate_series(2000, 2020) AS g(year)``."""
    series, alias = table.this, table.args.get("alias")
    if {name for name, value in series.args.items() if value} - {"start", "end", "is_end_exclusive"}:
        return
    ends = [_whole(series.args.get(name)) for name in ("start", "end")]
    if alias is None or len(alias.args.get("columns") or ()) != 1 or None in ends:
        return
    first, last = ends[0], ends[1]
    assert first is not None
    assert last is not None
    numbers = range(first, last + (not series.args.get("is_end_exclusive")))
    if 0 < len(numbers) <= ROWS_LIMIT:
        united = union_of([[_number(value)] for value in numbers], [alias.args["columns"][0].name])
        table.replace(exp.Subquery(this=united, alias=alias.copy()))


def _whole(node: exp.Expr | None) -> int | None:
    digits = node.this if isinstance(node, exp.Neg) else node
    if not isinstance(digits, exp.Literal) or digits.is_string or not digits.name.isdigit() or len(digits.name) > 9:
        return None
    return -int(digits.name) if isinstance(node, exp.Neg) else int(digits.name)


def _number(value: int) -> exp.Expr:
    literal = exp.Literal.number(abs(value))
    return exp.Neg(this=literal) if value < 0 else literal


def _balanced(parts: Sequence[Node], joined: Callable[[Node, Node], Node]) -> Node:
    """A tree of them that is not deep."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return joined(_balanced(parts[:middle], joined), _balanced(parts[middle:], joined))


# -- lists in conditions ---------------------------------------------------------------------------------------------


def _as_list(node: exp.Expr) -> None:
    """``= ANY`` and ``LIKE ANY`` of a list that is written out."""
    inside = node.expression.this.unnest() if isinstance(node.expression, exp.Any) else None
    if not isinstance(inside, (exp.Array, exp.Tuple)) or not inside.expressions or node.args.get("negate"):
        return
    items = [item.copy() for item in inside.expressions]
    if isinstance(node, exp.EQ):
        node.replace(exp.In(this=node.this.copy(), expressions=items))
        return
    likes: list[exp.Expr] = [type(node)(this=node.this.copy(), expression=item) for item in items]
    node.replace(exp.paren(_balanced(likes, lambda one, other: exp.Or(this=one, expression=other))))


def _as_conditions(node: exp.In) -> None:
    """``(a, b) IN ((1, 2), (3, 4))``."""
    names, rows = node.this, node.expressions
    if not isinstance(names, exp.Tuple) or not rows or len(rows) > ROWS_LIMIT:
        return
    if not all(isinstance(row, exp.Tuple) and len(row.expressions) == len(names.expressions) for row in rows):
        return
    terms: list[exp.Expr] = [
        exp.paren(
            exp.and_(
                *(
                    exp.EQ(this=a.copy(), expression=b.copy())
                    for a, b in zip(names.expressions, row.expressions, strict=True)
                )
            )
        )
        for row in rows
    ]
    node.replace(exp.paren(_balanced(terms, lambda one, other: exp.Or(this=one, expression=other))))
