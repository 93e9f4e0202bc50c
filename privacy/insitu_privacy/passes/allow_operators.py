"""The allowlist's literals, columns, operators and CASE."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.domains import INTEGER_LIMIT
from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes.allow import Allow
from insitu_privacy.passes.allow_arguments import check_arguments
from insitu_privacy.passes.spans import forbidden, refusal

_NUMBER = re.compile(r"(?=.*[0-9])[0-9]{0,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_ESCAPE = re.compile("[!#$&*+/:;<=>?@^|~\\\\-]")


def _literal(allow: Allow, node: exp.Expr) -> Expression:
    text = node.name
    if node.args.get("is_string"):
        if "\0" in text:  # from an escape: no database keeps it in text
            raise refusal("INSITU-SQL-SYNTAX", node, reason="this text holds a NUL character")
        return Literal("text", text)
    if not _NUMBER.fullmatch(text):  # checked before it is read: the exponent decides how large the number is
        raise refusal("INSITU-SQL-SYNTAX", node, reason="this is not a number of at most 30 digits")
    number = Fraction(text)
    if abs(number) >= INTEGER_LIMIT:
        raise refusal("INSITU-SQL-UNBOUNDED", node, name="this number", hint="a number below 2^53")
    return Literal("integer", int(number)) if text.isdigit() else Literal("decimal", number)


def _column(allow: Allow, node: exp.Expr) -> Expression:
    assert isinstance(node, exp.Column)
    try:
        return allow.column(node.table, node.name)
    except KeyError:
        hint = "Write the condition as EXISTS, or as a join."
        raise forbidden(node, "a column of the query around in this place", hint) from None


def _arithmetic(op: Op) -> Callable[[Allow, exp.Expr], Expression]:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        return Call(op, tuple(allow.numbers(node.this, node.expression)))

    return rule


def _comparison(op: Op) -> Callable[[Allow, exp.Expr], Expression]:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        return Call(op, tuple(allow.alike(node.this, node.expression)))

    return rule


def _null_safe(allow: Allow, node: exp.Expr) -> Expression:
    a, b = allow.alike(node.this, node.expression)
    neither = call(Op.AND, call(Op.IS_NULL, a), call(Op.IS_NULL, b))
    return call(Op.OR, neither, call(Op.COALESCE, call(Op.EQ, a, b), Literal("boolean", False)))


def _logical(op: Op) -> Callable[[Allow, exp.Expr], Expression]:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        kind = type(node)
        terms: list[exp.Expr] = []
        stack = [node.expression, node.this]
        while stack:  # flattened, so that a long list of conditions is not deep
            term = stack.pop()
            if isinstance(term, kind):
                stack += [term.expression, term.this]
            elif isinstance(term, exp.Paren) and isinstance(term.this, kind):
                stack.append(term.this)
            else:
                terms.append(term)
        return Call(op, tuple(allow.condition(term) for term in terms))

    return rule


def _division(allow: Allow, node: exp.Expr) -> Expression:
    a, b = allow.numbers(node.this, node.expression)
    whole = node.args.get("typed") and allow.type_of(a) == allow.type_of(b) == "integer"
    return call(Op.INTDIV if whole else Op.DIV, a, b)


def _whole_division(allow: Allow, node: exp.Expr) -> Expression:
    operands = tuple(allow.require(allow.expression(part), ("integer",), part) for part in (node.this, node.expression))
    return Call(Op.MOD if isinstance(node, exp.Mod) else Op.INTDIV, operands)


def _negation(allow: Allow, node: exp.Expr) -> Expression:
    (operand,) = allow.numbers(node.this)
    if isinstance(operand, Literal) and isinstance(operand.value, (int, Fraction)):
        return Literal(operand.type, -operand.value)
    return call(Op.NEG, operand)


def _between(allow: Allow, node: exp.Expr) -> Expression:
    value, low, high = allow.alike(node.this, node.args["low"], node.args["high"])
    return call(Op.AND, call(Op.GE, value, low), call(Op.LE, value, high))


def _in(allow: Allow, node: exp.Expr) -> Expression:
    if node.args.get("query") or node.args.get("unnest") or node.args.get("field") or not node.expressions:
        raise forbidden(node, "IN over a subquery", "List the values, or write the condition as a join.")
    operands = allow.alike(node.this, *node.expressions)
    if not all(isinstance(item, Literal) for item in operands[1:]):
        raise forbidden(node, "IN over expressions", "List literal values.")
    return Call(Op.IN, tuple(operands))


def _is(allow: Allow, node: exp.Expr) -> Expression:
    """Some dialects' readers keep IS NOT as one operator; what it gives is never NULL."""
    found = _is_so(allow, node)
    return call(Op.NOT, found) if node.args.get("negate") else found


