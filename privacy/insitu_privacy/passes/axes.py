"""``SELECT DISTINCT`` of keys with public domains, below another SELECT: the list of those keys.

Released, it would hold every public key, empty ones too (DESIGN.md section 4, Group keys): nothing of the data. So it
may stand beside persons' rows as well, as the axis on which they are counted ("the persons observed in each year").
"""

from __future__ import annotations

from datetime import date, datetime
from itertools import product

from sqlglot import exp

from insitu_privacy.evaluate import Value
from insitu_privacy.expressions import Exists, columns_of, walk
from insitu_privacy.facts import Facts
from insitu_privacy.passes.grouping import is_grouped
from insitu_privacy.passes.listed import ROWS_LIMIT, union_of
from insitu_privacy.passes.tracked import Tracked

_CLAUSES = {"kind", "expressions", "from_", "joins", "where", "distinct"}


def is_axis(query: exp.Select) -> bool:
    """Whether it is a SELECT DISTINCT of columns alone."""
    clauses = {name for name, value in query.args.items() if value}
    distinct = query.args.get("distinct")
    return distinct is not None and not distinct.args.get("on") and clauses <= _CLAUSES and not is_grouped(query)


def read_axis(query: exp.Select, tracked: Tracked) -> bool:
    """Makes the SELECT one of the list, in place; False where some key has no public domain, or more is asked of rows.

    A condition may narrow the keys' domains; one on other columns asks which keys there are, and that is private.
    """
    items = [item.unalias() for item in query.expressions]
    keys = [tracked.allow.expression(item) for item in items]
    facts = [tracked.facts.facts(key) for key in keys]
    read = frozenset(column for key in keys for column in columns_of(key))
    for term in tracked.relation.where:
        if columns_of(term) - read or any(isinstance(node, Exists) for node in walk(term)):
            return False
    if len(tracked.inputs) > 1 or any(one.values is None for one in facts):
        return False
    domains = [_domain(one) for one in facts]
    rows = list(product(*domains))
    if len(rows) > ROWS_LIMIT or not all(rows):
        return False
    names = [item.alias_or_name for item in query.expressions]
    source = exp.Subquery(this=union_of(rows, names), alias=exp.TableAlias(this=exp.to_identifier("_axis")))
    query.set(
        "expressions", [exp.alias_(exp.column(name, table="_axis", quoted=True), name, quoted=True) for name in names]
    )
    query.set("from_", exp.From(this=source))
    for clause in ("joins", "where", "distinct"):
        query.set(clause, None)
    return True


def _domain(facts: Facts) -> list[exp.Expr]:
    values: list[Value] = [None] if facts.nullable else []
    return [_literal(value, facts.type) for value in (*values, *(facts.values or ()))]


def _literal(value: Value, kind: str) -> exp.Expr:
    if value is None:
        return exp.cast(exp.Null(), {"text": "TEXT", "integer": "BIGINT", "decimal": "DOUBLE"}.get(kind, kind.upper()))
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, (date, datetime)):
        return exp.cast(
            exp.Literal.string(value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()),
            kind.upper(),
        )
    if isinstance(value, str):
        return exp.Literal.string(value)
    number = exp.Literal.number(str(abs(value)) if isinstance(value, int) else repr(abs(float(value))))
    return exp.Neg(this=number) if value < 0 else number
