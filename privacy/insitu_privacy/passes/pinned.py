"""``HAVING MIN(x) = x``: the one value of a column that is neither aggregated nor a group key.

SQLite and MySQL take such a query ("the first visit of each person, and its day"); the condition leaves no choice of
the row, so that in it x means MIN(x) for every database. Works on parsed trees, before names are bound.
"""

from __future__ import annotations

from sqlglot import exp

from insitu_privacy.passes.nodes import every

_EXTREMES = (exp.Min, exp.Max)


def with_pinned(tree: exp.Query) -> exp.Query:
    """The query with the aggregate in place of each column that HAVING holds equal to it."""
    for select in every(tree, exp.Select):
        having = select.args.get("having")
        if having is None or select.args.get("group") is None:
            continue
        for term in list(having.this.flatten() if isinstance(having.this, exp.And) else [having.this]):
            extreme = _pinned(term, select)
            if extreme is not None:
                _pin(select, term, extreme)
    return tree


def _pinned(term: exp.Expr, select: exp.Select) -> exp.Expr | None:
    """The MIN or MAX of a column that a condition holds equal to the column itself."""
    if not isinstance(term, exp.EQ):
        return None
    for extreme, column in ((term.this, term.expression), (term.expression, term.this)):
        bare = isinstance(column, exp.Column) and column not in select.args["group"].expressions
        if bare and isinstance(extreme, _EXTREMES) and extreme.this == column and not extreme.expressions:
            return extreme
    return None


def _pin(select: exp.Select, term: exp.Expr, extreme: exp.Expr) -> None:
    column = extreme.this.copy()
    there = exp.Not(this=exp.Is(this=extreme.copy(), expression=exp.Null()))
    there.this.meta.update(term.meta)
    term.replace(there)
    parts = [*select.expressions, select.args["having"], *([select.args["order"]] if select.args.get("order") else [])]
    for part in parts:
        _replace(part, column, extreme)


def _replace(node: exp.Expr, column: exp.Expr, extreme: exp.Expr) -> None:
    """Outside aggregates and subqueries."""
    if node == column:
        made: exp.Expr = extreme.copy()
        if isinstance(node.parent, exp.Select) and node.arg_key == "expressions":
            made = exp.Alias(this=made, alias=exp.to_identifier(node.name))
        node.replace(made)
    elif not isinstance(node, (exp.AggFunc, exp.Query)):
        for part in list(node.iter_expressions()):
            _replace(part, column, extreme)