def _is_so(allow: Allow, node: exp.Expr) -> Expression:
    value = allow.expression(node.this)
    if isinstance(node.expression, exp.Null):
        return call(Op.IS_NULL, value)
    if isinstance(node.expression, exp.Boolean):
        value = allow.require(value, ("boolean",), node.this)
        truth = value if node.expression.this else call(Op.NOT, value)
        return call(Op.COALESCE, truth, Literal("boolean", False))
    raise forbidden(node, "IS with this", "Use IS NULL, IS TRUE or a comparison.")


def _like(op: Op) -> Callable[[Allow, exp.Expr], Expression]:
    return lambda allow, node: _liked(allow, node, op, None)


def _liked(allow: Allow, node: exp.Expr, op: Op, escape: str | None) -> Expression:
    value, pattern = allow.expression(node.this), allow.expression(node.expression)
    value = allow.require(value, ("text",), node.this)
    if not isinstance(pattern, Literal) or pattern.type != "text" or not _is_pattern(str(pattern.value), escape):
        raise forbidden(node, "this LIKE pattern", "Use a literal pattern; ESCAPE may stand before %, _ and itself.")
    more = () if escape is None else (Literal("text", escape),)
    liked = Call(op, (value, pattern, *more))
    return call(Op.NOT, liked) if node.args.get("negate") else liked


def _is_pattern(pattern: str, escape: str | None) -> bool:
    """Backslash escapes in PostgreSQL where nothing else does, and in DuckDB not."""
    if escape is None:
        return "\\" not in pattern
    e = re.escape(escape)
    return re.fullmatch(f"(?:[^{e}]|{e}[%_{e}])*", pattern, re.DOTALL) is not None


def _escaped(allow: Allow, node: exp.Expr) -> Expression:
    liked, escape = node.this, node.expression
    op = {exp.Like: Op.LIKE, exp.ILike: Op.ILIKE}.get(type(liked))
    if op is None or not isinstance(escape, exp.Literal) or not _ESCAPE.fullmatch(escape.name):
        raise forbidden(node, "this ESCAPE", "Write a literal sign, neither % nor _ nor a letter.")
    check_arguments(liked)
    return _liked(allow, liked, op, escape.name)


def _case(allow: Allow, node: exp.Expr) -> Expression:
    whens = node.args["ifs"]
    default = node.args.get("default") or exp.Null()
    values = allow.carried(*(when.args["true"] for when in whens), default)
    conditions = [_when(allow, node, when) for when in whens]
    args = [part for pair in zip(conditions, values[:-1], strict=True) for part in pair]
    return Call(Op.CASE, (*args, values[-1]))


def _when(allow: Allow, node: exp.Expr, when: exp.Expr) -> Expression:
    if node.this is None:
        return allow.condition(when.this)
    return Call(Op.EQ, tuple(allow.alike(node.this, when.this)))


def _if(allow: Allow, node: exp.Expr) -> Expression:
    yes, no = allow.carried(node.args["true"], node.args.get("false") or exp.Null())
    return call(Op.CASE, allow.condition(node.this), yes, no)


RULES: Mapping[type[exp.Expr], Callable[[Allow, exp.Expr], Expression]] = {
    exp.Literal: _literal,
    exp.Boolean: lambda allow, node: Literal("boolean", bool(node.this)),
    exp.Null: lambda allow, node: Literal("integer", None),
    exp.Column: _column,
    exp.Paren: lambda allow, node: allow.expression(node.this),
    exp.Mul: _arithmetic(Op.MUL),
    exp.Div: _division,
    exp.IntDiv: _whole_division,
    exp.Mod: _whole_division,
    exp.Neg: _negation,
    exp.EQ: _comparison(Op.EQ),
    exp.NEQ: _comparison(Op.NE),
    exp.LT: _comparison(Op.LT),
    exp.LTE: _comparison(Op.LE),
    exp.GT: _comparison(Op.GT),
    exp.GTE: _comparison(Op.GE),
    exp.And: _logical(Op.AND),
    exp.Or: _logical(Op.OR),
    exp.Not: lambda allow, node: call(Op.NOT, allow.condition(node.this)),
    exp.Between: _between,
    exp.In: _in,
    exp.Is: _is,
    exp.Like: _like(Op.LIKE),
    exp.ILike: _like(Op.ILIKE),
    exp.Escape: _escaped,
    exp.NullSafeEQ: _null_safe,
    exp.NullSafeNEQ: lambda allow, node: call(Op.NOT, _null_safe(allow, node)),
    exp.Case: _case,
    exp.If: _if,
}
