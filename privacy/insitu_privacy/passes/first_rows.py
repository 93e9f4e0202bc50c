"""DISTINCT ON and QUALIFY as what they stand for: a window function below, and a condition on it above.

The rewriting is sqlglot's. Works on parsed trees, before names are bound.
"""

from __future__ import annotations

from sqlglot import exp
from sqlglot.transforms import eliminate_distinct_on, eliminate_qualify

from insitu_privacy.passes.nodes import every

_AFTER = ("order", "limit", "offset")


def without_qualify(tree: exp.Query) -> exp.Query:
    """The query with a derived table for every SELECT that has DISTINCT ON or QUALIFY."""
    for select in reversed([node for node in every(tree, exp.Select) if _has_either(node)]):
        made = _rewritten(select)
        if select is tree:
            return made
        select.replace(made)
    return tree


def _has_either(select: exp.Select) -> bool:
    distinct = select.args.get("distinct")
    return bool(select.args.get("qualify") or (distinct is not None and distinct.args.get("on")))


def _rewritten(select: exp.Select) -> exp.Query:
    copy = select.copy()
    after = {}
    if copy.args.get("qualify"):  # ORDER BY and LIMIT come after it
        after = {name: copy.args.pop(name, None) for name in _AFTER}
    made = eliminate_distinct_on(eliminate_qualify(copy))
    assert isinstance(made, exp.Query)
    for name, value in after.items():
        made.set(name, value)
    for order in made.find_all(exp.Order):
        items = [one if isinstance(one, exp.Ordered) else exp.Ordered(this=one) for one in order.expressions]
        order.set("expressions", items)
    named = [exp.column(item) if isinstance(item, exp.Identifier) else item for item in made.selects]
    made.set("expressions", named)
    return made
