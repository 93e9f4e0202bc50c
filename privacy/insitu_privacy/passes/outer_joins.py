"""RIGHT and FULL joins of two sources as LEFT joins, on qualified trees.

``a RIGHT JOIN b`` is ``b LEFT JOIN a``. ``a FULL JOIN b`` is ``a LEFT JOIN b`` and, beside it, what ``b LEFT JOIN a``
finds no a for. A FULL join of results stays: there a database may run it.
"""

from __future__ import annotations

from sqlglot import exp

from insitu_privacy.passes.inputs import sources_of
from insitu_privacy.passes.nodes import every


def without_right_joins(tree: exp.Expr) -> None:
    """Turns round each RIGHT join of the first two sources, in place."""
    for select in every(tree, exp.Select):
        joins = select.args.get("joins") or []
        if joins and str(joins[0].args.get("side") or "").upper() == "RIGHT":
            first, second = select.args["from_"].this, joins[0].this
            select.set("from_", exp.From(this=second))
            joins[0].set("this", first)
            joins[0].set("side", "LEFT")


def is_full_join(select: exp.Select) -> bool:
    """Whether a SELECT reads two sources by one FULL join whose condition holds a column of each equal."""
    joins = select.args.get("joins") or []
    return len(joins) == 1 and str(joins[0].args.get("side") or "").upper() == "FULL" and bool(_equal(select))


def without_full_join(select: exp.Select) -> None:
    """Writes the one FULL join of a SELECT as a union, in place."""
    a, b = sources_of(select)
    on, pairs = select.args["joins"][0].args["on"], _equal(select)
    united = _free_name(select)
    _merge_keys(select, pairs, united)
    columns = {(node.table, node.name) for node in _columns(select) if node.table in (a.alias_or_name, b.alias_or_name)}
    names = {key: f"{key[1]}_{place}" for place, key in enumerate(sorted(columns))}
    left = _side(names, [one for one, _ in pairs], (a, b), on)
    right = _side(names, [other for _, other in pairs], (b, a), on)
    right.set("where", exp.Where(this=exp.Is(this=pairs[0][0].copy(), expression=exp.Null())))
    for node in _columns(select):
        if (node.table, node.name) in names:
            node.set("this", exp.to_identifier(names[node.table, node.name]))
            node.set("table", exp.to_identifier(united))
    union = exp.Union(this=left, expression=right, distinct=False)
    select.set("joins", None)
    select.set("from_", exp.From(this=exp.Subquery(this=union, alias=exp.TableAlias(this=exp.to_identifier(united)))))


def _clauses(select: exp.Select) -> list[exp.Expr]:
    """A SELECT's own clauses but the join's condition."""
    named = (select.args.get(name) for name in ("where", "group", "having", "order"))
    return [*select.expressions, *(clause for clause in named if clause is not None)]


def _columns(select: exp.Select) -> list[exp.Column]:
    return [node for part in _clauses(select) for node in part.find_all(exp.Column)]


def _equal(select: exp.Select) -> list[tuple[exp.Column, exp.Column]]:
    """The columns of the first source and of the second that the join holds equal."""
    on = select.args["joins"][0].args.get("on")
    first = select.args["from_"].this.alias_or_name
    second = select.args["joins"][0].this.alias_or_name
    found: list[tuple[exp.Column, exp.Column]] = []
    for term in on.flatten() if isinstance(on, exp.And) else [on] if on is not None else []:
        sides = (term.this, term.expression) if isinstance(term, exp.EQ) else ()
        for one, other in (sides, sides[::-1]) if sides else ():
            plain = isinstance(one, exp.Column) and isinstance(other, exp.Column)
            if plain and one.table == first and other.table == second:
                found.append((one, other))
    return found


def _merge_keys(select: exp.Select, pairs: list[tuple[exp.Column, exp.Column]], united: str) -> None:
    """``COALESCE(a.x, b.x)`` of columns that are equal is one column of the union."""
    for place, (one, other) in enumerate(pairs):
        for node in [node for part in _clauses(select) for node in part.find_all(exp.Coalesce)]:
            if [node.this, *node.expressions] in ([one, other], [other, one]):
                node.replace(exp.column(f"key{place}", table=united))


def _side(
    names: dict[tuple[str, str], str],
    keys: list[exp.Column],
    sources: tuple[exp.Expr, exp.Expr],
    on: exp.Expr,
) -> exp.Select:
    items = [exp.alias_(exp.column(column, table=table), name) for (table, column), name in names.items()]
    items += [exp.alias_(key.copy(), f"key{place}") for place, key in enumerate(keys)]
    first, second = sources
    select = exp.Select(expressions=items)
    select.set("from_", exp.From(this=first.copy()))
    select.set("joins", [exp.Join(this=second.copy(), side="LEFT", on=on.copy())])
    return select


def _free_name(select: exp.Select) -> str:
    taken = {node.name for node in select.root().find_all(exp.Identifier)}
    name = "full_join"
    while name in taken:
        name += "_"
    return name
