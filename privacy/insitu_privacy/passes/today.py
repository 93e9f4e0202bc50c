"""The time of now, as the day on which the researcher signed the request (UTC), at midnight.

So a query has one meaning for all nodes, for the gateway and for whoever verifies the answer years later; and asked
again on the same day it is the same query, whose stored release is given again. Works on parsed trees, before names
are bound.
"""

from __future__ import annotations

from datetime import date

from sqlglot import exp

from insitu_privacy.passes.nodes import has

_DAYS = (exp.CurrentDate,)
_MOMENTS = (exp.CurrentTimestamp, exp.CurrentDatetime, exp.Localtimestamp)
_MOMENT_NAMES = {"NOW", "SYSDATE", "GETDATE", "SYSTIMESTAMP"}


def with_today(tree: exp.Query, today: date | None) -> exp.Query:
    """The query with literals for ``CURRENT_DATE``, ``CURRENT_TIMESTAMP``, ``NOW()`` and their like.

    Without a day they stay, and are refused later. ``CURRENT_TIME`` too, but where it is cast to a day or a timestamp,
    which MySQL reads as today's.
    """
    if today is None:
        return tree

    if not has(tree, exp.CurrentTime, exp.Anonymous, *_DAYS, *_MOMENTS):
        return tree

    def change(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Cast) and isinstance(node.this, exp.CurrentTime):
            node = exp.CurrentDate() if node.to.is_type("date") else exp.CurrentTimestamp()
        if isinstance(node, _DAYS):
            return _literal(today.isoformat(), "DATE", node)
        if isinstance(node, exp.Anonymous) and node.name.upper() == "AGE" and len(node.expressions) == 1:
            node.set("expressions", [_literal(today.isoformat(), "DATE", node), *node.expressions])
        named = isinstance(node, exp.Anonymous) and node.name.upper() in _MOMENT_NAMES and not node.expressions
        if named or isinstance(node, _MOMENTS):
            return _literal(f"{today.isoformat()} 00:00:00", "TIMESTAMP", node)
        return node

    changed = tree.transform(change, copy=False)
    assert isinstance(changed, exp.Query)
    return changed


def _literal(text: str, kind: str, node: exp.Expr) -> exp.Expr:
    made = exp.cast(exp.Literal.string(text), kind)
    made.meta.update(node.meta)
    return made
