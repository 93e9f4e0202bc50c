"""MEDIAN, quantiles, MIN and MAX: which tree of counts they need, and how they are read from it.

DESIGN.md section 4, Statistics. A quantile is within a leaf of the exact one; MIN and MAX are the outermost leaf that
stands clear of the noise. Dates are counted in days from the first that is possible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.dataset import ColumnType
from insitu_privacy.domains import is_bounded
from insitu_privacy.expressions import Expression, Literal, Op, call
from insitu_privacy.passes.nodes import every
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.plan import Quantile, QuantileKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A quantile that is asked for: of which numbers, and how its number is read as a value."""

    value: Expression
    kind: QuantileKind
    level: Fraction
    type: ColumnType
    """Of the answer."""
    origin: date | None
    """Of dates, the day that is 0."""


_LEVELS: Mapping[type[exp.Expr], QuantileKind] = {
    exp.PercentileCont: "continuous",
    exp.PercentileDisc: "discrete",
    exp.Quantile: "discrete",
    exp.ApproxQuantile: "discrete",
}


def bounded_in_sql(node: exp.Expr) -> str:
    """An aggregate with bounds around its value, for hints."""
    copy = node.copy()
    bounded = f"LEAST(GREATEST({node.this.sql('duckdb')}, 0), 1000)"
    copy.set("this", exp.column("insitu_value"))
    return copy.sql("duckdb").replace("insitu_value", bounded)


def within_groups(tree: exp.Query) -> None:
    """Writes ``PERCENTILE_CONT(p) WITHIN GROUP (ORDER BY x)`` as ``PERCENTILE_CONT(x, p)``, in place.

    From above, ORDER BY x DESC, it is the level 1 - p; where the rank is whole, a discrete one is then the next value.
    """
    for node in every(tree, exp.WithinGroup):
        order = node.expression.expressions if isinstance(node.expression, exp.Order) else []
        function = node.this
        if type(function) not in _LEVELS or len(order) != 1:
            continue
        level = function.this
        if order[0].args.get("desc"):
            level = exp.Sub(this=exp.Literal.number(1), expression=exp.paren(level))
        plain = type(function)(this=order[0].this, expression=level)
        plain.meta.update(function.meta, from_above=bool(order[0].args.get("desc")))
        node.replace(plain)


def wish(node: exp.Expr, tracked: Tracked) -> Wish:
    """What an aggregate asks for. Raises SqlRefused where its values have no order or no public bounds."""
    kind, level = _asked(node)
    if isinstance(node.this, exp.Distinct):
        raise forbidden(node, "DISTINCT in this aggregate", "Leave DISTINCT out.")
    value = tracked.allow.expression(node.this)
    if tracked.is_identifying(value):
        raise refusal("INSITU-SQL-AGGREGATE", node, name="a quantile of identifiers", hint="Count them instead.")
    tracked.allow.require(value, ("integer", "decimal", "date", "timestamp"), node.this)
    facts = tracked.facts.facts(value)
    if not is_bounded(facts.interval) or facts.interval is None:
        text = node.this.sql()
        raise refusal("INSITU-SQL-UNBOUNDED", node.this, name=text, hint=bounded_in_sql(node))
    if facts.type in ("date", "timestamp"):
        low = facts.interval[0]
        origin = low.date() if isinstance(low, datetime) else low
        days = call(Op.DAYS_BETWEEN, Literal("date", origin), value)
        return Wish(value=days, kind=kind, level=level, type=facts.type, origin=origin)
    kept: ColumnType = "decimal" if kind == "continuous" else facts.type
    return Wish(value=value, kind=kind, level=level, type=kept, origin=None)


def _asked(node: exp.Expr) -> tuple[QuantileKind, Fraction]:
    if isinstance(node, (exp.Min, exp.Max)):
        if node.expressions:
            raise forbidden(node, "this form of MIN or MAX", "Give it one expression.")
        return ("least", Fraction(0)) if isinstance(node, exp.Min) else ("greatest", Fraction(1))
    if isinstance(node, exp.Median):
        return "continuous", Fraction(1, 2)
    level = _level(node.args.get("quantile") or node.args.get("expression"))
    if level is None or not 0 <= level <= 1:
        raise forbidden(node, "this quantile", "Write its level as a number from 0 to 1: PERCENTILE_CONT(x, 0.25).")
    kind = _LEVELS[type(node)]
    return "discrete from above" if kind == "discrete" and node.meta.get("from_above") else kind, level


_LEVEL = re.compile(r"[0-9]{0,9}(\.[0-9]{0,30})?(?<=[0-9])", re.ASCII)


def _level(node: exp.Expr | None) -> Fraction | None:
    if isinstance(node, exp.Paren):
        return _level(node.this)
    if isinstance(node, exp.Sub):
        left, right = _level(node.this), _level(node.expression)
        return None if left is None or right is None else left - right
    if isinstance(node, exp.Literal) and not node.is_string and _LEVEL.fullmatch(node.name):
        return Fraction(node.name)
    return None


def read_quantile(asked: Wish, quantile: Quantile) -> exp.Expr:
    """DuckDB syntax of a quantile's value from its column of the released relation."""
    column = exp.column(quantile.column, table=quantile.relation)
    if asked.origin is not None:
        start = exp.cast(exp.Literal.string(asked.origin.isoformat()), "DATE")
        day = exp.paren(exp.Add(this=start, expression=exp.cast(column, "INTEGER")))
        return day if asked.type == "date" else exp.cast(day, "TIMESTAMP")
    return exp.cast(column, "BIGINT") if asked.type == "integer" else column
