"""The SQL that perturbed copies are run through, for intervals (``bootstrap``): as the post-processing, but for three
things that would leave a copy without a value or a row.

A ratio has a value only over a denominator above zero: ``postprocess`` says why. A variance that noise pushes below
zero is zero, where its interval may end but not beyond. And what the outermost SELECT cuts off by noisy values (HAVING,
WHERE, LIMIT) stays: whether a row is shown says nothing about how far its values may be off, and a row that noise would
have hidden in some copies has an interval like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from insitu_privacy.passes.nodes import every, has
from insitu_privacy.passes.statistics import FLOORED

_CUTS = ("order", "limit", "offset")


def for_copies(above: exp.Query, noisy: Sequence[bool], *, by_cell: bool) -> exp.Query | None:
    """What copies are run through: where rows are cells, the noisy columns of every cell. None where none is noisy."""
    copied = _guarded(above.copy())
    if not by_cell:
        return _uncut(copied, noisy) if isinstance(copied, exp.Select) else copied
    shown = [item for item, flag in zip(copied.selects, noisy, strict=True) if flag]
    cells = exp.Select(expressions=shown)
    cells.set("from_", copied.args["from_"])
    return cells if shown else None


def _guarded(tree: exp.Query) -> exp.Query:
    for node in every(tree, exp.Case):
        if node.meta.get(FLOORED):
            node.replace(node.args["ifs"][0].args["true"].copy())
    for ratio in reversed(every(tree, exp.Div, exp.IntDiv)):  # the inner ones first
        divisor = ratio.expression
        if not has(divisor, exp.Column, exp.Query):
            continue
        positive = exp.GT(this=exp.paren(divisor.copy()), expression=exp.Literal.number(0))
        ratio.replace(exp.Case(ifs=[exp.If(this=positive, true=ratio.copy())]))
    return tree


def _uncut(tree: exp.Select, noisy: Sequence[bool]) -> exp.Select:
    """Without what cuts rows off by noisy values, where other columns can tell the rows apart."""
    if all(noisy):
        return tree
    for cut in _CUTS:
        tree.set(cut, None)
    items = list(zip(tree.selects, noisy, strict=True))
    known = {_named(column) for item, flag in items if not flag for column in item.find_all(exp.Column)}
    values = {_named(column) for item, flag in items if flag for column in item.find_all(exp.Column)} - known
    having, where = tree.args.get("having"), tree.args.get("where")
    if having is not None:
        tree.set("having", _kept(having, values, exp.Having))
    over_rows = not (tree.args.get("group") or tree.args.get("distinct"))
    if where is not None and over_rows and not any(item.find(exp.AggFunc, exp.Window) for item, _ in items):
        tree.set("where", _kept(where, values, exp.Where))
    return tree


def _named(column: exp.Column) -> tuple[str, str]:
    return column.table, column.name


def _kept(clause: exp.Expr, values: set[tuple[str, str]], kind: type[exp.Where] | type[exp.Having]) -> exp.Expr | None:
    """Those conditions of a clause that are not on noisy values alone."""
    conditions = list(clause.this.flatten()) if isinstance(clause.this, exp.And) else [clause.this]
    kept = [
        one
        for one in conditions
        if not (found := {_named(column) for column in one.find_all(exp.Column)}) <= values or not found
    ]
    return kind(this=exp.and_(*kept)) if kept else None
