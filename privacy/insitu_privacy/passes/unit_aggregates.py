"""Aggregates over one unit's rows ("stays per person"): exact values inside a protected relation, with public bounds.

They are never released, only read by what stands above, so any aggregate that is a function of the unit's rows will do
as long as it is total and does not depend on the order of rows: counts and sums are cut to public limits, decimals are
added up as integers. DESIGN.md section 4: a count per person is bounded by max_rows_per_group * max_groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.domains import INTEGER_LIMIT, is_bounded
from insitu_privacy.expressions import Expression, Literal, Op, call
from insitu_privacy.facts import Facts
from insitu_privacy.fixed_point import granularity
from insitu_privacy.passes.allow_arguments import check_arguments
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.relations import Aggregate

Lowered = tuple[Aggregate, Facts, Facts]
"""An aggregate, what is known of it, and what is known of it in whatever order conditions are evaluated."""
_ENUMERATED = 1_000


def lower(node: exp.Expr, tracked: Tracked, limit: Fraction | None) -> Lowered:
    """An aggregate call and the facts of its result; ``limit`` bounds a unit's rows, None where nobody declares it."""
    condition = None
    call_ = node
    if isinstance(node, exp.Filter):
        condition, call_ = tracked.allow.condition(node.expression.this), node.this
    rule = _RULES.get(type(call_))
    if rule is None:
        name = call_.sql_name() if isinstance(call_, exp.Func) else call_.key
        hint = "Use COUNT, COUNT(DISTINCT ...), SUM, AVG, MIN or MAX."
        raise refusal("INSITU-SQL-AGGREGATE", node, name=f"{name} below another SELECT", hint=hint)
    check_arguments(call_)
    most = min(limit, INTEGER_LIMIT) if limit is not None else INTEGER_LIMIT
    return rule(call_, tracked, condition, most)


def _guarded(condition: Expression | None, value: Expression, tracked: Tracked) -> Expression:
    if condition is None:
        return value
    return call(Op.CASE, condition, value, Literal(tracked.facts.facts(value).type, None))


def _counted(most: Fraction) -> Facts:
    values = tuple(range(int(most) + 1)) if most <= _ENUMERATED else None
    return Facts(type="integer", nullable=False, interval=(Fraction(0), most), values=values)


def _count(node: exp.Expr, tracked: Tracked, condition: Expression | None, most: Fraction) -> Lowered:
    distinct = isinstance(node.this, exp.Distinct)
    operands = node.this.expressions if distinct else [node.this, *node.expressions]
    if not distinct and (node.this is None or isinstance(node.this, exp.Star)):
        if condition is None:
            return _enforced(_aggregate("rows", None, "integer", most), _counted(most))
        value = _guarded(condition, Literal("boolean", True), tracked)
        return _enforced(_aggregate("count", value, "integer", most), _counted(most))
    if len(operands) != 1:
        raise forbidden(node, "COUNT of several expressions", "Count one, or use COUNT(*).")
    value = _guarded(condition, tracked.allow.expression(operands[0]), tracked)
    return _enforced(_aggregate("distinct" if distinct else "count", value, "integer", most), _counted(most))


def _count_if(node: exp.Expr, tracked: Tracked, condition: Expression | None, most: Fraction) -> Lowered:
    true = call(Op.CASE, tracked.allow.condition(node.this), Literal("boolean", True), Literal("boolean", None))
    return _enforced(_aggregate("count", _guarded(condition, true, tracked), "integer", most), _counted(most))


def _number(node: exp.Expr, tracked: Tracked, condition: Expression | None) -> tuple[Expression, Facts]:
    if isinstance(node.this, exp.Distinct):
        raise forbidden(node, "DISTINCT in this aggregate", "Leave DISTINCT out.")
    value = tracked.allow.expression(node.this)
    if tracked.facts.facts(value).type == "boolean":
        value = call(Op.TO_INTEGER, value)
    value = _guarded(condition, tracked.allow.require(value, ("integer", "decimal"), node.this), tracked)
    facts = tracked.facts.facts(value)
    if facts.type == "decimal" and not is_bounded(facts.interval):
        text = node.this.sql()
        raise refusal("INSITU-SQL-UNBOUNDED", node.this, name=text, hint=f"LEAST(GREATEST({text}, 0), 1000)")
    return value, facts


def _sum(node: exp.Expr, tracked: Tracked, condition: Expression | None, most: Fraction) -> Lowered:
    value, facts = _number(node, tracked, condition)
    low, high = facts.interval if is_bounded(facts.interval) and facts.interval else (-INTEGER_LIMIT, INTEGER_LIMIT)
    reach = max(abs(low), abs(high), Fraction(1))
    low = max(most * min(low, Fraction(0)), -INTEGER_LIMIT)
    high = min(most * max(high, Fraction(0)), INTEGER_LIMIT)
    step = Fraction(1) if facts.type == "integer" else granularity(facts)
    largest = max(abs(low), abs(high), Fraction(1))
    known = Facts(type=facts.type, nullable=True, interval=(-largest, largest))
    return _enforced(_aggregate("sum", value, facts.type, largest, step, reach=reach), known)


def _average(node: exp.Expr, tracked: Tracked, condition: Expression | None, most: Fraction) -> Lowered:
    value, facts = _number(node, tracked, condition)
    step = Fraction(1) if facts.type == "integer" else granularity(facts)
    low, high = facts.interval if is_bounded(facts.interval) and facts.interval else (-INTEGER_LIMIT, INTEGER_LIMIT)
    reach = max(abs(low), abs(high), Fraction(1))
    known = Facts(type="decimal", nullable=True, interval=(low, high))
    sure = Facts(type="decimal", nullable=True, interval=(-reach, reach))
    return _aggregate("average", value, "decimal", most, step, reach=reach), known, sure


def _extreme(kind: str) -> Callable[[exp.Expr, Tracked, Expression | None, Fraction], Lowered]:
    def rule(node: exp.Expr, tracked: Tracked, condition: Expression | None, most: Fraction) -> Lowered:
        if isinstance(node.this, exp.Distinct) or node.expressions:
            raise forbidden(node, "this form of MIN or MAX", "Give it one expression.")
        value = _guarded(condition, tracked.allow.expression(node.this), tracked)
        facts, sure = (
            Facts(type=one.type, nullable=True, interval=one.interval, values=one.values)
            for one in (tracked.facts.facts(value), tracked.allow.facts_of(value))
        )
        return _aggregate(kind, value, facts.type, Fraction(0)), facts, sure

    return rule


def _enforced(aggregate: Aggregate, known: Facts) -> Lowered:
    """An aggregate whose bounds its own text keeps."""
    return aggregate, known, known


def _aggregate(
    kind: str,
    value: Expression | None,
    kind_of: str,
    limit: Fraction,
    step: Fraction = Fraction(1),
    *,
    reach: Fraction = Fraction(0),
) -> Aggregate:
    return Aggregate(kind=kind, value=value, type=kind_of, granularity=step, reach=reach, limit=limit)  # type: ignore[arg-type]


_RULES: Mapping[type[exp.Expr], Callable[[exp.Expr, Tracked, Expression | None, Fraction], Lowered]] = {
    exp.Count: _count,
    exp.CountIf: _count_if,
    exp.Sum: _sum,
    exp.Avg: _average,
    exp.Min: _extreme("least"),
    exp.Max: _extreme("greatest"),
}
